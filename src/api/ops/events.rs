//! `GET /events`: what becomes of a person's memories, as it happens.
//!
//! Invariants
//! - The opening is recorded, and so is every event before it leaves: policy decides on each anew.
//! - An event holds the memory as it is when the event is told, not as it was; one that is gone meanwhile is told of by the event that says so.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::api::reply::{self, Answered, Words};
use crate::api::run::Cx;
use crate::api::stream::{Event, Feed, Said};
use crate::authn::Principal;
use crate::base::id::OperationId;
use crate::memories::{self, Refusal};
use crate::policy::action::{Scope, TellEvent, WatchMemories};
use crate::store::events::{self, Happened, Subscription, Told};
use crate::store::gate::{Call, Refused};
use crate::store::vault::Vault;

/// What the contract calls an event.
fn name(happened: Happened) -> &'static str {
    match happened {
        Happened::Created => "memory.created",
        Happened::Updated => "memory.updated",
        Happened::Trashed => "memory.deleted",
        Happened::Restored => "memory.restored",
        Happened::Purged => "memory.purged",
    }
}

/// The contract's event.
#[derive(Serialize)]
struct View<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    memory_id: String,
    user_id: String,
    org_id: (),
    team_id: (),
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<reply::Row<'a>>,
    emitted_at: String,
}

/// `GET /events`
pub fn watch(cx: &mut Cx<'_>) -> Answered {
    let (scope, place) = (cx.own(), cx.place()?);
    let subscription = cx.api.vault.subscribe(scope);
    let opened = cx.look::<WatchMemories, _, _>(scope, &Words::MEMORY, |a| Ok::<_, Refusal>(a.now()))?;
    let (now, receipt) = opened.into_parts();
    let hello = json!({ "subscribed": { "user_id": scope.owner.to_string(), "org_id": null }, "emitted_at": now.to_string() });
    let feed = Changes { vault: cx.api.vault.clone(), who: cx.who.clone(), call: cx.call.clone(), scope, subscription };
    Ok(cx.stream(&receipt, place, Some(Event { name: Some("hello"), data: hello.to_string().into_bytes() }), feed))
}

/// What becomes of one person's memories.
struct Changes {
    vault: Vault,
    who: Principal,
    call: Call,
    scope: Scope,
    subscription: Subscription,
}

impl Feed for Changes {
    fn next(&mut self, wait: Duration) -> Said {
        match self.subscription.next(wait) {
            Told::Event(event) => self.tell(&event),
            Told::Nothing => Said::Nothing,
            Told::Ended => Said::End,
        }
    }
}

impl Changes {
    fn tell(&self, event: &events::Event) -> Said {
        let call = Call { operation: OperationId::draw(), ..self.call.clone() };
        let told = self.vault.read::<TellEvent, _, Refusal>(&self.who, self.scope, &call, |a| memories::told(a, event));
        let (memory, receipt) = match told {
            Ok(told) => told.into_parts(),
            Err(Refused::Work(Refusal::NotFound, _)) => return Said::Nothing,
            // Whatever else keeps an event from being told ends the stream: its reader looks anew.
            Err(_) => return Said::End,
        };
        let owner = self.scope.owner;
        let view = View {
            kind: name(event.happened),
            memory_id: event.memory.to_string(),
            user_id: owner.to_string(),
            org_id: (),
            team_id: (),
            memory: memory.as_ref().map(|memory| reply::row(memory, owner, &receipt)),
            emitted_at: event.at.to_string(),
        };
        Said::Event(Event { name: Some(view.kind), data: reply::json(&view) })
    }
}
