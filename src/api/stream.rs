//! Streams: answers that go on, as server-sent events (the HTML standard's `text/event-stream`).
//!
//! To open one, an operation takes a [`Place`] (`Cx::place`), has its opening recorded like any read, and gives a [`Feed`] to `Cx::stream`.
//!
//! Invariants
//! - At most [`limits::STREAMS_MAX`] at once, [`limits::STREAMS_PER_PERSON_MAX`] for one person whatever they open them with, and
//!   [`limits::STREAMS_PER_CREDENTIAL_MAX`] of one credential (of one person, where a credential speaks for many); one more is refused.
//! - A stream ends within [`limits::STREAM_TURN`] after its credential does, whether or not anything is said in it.
//! - What a feed says with data it has had recorded first: it holds a receipt.
//! - Silence is broken every [`limits::HEARTBEAT`] by a comment, so that either side notices a dead connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use zeroize::{Zeroize as _, Zeroizing};

use crate::api::reply::Failure;
use crate::api::run::{Cx, bucket};
use crate::api::throttle::Key;
use crate::audit::Reason;
use crate::authn::Principal;
use crate::base::id::UserId;
use crate::base::limits;
use crate::http::{Chunk, Reply, Source};
use crate::store::Receipt;
use crate::store::vault::Vault;

/// What a stream says, one event at a time.
pub trait Feed: Send {
    /// The next event. Waits for it, but not longer than `wait`.
    fn next(&mut self, wait: Duration) -> Said;
}

/// What a [`Feed`] gives.
pub enum Said {
    /// An event.
    Event(Event),
    /// Nothing yet.
    Nothing,
    /// Nothing more.
    End,
}

/// One server-sent event.
pub struct Event {
    /// Its type; without one a client takes it for `message`.
    pub name: Option<&'static str>,
    /// JSON on one line.
    pub data: Vec<u8>,
}

impl Event {
    fn bytes(mut self) -> Zeroizing<Vec<u8>> {
        debug_assert!(!self.data.iter().any(|byte| matches!(byte, b'\n' | b'\r')), "compact JSON has no line ends");
        let mut out = Zeroizing::new(Vec::with_capacity(self.data.len() + 64));
        if let Some(name) = self.name {
            out.extend_from_slice(b"event: ");
            out.extend_from_slice(name.as_bytes());
            out.push(b'\n');
        }
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&self.data);
        out.extend_from_slice(b"\n\n");
        self.data.zeroize();
        out
    }
}

/// Places that are taken for a while: of which credential and for which person.
pub struct Places {
    taken: Mutex<Vec<(Key, UserId)>>,
    /// How many there are of one credential, of one person, and of all.
    most: [usize; 3],
}

/// One place, given back when dropped.
pub struct Place {
    places: Arc<Places>,
    of: (Key, UserId),
}

impl Places {
    /// Those of streams.
    pub fn streams() -> Arc<Self> {
        Self::of([limits::STREAMS_PER_CREDENTIAL_MAX, limits::STREAMS_PER_PERSON_MAX, limits::STREAMS_MAX])
    }

