//! The embedder: makes the vectors of memories in the background, after their writers were answered, as a system principal through the gate.
//!
//! ```text
//! commit ─ which memories changed ─▶ waiting ─▶ read (gate) ─▶ embed, outside everything ─▶ write (gate): sealed row, counter, index
//! start, or more changed than is kept ─▶ walk: every scope whose counters say that something is missing, newest first
//! ```
//! Invariants
//! - What is to do is derived from the rows: it survives the end of the process, and another model makes all of it anew.
//! - No request waits for it: it gives way to every other thread, and while others use the store it works a tenth of the time. Being nice and waiting for
//!   an idle writer was not enough: it halved what was written *(measured)*.
//! - A vector is kept only if its memory is still the one it was made of, which the writing transaction looks at.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::authn::Principal;
use crate::base::id::{MemoryId, UserId};
use crate::base::time::Timestamp;
use crate::base::{limits, log};
use crate::embed::{Model, ModelId};
use crate::engine::Engine;
use crate::policy::action::{EmbedMemories, IndexMemories, Instance, ReadEmbeddings, Scope};
use crate::store::events::{Event, Happened};
use crate::store::gate::{Access, Call, Failed, Refused};
use crate::store::tables::memories::{self, OrderPlace, Progress};
use crate::store::tables::meta;
use crate::store::tx::{Common, StoreError, Tx};
use crate::store::vault::Vault;

/// A share of the processor that leaves all but a thirtieth of it to whoever else wants it: see setpriority(2).
const NICE: i32 = 15;

/// Memories that are known to lack a vector, and whether there may be others.
pub(in crate::store) struct Unembedded {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

struct Waiting {
    memories: VecDeque<(Scope, MemoryId)>,
    /// The rows must be looked through: at the start, after a failure, and when more came than is kept.
    walk: bool,
    stop: bool,
}

impl Default for Unembedded {
    fn default() -> Self {
        Self { waiting: Mutex::new(Waiting { memories: VecDeque::new(), walk: true, stop: false }), filled: Condvar::new() }
    }
}

/// What to do next.
enum Task {
    /// These memories of one scope.
    These(Scope, Vec<MemoryId>),
    /// Look the rows through.
    Walk,
    /// End.
    Stop,
}

impl Unembedded {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no code panics while it holds this lock")
    }

    /// Learns what a commit changed.
    pub fn learn(&self, events: &[(Scope, Event)]) {
        let changed =
            events.iter().filter(|(_, event)| matches!(event.happened, Happened::Created | Happened::Updated | Happened::Restored));
        let mut waiting = self.lock();
        for (scope, event) in changed {
            match waiting.memories.len() < limits::EMBED_WAITING_MAX {
                true => waiting.memories.push_back((*scope, event.memory)),
                false => waiting.walk = true,
            }
        }
        drop(waiting);
        self.filled.notify_one();
    }

    /// Has the rows looked through.
    fn look_through(&self) {
        self.lock().walk = true;
    }

    /// Ends the waiting.
    pub fn wake(&self) {
        self.lock().stop = true;
        self.filled.notify_one();
    }

    /// Whether something came that is known by name.
    fn has_named(&self) -> bool {
        !self.lock().memories.is_empty()
    }

    fn next(&self) -> Task {
        let idle = |waiting: &mut Waiting| waiting.memories.is_empty() && !waiting.walk && !waiting.stop;
        let mut waiting = self.filled.wait_while(self.lock(), idle).expect("no code panics while it holds this lock");
        if waiting.stop {
            return Task::Stop;
        }
        let Some(&(scope, _)) = waiting.memories.front() else {
            waiting.walk = false;
            return Task::Walk;
        };
        let mut ids = Vec::new();
        while ids.len() < limits::EMBED_CHUNK
            && let Some(&(of, id)) = waiting.memories.front()
            && of == scope
        {
            waiting.memories.pop_front();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Task::These(scope, ids)
    }

    /// Waits before what failed is tried again; `false` if the store stops.
    fn rest(&self) -> bool {
        let waited = self.filled.wait_timeout_while(self.lock(), limits::EMBED_PAUSE, |waiting| !waiting.stop);
        !waited.expect("no code panics while it holds this lock").0.stop
    }
}

/// The model in use, the width of its vectors, and how far they are.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Which model.
    pub model: ModelId,
    /// Numbers a vector has.
    pub width: usize,
    /// Of all owners together.
    pub progress: Progress,
}

