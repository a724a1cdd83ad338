//! A connection's wire while an answer comes later: whoever has the answer sends it, and the wire comes back.
//!
//! ```text
//! connection's thread:  request ─→ lend ─→ hears the next request (bytes only) ─→ takes the wire back ─→ reads it
//! elsewhere:                         └─→ Lent ─→ answer ─→ back
//! ```
//! So a request whose answer waits for a commit costs no thread's sleep beside the one for its successor, and whoever finished the commit sends
//! all of its answers in one go.
//!
//! Invariants
//! - There is one wire, here or there: nothing is read from TLS or written to it by two threads, and a request that came early waits.
//! - Whoever answers never waits for the peer: what it does not take at once is sent on by a thread of its own, within the time of an answer.
//! - A wire always comes back, whatever becomes of its answer.

use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Instant;

use crate::base::limits;
use crate::http::admission::Place;
use crate::http::listen::Shared;
use crate::http::reply::{Reply, Turn};
use crate::http::wire::{Gone, Outgoing, Wire};

/// A connection's wire, or the place where it comes back.
pub(super) struct Line {
    /// None while it is lent.
    here: Option<Box<Returned>>,
    back: Arc<Back>,
}

/// A wire that is here, as its last answer left it.
pub(super) struct Returned {
    pub(super) wire: Wire,
    /// When that had left.
    pub(super) at: Instant,
    /// What becomes of the connection.
    pub(super) then: Then,
}

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Then {
    /// The next request.
    KeepAlive,
    /// An end in order: the peer was told.
    Finish,
    /// Nobody is there any more.
    Gone,
}

/// Where a wire comes back to the thread that lent it.
struct Back {
    wire: Mutex<Option<Box<Returned>>>,
    lender: Thread,
}

impl Back {
    /// Waits for the wire.
    fn wait(&self) -> Box<Returned> {
        loop {
            let returned = self.wire.lock().unwrap_or_else(PoisonError::into_inner).take();
            match returned {
                Some(returned) => return returned,
                None => thread::park(),
            }
        }
    }
}

impl Line {
    /// This thread's, with a wire that has answered nothing yet.
    pub(super) fn new(wire: Wire) -> Self {
        let here = Some(Box::new(Returned { wire, at: Instant::now(), then: Then::KeepAlive }));
        Self { here, back: Arc::new(Back { wire: Mutex::default(), lender: thread::current() }) }
    }

    pub(super) fn is_lent(&self) -> bool {
        self.here.is_none()
    }

    /// The wire; waits for it if it is lent.
    pub(super) fn here(&mut self) -> &mut Returned {
        self.here.get_or_insert_with(|| self.back.wait())
    }

    /// As [`Line::here`], of which most need the wire alone.
    pub(super) fn wire(&mut self) -> &mut Wire {
        &mut self.here().wire
    }

    /// Lends the wire to the turn that is given.
    pub(super) fn lend(&mut self, shared: &Arc<Shared>, place: &Arc<Place>, manner: Manner) -> Turn {
        self.here();
        let (shared, place, back) = (Arc::clone(shared), Arc::clone(place), Arc::clone(&self.back));
        let lent = Lent { shared, place, back, wire: self.here.take(), manner };
        Turn::new(move |reply| lent.answer(reply))
    }

    /// Says goodbye.
    pub(super) fn finish(mut self) {
        self.here();
        if let Some(here) = self.here {
            here.wire.finish();
        }
    }
}

/// How the answer to a request is sent.
pub(super) struct Manner {
    /// Fields that the answer carries beside its own.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) head_only: bool,
    pub(super) keep_alive: bool,
}

/// A wire on its way to an answer and back.
struct Lent {
    shared: Arc<Shared>,
    place: Arc<Place>,
    back: Arc<Back>,
    /// There until it goes back.
    wire: Option<Box<Returned>>,
    manner: Manner,
}

impl Lent {
    /// Sends the answer, and the wire back.
    fn answer(mut self, mut reply: Reply) {
        reply.headers.append(&mut self.manner.headers);
        let close = !self.manner.keep_alive || reply.close || self.shared.told_to_end(&self.place);
        let head = reply.head(close, self.shared.clock.now());
        let mut sent = 0;
        match self.offer(&reply, &head, &mut sent, None) {
            Ok(true) => self.end(if close { Then::Finish } else { Then::KeepAlive }),
            Ok(false) => self.slowly(reply, head, sent, close),
            Err(_) => self.end(Then::Gone),
        }
    }

    /// Sends what is left of an answer that its peer did not take at once. Without a thread for it the connection ends.
    fn slowly(mut self, reply: Reply, head: Vec<u8>, mut sent: usize, close: bool) {
        let deadline = Instant::now() + self.shared.deadlines.write;
        let go_on = move || match self.offer(&reply, &head, &mut sent, Some(deadline)) {
            Ok(_) => self.end(if close { Then::Finish } else { Then::KeepAlive }),
            Err(_) => self.end(Then::Gone),
        };
        let thread = thread::Builder::new().name("slow answer".into()).stack_size(limits::CONNECTION_STACK_BYTES);
        let _: io::Result<_> = thread.spawn(go_on);
    }

    /// Sends on from byte `sent` of the whole; see [`Wire::offer`].
    fn offer(&mut self, reply: &Reply, head: &[u8], sent: &mut usize, deadline: Option<Instant>) -> Result<bool, Gone> {
        let body = if self.manner.head_only || reply.bodiless() { &[] } else { reply.body.as_slice() };
        let mut out = Outgoing::new(head, body);
        out.take(*sent);
        let whole = self.wire.as_mut().ok_or(Gone::Closed)?.wire.offer(&mut out, deadline);
        *sent = head.len() + body.len() - out.left();
        whole
    }

    /// Gives the wire back.
    fn end(&mut self, then: Then) {
        let Some(mut returned) = self.wire.take() else { return };
        (returned.at, returned.then) = (Instant::now(), then);
        match then {
            Then::KeepAlive => self.place.waits(&self.shared.clock),
            // The lender may be listening: until the peer, which is told the end, ends its side or sends more, or the time between requests is over.
            // Were its reading shut, what the peer is still sending would take the answer back (TCP reset).
            Then::Finish if self.manner.keep_alive => {
                let _ = returned.wire.fall_silent(None);
                self.place.waits(&self.shared.clock);
            }
            Then::Finish => {}
            Then::Gone => drop(self.place.socket.stream().shutdown(Shutdown::Both)),
        }
        *self.back.wire.lock().unwrap_or_else(PoisonError::into_inner) = Some(returned);
        self.back.lender.unpark();
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.end(Then::Gone);
    }
}
