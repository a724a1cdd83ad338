//! What answers to administrators hold: components of the OpenAPI document, as those of `answers`.

use serde_json::{Value, json};

use crate::api::answers::{answer, flag, id, list_of, maybe_time, number, reference, text, texts, time, word};

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

/// How the instance stands.
fn status() -> Value {
    let maybe = |mut schema: Value| {
        schema["type"] = json!([schema["type"], "null"]);
        schema
    };
    answer(
        [
            ("version", text("0.1.0")),
            ("state", word(&["answering", "stopped", "locked"])),
            ("at", time()),
            ("uptime_seconds", maybe(number())),
            ("instance", id()),
            ("tenant", id()),
            ("log", answer([("id", id()), ("entries", number()), ("root", text("5f2c…"))], [])),
            ("anchor", maybe(answer([("written_at", maybe_time()), ("entries_behind", number())], []))),
            ("space", answer([("file_bytes", number()), ("free_bytes", maybe(number())), ("writes", flag()), ("reads", flag())], [])),
            ("frozen_at", maybe_time()),
            (
                "backup",
                answer(
                    [
                        ("configured", flag()),
                        ("kept", number()),
                        ("running", flag()),
                        ("last", maybe(answer([("id", id()), ("begun_at", time()), ("bytes", number())], []))),
                        ("next_due_at", maybe_time()),
                    ],
                    [],
                ),
            ),
            (
                "drill",
                answer(
                    [
                        ("last", maybe(answer([("at", time()), ("passed", flag()), ("restore_ms", number()), ("memories", number())], []))),
                        ("restore_ms_max", number()),
                        ("next_due_at", maybe_time()),
                    ],
                    [],
                ),
            ),
            ("keys", answer([("epoch", number()), ("leaving", maybe(number())), ("doing", text("idle")), ("done", number())], [])),
            ("erasures", answer([("asked", number()), ("running", number()), ("done", number())], [])),
            ("index", answer([("bytes", number()), ("bytes_max", number())], [])),
            ("connections", answer([("open", maybe(number())), ("max", number())], [])),
            ("certificate_ends_at", maybe_time()),
            ("locked_in", flag()),
            ("memory_locked", flag()),
            ("problems", texts("the last backup is of 2026-11-21T02:00:00.000Z, and one is due every 24 hours")),
        ],
        [],
    )
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
        ("Status", status()),
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
