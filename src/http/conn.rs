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

use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use rustls::ServerConnection;

use crate::base::fault;
use crate::base::limits::{HEAD_BYTES_MAX, HEARD_BYTES_MAX, STREAM_PART_BYTES, STREAM_TURN};
use crate::http::admission::{Admitted, Place};
use crate::http::listen::Shared;
use crate::http::parse::{self, Head};
use crate::http::problem::{self, Reason, Refusal};
use crate::http::lent::{Line, Manner, Then};
use crate::http::reply::{Chunk, Reply, Rest, Source, Turn};
use crate::http::request::{Headers, Method, Request};
use crate::http::wire::{Gone, Wire};
use crate::http::authority;

/// Why no request came.
enum End {
    /// Nobody is left to answer.
    Gone,
    /// The answer before said that it is the last.
    Finish,
    /// What came is refused.
    Refused {
        reason: Reason,
        client: IpAddr,
        head_only: bool,
    },
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

struct Connection<'s> {
    shared: &'s Arc<Shared>,
    line: Line,
    admitted: &'s Admitted,
    place: &'s Arc<Place>,
    peer: SocketAddr,
    local: IpAddr,
    /// Bytes that came and belong to no request yet.
    buffer: Vec<u8>,
}

/// Serves an admitted connection until it ends.
pub(super) fn serve(shared: &Arc<Shared>, admitted: &Admitted) {
    let (place, peer) = (&admitted.place, admitted.peer);
    let socket = place.socket.stream();
    let Ok(local) = socket.local_addr() else { return };
    let Ok(tls) = ServerConnection::new(shared.tls.current()) else { return };
    if socket.set_nodelay(true).is_err() {
        return;
    }
    let mut wire = Wire::new(Arc::clone(place), tls);
    match wire.handshake(shared.deadlines.handshake, &shared.handshakes) {
        (_, Ok(())) => {
            let (line, local) = (Line::new(wire), local.ip().to_canonical());
            Connection { shared, line, admitted, place, peer, local, buffer: Vec::new() }.run();
        }
        // A peer that connects and leaves in silence (a load balancer's probe) is no failed handshake.
        (false, Err(Gone::Closed)) => {}
        (_, Err(_)) => shared.handler.tls_failed(peer.ip()),
    }
}

