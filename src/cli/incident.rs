//! `rosemary incident`: what to do when a key, a machine or a person is not to be trusted any more. By the running service if there is one.
//!
//! Promise: each step is in the audit log before its success is told, and can be taken again.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::authn::Principal;
use crate::base::durable;
use crate::base::time::Timestamp;
use crate::cli::console::Line;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{args, keys, open, say, serve, text};
use crate::config::Config;
use crate::policy::action::{FreezeInstance, Instance, ReportIncident, RevokeAll};
use crate::store::gate::{Call, Refused};
use crate::store::incident::{self, Refusal, Report};
use crate::store::vault::Vault;

/// The command.
pub fn run(command: &args::Incident, mut config: Config) -> Result<Exit, Failure> {
    serve::harden();
    let (ask, with) = match command {
        args::Incident::RevokeAll => ("incident.revoke_all", Value::Null),
        args::Incident::Freeze => ("incident.freeze", Value::Null),
        args::Incident::Thaw => ("incident.thaw", Value::Null),
        args::Incident::Rotate => ("incident.rotate", Value::Null),
        args::Incident::Report { hours, .. } => ("incident.report", json!({ "hours": hours })),
    };
    let done = match Line::dial(&config)? {
        Some(line) => line.ask(ask, with, &mut say)?,
        None => {
            let store = open::store(&mut config)?;
            let done = answer(store.vault(), &config.db_path, ask, &with, &|| false, &mut say);
            store.stop();
            done?
        }
    };
    match command {
        args::Incident::Report { file, .. } => written(file, done["report"].as_str().unwrap_or_default()),
        _ => {
            done["told"].as_array().into_iter().flatten().filter_map(Value::as_str).for_each(say);
            Ok(Exit::Ok)
        }
    }
}

fn written(file: &Path, report: &str) -> Result<Exit, Failure> {
    if file == Path::new("-") {
        return text::print(report.as_bytes());
    }
    durable::create(file, report.as_bytes(), 0o600).map_err(|error| Failure::io(file, &error))?;
    say(&format!("{}: written; it holds times, counts, ids and hashes, and nothing of any record", file.display()));
    Ok(Exit::Ok)
}

fn refused(doing: &str, why: Refused<Refusal>) -> Failure {
    match why {
        Refused::Work(error @ (Refusal::Frozen | Refusal::NotFrozen), _) => Failure::new(Exit::Usage, error),
        why => open::refused(doing, &why),
    }
}

