//! The writer's queue: whoever has work puts it in and waits for its end, or says what is to be done then; the writer takes all that is there.
//!
//! Invariants
//! - At most [`limits::QUEUE_JOBS_MAX`] requests wait; they are taken in the order in which they came.
//! - Nobody waits for ever: a request ends by its answer or by being dropped, and either tells.
//! - A thread waits for one request at a time, so it has one ticket for all of them; a ticket that a request still holds is never used anew.
//! - What a caller gave to be recorded goes back to the caller, who frees it: memory freed by another thread than its own costs several times
//!   as much.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, Thread};

use crate::audit::Entry;
use crate::authn::CredentialRef;
use crate::base::id::{OperationId, TenantId, UserId};
use crate::base::{duty, fault, limits};
use crate::store::writer::{Ended, Job, Unavailable};

/// What the writer is asked to do.
pub(in crate::store) enum Work {
    /// A write.
    Job(Job),
    /// A read's entry, if `generation` is still that of the credentials.
    Entry(Box<Entry>, u64),
    /// An entry that holds whatever the credentials are.
    Note(Box<Entry>),
    /// A write that was taken up by a batch; or nothing but a call to look at a store that is shut.
    Done,
}

/// Whose request it is: who may later ask for its outcome, and which key was used.
#[derive(Clone, Debug)]
pub(in crate::store) struct Asker {
    pub operation: OperationId,
    pub tenant: TenantId,
    pub user: UserId,
    pub credential: CredentialRef,
}

/// Who is told of a request's end.
pub(in crate::store) enum Told {
    Nobody,
    /// The thread that waits by this ticket.
    Waiter(Arc<Ticket>),
    /// Whoever tells calls it, and so must not be kept waiting by it.
    Then(Box<dyn FnOnce(Result<Ended, Unavailable>) + Send>),
}

/// A request in the queue.
pub(in crate::store) struct Request {
    pub work: Work,
    /// Whether it may change something, so that its outcome can be unknown.
    pub changes: bool,
    pub asker: Option<Asker>,
    pub told: Told,
    /// How many requests were refused without data if this one is not taken: itself, or those it counts.
    pub stands_for: u64,
}

impl Request {
    /// Ends it: whoever waits is told.
    pub fn answer(&mut self, end: Result<Ended, Unavailable>) {
        match mem::replace(&mut self.told, Told::Nobody) {
            Told::Nobody => {}
            Told::Waiter(ticket) => ticket.set(end, mem::replace(&mut self.work, Work::Done)),
            // What panics here answers one request, and has let go of it.
            Told::Then(then) => drop(fault::catch(|| then(end))),
        }
    }
}

/// What is dropped with the queue, or by a thread that ends unexpectedly, is told so.
impl Drop for Request {
    fn drop(&mut self) {
        self.answer(Err(match (&self.work, &self.asker) {
            (Work::Done, Some(asker)) if self.changes => Unavailable::Unknown(asker.operation),
            _ => Unavailable::Stopping,
        }));
    }
}

/// Where a thread waits for the end of its request.
pub(in crate::store) struct Ticket {
    end: Mutex<Option<(Result<Ended, Unavailable>, Work)>>,
    thread: Thread,
}

thread_local!(static TICKET: RefCell<Arc<Ticket>> = RefCell::new(Ticket::new()));

impl Ticket {
    fn new() -> Arc<Self> {
        Arc::new(Self { end: Mutex::default(), thread: thread::current() })
    }

    /// This thread's, with nothing on it.
    pub fn of_this_thread() -> Arc<Self> {
        TICKET.with_borrow_mut(|ticket| {
            match Arc::get_mut(ticket) {
                Some(own) => *own.end.get_mut().expect("no code panics while it holds this lock") = None,
                None => *ticket = Self::new(),
            }
            Arc::clone(ticket)
        })
    }

