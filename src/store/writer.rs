//! The one writer: jobs in, batches out, one commit each.
//!
//! ```text
//! queue ─▶ take ≤ 256 ─▶ run each against the open transaction ─▶ apply what succeeded ─▶ entries, checkpoint ─▶ commit ─▶ publish ─▶ answers
//! ```
//!
//! Invariants
//! - A job reads the open transaction (earlier members included) and only stages; the writer applies it after the job succeeded.
//! - A job that failed leaves its entry and nothing else. An apply error fails the whole batch, and nobody is answered as if it had not.
//! - No answer is given before its batch is durable; `answers` says which thread gives it. If it is not known whether it is, the answer says
//!   so, everything is shut, and the outcome is read from the medium before anything else is done.
//! - A batch begins no further job once its jobs took long: those that are left are the first of the next.
//! - No key derivation from passwords, search, network or unbounded loop runs here.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::audit::{Actor, Detail, Entry, Outcome, Reason};
use crate::authn::CredentialRef;
use crate::base::id::{CredentialId, OperationId};
use crate::base::time::{Timestamp, processor_time};
use crate::base::{fault, limits, log};
use crate::engine::{Batch, CommitError, EngineError, Read};
use crate::store::answers::{Answers, Committed, News};
use crate::store::queue::{Asker, Request, Work};
use crate::store::recent::Recents;
use crate::store::tables::log::{LogError, Tail, line};
use crate::store::tables::usage::{self, Meter};
use crate::store::tables::{COUNTS, credentials};
use crate::store::tx::{Staged, Tx};
use crate::store::vault::{Head, Published, Vault};

/// A piece of work for the open transaction.
pub type Job = Box<dyn for<'t> FnOnce(Tx<'t>) -> JobEnd + Send>;

/// What a job leaves: its entry, and what it wants changed.
pub enum JobEnd {
    /// To be put into the batch.
    Entry(Box<Entry>, Staged),
}

/// How a request to the writer ended.
#[derive(Clone, Copy, Debug)]
pub enum Ended {
    /// The entry with this index is durable.
    Durable(u64),
    /// Credentials changed since the read was decided: decide anew. Nothing was written.
    Stale,
}

/// Why the store cannot answer now. None of these carries data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unavailable {
    /// Too many writes are waiting; try again.
    #[error("too many requests are waiting")]
    QueueFull,
    /// The store is shut after a fault and is being recovered; nothing of the request happened.
    #[error("the store is recovering from a fault")]
    Latched,
    /// The disk is nearly full.
    #[error("the disk of the data file (RM_DB_PATH) is nearly full; free some space on it")]
    NoSpace,
    /// It is not known whether the request took effect; ask for this operation later.
    #[error("the outcome is not known yet")]
    Unknown(OperationId),
    /// Credentials kept changing while the request was decided; try again.
    #[error("the store is busy")]
    Busy,
    /// The program is stopping.
    #[error("the service is stopping")]
    Stopping,
    /// The instance was frozen by its operator; recorded, nothing happened.
    #[error("the instance is frozen, its records are read-only; `rosemary incident thaw` lets them be written again")]
    ReadOnly,
}

/// How an operation of unknown outcome ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// Not known yet.
    Pending,
    /// It took effect; this is the index of its entry.
    Committed(u64),
    /// It was refused or failed, which this entry tells; nothing changed.
    Refused(u64),
    /// It did not happen.
    NotCommitted,
}

impl Settled {
    /// What a durable entry says of its operation.
    pub fn of(entry: &Entry) -> Self {
        if entry.outcome == Outcome::Ok { Self::Committed(entry.i) } else { Self::Refused(entry.i) }
    }

    /// The index of its entry.
    pub fn entry(self) -> Option<u64> {
        match self {
            Self::Committed(index) | Self::Refused(index) => Some(index),
            Self::Pending | Self::NotCommitted => None,
        }
    }
}

/// The writer's own state.
pub(in crate::store) struct Writer {
    pub vault: Vault,
    /// Where batches go once they are durable.
    answers: Answers,
    pub tail: Tail,
    pub seq: u64,
    pub generation: u64,
    recents: RefCell<Recents>,
    touched: HashMap<CredentialId, Timestamp>,
    /// Jobs that the last batch had no time for: the first of the next.
    carried: Vec<Request>,
    /// Wall and monotonic milliseconds when last compared.
    clocks: (u64, u64),
}

/// What a batch did beside its rows.
struct Batched {
    tail: Tail,
    head: Head,
    generation: u64,
    touched: Vec<CredentialId>,
    /// Of the requests that were done, in their order.
    ends: Vec<Result<Ended, Unavailable>>,
    /// By request: whether it is left for the next batch.
    later: Vec<bool>,
}

