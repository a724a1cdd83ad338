//! A connection while its answer comes later: whoever has the answer sends it, and the connection waits for its peer again.
//!
//! ```text
//! thread on duty:  request ─→ promise ─→ the next connection
//! elsewhere:                    └─→ Lent ─→ answer ─→ waits (`pool`)
//! ```
//! So a request whose answer waits for a commit costs no thread's sleep, and whoever finished the commit sends all of its answers in one go.
//!
//! Invariants
//! - The connection is in one hand: nothing is read from it or written to it by two threads, and a request that comes early waits in its socket.
//! - Whoever answers never waits for the peer: what it does not take at once is sent on by a thread of its own, within the time of an answer.
//! - A connection that is lent always goes on or ends, whatever becomes of its answer.

use std::io;
use std::mem;
use std::thread;
use std::time::Instant;

use crate::base::{fault, limits};
use crate::http::conn::Connection;
use crate::http::reply::{Reply, Turn};
use crate::http::wire::{Gone, Outgoing};

/// How the answer to a request is sent.
pub(super) struct Manner {
    /// Fields that the answer carries beside its own.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) head_only: bool,
}

/// A connection on its way to an answer and back.
pub(super) struct Lent {
    connection: Box<Connection>,
    manner: Manner,
}

impl Lent {
    /// Gives the turn to `ask`, and the connection with it.
    pub(super) fn promise(connection: Box<Connection>, manner: Manner, ask: Box<dyn FnOnce(Turn) + Send>) {
        let lent = Self { connection, manner };
        let turn = Turn::new(move |reply| lent.answer(reply));
        // A panic drops the turn, which answers.
        let _ = fault::catch(|| ask(turn));
    }

    /// Sends the answer.
    fn answer(mut self, mut reply: Reply) {
        reply.headers.append(&mut mem::take(&mut self.manner.headers));
        let close = reply.close || self.connection.told_to_end();
        let head = reply.head(close, self.connection.shared.clock.now());
        let mut sent = 0;
        match self.offer(&reply, &head, &mut sent, None) {
            Ok(true) if close => slowly(move || self.connection.finish()),
            Ok(true) => self.connection.rest(),
            Ok(false) => slowly(move || self.go_on(&reply, &head, sent, close)),
            Err(_) => {}
        }
    }

    /// Sends what is left of an answer that its peer did not take at once.
    fn go_on(mut self, reply: &Reply, head: &[u8], mut sent: usize, close: bool) {
        let deadline = Instant::now() + self.connection.shared.deadlines.write;
        match self.offer(reply, head, &mut sent, Some(deadline)) {
            Ok(_) if close => self.connection.finish(),
            Ok(_) => self.connection.rest(),
            Err(_) => {}
        }
    }

    /// Sends on from byte `sent` of the whole; see [`Wire::offer`](crate::http::wire::Wire::offer).
    fn offer(&mut self, reply: &Reply, head: &[u8], sent: &mut usize, deadline: Option<Instant>) -> Result<bool, Gone> {
        let body = reply.sent_body(self.manner.head_only);
        let mut out = Outgoing::new(head, body);
        out.take(*sent);
        let whole = self.connection.wire.offer(&mut out, deadline);
        *sent = head.len() + body.len() - out.left();
        whole
    }
}

/// Does what may wait for a peer. Without a thread for it the connection ends.
fn slowly(work: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().name("slow answer".into()).stack_size(limits::CONNECTION_STACK_BYTES);
    let _: io::Result<_> = thread.spawn(work);
}
