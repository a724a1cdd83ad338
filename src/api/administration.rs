//! What answers to administrators hold: components of the OpenAPI document, as those of `answers`.

use crate::api::answers::{Members, Shape, TRUE, answer, flag, id, list_of, maybe_time, number, reference, text, texts, time, word};

/// What every answer says of an erasure.
const ERASURE: [(&str, Shape); 7] = [
    ("id", id()),
    ("holder", word(&["user", "subject"])),
    ("stage", word(&["asked", "destroyed", "done"])),
    ("asked_at", time()),
    ("destroyed_at", maybe_time()),
    ("done_at", maybe_time()),
    ("memories", number()),
];

/// How the instance stands.
const STATUS: Shape = answer(
    &[
        ("version", text("0.1.0")),
        ("state", word(&["answering", "stopped", "locked"])),
        ("at", time()),
        ("uptime_seconds", Shape::Maybe(&number())),
        ("instance", id()),
        ("tenant", id()),
        ("log", answer(&[("id", id()), ("entries", number()), ("root", text("5f2c…"))], &[])),
        ("anchor", Shape::Maybe(&answer(&[("written_at", maybe_time()), ("entries_behind", number())], &[]))),
        ("space", answer(&[("file_bytes", number()), ("free_bytes", Shape::Maybe(&number())), ("writes", flag()), ("reads", flag())], &[])),
        ("frozen_at", maybe_time()),
        (
            "backup",
            answer(
                &[
                    ("configured", flag()),
                    ("kept", number()),
                    ("running", flag()),
                    ("last", Shape::Maybe(&answer(&[("id", id()), ("begun_at", time()), ("bytes", number())], &[]))),
                    ("next_due_at", maybe_time()),
                ],
                &[],
            ),
        ),
        (
            "drill",
            answer(
                &[
                    (
                        "last",
                        Shape::Maybe(&answer(&[("at", time()), ("passed", flag()), ("restore_ms", number()), ("memories", number())], &[])),
                    ),
                    ("restore_ms_max", number()),
                    ("next_due_at", maybe_time()),
                ],
                &[],
            ),
        ),
        ("keys", answer(&[("epoch", number()), ("leaving", Shape::Maybe(&number())), ("doing", text("idle")), ("done", number())], &[])),
        ("erasures", answer(&[("asked", number()), ("running", number()), ("done", number())], &[])),
        ("index", answer(&[("bytes", number()), ("bytes_max", number())], &[])),
        ("connections", answer(&[("open", Shape::Maybe(&number())), ("max", number())], &[])),
        ("certificate_ends_at", maybe_time()),
        ("locked_in", flag()),
        ("memory_locked", flag()),
        ("problems", texts("the last backup is of 2026-11-21T02:00:00.000Z, and one is due every 24 hours")),
    ],
    &[],
);

/// The components, by name.
pub(in crate::api) const COMPONENTS: Members = &[
    ("Backups", answer(&[("backups", list_of("Backup"))], &[("last_drill", reference("Drill"))])),
    (
        "Backup",
        answer(
            &[
                ("id", id()),
                ("state", word(&["begun", "done", "failed", "removed", "apart"])),
                ("begun_at", time()),
                ("ended_at", maybe_time()),
                ("expires_at", maybe_time()),
                ("log", id()),
                ("entries", number()),
                ("bytes", number()),
                ("own_key", flag()),
            ],
            &[],
        ),
    ),
    (
        "Drill",
        answer(
            &[
                ("at", time()),
                ("backup", id()),
                ("passed", flag()),
                ("restore_ms", number()),
                ("memories", number()),
                ("entries", number()),
            ],
            &[],
        ),
    ),
    ("Status", STATUS),
    ("Erasures", answer(&[("erasures", list_of("Erasure"))], &[])),
    ("Erasure", answer(&ERASURE, &[])),
    (
        "ErasureWithReceipt",
        answer(
            &ERASURE,
            &[
                ("backups", list_of("HeldBackup")),
                ("receipt", text("rosemary-erasure-receipt-v1\n{\"asked_at\":\"…\"}\n\n\u{2014} rosemary/… …\n")),
            ],
        ),
    ),
    ("HeldBackup", answer(&[("id", id()), ("begun_at", time()), ("expires_at", maybe_time()), ("own_key", flag())], &[])),
    ("BackupAsked", answer(&[("requested", TRUE)], &[])),
];