impl Writer {
    /// A writer at the end of the stored log, whose newest entry is of `written`: a clock that shows less has been set back meanwhile.
    pub fn new(vault: Vault, answers: Answers, tail: Tail, written: Timestamp) -> Self {
        let clocks = (vault.clock().now().max(written).ms(), vault.clock().mono_ms());
        Self {
            vault,
            answers,
            tail,
            seq: 0,
            generation: 0,
            recents: RefCell::default(),
            touched: HashMap::new(),
            carried: Vec::new(),
            clocks,
        }
    }

    /// Works until told to stop.
    pub fn run(mut self) {
        let vault = self.vault.clone();
        loop {
            let mut requests = std::mem::take(&mut self.carried);
            requests.reserve(limits::BATCH_JOBS_MAX);
            if !vault.queue().take(&mut requests) {
                return;
            }
            // A panic here is a fault of ours with an unknown outcome: the process ends, and the next start reads the medium.
            if fault::catch(|| self.commit(requests)).is_err() {
                vault.unpublish();
                return vault.fatal();
            }
        }
    }

    fn commit(&mut self, mut requests: Vec<Request>) {
        let vault = self.vault.clone();
        let clocks @ (now, _) = (vault.clock().now(), vault.clock().mono_ms());
        let mut news = News::default();
        match vault.engine().commit(|batch| self.batch(batch, &mut requests, now, &mut news)) {
            Ok(mut batched) => {
                if batched.later.contains(&true) {
                    let mut later = std::mem::take(&mut batched.later).into_iter();
                    (self.carried, requests) = requests.into_iter().partition(|_| later.next() == Some(true));
                }
                let (ends, shown) = self.accept(batched, clocks);
                self.answers.tell(&vault, Committed { seq: self.seq, requests, ends, news });
                if let Err(error) = shown {
                    log::line(log::Level::Error, "a batch was committed and cannot be read", &[("error", &log::Operator::text(&error))]);
                    self.recover(&[], News::default());
                }
            }
            Err(CommitError::Refused(error)) => {
                log::line(log::Level::Error, "a batch was not committed", &[("error", &log::Operator::text(&error))]);
                self.recents.get_mut().forget();
                let why = if matches!(error, EngineError::Full) { Unavailable::NoSpace } else { Unavailable::Latched };
                vault.count_refused(requests.iter().map(|request| request.stands_for).sum());
                requests.iter_mut().for_each(|request| request.answer(Err(why)));
                if vault.engine().is_latched() {
                    self.recover(&[], News::default());
                }
            }
            Err(CommitError::Unknown(error)) => {
                log::line(log::Level::Error, "the outcome of a batch is unknown", &[("error", &log::Operator::text(&error))]);
                let askers: Vec<Asker> = requests.iter().filter(|r| r.changes).filter_map(|r| r.asker.clone()).collect();
                vault.remember_unknown(&askers);
                vault.count_refused(requests.iter().filter(|r| !r.changes).map(|r| r.stands_for).sum());
                vault.unpublish();
                for request in &mut requests {
                    request.answer(Err(match &request.asker {
                        Some(asker) if request.changes => Unavailable::Unknown(asker.operation),
                        _ => Unavailable::Latched,
                    }));
                }
                self.recover(&askers, news);
            }
        }
    }