impl Connection<'_> {
    fn run(mut self) {
        loop {
            let (reply, head_only, keep_alive) = match self.next_request() {
                Ok((request, keep_alive)) => {
                    let head_only = request.method == Method::Head;
                    // A panic unwinds out of the handler's own work; nothing of this connection was lent to it.
                    let answer = fault::catch(|| self.shared.handler.handle(request));
                    let keep_alive = keep_alive && answer.is_ok();
                    (answer.unwrap_or_else(|_| problem::error(500, "Internal server error")), head_only, keep_alive)
                }
                Err(End::Refused { reason, client, head_only }) => {
                    let refusal = Refusal { reason, client };
                    let answer = fault::catch(|| self.shared.handler.refuse(&refusal));
                    (answer.unwrap_or_else(|_| refusal.reply()), head_only, false)
                }
                Err(End::Finish) => return self.line.finish(),
                Err(End::Gone) => return,
            };
            let close = !keep_alive || reply.close || self.shared.told_to_end(self.place);
            let rest = reply.rest.take();
            if let Some(Rest::Later(ask)) = rest {
                self.promise(Manner { headers: reply.headers.clone(), head_only, keep_alive }, ask);
                continue;
            }
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
                return self.line.finish();
            }
        }
    }

    /// Has the answer sent by whoever will have it. Waits for that if nothing can be heard meanwhile: what came already can only be read by the
    /// wire, and of a connection that ends nothing more is heard.
    fn promise(&mut self, manner: Manner, ask: Box<dyn FnOnce(Turn) + Send>) {
        let waits = !manner.keep_alive || !self.buffer.is_empty() || self.line.wire().has_more();
        let turn = self.line.lend(self.shared, self.place, manner);
        // A panic drops the turn, which answers.
        let _ = fault::catch(|| ask(turn));
        if waits {
            self.line.here();
        }
    }

    /// Sends what `source` gives until either side ends it.
    fn stream(mut self, mut source: Box<dyn Source>) {
        while !self.shared.told_to_end(self.place) && self.line.wire().is_quiet() {
            // As with an answer: a panic ends this connection alone.
            match fault::catch(|| source.next(STREAM_TURN)) {
                Ok(Chunk::Nothing) => {}
                Ok(Chunk::Bytes(bytes)) => {
                    for part in bytes.chunks(STREAM_PART_BYTES) {
                        let deadline = Instant::now() + self.shared.deadlines.write;
                        if self.line.wire().send(part, &[], deadline).is_err() {
                            return;
                        }
                    }
                }
                Ok(Chunk::End) | Err(_) => break,
            }
        }
        drop(source);
        self.line.finish();
    }

    fn answer(&mut self, reply: &Reply, head_only: bool, close: bool) -> Result<(), Gone> {
        let body = if head_only || reply.bodiless() { &[] } else { reply.body.as_slice() };
        let head = reply.head(close, self.shared.clock.now());
        let deadline = Instant::now() + self.shared.deadlines.write;
        self.line.wire().send(&head, body, deadline)
    }

    /// The next whole request, and whether another may follow.
    fn next_request(&mut self) -> Result<(Request, bool), End> {
        let head = self.next_head()?;
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
        let Head { method, path, query, headers, keep_alive, .. } = head;
        let client_certificate = self.line.wire().has_client_certificate();
        Ok((Request { method, path, query, headers, body, client, client_certificate }, keep_alive))
    }

    /// Waits for a request to begin, then for its head to end.
    fn next_head(&mut self) -> Result<Head, End> {
        self.first_bytes()?;
        self.place.works();
        let deadline = Instant::now() + self.shared.deadlines.head;
        let refused = |reason| End::Refused { reason, client: self.peer.ip(), head_only: false };
        let mut scanned = 0;
        let end = loop {
            if let Some(end) = parse::find_end(&self.buffer, &mut scanned).map_err(refused)? {
                break end;
            }
            match self.line.wire().fill(&mut self.buffer, HEAD_BYTES_MAX, deadline) {
                Err(Gone::TimedOut) => return Err(refused(Reason::HeadTimeout)),
                filled => filled?,
            }
        };
        let rest = self.buffer.split_off(end);
        parse::parse(mem::replace(&mut self.buffer, rest)).map_err(refused)
    }

    /// Waits until something of the next request is in the buffer. While the answer before it is still to come the socket is heard, and what was
    /// heard is read once that answer has left.
    fn first_bytes(&mut self) -> Result<(), End> {
        let (idle, mut chunk) = (self.shared.deadlines.idle, [0; HEARD_BYTES_MAX]);
        let heard = self.line.is_lent().then(|| self.place.socket.hear(&mut chunk, Instant::now() + idle));
        let here = self.line.here();
        match here.then {
            Then::KeepAlive => {}
            Then::Finish => return Err(End::Finish),
            Then::Gone => return Err(End::Gone),
        }
        if !self.buffer.is_empty() {
            return Ok(());
        }
        self.buffer = Vec::new();
        match heard {
            None => {
                self.place.waits(&self.shared.clock);
                here.at = Instant::now();
            }
            Some(Ok(count)) => here.wire.take_in(&chunk[..count]),
            // The time between two requests begins when the answer has left.
            Some(Err(Gone::TimedOut)) => {}
            Some(Err(gone)) => return Err(gone.into()),
        }
        Ok(here.wire.fill(&mut self.buffer, HEAD_BYTES_MAX, here.at + idle)?)
    }

    /// The `length` bytes of a body; asks for them first if the client waits to be asked.
    fn body(&mut self, length: usize, expects_continue: bool) -> Result<Vec<u8>, Gone> {
        let deadline = Instant::now() + self.shared.deadlines.body;
        if self.buffer.len() >= length {
            let rest = self.buffer.split_off(length);
            return Ok(mem::replace(&mut self.buffer, rest));
        }
        let mut body = mem::take(&mut self.buffer);
        if expects_continue && body.is_empty() {
            self.line.wire().send(b"HTTP/1.1 100 Continue\r\n\r\n", &[], deadline)?;
        }
        while body.len() < length {
            let missing = length - body.len();
            self.line.wire().fill(&mut body, missing, deadline)?;
        }
        Ok(body)
    }

    /// Who asks: behind trusted proxies, the last hop of `X-Forwarded-For` that is not one of them; a hop that is no address ends the search.
    fn client(&self, headers: &Headers) -> IpAddr {
        let mut client = self.peer.ip();
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
