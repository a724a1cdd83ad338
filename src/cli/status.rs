//! `rosemary status`: how the instance stands, asked of the running service at its console, or read from the file while none runs.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::ops::status::{self, Surroundings};
use crate::base::time::Clock;
use crate::cli::console::Line;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{args, open, serve, text};
use crate::config::Config;
use crate::engine::{Engine, EngineError};
use crate::store::status::of;

/// The command: exit code 1 where something asks for attention.
pub fn run(command: &args::Status, config: &Config) -> Result<Exit, Failure> {
    serve::harden();
    let found = match Line::dial(config)? {
        Some(line) => online(line, config)?,
        None => stopped(config)?,
    };
    text::print(if command.json { format!("{found}\n") } else { shown(&found) }.as_bytes())?;
    Ok(if found["problems"].as_array().is_some_and(Vec::is_empty) { Exit::Ok } else { Exit::Found })
}

fn online(line: Line, config: &Config) -> Result<Value, Failure> {
    match line.ask("state", Value::Null, &mut |_| {})?["state"].as_str() {
        Some("locked") => Ok(status::locked()),
        _ => match Line::dial(config)? {
            Some(line) => line.ask("status", Value::Null, &mut |_| {}),
            None => stopped(config),
        },
    }
}

/// From the file, which nobody has open; nothing is written.
fn stopped(config: &Config) -> Result<Value, Failure> {
    let path = &config.db_path;
    let engine = Engine::inspect(path, &open::options(config), &open::kek(config)?).map_err(|error| match error {
        error @ EngineError::Locked(_) => {
            let failure = open::engine_failure(path, error);
            Failure::new(
                failure.exit,
                format_args!("{}; its console does not answer (RM_CONSOLE_SOCKET), ask GET /api/v1/status", failure.message),
            )
        }
        error => open::engine_failure(path, error),
    })?;
    let clock = Clock::system();
    let found = of(&engine, config.anchor_file.as_deref(), &clock).map_err(|error| open::store_failure(path, error))?;
    Ok(status::document(&found, &around(config, false), clock.now()))
}

/// What is around the store by these settings, before anything is started.
pub fn around(config: &Config, memory_locked: bool) -> Surroundings {
    let hours = |hours: u32| (hours > 0).then(|| std::time::Duration::from_secs(u64::from(hours) * 3600));
    Surroundings {
        db_path: config.db_path.clone(),
        certificate: open::tls(config).ok(),
        connections_max: config.max_connections,
        backups: config.backup_dir.is_some(),
        backup_every: hours(config.backup_every_hours),
        drill_every: hours(config.backup_drill_days.saturating_mul(24)),
        egress_lock: config.egress_lock,
        memory_locked,
        index_bytes_max: u64::from(config.index_mib) << 20,
        ..Surroundings::default()
    }
}

/// The document for a person.
fn shown(found: &Value) -> String {
    let word = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    };
    let mut out = String::new();
    let mut line = |name: &str, what: String| out += &format!("{name:<12} {what}\n");
    line("state", word(&found["state"]));
    line("version", word(&found["version"]));
    if found["state"] != "locked" {
        let mib = |value: &Value| value.as_u64().map_or("-".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
        if let Some(seconds) = found["uptime_seconds"].as_u64() {
            line(
                "up since",
                format!("{} days {:02}:{:02}:{:02} ago", seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60),
            );
        }
        line("log", format!("{} entries, {}", word(&found["log"]["entries"]), word(&found["log"]["id"])));
        let anchor = &found["anchor"];
        line(
            "anchor",
            match anchor.is_null() {
                true => "not configured".to_owned(),
                false => format!("written {}, {} entries behind", word(&anchor["written_at"]), word(&anchor["entries_behind"])),
            },
        );
        line("space", format!("file {}, free {}", mib(&found["space"]["file_bytes"]), mib(&found["space"]["free_bytes"])));
        line(
            "frozen",
            if found["frozen_at"].is_null() {
                "no".to_owned()
            } else {
                format!("since {}: records are read-only", word(&found["frozen_at"]))
            },
        );
        let backup = &found["backup"];
        line(
            "backup",
            match (backup["configured"].as_bool(), &backup["last"]) {
                (Some(false), Value::Null) => "not configured".to_owned(),
                (_, Value::Null) => "none yet".to_owned(),
                (_, last) => {
                    format!("last {}, {} kept, next due {}", word(&last["begun_at"]), word(&backup["kept"]), word(&backup["next_due_at"]))
                }
            },
        );
        let drill = &found["drill"];
        line(
            "drill",
            match &drill["last"] {
                Value::Null => "none yet".to_owned(),
                last => format!(
                    "{} {}: restored in {} s of {} h that are promised",
                    if last["passed"] == json!(true) { "passed" } else { "FAILED" },
                    word(&last["at"]),
                    last["restore_ms"].as_u64().unwrap_or(0).div_ceil(1000),
                    drill["restore_ms_max"].as_u64().unwrap_or(0) / 3_600_000
                ),
            },
        );
        let keys = &found["keys"];
        line("keys", format!("epoch {}, {}", word(&keys["epoch"]), word(&keys["doing"])));
        let erasures = &found["erasures"];
        line(
            "erasures",
            format!("{} asked, {} running, {} done", word(&erasures["asked"]), word(&erasures["running"]), word(&erasures["done"])),
        );
        line("index", format!("{} of {}", mib(&found["index"]["bytes"]), mib(&found["index"]["bytes_max"])));
        line("connections", format!("{} of {}", word(&found["connections"]["open"]), word(&found["connections"]["max"])));
        line("certificate", format!("until {}", word(&found["certificate_ends_at"])));
        line("locked in", format!("{}, memory locked {}", word(&found["locked_in"]), word(&found["memory_locked"])));
    }
    for problem in found["problems"].as_array().into_iter().flatten() {
        line("PROBLEM", word(problem));
    }
    out
}

/// The document of the running service, for its console.
pub fn running(vault: &crate::store::Vault, around: &Arc<Surroundings>) -> Result<Value, Failure> {
    use crate::authn::Principal;
    use crate::identity::Refusal;
    use crate::policy::action::{Instance, ReadStatus};
    use crate::store::gate::Call;
    let who = Principal::system(vault.tenant(), vault.owner(), "console");
    let found = vault.read::<ReadStatus, _, Refusal>(&who, Instance, &Call::internal(), |access| Ok(crate::store::status::read(access)?));
    let found = found.map_err(|refused| open::refused("the status", &refused))?.into_parts().0;
    Ok(status::document(&found, around, vault.clock().now()))
}