    /// Runs the requests against the open transaction and puts what they leave into it.
    fn batch(&self, batch: &mut Batch<'_>, requests: &mut [Request], now: Timestamp, news: &mut News) -> Result<Batched, EngineError> {
        let vault = &self.vault;
        let (mut tail, mut generation, mut touched) = (self.tail.clone(), self.generation, Vec::new());
        let mut ends = Vec::with_capacity(requests.len());
        let (mut meter, mut handover) = (Meter::default(), None);
        usage::begin(batch, tail.log(), tail.size())?;
        if let Some(step) = self.clock_step(now) {
            tail.append(batch, &mut { step }, vault.clock(), now)?;
        }
        // What only leaves an entry takes no time to speak of: it never waits for jobs that do.
        let (begun, mut jobs, mut later) = (processor_time(), 0, Vec::with_capacity(requests.len()));
        for request in requests {
            let is_job = matches!(request.work, Work::Job(_));
            let long = || processor_time().saturating_sub(begun) >= limits::BATCH_WORK_TIME;
            let waits = is_job && jobs > 0 && (jobs >= limits::BATCH_JOBS_MAX || long());
            later.push(waits);
            if waits {
                continue;
            }
            jobs += usize::from(is_job);
            if matches!(request.work, Work::Entry(_, decided) if decided != generation) {
                ends.push(Ok(Ended::Stale));
                continue;
            }
            // What comes from a caller goes back to it with the answer; a job is used up.
            let mut done;
            let mut hands_over = false;
            let entry = match &mut request.work {
                Work::Entry(entry, _) | Work::Note(entry) => &mut **entry,
                Work::Job(_) | Work::Done => {
                    let Work::Job(job) = std::mem::replace(&mut request.work, Work::Done) else {
                        // A call to look that came late; but whatever it is, it has an end, or every later one would be told its neighbour's.
                        ends.push(Err(Unavailable::Latched));
                        continue;
                    };
                    let mut tx = Tx::new(&*batch, vault.keys(), vault.common(), now, false);
                    tx.recents = Some(&self.recents);
                    tx.indexes = Some(vault.indexes());
                    tx.generation = Some(generation);
                    let JobEnd::Entry(entry, staged) = job(tx);
                    generation += u64::from(staged.credentials_changed);
                    hands_over = staged.hands_over;
                    self.apply(batch, staged, news)?;
                    done = entry;
                    &mut *done
                }
            };
            meter.count(entry, now);
            let index = tail.append(batch, entry, vault.clock(), now)?;
            if hands_over {
                handover = Some(index);
            }
            if let Some(id) = self.touch(batch, request, &touched, now)? {
                touched.push(id);
            }
            ends.push(Ok(Ended::Durable(index)));
        }
        meter.put(batch)?;
        let (checkpoint, note) = match handover {
            Some(entry) => tail.hand_over(batch, &vault.keys(), now, entry)?,
            None => tail.seal(batch, &vault.keys(), now)?,
        };
        Ok(Batched { tail, head: Head { checkpoint, note }, generation, touched, ends, later })
    }

