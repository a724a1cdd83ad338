//! How the instance stands, in one document: for `rosemary status`, for a monitor, for who administrates it.
//!
//! Invariant: the same document whether the service is asked over HTTP, at its console, or the file is looked at while it is stopped; what
//! asks for a person's attention is in `problems`, in words.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::reply::{self, Answered, Words};
use crate::api::run::Cx;
use crate::base::time::Timestamp;
use crate::base::{hex, limits};
use crate::engine::Space;
use crate::http::{Connections, TlsIdentity};
use crate::policy::action::{Instance, ReadStatus};
use crate::store::gate::Failed;
use crate::store::kept;
use crate::store::rotator::Doing;
use crate::store::status::{self, Condition};
use crate::store::vault::{WRONG_CLOCK, is_plausible};

/// What is around the store.
#[derive(Default)]
pub struct Surroundings {
    /// The data file.
    pub db_path: PathBuf,
    /// When the service was started; none: it is not.
    pub since: Option<Instant>,
    /// Its certificate.
    pub certificate: Option<Arc<TlsIdentity>>,
    /// Its connections, once it listens.
    pub connections: OnceLock<Connections>,
    /// The most of them.
    pub connections_max: u32,
    /// Whether backups go somewhere.
    pub backups: bool,
    /// Between two of them.
    pub backup_every: Option<Duration>,
    /// Between two restore drills.
    pub drill_every: Option<Duration>,
    /// Whether the kernel locks the service in.
    pub egress_lock: bool,
    /// Whether memory is kept out of swap by the program itself.
    pub memory_locked: bool,
    /// The most that search indexes take.
    pub index_bytes_max: u64,
}

/// `GET /api/v1/status`
pub fn read(cx: &mut Cx<'_>) -> Answered {
    let (around, now) = (Arc::clone(&cx.api.surroundings), cx.api.vault.clock().now());
    cx.read::<ReadStatus, _, Failed>(
        Instance,
        &Words::ADMIN,
        |access| Ok(status::read(access)?),
        move |found, _| reply::json(&document(found, &around, now)),
    )
}

/// The document.
pub fn document(found: &Condition, around: &Surroundings, now: Timestamp) -> Value {
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let free = free_bytes(&around.db_path);
    let ends = around.certificate.as_ref().and_then(|identity| identity.not_after());
    // Null where nothing is scheduled, or where it is due at once.
    let next = |last: Option<Timestamp>, every: Option<Duration>| Some(last?.plus(every.filter(|_| around.backups)?).to_string());
    let last = found.last_backup.as_ref();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "state": if around.since.is_some() { "answering" } else { "stopped" },
        "at": now.to_string(),
        "uptime_seconds": around.since.map(|since| since.elapsed().as_secs()),
        "instance": found.instance.to_string(),
        "tenant": found.tenant.to_string(),
        "log": { "id": found.checkpoint.log.to_string(), "entries": found.checkpoint.size, "root": hex::encode(&found.checkpoint.root) },
        "anchor": found.anchor.as_ref().map(|anchor| json!({ "written_at": time(anchor.at), "entries_behind": anchor.behind })),
        "space": {
            "file_bytes": found.bytes,
            "free_bytes": free,
            "writes": found.space == Space::Ample,
            "reads": found.space != Space::NoReads,
        },
        "frozen_at": time(found.frozen),
        "backup": {
            "configured": around.backups,
            "kept": found.backups,
            "running": found.backing_up,
            "last": last.map(|(id, row)| json!({ "id": id.to_string(), "begun_at": row.begun_at.to_string(), "bytes": row.bytes })),
            "next_due_at": next(last.map(|(_, row)| row.begun_at), around.backup_every),
        },
        "drill": {
            "last": found.drill.map(|drill| json!({
                "at": drill.at.to_string(), "passed": drill.passed, "restore_ms": drill.restore_ms, "memories": drill.memories,
            })),
            "restore_ms_max": u64::try_from(limits::RESTORE_TIME_MAX.as_millis()).unwrap_or(u64::MAX),
            "next_due_at": next(found.drill.map(|drill| drill.at), around.drill_every),
        },
        "keys": { "epoch": found.epoch.0, "leaving": found.epoch.1, "doing": found.rotation.doing.text(), "done": found.rotation.done },
        "erasures": { "asked": found.erasures[0], "running": found.erasures[1], "done": found.erasures[2] },
        "index": { "bytes": found.index_bytes, "bytes_max": around.index_bytes_max },
        "connections": { "open": around.connections.get().map(Connections::count), "max": around.connections_max },
        "certificate_ends_at": time(ends),
        "locked_in": around.since.is_some() && around.egress_lock,
        "memory_locked": around.memory_locked,
        "problems": problems(found, around, free, ends, now),
    })
}

