//! One connection: handshake, then request after request until either side has enough.
//!
//! ```text
//! handshake ─→ idle ─→ head ─→ body ─→ handler ─→ answer ─┐   an answer may come later, from elsewhere (`lent`): it is idle meanwhile
//!    │          ↑ │      │       │                         ├─→ goodbye (lingering close)
//!    ↓          │ ↓      └───────┴──→ refusal ─→ answer ───┘   an answer may be a stream, until it ends
//!  tls_failed   │ end                                      │
//!               └──────────────── keep-alive ──────────────┘
//! ```
//! Invariants
//! - A refused request ends the connection: what follows it could not be framed with certainty.
//! - Pipelined requests are answered one by one, in order.
//! - A stream's every part has the time of an answer; a peer that sends anything meanwhile has ended it.
//! - Between requests the connection holds no buffer but the bytes that already came.
//! - No peer keeps a thread that is on duty: it is left after each answer, after so many bytes that say nothing, and before each wait.

use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use rustls::ServerConnection;

use crate::base::limits::{HEAD_BYTES_MAX, PROMPT_BODY_BYTES_MAX, STREAM_PART_BYTES, STREAM_TURN};
use crate::base::{duty, fault};
use crate::http::admission::{Admitted, Place};
use crate::http::authority;
use crate::http::lent::{Lent, Manner};
use crate::http::listen::Shared;
use crate::http::parse::{self, Head};
use crate::http::problem::{self, Reason, Refusal};
use crate::http::reply::{Chunk, Reply, Rest, Source, settled};
use crate::http::request::{Headers, Method, Request};
use crate::http::wire::{Gone, Wire};

/// Why no request came.
enum End {
    /// Nobody is left to answer.
    Gone,
    /// What came is refused.
    Refused { reason: Reason, client: IpAddr, head_only: bool },
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// One connection, owned by whoever serves it, answers it, or waits for its peer.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) wire: Wire,
    admitted: Admitted,
    local: IpAddr,
    /// Bytes that came and belong to no request yet.
    buffer: Vec<u8>,
    shaken: bool,
    /// When its peer must have said something.
    until: Instant,
}

impl Connection {
    /// An admitted connection before its handshake; `None` if it is gone already.
    pub(super) fn new(shared: &Arc<Shared>, admitted: Admitted) -> Option<Box<Self>> {
        let socket = admitted.place.socket.stream();
        let local = socket.local_addr().ok()?.ip().to_canonical();
        socket.set_nodelay(true).ok()?;
        let wire = Wire::new(Arc::clone(&admitted.place), ServerConnection::new(shared.tls.current()).ok()?);
        let until = Instant::now() + shared.deadlines.handshake;
        Some(Box::new(Self { shared: Arc::clone(shared), wire, admitted, local, buffer: Vec::new(), shaken: false, until }))
    }

    pub(super) fn number(&self) -> u64 {
        self.admitted.number()
    }

    pub(super) fn place(&self) -> Arc<Place> {
        Arc::clone(&self.admitted.place)
    }