/// Does one step.
///
/// Errors: it was not done; or `Usage`, where the question is not one of an incident.
pub fn answer(
    vault: &Vault,
    path: &Path,
    ask: &str,
    with: &Value,
    stop: &dyn Fn() -> bool,
    say: &mut dyn FnMut(&str),
) -> Result<Value, Failure> {
    let console = Principal::system(vault.tenant(), vault.owner(), "console");
    let told = |lines: &[String]| Ok(json!({ "told": lines }));
    match ask {
        "incident.revoke_all" => {
            let done = vault.write::<RevokeAll, _, Refusal>(&console, Instance, &Call::internal(), incident::revoke_all);
            let ((stored, settings), receipt) = done.map_err(|why| refused("nothing was revoked", why))?.into_parts();
            told(&[
                format!(
                    "{stored} stored credentials and {settings} keys of the settings are dead; entry {} of the audit log says so",
                    receipt.index()
                ),
                "new keys: rosemary key make; in the settings: set other values, the old ones stay refused".to_owned(),
            ])
        }
        "incident.freeze" => {
            let done = vault.write::<FreezeInstance, _, Refusal>(&console, Instance, &Call::internal(), incident::freeze);
            let (size, receipt) = done.map_err(|why| refused("the instance was not frozen", why))?.into_parts();
            told(&[format!(
                "records are read-only until `rosemary incident thaw`; the checkpoint of {size} entries is kept, entry {} says so",
                receipt.index()
            )])
        }
        "incident.thaw" => {
            let done = vault.write::<FreezeInstance, _, Refusal>(&console, Instance, &Call::internal(), incident::thaw);
            let receipt = done.map_err(|why| refused("the instance was not thawed", why))?.into_parts().1;
            told(&[format!("records can be written again; entry {} of the audit log says so", receipt.index())])
        }
        "incident.rotate" => {
            let epoch = keys::rotate_deks(vault, path, stop, say)?;
            told(&[
                format!("every holder has a new key, under epoch {epoch}; the old ones are destroyed"),
                "whoever has a copy of the data file and a key that opens it still reads that copy. For what is written from now on: stop the service, \
                 then `rosemary keys rotate all --key-file NEW --make`: a new file under new keys of every kind"
                    .to_owned(),
            ])
        }
        "incident.report" => {
            let hours = with["hours"].as_u64().unwrap_or(72).min(24 * 366);
            let since = vault.clock().now().minus(Duration::from_secs(hours * 3600));
            let done = vault.read::<ReportIncident, _, Refusal>(&console, Instance, &Call::internal(), move |a| incident::report(a, since));
            let report = done.map_err(|why| refused("no report was made", why))?.into_parts().0;
            Ok(json!({ "report": page(&report) }))
        }
        _ => Err(Failure::new(Exit::Usage, format_args!("{ask}: this version of the service does not know this; update both"))),
    }
}

/// The report as a page for the officer.
fn page(report: &Report) -> String {
    let time = |at: Option<Timestamp>| at.map_or("never".to_owned(), |at| at.to_string());
    let incident = &report.incident;
    let mut page = format!(
        "# Incident report\n\n\
         Made {} by Rosemary {}. Times are UTC. Nothing here is protected health information: times, counts, ids and hashes alone.\n\n\
         ## What it is about\n\
         instance   {}\nfile       {}\nlog        {}\nlog key    {}\n\n\
         ## What was done\n\
         all credentials revoked   {} ({} stored ones; {} keys of the settings are refused)\n\
         records read-only since   {}\n\
         last thawed               {}\n\
         epoch of keys             {}\n\
         people                    {}, with {} credentials that are taken now\n\n",
        report.at,
        env!("CARGO_PKG_VERSION"),
        report.instance,
        report.file,
        report.log,
        report.vkey,
        time(incident.revoked_at),
        incident.revoked,
        incident.settings.len(),
        incident
            .frozen_at
            .map_or("not frozen".to_owned(), |at| format!("{at}, with the checkpoint of {} entries kept", incident.frozen_size)),
        time(incident.thawed_at),
        report.epoch,
        report.people,
        report.live,
    );
    page += "## Backups that open with keys of before\nWhoever holds the key that opens one reads what it held. Ids, times and epochs of keys:\n";
    if report.backups.is_empty() {
        page += "none is known\n";
    }
    for (id, backup) in &report.backups {
        let key = if backup.own_key { "a backup key" } else { "the data file's keys of that time" };
        let _ = writeln!(page, "{id}  {}  epochs {} to {}  opened by {key}", backup.begun_at, backup.epochs.0, backup.epochs.1);
    }
    let (first, end) = report.entries;
    let _ = write!(
        page,
        "\n## What happened since {}\nEntries {first} to {} of the log, by operation: entries, of these refused, about health records, records touched.\n\n",
        report.since,
        end.saturating_sub(1)
    );
    for (operation, tally) in &report.operations {
        let _ = writeln!(page, "{operation:<24} {:>10} {:>10} {:>10} {:>12}", tally.entries, tally.refused, tally.phi, tally.records);
    }
    let _ = write!(
        page,
        "\nWho did what to which record: rosemary audit export; checked anywhere with the log key above.\n\n\
         ## The log at this moment, signed\n{}",
        report.checkpoint
    );
    page
}