    /// Waits for the end. It always comes: a request that is dropped unanswered tells.
    pub fn wait(&self) -> Result<Ended, Unavailable> {
        duty::step_aside();
        loop {
            match self.take() {
                Some((end, _)) => return end,
                None => thread::park(),
            }
        }
    }

    fn take(&self) -> Option<(Result<Ended, Unavailable>, Work)> {
        self.end.lock().expect("no code panics while it holds this lock").take()
    }

    fn set(&self, end: Result<Ended, Unavailable>, work: Work) {
        *self.end.lock().expect("no code panics while it holds this lock") = Some((end, work));
        self.thread.unpark();
    }
}

/// Requests that wait for the writer.
#[derive(Default)]
pub(in crate::store) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    /// What was taken out before and still waits.
    carried: usize,
    /// Nothing more is taken in.
    closed: bool,
    /// The writer waits to be woken.
    idle: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no code panics while it holds this lock")
    }

    /// Puts `request` in.
    ///
    /// Errors: `QueueFull`, `Stopping`; whoever is to be told is told so too.
    pub fn put(&self, mut request: Request) -> Result<(), Unavailable> {
        let mut waiting = self.lock();
        let refused = match () {
            () if waiting.closed => Unavailable::Stopping,
            () if waiting.requests.len() + waiting.carried >= limits::QUEUE_JOBS_MAX => Unavailable::QueueFull,
            () => {
                waiting.requests.push_back(request);
                let wake = mem::take(&mut waiting.idle);
                drop(waiting);
                if wake {
                    self.filled.notify_one();
                }
                return Ok(());
            }
        };
        drop(waiting);
        request.answer(Err(refused));
        Err(refused)
    }

    /// Moves a batch of requests into `batch`, and waits for them if it is empty; `false` when there will be none.
    pub fn take(&self, batch: &mut Vec<Request>) -> bool {
        let mut waiting = self.lock();
        while waiting.requests.is_empty() && batch.is_empty() {
            if waiting.closed {
                return false;
            }
            waiting.idle = true;
            waiting = self.filled.wait(waiting).expect("no code panics while it holds this lock");
        }
        let count = waiting.requests.len().min(limits::BATCH_JOBS_MAX);
        waiting.carried = batch.len();
        batch.extend(waiting.requests.drain(..count));
        true
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().requests.is_empty()
    }

    /// Takes nothing more in; what waits is still taken out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// Closes for good: whoever waits is told.
    pub fn shut(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        let left = mem::take(&mut waiting.requests);
        drop(waiting);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Actor;
    use crate::base::time::Timestamp;

    fn request(work: Work, changes: bool, operation: OperationId) -> Request {
        let (tenant, user) = (TenantId::draw(), UserId::draw(Timestamp::from_ms(1)));
        let asker = Asker { operation, tenant, user, credential: CredentialRef::None };
        Request { work, changes, asker: Some(asker), told: Told::Waiter(Ticket::of_this_thread()), stands_for: 1 }
    }

    fn ticket_of(request: &Request) -> Arc<Ticket> {
        match &request.told {
            Told::Waiter(ticket) => Arc::clone(ticket),
            Told::Nobody | Told::Then(_) => panic!("somebody waits"),
        }
    }

    fn entry() -> Work {
        Work::Entry(Box::new(Entry::new("system.start", Actor::SYSTEM)), 0)
    }

    #[test]
    fn whoever_waits_for_a_request_that_is_dropped_is_told_what_is_known() {
        let operation = OperationId::draw();
        let dropped = |work, changes| {
            let request = request(work, changes, operation);
            let ticket = ticket_of(&request);
            drop(request);
            ticket.wait().unwrap_err()
        };
        assert_eq!(dropped(entry(), false), Unavailable::Stopping);
        assert_eq!(dropped(Work::Job(Box::new(move |_| unreachable!())), true), Unavailable::Stopping);
        assert_eq!(dropped(Work::Done, true), Unavailable::Unknown(operation));
        assert_eq!(dropped(Work::Done, false), Unavailable::Stopping);
    }

    #[test]
    fn whoever_waits_for_the_writer_has_stepped_aside() {
        let mut request = request(entry(), false, OperationId::draw());
        let ticket = ticket_of(&request);
        request.answer(Ok(Ended::Durable(1)));
        duty::begin();
        assert!(ticket.wait().is_ok() && !duty::is_on());
    }

    #[test]
    fn an_answer_that_comes_late_does_not_end_the_next_request() {
        let mut abandoned = request(entry(), false, OperationId::draw());
        let ticket = Ticket::of_this_thread();
        abandoned.answer(Ok(Ended::Durable(1)));
        assert!(ticket.take().is_none());
        drop(ticket);
        let ticket = Ticket::of_this_thread();
        assert!(ticket.take().is_none());
    }

    #[test]
    fn a_refused_request_leaves_nothing_on_the_ticket_of_the_next() {
        let queue = Queue::default();
        for _ in 0..limits::QUEUE_JOBS_MAX {
            queue.put(Request { work: Work::Done, changes: false, asker: None, told: Told::Nobody, stands_for: 1 }).unwrap();
        }
        assert_eq!(queue.put(request(entry(), false, OperationId::draw())), Err(Unavailable::QueueFull));
        queue.shut();
        assert_eq!(queue.put(request(entry(), false, OperationId::draw())), Err(Unavailable::Stopping));
        let queue = Queue::default();
        queue.put(request(entry(), false, OperationId::draw())).unwrap();
        let mut batch = Vec::new();
        assert!(queue.take(&mut batch) && queue.is_empty());
        let ticket = ticket_of(&batch[0]);
        batch[0].answer(Ok(Ended::Durable(7)));
        assert!(matches!(ticket.wait(), Ok(Ended::Durable(7))));
        queue.close();
        batch.clear();
        assert!(!queue.take(&mut batch));
    }

    #[test]
    fn what_is_to_be_done_at_the_end_is_done_once_however_the_request_ends_and_a_panic_in_it_stays_there() {
        let (told, ends) = std::sync::mpsc::channel();
        let then = || {
            let told = told.clone();
            Told::Then(Box::new(move |end| told.send(end.map(|_| ())).unwrap()))
        };
        let request = |told| Request { work: entry(), changes: false, asker: None, told, stands_for: 1 };
        let queue = Queue::default();
        queue.put(request(then())).unwrap();
        queue.put(request(Told::Then(Box::new(|_| panic!("a fault of ours"))))).unwrap();
        let mut batch = Vec::new();
        assert!(queue.take(&mut batch));
        batch.iter_mut().for_each(|request| request.answer(Ok(Ended::Durable(1))));
        drop(batch);
        drop(request(then()));
        queue.shut();
        assert_eq!(queue.put(request(then())), Err(Unavailable::Stopping));
        drop(told);
        assert_eq!(ends.iter().collect::<Vec<_>>(), [Ok(()), Err(Unavailable::Stopping), Err(Unavailable::Stopping)]);
    }

    #[test]
    fn requests_are_taken_in_order_in_batches_and_by_a_writer_that_sleeps() {
        let queue = Arc::<Queue>::default();
        let taker = Arc::clone(&queue);
        let writer = thread::spawn(move || {
            let (mut seen, mut batch) = (Vec::new(), Vec::new());
            while taker.take(&mut batch) {
                assert!(batch.len() <= limits::BATCH_JOBS_MAX);
                seen.extend(batch.drain(..).map(|request| request.stands_for));
            }
            seen
        });
        let count = 3 * u64::try_from(limits::BATCH_JOBS_MAX).unwrap();
        for n in 0..count {
            queue.put(Request { work: Work::Done, changes: false, asker: None, told: Told::Nobody, stands_for: n }).unwrap();
            if n % 100 == 0 {
                thread::yield_now();
            }
        }
        queue.close();
        assert!(writer.join().unwrap().into_iter().eq(0..count));
    }
}