    /// Whether its peer should have said something by now.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.until <= now
    }

    /// Ends because of that.
    pub(super) fn expire(self: Box<Self>) {
        if !self.shaken {
            self.shared.handler.tls_failed(self.admitted.peer.ip());
        }
    }

    /// Whether the connection is to end after the answer under way.
    pub(super) fn told_to_end(&self) -> bool {
        self.shared.told_to_end(&self.admitted.place)
    }

    /// Waits for the next request from now on.
    pub(super) fn rest(mut self: Box<Self>) {
        self.idle();
        self.pause();
    }

    /// The time between two requests begins.
    fn idle(&mut self) {
        self.admitted.place.waits(&self.shared.clock);
        self.until = Instant::now() + self.shared.deadlines.idle;
    }

    fn pause(mut self: Box<Self>) {
        self.buffer = Vec::new();
        let shared = Arc::clone(&self.shared);
        shared.pool.rest(self);
    }

    /// Serves what its peer said, until it waits for its peer again, its answer comes later, or it ends.
    pub(super) fn serve(mut self: Box<Self>) {
        if !self.shaken {
            duty::step_aside();
            match self.wire.handshake(self.until, &self.shared.handshakes) {
                (_, Ok(())) => {}
                // A peer that connects and leaves in silence (a load balancer's probe) is no failed handshake.
                (false, Err(Gone::Closed)) => return,
                (_, Err(_)) => return self.shared.handler.tls_failed(self.admitted.peer.ip()),
            }
            self.shaken = true;
            self.idle();
        }
        loop {
            let (mut reply, head_only, keep_alive) = match self.next_request() {
                Ok(Some((request, keep_alive))) => {
                    let head_only = request.method == Method::Head;
                    // A panic unwinds out of the handler's own work; nothing of this connection was lent to it.
                    let answer = fault::catch(|| self.shared.handler.handle(request));
                    let keep_alive = keep_alive && answer.is_ok();
                    (answer.unwrap_or_else(|_| problem::error(500, "Internal server error")), head_only, keep_alive)
                }
                // A peer that does not let us say what TLS must, or says nothing by what it sends, has its time and no more.
                Ok(None) if self.wire.is_clogged() || self.is_late(Instant::now()) => return,
                Ok(None) => return self.pause(),
                Err(End::Refused { reason, client, head_only }) => {
                    let refusal = Refusal { reason, client };
                    let answer = fault::catch(|| self.shared.handler.refuse(&refusal));
                    (answer.unwrap_or_else(|_| refusal.reply()), head_only, false)
                }
                Err(End::Gone) => return,
            };
            let mut rest = reply.rest.take();
            if let Some(Rest::Later(ask)) = rest {
                if keep_alive && !self.has_more() {
                    return Lent::promise(self, Manner { headers: mem::take(&mut reply.headers), head_only }, ask);
                }
                // Nothing else can be heard meanwhile: what came already is answered in order, and after an end nothing more is heard.
                duty::step_aside();
                let mut headers = mem::take(&mut reply.headers);
                reply = settled(ask);
                reply.headers.append(&mut headers);
                rest = None;
            }
            let close = !keep_alive || reply.close || self.told_to_end();
            let source = match rest {
                Some(Rest::Stream(source)) if !head_only => Some(source),
                _ => None,
            };
            if source.is_some() {
                self.admitted.streams();
            }
            if self.answer(&reply, head_only, close).is_err() {
                return;
            }
            if let Some(source) = source {
                return self.stream(source);
            }
            if close {
                return self.finish();
            }
            if !self.has_more() {
                return self.rest();
            }
            // Who sends ahead of its answers could keep this thread for as long as it reads them.
            duty::step_aside();
        }
    }

    /// Says goodbye.
    pub(super) fn finish(self: Box<Self>) {
        duty::step_aside();
        let Self { wire, admitted, .. } = *self;
        wire.finish();
        drop(admitted);
    }

    /// Whether something of the next request is here.
    fn has_more(&mut self) -> bool {
        !self.buffer.is_empty() || self.wire.has_more()
    }

    /// Sends what `source` gives until either side ends it.
    fn stream(mut self: Box<Self>, mut source: Box<dyn Source>) {
        duty::step_aside();
        while !self.told_to_end() && self.wire.is_quiet() {
            // As with an answer: a panic ends this connection alone.
            match fault::catch(|| source.next(STREAM_TURN)) {
                Ok(Chunk::Nothing) => {}
                Ok(Chunk::Bytes(bytes)) => {
                    for part in bytes.chunks(STREAM_PART_BYTES) {
                        let deadline = Instant::now() + self.shared.deadlines.write;
                        if self.wire.send(part, &[], deadline).is_err() {
                            return;
                        }
                    }
                }
                Ok(Chunk::End) | Err(_) => break,
            }
        }
        drop(source);
        self.finish();
    }

    fn answer(&mut self, reply: &Reply, head_only: bool, close: bool) -> Result<(), Gone> {
        let head = reply.head(close, self.shared.clock.now());
        let deadline = Instant::now() + self.shared.deadlines.write;
        self.wire.send(&head, reply.sent_body(head_only), deadline)
    }

    /// The next whole request, and whether another may follow; none if its first bytes are still to come.
    fn next_request(&mut self) -> Result<Option<(Request, bool)>, End> {
        let Some(head) = self.next_head()? else { return Ok(None) };
        let client = self.client(&head.headers);
        let head_only = head.method == Method::Head;
        let refused = |reason| Err(End::Refused { reason, client, head_only });
        let public = self.shared.public.as_ref();
        if !authority::is_ours(&head.authority, self.local, public) {
            return refused(Reason::ForeignHost);
        }
        if head.headers.get("origin").is_some_and(|origin| !authority::is_own_origin(origin, &head.authority, public)) {
            return refused(Reason::ForeignOrigin);
        }
        let limit = self.shared.handler.body_limit(head.method, &head.path);
        let length = match usize::try_from(head.body_bytes) {
            Ok(length) if length <= limit => length,
            _ => return refused(Reason::BodyTooLarge),
        };
        let body = match self.body(length, head.expects_continue) {
            Err(Gone::TimedOut) => return refused(Reason::BodyTimeout),
            body => body?,
        };
        let Head { method, path, query, authority, headers, keep_alive, .. } = head;
        let client_certificate = self.wire.has_client_certificate();
        Ok(Some((Request { method, path, query, authority, headers, body, client, client_certificate }, keep_alive)))
    }

    /// The next head, waited for if it has begun.
    fn next_head(&mut self) -> Result<Option<Head>, End> {
        if self.buffer.is_empty() {
            match self.wire.fill(&mut self.buffer, HEAD_BYTES_MAX, None) {
                Err(Gone::TimedOut) => return Ok(None),
                filled => filled?,
            }
        }
        self.admitted.place.works();
        let deadline = Instant::now() + self.shared.deadlines.head;
        let peer = self.admitted.peer.ip();
        let refused = |reason| End::Refused { reason, client: peer, head_only: false };
        let mut scanned = 0;
        let end = loop {
            if let Some(end) = parse::find_end(&self.buffer, &mut scanned).map_err(refused)? {
                break end;
            }
            match self.wire.fill_within(&mut self.buffer, HEAD_BYTES_MAX, deadline) {
                Err(Gone::TimedOut) => return Err(refused(Reason::HeadTimeout)),
                filled => filled?,
            }
        };
        let rest = self.buffer.split_off(end);
        parse::parse(mem::replace(&mut self.buffer, rest)).map(Some).map_err(refused)
    }

    /// The `length` bytes of a body; asks for them first if the client waits to be asked.
    fn body(&mut self, length: usize, expects_continue: bool) -> Result<Vec<u8>, Gone> {
        let deadline = Instant::now() + self.shared.deadlines.body;
        if self.buffer.len() >= length {
            let rest = self.buffer.split_off(length);
            return Ok(mem::replace(&mut self.buffer, rest));
        }
        if length > PROMPT_BODY_BYTES_MAX {
            duty::step_aside();
        }
        let mut body = mem::take(&mut self.buffer);
        if expects_continue && body.is_empty() {
            self.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n", &[], deadline)?;
        }
        while body.len() < length {
            let missing = length - body.len();
            self.wire.fill_within(&mut body, missing, deadline)?;
        }
        Ok(body)
    }

    /// Who asks: behind trusted proxies, the last hop of `X-Forwarded-For` that is not one of them; a hop that is no address ends the search.
    fn client(&self, headers: &Headers) -> IpAddr {
        let mut client = self.admitted.peer.ip();
        let hops: Vec<&str> = headers.all("x-forwarded-for").flat_map(|value| value.split(',')).collect();
        for hop in hops.into_iter().rev() {
            if !self.shared.admission.is_trusted_proxy(client) {
                break;
            }
            let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
            client = address.to_canonical();
        }
        client
    }
}
