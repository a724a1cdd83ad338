//! Mem0's exports: asked for, then fetched.
//!
//! There is no model here that could fill a schema, so an export holds the memories that its filters choose, word for word, and says so. Nothing is
//! copied when it is asked for: it is read when it is fetched, through the gate like any list, so that policy and the trash are those of that moment.
//!
//! Invariants
//! - An export is fetched by the credential that asked for it; to everybody else it does not exist.
//! - What was asked for is kept in memory alone, for [`limits::EXPORT_LIFE`], at most [`limits::EXPORTS_PER_CREDENTIAL_MAX`] of one credential,
//!   [`limits::EXPORTS_PER_PERSON_MAX`] of one person and [`limits::EXPORTS_MAX`] in all. Its own oldest makes room for one more; where all are
//!   taken, the oldest of whoever has most.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::{answers, refuse, selection};
use crate::api::reply::{Answered, Words};
use crate::api::run::{Cx, bucket};
use crate::api::throttle::Key;
use crate::base::id::{OperationId, UserId};
use crate::base::limits;
use crate::memories::{self, Select};
use crate::policy::action::ListMemories;

/// What narrows an export that is fetched without an id.
const NARROWING: [&str; 5] = ["filters", "user_id", "agent_id", "app_id", "run_id"];

struct Export {
    id: OperationId,
    asker: Key,
    person: UserId,
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
            make_room(kept, limits::EXPORTS_PER_CREDENTIAL_MAX, |other| other.asker == export.asker);
            make_room(kept, limits::EXPORTS_PER_PERSON_MAX, |other| other.person == export.person);
            if kept.len() >= limits::EXPORTS_MAX {
                let mut by_person = BTreeMap::<UserId, usize>::new();
                kept.iter().for_each(|other| *by_person.entry(other.person).or_default() += 1);
                let greediest = by_person.into_iter().max_by_key(|(_, exports)| *exports);
                make_room(kept, 0, |other| greediest.is_some_and(|(person, _)| other.person == person));
            }
            kept.push_back(export);
        });
    }

    /// What `asker` asked for under this id.
    fn find(&self, now_ms: u64, asker: Key, id: OperationId) -> Option<Arc<Select>> {
        self.with(now_ms, |kept| {
            kept.iter().find(|export| export.id == id && export.asker == asker).map(|export| Arc::clone(&export.select))
        })
    }
}

/// Lets the oldest of those that are `whose` go, if they are `most` or more.
fn make_room(kept: &mut VecDeque<Export>, most: usize, whose: impl Fn(&Export) -> bool) {
    if kept.iter().filter(|export| whose(export)).count() >= most
        && let Some(oldest) = kept.iter().position(whose)
    {
        kept.remove(oldest);
    }
}

/// `POST /v1/exports/`: the filters are checked and what they choose is counted; nothing is copied.
pub fn ask(cx: &mut Cx<'_>) -> Answered {
    let mut fields = std::mem::take(&mut cx.fields);
    let select = Arc::new(selection(cx, &mut fields, "body")?);
    let done = cx.walk::<ListMemories, _, _>(cx.own(), &Words::MEMORY, |access| memories::list_selected(access, &select, 0, 0))?;
    let id = cx.call.operation;
    cx.api.exports.keep(Export { id, asker: bucket(cx.who), person: cx.who.user(), asked_ms: cx.api.now_ms(), select });
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
    let all = limits::LIST_RECORDS_MAX + 1;
    let done = cx.walk::<ListMemories, _, _>(cx.own(), &Words::MEMORY, |access| memories::list_selected(access, &select, 0, all))?;
    Ok(cx.answer(done, |found, receipt| answers::export(&found.memories, receipt)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each asker is a person of their own.
    fn export(asker: u32, asked_ms: u64) -> Export {
        let mut person = [0; 16];
        person[..4].copy_from_slice(&asker.to_be_bytes());
        Export {
            person: UserId::from_bytes(person),
            id: OperationId::draw(),
            asker: Key::of_static(&asker.to_string(), &[]),
            asked_ms,
            select: Arc::new(Select::Root),
        }
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
    /// The oldest of all made room, whoever's it was: one person with 63 keys ended everybody's exports.
    #[test]
    fn one_persons_exports_end_their_own_and_nobody_elses() {
        let exports = Exports::default();
        let modest = export(1, 0);
        let (id, mine) = (modest.id, modest.asker);
        exports.keep(modest);
        let greedy = |key: usize, person: u32| {
            let one = export(person, 0);
            exports.keep(Export { asker: Key::of_static(&format!("{person} {key}"), &[]), ..one });
        };
        let of = |person: u32| exports.0.lock().unwrap().iter().filter(|kept| kept.person == export(person, 0).person).count();
        (0..2 * limits::EXPORTS_MAX).for_each(|key| greedy(key, 2));
        assert_eq!((of(1), of(2)), (1, limits::EXPORTS_PER_PERSON_MAX));
        // Also where several fill all places together: each new one takes that of somebody who has most.
        for person in 3..8 {
            (0..limits::EXPORTS_PER_PERSON_MAX).for_each(|key| greedy(key, person));
        }
        assert_eq!(exports.0.lock().unwrap().len(), limits::EXPORTS_MAX);
        assert!(exports.find(0, mine, id).is_some());
    }
}
