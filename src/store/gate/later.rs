//! Reads and writes that nobody waits for: what becomes of them is told to a closure, by the thread that finds their entries durable.
//!
//! The same road as [`Vault::read`] and [`Vault::write`], and the same promises: the closure gets a value only when its entry is durable.
//! Whoever waits for a commit costs a thread's sleep and another's waking; here the thread that answers after a commit goes through all of them.
//!
//! Invariants
//! - The closure is called once, whatever happens, unless it is never reached by a panic, which drops it.
//! - It must not wait: others are told after it.

use super::{Access, Call, Fault, Recorded, Refused, perform, settle, written};
use crate::authn::Principal;
use crate::base::limits;
use crate::engine::Space;
use crate::policy::action::{Action, Reads, Writes, is_urgent};
use crate::store::queue::Work;
use crate::store::vault::Vault;
use crate::store::writer::Ended;

/// Who asks for what, for as long as it takes.
pub struct Asked<A: Action> {
    /// Who.
    pub who: Principal,
    /// For what.
    pub target: A::Target,
    /// What the audit log will tell of it.
    pub call: Call,
}

impl Vault {
    /// As [`Vault::read`], with `then` told of the outcome. Decides and works before it returns; anew where it is told, if credentials changed
    /// meanwhile.
    pub fn read_then<A: Reads, T: Send + 'static, E: Fault + Send + 'static>(
        &self,
        asked: Asked<A>,
        work: for<'t> fn(&mut Access<'t, A>) -> Result<T, E>,
        then: impl FnOnce(Result<Recorded<T>, Refused<E>>) + Send + 'static,
    ) {
        if self.space() == Space::NoReads {
            return then(Err(self.no_space(&asked.who)));
        }
        self.clone().attempt(asked, limits::READ_ATTEMPTS_MAX, work, then);
    }

    fn attempt<A: Reads, T: Send + 'static, E: Fault + Send + 'static>(
        self,
        asked: Asked<A>,
        attempts: usize,
        work: for<'t> fn(&mut Access<'t, A>) -> Result<T, E>,
        then: impl FnOnce(Result<Recorded<T>, Refused<E>>) + Send + 'static,
    ) {
        let Some(left) = attempts.checked_sub(1) else { return then(Err(Refused::Unavailable(self.busy(&asked.who)))) };
        let published = match self.published() {
            Ok(published) => published,
            Err(unavailable) => return then(Err(Refused::Unavailable(unavailable))),
        };
        let (found, told) = perform::<A, T, E>(&self, &asked.who, asked.target, &asked.call, self.reading(&published), work);
        let entry = Work::Entry(told.entry, published.generation);
        drop(published);
        let (vault, asker) = (self.clone(), Vault::asker(&asked.who, &asked.call));
        vault.send_then(entry, asker, move |end| match end {
            Ok(Ended::Durable(index)) => then(settle(Some(found), index).map(|recorded| recorded.holding(told.held))),
            Ok(Ended::Stale) => self.attempt(asked, left, work, then),
            Err(unavailable) => then(Err(Refused::Unavailable(unavailable))),
        });
    }

    /// As [`Vault::write`], with `then` told of the outcome.
    pub fn write_then<A: Writes, T: Send + 'static, E: Fault + Send + 'static>(
        &self,
        asked: Asked<A>,
        work: impl for<'t> FnOnce(&mut Access<'t, A>) -> Result<T, E> + Send + 'static,
        then: impl FnOnce(Result<Recorded<T>, Refused<E>>) + Send + 'static,
    ) {
        if self.space() != Space::Ample && !is_urgent(A::NAME) {
            return then(Err(self.no_space(&asked.who)));
        }
        let asker = Vault::asker(&asked.who, &asked.call);
        let (job, slot) = self.job::<A, T, E>(asked.who, asked.target, asked.call, work);
        self.send_then(Work::Job(job), asker, move |end| then(written(&slot, end)));
    }
}