/// The document of a service that waits for its key.
pub fn locked() -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "state": "locked",
        "problems": ["the data file is locked: nothing is answered until somebody runs rosemary unlock"],
    })
}

fn free_bytes(db_path: &Path) -> Option<u64> {
    let folder = db_path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    rustix::fs::statvfs(folder).ok().map(|about| about.f_bavail.saturating_mul(about.f_frsize))
}

fn problems(found: &Condition, around: &Surroundings, free: Option<u64>, ends: Option<Timestamp>, now: Timestamp) -> Vec<String> {
    let mut told = Vec::new();
    if around.since.is_none() {
        told.push("the service is stopped".to_owned());
    }
    let tight = free.is_some_and(|free| free < limits::RESERVE_WRITE_BYTES);
    match found.space {
        Space::Ample if tight && around.since.is_none() => told.push("the disk is nearly full: writes will be refused".to_owned()),
        Space::Ample => {}
        Space::NoWrites => told.push("the disk is nearly full: writes are refused".to_owned()),
        Space::NoReads => told.push("the disk is full: reads and writes are refused".to_owned()),
    }
    if !is_plausible(now, found.written) {
        told.push(WRONG_CLOCK.to_owned());
    }
    if let Some(since) = found.frozen {
        told.push(format!("frozen since {since}: records are read-only until somebody runs rosemary incident thaw"));
    }
    let late = |at: Timestamp, by: Duration| at.plus(by) < now;
    match &found.anchor {
        Some(anchor) if anchor.at.is_none() => told.push("the anchor cannot be read, or is another log's".to_owned()),
        Some(anchor) if anchor.behind > 0 && anchor.at.is_some_and(|at| late(at, limits::ANCHOR_LATE)) => {
            told.push(format!("the anchor is {} entries behind and is not being written", anchor.behind));
        }
        _ => {}
    }
    if let (true, Some(every)) = (around.backups, around.backup_every) {
        match &found.last_backup {
            None if around.since.is_none_or(|since| since.elapsed() > limits::UPKEEP_RETRY) => {
                told.push("there is no backup yet".to_owned())
            }
            Some((_, row)) if late(row.begun_at, every + limits::UPKEEP_RETRY * 2) => {
                told.push(format!("the last backup is of {}, and one is due every {} hours", row.begun_at, every.as_secs() / 3600));
            }
            _ => {}
        }
    }
    if let (Some(renewed), Some((_, last))) = (found.renewed, &found.last_backup)
        && last.begun_at < renewed
    {
        told.push(format!(
            "every backup is older than the new keys of {renewed} and holds the keys of before: make one (rosemary backup make)"
        ));
    }
    match &found.drill {
        Some(drill) if !drill.passed => told.push(format!("the restore drill of {} FAILED", drill.at)),
        Some(drill) if around.drill_every.is_some_and(|every| late(drill.at, every + limits::DRILL_RETRY)) => {
            told.push(format!("the last restore drill is of {}", drill.at));
        }
        _ => {}
    }
    for name in kept::half_wiped(&around.db_path).unwrap_or_default() {
        told.push(format!(
            "{} was to be wiped, and is still there: start the service anew, or run rosemary keys rotate all again",
            name.display()
        ));
    }
    if found.rotation.doing == Doing::Waiting {
        told.push("an erasure or rotation of keys met an error and is tried again; the log of the service says which".to_owned());
    }
    if ends.is_some_and(|ends| ends <= now.plus(limits::CERTIFICATE_TIME_MIN)) {
        told.push(format!("the certificate ends {}", ends.unwrap_or(now)));
    }
    told
}