/// How far the vectors are; `None` without a model.
pub fn standing(a: &mut Access<'_, ReadEmbeddings>) -> Result<Option<Standing>, Failed> {
    let Some(model) = a.vault().model() else { return Ok(None) };
    let progress = memories::progress(a.tx(), a.who().tenant(), &model.id())?;
    a.count(0);
    Ok(Some(Standing { model: model.id(), width: model.width(), progress: together(&progress) }))
}

/// How far the vectors of `model` are in a file that no service has open.
pub fn standing_in(engine: &Engine, model: &ModelId) -> Result<Progress, StoreError> {
    let (common, snapshot) = (Common::new(engine.instance()), engine.snapshot()?);
    let tx = Tx::new(&snapshot, engine.keys(), &common, Timestamp::default(), true);
    let instance = meta::instance(&tx)?.ok_or(StoreError::Missing("meta"))?;
    Ok(together(&memories::progress(&tx, instance.tenant, model)?))
}

fn together(all: &[(UserId, Progress)]) -> Progress {
    let sum = |of: fn(&Progress) -> u64| all.iter().map(|(_, progress)| of(progress)).sum();
    Progress { live: sum(|progress| progress.live), embedded: sum(|progress| progress.embedded) }
}

/// Makes what is missing until the vault stops.
pub fn run(vault: &Vault, model: &Model) {
    if let Err(error) = rustix::process::nice(NICE) {
        log::line(log::Level::Warn, "the embedder runs like any other thread", &[("error", &log::Operator::text(&error))]);
    }
    loop {
        let done = match vault.unembedded().next() {
            Task::Stop => return,
            Task::These(scope, ids) => these(vault, model, scope, &ids),
            Task::Walk => walk(vault, model),
        };
        if vault.is_stopping() {
            return;
        }
        if let Err(Failed) = done {
            log::line(log::Level::Warn, "vectors were not made; they are tried again", &[]);
            vault.unembedded().look_through();
            if !vault.unembedded().rest() {
                return;
            }
        }
    }
}

fn system(scope: Scope) -> Principal {
    Principal::system(scope.tenant, scope.owner, "embedder")
}

fn these(vault: &Vault, model: &Model, scope: Scope, ids: &[MemoryId]) -> Result<(), Failed> {
    let id = model.id();
    let texts = read(vault, scope, |a| memories::unembedded_of(a, ids, &id))?;
    make(vault, model, scope, texts)
}

/// Every scope that lacks vectors, from its newest memory to its oldest. What comes meanwhile goes before.
fn walk(vault: &Vault, model: &Model) -> Result<(), Failed> {
    let (tenant, id, began) = (vault.tenant(), model.id(), Instant::now());
    let system = Principal::system(tenant, vault.owner(), "embedder");
    let all = vault.read::<ReadEmbeddings, _, Failed>(&system, Instance, &Call::internal(), |a| {
        a.count(0);
        Ok(memories::progress(a.tx(), tenant, &id)?)
    });
    let all = all.map_err(|_: Refused<Failed>| Failed)?.into_parts().0;
    let mut missing = 0;
    for (owner, progress) in all {
        if progress.embedded >= progress.live {
            continue;
        }
        missing += progress.live - progress.embedded;
        let (scope, mut before) = (Scope { tenant, owner }, None::<OrderPlace>);
        loop {
            while vault.unembedded().has_named() {
                match vault.unembedded().next() {
                    Task::These(scope, ids) => these(vault, model, scope, &ids)?,
                    Task::Walk | Task::Stop => return Ok(()),
                }
            }
            let (texts, next) =
                read(vault, scope, |a| memories::unembedded_before(a, before, &id, limits::EMBED_CHUNK, limits::EMBED_SEEN))?;
            make(vault, model, scope, texts)?;
            before = match next {
                Some(next) if !vault.is_stopping() => Some(next),
                _ => break,
            };
        }
    }
    if missing > 0 {
        let took = began.elapsed().as_secs();
        log::line(log::Level::Info, "memories that lacked a vector were looked through", &[("lacked", &missing), ("seconds", &took)]);
    }
    Ok(())
}

