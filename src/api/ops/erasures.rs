//! Erasures: asked for, followed, and their receipts, by who administrates the instance.

use serde_json::{Value, json};

use super::required;
use crate::api::reply::{self, Answered, Words};
use crate::api::run::Cx;
use crate::audit::receipt::{ErasureReceipt, HeldBackup};
use crate::base::id::{format_uuid, parse_uuid};
use crate::policy::action::{AskErasure, Instance, ReadErasures};
use crate::store::erasure::{self, Erasure, Stage, Whom};
use crate::store::phi::Phi;

/// `POST /api/v1/erasures`
pub fn ask(cx: &mut Cx<'_>) -> Answered {
    let name = Phi::new(required(cx, "name"));
    let whom = if cx.fields.text("holder").as_deref() == Some("user") { Whom::User(name) } else { Whom::Subject(name) };
    let asked = cx.write::<AskErasure, _, _>(
        Instance,
        &Words::ERASURE,
        move |access| erasure::ask(access, &whom),
        |asked, _| reply::json(&document(asked)),
    )?;
    cx.api.vault.rotate_soon();
    Ok(asked)
}

/// `GET /api/v1/erasures`
pub fn list(cx: &mut Cx<'_>) -> Answered {
    cx.read::<ReadErasures, _, _>(Instance, &Words::ERASURE, erasure::list, |found, _| reply::json(&list_document(found)))
}

/// `GET /api/v1/erasures/:id`
pub fn read(cx: &mut Cx<'_>) -> Answered {
    let Some(id) = parse_uuid(cx.id) else { return Err(cx.missing(&Words::ERASURE)) };
    cx.read::<ReadErasures, _, _>(
        Instance,
        &Words::ERASURE,
        |access| erasure::read(access, id),
        |(found, receipt), _| reply::json(&with_receipt(found, receipt.as_ref())),
    )
}

/// Erasures as JSON.
pub fn list_document(found: &[Erasure]) -> Value {
    json!({ "erasures": found.iter().map(document).collect::<Vec<_>>() })
}

/// One erasure as JSON.
fn document(erasure: &Erasure) -> Value {
    json!({
        "id": format_uuid(&erasure.id),
        "holder": holder_word(erasure),
        "stage": stage_word(erasure),
        "asked_at": erasure.asked_at.to_string(),
        "destroyed_at": erasure.destroyed_at.map(|at| at.to_string()),
        "done_at": erasure.shredded_at.map(|at| at.to_string()),
        "memories": erasure.memories,
    })
}

fn with_receipt(erasure: &Erasure, receipt: Option<&(ErasureReceipt, String)>) -> Value {
    let mut found = document(erasure);
    if let Some((receipt, note)) = receipt {
        found["backups"] = held_document(&receipt.backups);
        found["receipt"] = json!(note);
    }
    found
}

/// Backups that still hold what was erased, as JSON.
pub fn held_document(backups: &[HeldBackup]) -> Value {
    let backup = |backup: &HeldBackup| {
        json!({
            "id": backup.id.to_string(),
            "begun_at": backup.begun_at.to_string(),
            "expires_at": backup.expires_at.map(|at| at.to_string()),
            "own_key": backup.own_key,
        })
    };
    backups.iter().map(backup).collect()
}

/// Who was erased, in a word.
pub fn holder_word(erasure: &Erasure) -> &'static str {
    if erasure.user { "user" } else { "subject" }
}

/// How far an erasure has come, in a word: `done` when there is a receipt.
pub fn stage_word(erasure: &Erasure) -> &'static str {
    match (erasure.stage, erasure.entries) {
        (Stage::Asked, _) => "asked",
        (_, Some(_)) => "done",
        (Stage::Destroyed | Stage::Shredded, None) => "destroyed",
    }
}
