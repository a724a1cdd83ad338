//! Backups: seen, and asked for, by who administrates the instance.

use serde_json::{Value, json};

use crate::api::reply::{self, Answered, Words};
use crate::api::run::Cx;
use crate::policy::action::{AskBackup, Instance, ListBackups};
use crate::store::backup::{self, Backups};

/// `GET /api/v1/backups`
pub fn list(cx: &mut Cx<'_>) -> Answered {
    cx.read::<ListBackups, _, _>(Instance, &Words::BACKUP, backup::list, |found, _| reply::json(&document(found)))
}

/// `POST /api/v1/backups`
pub fn ask(cx: &mut Cx<'_>) -> Answered {
    cx.write::<AskBackup, _, _>(Instance, &Words::BACKUP, backup::ask, |(), _| reply::json(&json!({ "requested": true })))
}

/// What is known of backups, as JSON.
pub fn document(found: &Backups) -> Value {
    let backups: Vec<Value> = found
        .all
        .iter()
        .map(|(id, row)| {
            json!({
                "id": id.to_string(),
                "state": row.state.name(),
                "begun_at": row.begun_at.to_string(),
                "ended_at": row.ended_at.map(|at| at.to_string()),
                "expires_at": row.expires_at.map(|at| at.to_string()),
                "log": row.log.to_string(),
                "entries": row.size,
                "bytes": row.bytes,
                "own_key": row.own_key,
            })
        })
        .collect();
    let drill = found.drill.map(|drill| {
        json!({
            "at": drill.at.to_string(),
            "backup": drill.backup.to_string(),
            "passed": drill.passed,
            "restore_ms": drill.restore_ms,
            "memories": drill.memories,
            "entries": drill.entries,
        })
    });
    let mut all = json!({ "backups": backups });
    if let Some(drill) = drill {
        all["last_drill"] = drill;
    }
    all
}