fn read<T>(vault: &Vault, scope: Scope, work: impl Fn(&Access<'_, IndexMemories>) -> Result<T, StoreError>) -> Result<T, Failed> {
    let found = vault.read::<IndexMemories, _, Failed>(&system(scope), scope, &Call::internal(), |a| {
        a.count(0);
        Ok(work(a)?)
    });
    Ok(found.map_err(|_: Refused<Failed>| Failed)?.into_parts().0)
}

fn make(vault: &Vault, model: &Model, scope: Scope, texts: Vec<memories::Unembedded>) -> Result<(), Failed> {
    let mut made = Vec::with_capacity(texts.len());
    for one in texts {
        if vault.is_stopping() {
            break;
        }
        let (began, before) = (Instant::now(), commits(vault));
        made.push((one.id, one.version, model.embed(&one.text)));
        if commits(vault) != before {
            rest(vault, began.elapsed() * limits::EMBED_REST_TIMES);
        }
    }
    if made.is_empty() {
        return Ok(());
    }
    let id = model.id();
    let kept =
        vault.write::<EmbedMemories, _, Failed>(&system(scope), scope, &Call::internal(), move |a| Ok(memories::embed(a, &id, made)?));
    kept.map(drop).map_err(|_: Refused<Failed>| Failed)
}

/// How many commits readers see; it grows while somebody uses the store.
fn commits(vault: &Vault) -> u64 {
    vault.shown().map_or(0, |published| published.seq)
}

/// Leaves the processor to others for so long, unless the store stops.
fn rest(vault: &Vault, time: Duration) {
    let (began, time) = (Instant::now(), time.min(limits::EMBED_REST_MAX));
    while began.elapsed() < time && !vault.is_stopping() {
        std::thread::sleep(limits::EMBED_REST_STEP.min(time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::TenantId;

    fn event(scope: Scope, happened: Happened) -> (Scope, Event) {
        (scope, Event { happened, memory: MemoryId::draw(Timestamp::from_ms(1)), at: Timestamp::from_ms(1) })
    }

    #[test]
    fn what_changed_is_handed_out_by_scope_and_too_much_of_it_is_looked_for() {
        let (all, tenant) = (Unembedded::default(), TenantId::draw());
        let [one, two] = [(); 2].map(|()| Scope { tenant, owner: UserId::draw(Timestamp::from_ms(1)) });
        assert!(matches!(all.next(), Task::Walk), "a start looks through what is there");
        let events =
            [event(one, Happened::Created), event(one, Happened::Trashed), event(one, Happened::Updated), event(two, Happened::Restored)];
        all.learn(&events);
        all.learn(&events[..1]);
        assert!(matches!(all.next(), Task::These(scope, ids) if scope == one && ids == [events[0].1.memory, events[2].1.memory]));
        assert!(matches!(all.next(), Task::These(scope, ids) if scope == two && ids.len() == 1));
        assert!(matches!(all.next(), Task::These(scope, _) if scope == one));
        let many: Vec<_> = (0..=limits::EMBED_WAITING_MAX).map(|_| event(one, Happened::Created)).collect();
        all.learn(&many);
        let mut named = 0;
        while let Task::These(_, ids) = all.next() {
            assert!(ids.len() <= limits::EMBED_CHUNK);
            named += ids.len();
        }
        assert_eq!(named, limits::EMBED_WAITING_MAX, "and then the rows are looked through");
        all.wake();
        assert!(matches!(all.next(), Task::Stop) && !all.rest());
    }
}
