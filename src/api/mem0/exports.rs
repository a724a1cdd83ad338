//! Mem0's exports: asked for, then fetched.
//!
//! There is no model here that could fill a schema, so an export holds the memories that its filters choose, word for word, and says so. Nothing is
//! copied when it is asked for: it is read when it is fetched, through the gate like any list, so that policy and the trash are those of that moment.
//!
//! Invariants
//! - An export is fetched by the credential that asked for it; to everybody else it does not exist.
//! - What was asked for is kept in memory alone, for [`limits::EXPORT_LIFE`], at most [`limits::EXPORTS_PER_CREDENTIAL_MAX`] of one credential and
//!   [`limits::EXPORTS_MAX`] in all; the oldest makes room.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::{answers, refuse, selection};
use crate::api::reply::{Answered, Words};
use crate::api::run::{Cx, bucket};
use crate::api::throttle::Key;
use crate::base::id::OperationId;
use crate::base::limits;
use crate::memories::{self, Select};
use crate::policy::action::ListMemories;

/// What narrows an export that is fetched without an id.
const NARROWING: [&str; 5] = ["filters", "user_id", "agent_id", "app_id", "run_id"];

struct Export {
    id: OperationId,
    asker: Key,
    asked_ms: u64,
    select: Arc<Select>,
}

/// What was asked for and may be fetched, oldest first.
#[derive(Default)]
pub struct Exports(Mutex<VecDeque<Export>>);

impl Exports {
    fn with<T>(&self, now_ms: u64, work: impl FnOnce(&mut VecDeque<Export>) -> T) -> T {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let life_ms = u64::try_from(limits::EXPORT_LIFE.as_millis()).unwrap_or(u64::MAX);
        kept.retain(|export| now_ms.saturating_sub(export.asked_ms) < life_ms);
        work(&mut kept)
    }

    /// Keeps what was asked for.
    fn keep(&self, export: Export) {
        self.with(export.asked_ms, |kept| {
            if kept.iter().filter(|other| other.asker == export.asker).count() >= limits::EXPORTS_PER_CREDENTIAL_MAX {
                let oldest = kept.iter().position(|other| other.asker == export.asker);
                oldest.and_then(|at| kept.remove(at));
            }
            if kept.len() >= limits::EXPORTS_MAX {
                kept.pop_front();
            }
            kept.push_back(export);
        });
    }

    /// What `asker` asked for under this id.
    fn find(&self, now_ms: u64, asker: Key, id: OperationId) -> Option<Arc<Select>> {
        self.with(now_ms, |kept| kept.iter().find(|export| export.id == id && export.asker == asker).map(|export| Arc::clone(&export.select)))
    }
}

/// `POST /v1/exports/`: the filters are checked and what they choose is counted; nothing is copied.
pub fn ask(cx: &mut Cx<'_>) -> Answered {
    let mut fields = std::mem::take(&mut cx.fields);
    let select = Arc::new(selection(cx, &mut fields, "body")?);
    let done = cx.look::<ListMemories, _, _>(cx.own(), &Words::MEMORY, |access| memories::list_selected(access, &select, 0, 0))?;
    let id = cx.call.operation;
    cx.api.exports.keep(Export { id, asker: bucket(cx.who), asked_ms: cx.api.now_ms(), select });
    Ok(cx.answer(done, |found, _| answers::export_asked(id, found.total)))
}

/// `POST /v1/exports/get/`: by its id; or whatever filters choose, as if it had just been asked for.
pub fn fetch(cx: &mut Cx<'_>) -> Answered {
    let mut fields = std::mem::take(&mut cx.fields);
    let select = match fields.text("memory_export_id") {
        Some(id) => {
            let asked = OperationId::parse(&id).and_then(|id| cx.api.exports.find(cx.api.now_ms(), bucket(cx.who), id));
            asked.ok_or_else(|| cx.missing(&Words::EXPORT))?
        }
        None if !NARROWING.iter().any(|key| fields.has(key)) => return refuse(cx, "body must have memory_export_id or filters"),
        None => Arc::new(selection(cx, &mut fields, "body")?),
    };
    cx.read::<ListMemories, _, _>(
        cx.own(),
        &Words::MEMORY,
        |access| memories::list_selected(access, &select, 0, limits::LIST_RECORDS_MAX + 1),
        |found, receipt| answers::export(&found.memories, receipt),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(asker: u32, asked_ms: u64) -> Export {
        Export { id: OperationId::draw(), asker: Key::of_static(&asker.to_string(), &[]), asked_ms, select: Arc::new(Select::Root) }
    }

    #[test]
    fn an_export_is_found_by_its_asker_alone_and_only_for_a_while() {
        let exports = Exports::default();
        let one = export(1, 0);
        let (id, mine, other) = (one.id, one.asker, export(2, 0).asker);
        exports.keep(one);
        assert!(exports.find(1, mine, id).is_some());
        assert!(exports.find(1, other, id).is_none());
        assert!(exports.find(1, mine, OperationId::draw()).is_none());
        assert!(exports.find(u64::try_from(limits::EXPORT_LIFE.as_millis()).unwrap(), mine, id).is_none());
    }

    #[test]
    fn the_oldest_makes_room_first_among_its_own() {
        let exports = Exports::default();
        let first = export(1, 0);
        let (id, mine) = (first.id, first.asker);
        exports.keep(first);
        for _ in 1..limits::EXPORTS_PER_CREDENTIAL_MAX {
            exports.keep(export(1, 0));
        }
        assert!(exports.find(0, mine, id).is_some());
        exports.keep(export(1, 0));
        assert!(exports.find(0, mine, id).is_none());
        for asker in 2..u32::try_from(limits::EXPORTS_MAX).unwrap() + 100 {
            exports.keep(export(asker, 0));
        }
        assert_eq!(exports.0.lock().unwrap().len(), limits::EXPORTS_MAX);
    }
}
