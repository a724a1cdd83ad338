//! Events: what became of memories, told to whoever subscribed to their owner's, once it is durable.
//!
//! An event says that something changed, never what: a subscriber reads the memory through the gate, which decides and records anew.
//!
//! Invariants
//! - Events of one owner come in the order of their commits, each after its commit and after the search indexes know of it.
//! - Whichever way a memory changed (a skin, an erasure, an import while serving), the tables stage the event, so none can be forgotten.
//! - A subscriber that falls behind by more than [`limits::EVENTS_WAITING_MAX`] is ended, never skipped over.
//! - Nothing is kept for those who are not there: there is no replay.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::base::id::MemoryId;
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::policy::action::Scope;

/// What became of a memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Happened {
    /// It was written, or a repeat of it was.
    Created,
    /// It has new text.
    Updated,
    /// It was moved to the trash.
    Trashed,
    /// It was taken out of the trash.
    Restored,
    /// It is gone for good.
    Purged,
}

/// One change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// What happened.
    pub happened: Happened,
    /// To which memory.
    pub memory: MemoryId,
    /// When.
    pub at: Timestamp,
}

/// What a subscriber is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// The next event.
    Event(Event),
    /// None came.
    Nothing,
    /// No more will come: the subscriber was too slow.
    Ended,
}

/// Who is subscribed.
#[derive(Default)]
pub(in crate::store) struct Hub {
    boxes: Mutex<HashMap<Scope, Vec<Weak<Mailbox>>>>,
    subscribers: AtomicUsize,
}

#[derive(Default)]
struct Mailbox {
    mail: Mutex<Mail>,
    came: Condvar,
}

#[derive(Default)]
struct Mail {
    events: VecDeque<Event>,
    ended: bool,
}

/// A subscription; ends when dropped.
pub struct Subscription {
    hub: Arc<Hub>,
    scope: Scope,
    mailbox: Arc<Mailbox>,
}

fn open<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// From now on what becomes of this owner's memories is told.
    pub fn subscribe(self: &Arc<Self>, scope: Scope) -> Subscription {
        let mailbox = Arc::<Mailbox>::default();
        open(&self.boxes).entry(scope).or_default().push(Arc::downgrade(&mailbox));
        self.subscribers.fetch_add(1, Ordering::SeqCst);
        Subscription { hub: Arc::clone(self), scope, mailbox }
    }

    /// Tells what a durable batch changed.
    pub fn publish(&self, events: &[(Scope, Event)]) {
        if events.is_empty() || self.subscribers.load(Ordering::SeqCst) == 0 {
            return;
        }
        let boxes = open(&self.boxes);
        for (scope, event) in events {
            for mailbox in boxes.get(scope).into_iter().flatten().filter_map(Weak::upgrade) {
                mailbox.put(*event);
            }
        }
    }
}

impl Mailbox {
    fn put(&self, event: Event) {
        let mut mail = open(&self.mail);
        if mail.events.len() >= limits::EVENTS_WAITING_MAX {
            mail.ended = true;
        }
        if mail.ended {
            mail.events.clear();
        } else {
            mail.events.push_back(event);
        }
        self.came.notify_one();
    }
}

impl Subscription {
    /// The next event, waited for at most `wait`.
    pub fn next(&self, wait: Duration) -> Told {
        let mail = open(&self.mailbox.mail);
        let empty = |mail: &mut Mail| mail.events.is_empty() && !mail.ended;
        let (mut mail, _) = self.mailbox.came.wait_timeout_while(mail, wait, empty).unwrap_or_else(PoisonError::into_inner);
        match mail.events.pop_front() {
            Some(event) => Told::Event(event),
            None if mail.ended => Told::Ended,
            None => Told::Nothing,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut boxes = open(&self.hub.boxes);
        if let Some(here) = boxes.get_mut(&self.scope) {
            here.retain(|mailbox| !std::ptr::eq(mailbox.as_ptr(), Arc::as_ptr(&self.mailbox)));
            if here.is_empty() {
                boxes.remove(&self.scope);
            }
        }
        self.hub.subscribers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{TenantId, UserId};

    fn scope() -> Scope {
        Scope { tenant: TenantId::draw(), owner: UserId::draw(Timestamp::from_ms(1)) }
    }

    fn event(happened: Happened) -> Event {
        Event { happened, memory: MemoryId::draw(Timestamp::from_ms(1)), at: Timestamp::from_ms(2) }
    }

    #[test]
    fn a_subscriber_hears_of_its_own_scope_in_order_and_of_nothing_else() {
        let (hub, mine, other) = (Arc::<Hub>::default(), scope(), scope());
        let first = [event(Happened::Created), event(Happened::Updated)];
        hub.publish(&[(mine, event(Happened::Purged))]);
        let (me, also_me, they) = (hub.subscribe(mine), hub.subscribe(mine), hub.subscribe(other));
        hub.publish(&[(mine, first[0]), (mine, first[1])]);
        for subscriber in [&me, &also_me] {
            assert_eq!(subscriber.next(Duration::ZERO), Told::Event(first[0]));
            assert_eq!(subscriber.next(Duration::ZERO), Told::Event(first[1]));
            assert_eq!(subscriber.next(Duration::ZERO), Told::Nothing);
        }
        assert_eq!(they.next(Duration::ZERO), Told::Nothing);
        drop((me, also_me, they));
        assert!(open(&hub.boxes).is_empty() && hub.subscribers.load(Ordering::SeqCst) == 0);
    }

    #[test]
    fn a_subscriber_that_falls_behind_is_ended_and_not_skipped_over() {
        let (hub, mine) = (Arc::<Hub>::default(), scope());
        let me = hub.subscribe(mine);
        for _ in 0..limits::EVENTS_WAITING_MAX {
            hub.publish(&[(mine, event(Happened::Created))]);
        }
        assert!(matches!(me.next(Duration::ZERO), Told::Event(_)));
        hub.publish(&[(mine, event(Happened::Created))]);
        hub.publish(&[(mine, event(Happened::Created))]);
        assert_eq!(me.next(Duration::ZERO), Told::Ended);
        hub.publish(&[(mine, event(Happened::Created))]);
        assert_eq!(me.next(Duration::ZERO), Told::Ended);
    }

    #[test]
    fn whoever_waits_is_woken() {
        let (hub, mine) = (Arc::<Hub>::default(), scope());
        let me = hub.subscribe(mine);
        let sent = event(Happened::Restored);
        std::thread::scope(|threads| {
            let waits = threads.spawn(|| me.next(Duration::from_secs(60)));
            hub.publish(&[(mine, sent)]);
            assert_eq!(waits.join().unwrap(), Told::Event(sent));
        });
    }
}
