//! What follows a commit: the search indexes learn of it, subscribers are told, then whoever waited is answered.
//!
//! A thread of its own, so that the writer goes on with the next batch meanwhile; a batch of few that no index waits for, when nothing else does, is told
//! by the writer itself (`limits::ANSWERS_AT_ONCE_MAX`). What it is given is durable and published already.
//!
//! Invariants
//! - Batches pass in the order of their commits; at most [`limits::COMMITTED_BATCHES_MAX`] wait, then the writer waits.
//! - The indexes know of a batch before anybody hears of it or of a later one: whoever wrote, or saw, finds what was written.
//! - A panic here ends the process as one in the writer does: whoever was not answered is told that the outcome is not known, which the log tells
//!   after the next start.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::base::{fault, limits};
use crate::policy::action::Scope;
use crate::store::events::Event;
use crate::store::index::indexes::Change;
use crate::store::queue::Request;
use crate::store::vault::Vault;
use crate::store::writer::{Ended, Unavailable};

/// A batch that is durable.
pub(in crate::store) struct Committed {
    /// Number of the commit since start.
    pub seq: u64,
    /// Who waits, in the order of `ends`.
    pub requests: Vec<Request>,
    /// How each request ended.
    pub ends: Vec<Result<Ended, Unavailable>>,
    /// What others must learn.
    pub news: News,
}

/// What a batch changed, for those who keep no rows.
#[derive(Default)]
pub(in crate::store) struct News {
    /// For the search indexes.
    pub index: Vec<(Scope, Change)>,
    /// For subscribers.
    pub events: Vec<(Scope, Event)>,
}

impl Committed {
    fn tell(self, vault: &Vault) {
        let Self { seq, mut requests, ends, news } = self;
        apply(vault, seq, news.index);
        vault.hub().publish(&news.events);
        if vault.model().is_some() {
            vault.unembedded().learn(&news.events);
        }
        for (request, end) in requests.iter_mut().zip(ends) {
            request.answer(end);
        }
    }
}

/// The writer's side.
pub(in crate::store) struct Answers {
    batches: SyncSender<Committed>,
    /// Batches that were handed over and not told yet.
    untold: Arc<AtomicUsize>,
}

impl Answers {
    /// Has a batch told: at once if it costs the writer little and comes after no other, else by the thread for it.
    pub fn tell(&self, vault: &Vault, batch: Committed) {
        let small = batch.news.index.is_empty() && batch.requests.len() <= limits::ANSWERS_AT_ONCE_MAX && vault.queue().is_empty();
        if small && self.untold.load(Ordering::Acquire) == 0 {
            return batch.tell(vault);
        }
        self.untold.fetch_add(1, Ordering::Relaxed);
        // If that thread is gone, the process is ending; whoever waits is told so as the batch is dropped.
        let _ = self.batches.send(batch);
    }
}

/// The thread's side.
pub(in crate::store) struct Answerer {
    batches: Receiver<Committed>,
    untold: Arc<AtomicUsize>,
}

impl Answerer {
    /// Tells of batches until the writer has ended.
    pub fn run(self, vault: &Vault) {
        while let Ok(batch) = self.batches.recv() {
            if fault::catch(|| batch.tell(vault)).is_err() {
                vault.unpublish();
                return vault.fatal();
            }
            self.untold.fetch_sub(1, Ordering::Release);
        }
    }
}

/// The way from the writer to the thread that tells.
pub(in crate::store) fn channel() -> (Answers, Answerer) {
    let (sender, batches) = sync_channel(limits::COMMITTED_BATCHES_MAX);
    let untold = Arc::<AtomicUsize>::default();
    (Answers { batches: sender, untold: Arc::clone(&untold) }, Answerer { batches, untold })
}

fn apply(vault: &Vault, seq: u64, index: Vec<(Scope, Change)>) {
    let mut by_scope: Vec<(Scope, Vec<Change>)> = Vec::new();
    for (scope, change) in index {
        match by_scope.iter_mut().find(|(known, _)| *known == scope) {
            Some((_, changes)) => changes.push(change),
            None => by_scope.push((scope, vec![change])),
        }
    }
    for (scope, changes) in by_scope {
        vault.indexes().apply((scope.tenant, scope.owner), seq, changes);
    }
}