    /// So many of one credential, of one person, and of all.
    pub fn of(most: [usize; 3]) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), most })
    }

    /// One place more; `Err` says how many its own may be, if they all are taken; else those of all are.
    pub fn enter(self: &Arc<Self>, key: Key, person: UserId) -> Result<Place, Option<usize>> {
        let [of_credential, of_person, of_all] = self.most;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.iter().filter(|(one, _)| *one == key).count() >= of_credential {
            return Err(Some(of_credential));
        }
        if taken.iter().filter(|(_, one)| *one == person).count() >= of_person {
            return Err(Some(of_person));
        }
        if taken.len() >= of_all {
            return Err(None);
        }
        taken.push((key, person));
        Ok(Place { places: Arc::clone(self), of: (key, person) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = taken.iter().position(|one| *one == self.of) {
            taken.swap_remove(at);
        }
    }
}

impl Cx<'_> {
    /// A place among the streams, or the recorded refusal that there is none. Ask before the opening is recorded.
    pub fn place(&self) -> Result<Place, Failure> {
        self.api.streams.enter(bucket(self.who), self.who.user()).map_err(|own| match own {
            Some(most) => self.refuse(Reason::CredentialRate, 429, format!("At most {most} streams at once; close one")),
            None => self.refuse(Reason::QueueFull, 503, "As many streams as may be are open; try again later"),
        })
    }

    /// The answer that goes on with `first` and what `feed` says, for as long as its asker's credential stands. `receipt` is the opening's.
    pub fn stream(&self, receipt: &Receipt, place: Place, first: Option<Event>, feed: impl Feed + 'static) -> Reply {
        let source = Open {
            first,
            feed,
            vault: self.api.vault.clone(),
            who: self.who.clone(),
            generation: self.call.admitted.unwrap_or_default(),
            said: Instant::now(),
            _place: place,
        };
        // Proxies are asked to pass it on as it comes.
        Reply::stream("text/event-stream", Box::new(source))
            .header("x-audit-index", receipt.index().to_string())
            .header("cache-control", "no-store, no-transform")
    }
}

/// A stream that is open.
struct Open<F> {
    first: Option<Event>,
    feed: F,
    vault: Vault,
    who: Principal,
    generation: u64,
    said: Instant,
    _place: Place,
}

impl<F: Feed> Source for Open<F> {
    fn next(&mut self, wait: Duration) -> Chunk {
        if !self.vault.stands(&self.who, &mut self.generation) {
            return Chunk::End;
        }
        let said = match self.first.take() {
            Some(first) => Said::Event(first),
            None => self.feed.next(wait),
        };
        match said {
            Said::Event(event) => {
                self.said = Instant::now();
                Chunk::Bytes(event.bytes())
            }
            Said::Nothing if self.said.elapsed() >= limits::HEARTBEAT => {
                self.said = Instant::now();
                Chunk::Bytes(Zeroizing::new(b": \n\n".to_vec()))
            }
            Said::Nothing => Chunk::Nothing,
            Said::End => Chunk::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Timestamp;

    #[test]
    fn an_event_is_lines_and_an_empty_one() {
        let event = |name| Event { name, data: br#"{"a":1}"#.to_vec() };
        assert_eq!(event(Some("hello")).bytes().as_slice(), b"event: hello\ndata: {\"a\":1}\n\n");
        assert_eq!(event(None).bytes().as_slice(), b"data: {\"a\":1}\n\n");
    }

    #[test]
    fn places_are_bounded_for_a_credential_for_a_person_and_for_all_and_given_back() {
        let (streams, somebody) = (Places::streams(), || UserId::draw(Timestamp::from_ms(1)));
        let (key, person) = (|n: usize| Key::of_static(&n.to_string(), &[]), somebody());
        let enter = |n: usize, person: UserId| streams.enter(key(n), person);
        let mut own: Vec<_> = (0..limits::STREAMS_PER_CREDENTIAL_MAX).map(|_| enter(0, person).ok().unwrap()).collect();
        assert_eq!(enter(0, person).err(), Some(Some(limits::STREAMS_PER_CREDENTIAL_MAX)));
        drop(own.pop());
        own.push(enter(0, person).ok().unwrap());
        // With a fresh key for every few, one person held every place that there is.
        own.extend((own.len()..limits::STREAMS_PER_PERSON_MAX).map(|n| enter(n, person).ok().unwrap()));
        assert_eq!(enter(limits::STREAMS_MAX, person).err(), Some(Some(limits::STREAMS_PER_PERSON_MAX)));
        let others: Vec<_> = (own.len()..limits::STREAMS_MAX).map(|n| enter(n, somebody()).ok().unwrap()).collect();
        assert_eq!(enter(limits::STREAMS_MAX, somebody()).err(), Some(None));
        drop((own, others));
        assert!(streams.taken.lock().unwrap().is_empty());
    }
}