    fn apply(&self, batch: &mut Batch<'_>, staged: Staged, news: &mut News) -> Result<(), EngineError> {
        for ((table, key), value) in staged.rows {
            match value {
                Some(value) => batch.put(table, &key, &value)?,
                None => {
                    batch.delete(table, &key)?;
                }
            }
        }
        for (key, by) in staged.counts {
            let old = batch.get(COUNTS, &key)?.and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?))).unwrap_or(0);
            let new = old.checked_add_signed(by).ok_or(EngineError::Damaged("a count of memories"))?;
            batch.put(COUNTS, &key, &new.to_le_bytes())?;
        }
        let mut recents = self.recents.borrow_mut();
        for (scope, change) in staged.recent {
            recents.learn(scope, &change);
        }
        news.index.extend(staged.index);
        news.events.extend(staged.events);
        Ok(())
    }

    /// Writes when a stored key was used, at most once a minute. Gives the key if it did.
    fn touch(
        &self,
        batch: &mut Batch<'_>,
        request: &Request,
        touched: &[CredentialId],
        now: Timestamp,
    ) -> Result<Option<CredentialId>, EngineError> {
        let Some(Asker { credential: CredentialRef::Stored(id), tenant, .. }) = &request.asker else { return Ok(None) };
        let fresh = self.touched.get(id).is_some_and(|at| now < at.plus(limits::TOUCH_INTERVAL));
        if fresh || touched.contains(id) {
            return Ok(None);
        }
        let mut tx = Tx::new(&*batch, self.vault.keys(), self.vault.common(), now, false);
        // A row that cannot be read is found by whoever needs it; the time of use is not worth a failure.
        let rows = credentials::touch(&mut tx, *tenant, *id).map(|()| std::mem::take(&mut tx.staged.rows)).unwrap_or_default();
        for ((table, key), value) in rows {
            if let Some(value) = value {
                batch.put(table, &key, &value)?;
            }
        }
        Ok(Some(*id))
    }

    /// Takes up what a commit made true and shows it to readers. Gives the ends of the batch's requests, and whether it can be read.
    fn accept(&mut self, batched: Batched, (now, mono_ms): (Timestamp, u64)) -> (Vec<Result<Ended, Unavailable>>, Result<(), EngineError>) {
        self.tail = batched.tail;
        self.generation = batched.generation;
        self.seq += 1;
        self.clocks = (now.ms(), mono_ms);
        if self.touched.len() > limits::UNKNOWN_OPERATIONS_MAX {
            self.touched.clear();
        }
        self.touched.extend(batched.touched.into_iter().map(|id| (id, now)));
        let shown = self.show(batched.head);
        (batched.ends, shown)
    }

    /// Publishes a snapshot of what is committed.
    fn show(&self, head: Head) -> Result<(), EngineError> {
        let snapshot = self.vault.engine().snapshot()?;
        self.vault.publish(Published { snapshot, seq: self.seq, generation: self.generation, head });
        Ok(())
    }

    /// After a failure: reads from the medium what became of the last batch, records that, and goes on; or ends the process.
    fn recover(&mut self, unknown: &[Asker], mut news: News) {
        self.vault.unpublish();
        let mut found = None;
        for attempt in 0..limits::RECOVER_ATTEMPTS_MAX {
            std::thread::sleep(limits::RECOVER_PAUSE * attempt);
            match self.try_recover(unknown, &mut found, &mut news) {
                Ok(()) => {
                    log::line(log::Level::Warn, "the store has recovered", &[("entries", &self.tail.size())]);
                    return;
                }
                Err(error) => log::line(log::Level::Error, "the store cannot recover yet", &[("error", &log::Operator::text(&error))]),
            }
        }
        self.vault.fatal();
    }

    /// One attempt. `found` keeps what the first look at the medium saw: later looks may see this recovery's own entry.
    fn try_recover(&mut self, unknown: &[Asker], found: &mut Option<Found>, news: &mut News) -> Result<(), LogError> {
        let (vault, before) = (self.vault.clone(), self.tail.size());
        vault.engine().recover()?;
        let snapshot = vault.engine().snapshot()?;
        let (mut tail, note) = Tail::load(&snapshot, vault.log(), vault.boot(), &vault.keys())?;
        let found = match found {
            Some(found) => found,
            None => found.insert(Found::look(&snapshot, before, tail.size())?),
        };
        let head = if tail.size() > found.end {
            Head { checkpoint: tail.checkpoint(), note }
        } else {
            found.refused = vault.refused_while_shut();
            let mut entry = Entry::new("system.recover", Actor::SYSTEM);
            entry.reason = Some(Reason::Recovered);
            entry.n = count(unknown.len());
            entry.det.set(Detail::First(before));
            entry.det.set(Detail::End(found.end));
            entry.det.set(Detail::Lost(count(unknown.iter().filter(|asker| !found.ends.contains_key(&asker.operation)).count())));
            entry.det.set(Detail::Refused(found.refused));
            let now = vault.clock().now();
            let entered = vault.engine().commit(|batch| {
                tail.append(batch, &mut entry, vault.clock(), now)?;
                tail.seal(batch, &vault.keys(), now)
            });
            match entered {
                Ok((checkpoint, note)) => Head { checkpoint, note },
                Err(CommitError::Refused(error) | CommitError::Unknown(error)) => return Err(error.into()),
            }
        };
        self.seq += 1;
        self.generation += 1;
        self.show(head)?;
        vault.entered_refused(found.refused);
        self.tail = tail;
        self.recents.get_mut().forget();
        for asker in unknown {
            vault.settle_unknown(asker, found.ends.get(&asker.operation).copied().unwrap_or(Settled::NotCommitted));
        }
        if found.end > before {
            self.answers.tell(&vault, Committed { seq: self.seq, requests: Vec::new(), ends: Vec::new(), news: std::mem::take(news) });
        }
        Ok(())
    }

    /// An entry, if the wall clock moved otherwise than the monotonic one since the last commit.
    fn clock_step(&self, now: Timestamp) -> Option<Entry> {
        let expected = self.clocks.0 + self.vault.clock().mono_ms().saturating_sub(self.clocks.1);
        let least = u64::try_from(limits::CLOCK_STEP_MIN.as_millis()).expect("a short time");
        let (ahead, back) = (now.ms().saturating_sub(expected), expected.saturating_sub(now.ms()));
        if ahead.max(back) < least {
            return None;
        }
        let mut entry = Entry::new("system.clock", Actor::SYSTEM);
        entry.reason = Some(Reason::ClockStep);
        entry.det.set(if ahead > back { Detail::Ahead(ahead) } else { Detail::Back(back) });
        Some(entry)
    }
}

/// What became of a batch of unknown outcome, as read from the medium.
struct Found {
    /// Entries in the log.
    end: u64,
    /// How the batch's operations ended, as their entries say.
    ends: HashMap<OperationId, Settled>,
    /// What the recovery entry says of requests refused meanwhile.
    refused: u64,
}

impl Found {
    fn look(reader: &dyn Read, before: u64, end: u64) -> Result<Self, LogError> {
        let mut ends = HashMap::new();
        for index in before..end {
            let text = line(reader, index)?.ok_or(LogError::Damaged)?;
            let entry = Entry::parse(&text).map_err(|_| LogError::Damaged)?;
            ends.extend(entry.opid.map(|operation| (operation, Settled::of(&entry))));
        }
        Ok(Self { end, ends, refused: 0 })
    }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).expect("a batch is small")
}

/// However it ends: whoever still waits is told as the queue is shut.
impl Drop for Writer {
    fn drop(&mut self) {
        self.vault.queue().shut();
    }
}
