//! What answers to administrators hold: components of the OpenAPI document, as those of `answers`.

use serde_json::{Value, json};

use crate::api::answers::{answer, flag, id, list_of, maybe_time, number, reference, text, time, word};

/// What every answer says of an erasure.
fn erasure() -> [(&'static str, Value); 7] {
    [
        ("id", id()),
        ("holder", word(&["user", "subject"])),
        ("stage", word(&["asked", "destroyed", "done"])),
        ("asked_at", time()),
        ("destroyed_at", maybe_time()),
        ("done_at", maybe_time()),
        ("memories", number()),
    ]
}

/// The components, by name.
pub fn components() -> Vec<(&'static str, Value)> {
    vec![
        ("Backups", answer([("backups", list_of("Backup"))], [("last_drill", reference("Drill"))])),
        ("Backup", answer(
            [
                ("id", id()),
                ("state", word(&["begun", "done", "failed", "removed"])),
                ("begun_at", time()),
                ("ended_at", maybe_time()),
                ("expires_at", maybe_time()),
                ("log", id()),
                ("entries", number()),
                ("bytes", number()),
                ("own_key", flag()),
            ],
            [],
        )),
        ("Drill", answer(
            [("at", time()), ("backup", id()), ("passed", flag()), ("restore_ms", number()), ("memories", number()), ("entries", number())],
            [],
        )),
        ("Erasures", answer([("erasures", list_of("Erasure"))], [])),
        ("Erasure", answer(erasure(), [])),
        ("ErasureWithReceipt", answer(
            erasure(),
            [
                ("backups", list_of("HeldBackup")),
                ("receipt", text("rosemary-erasure-receipt-v1\n{\"asked_at\":\"…\"}\n\n\u{2014} rosemary/… …\n")),
            ],
        )),
        ("HeldBackup", answer([("id", id()), ("begun_at", time()), ("expires_at", maybe_time()), ("own_key", flag())], [])),
        ("BackupAsked", answer([("requested", json!({ "const": true }))], [])),
    ]
}
