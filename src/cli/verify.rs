//! `rosemary verify`: the whole data file, or an exported log, checked; nothing is changed.
//!
//! - The data file: every superblock copy, page slot and block; redb's checksum walk; then rows, indexes and the audit log
//!   (`store::check`); then the anchor. All of it runs over an overlay, under the file's lock.
//! - An exported log: against the public key alone, on any machine, without settings.
//!
//! Exit code 0: sound. 1: something is wrong, and the report names it. A file that does not open at all has the code that `serve` gives it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use serde_json::json;

use crate::api::schema::with_members;
use crate::audit::note::Vkey;
use crate::audit::verify::Verifier;
use crate::base::time::Clock;
use crate::base::{hex, limits};
use crate::cli::exit::{Exit, Failure};
use crate::cli::progress::Progress;
use crate::cli::{args, open, serve, text};
use crate::config::Config;
use crate::crypto::unlock::Kek;
use crate::engine::{Engine, Report};
use crate::store::anchor;
use crate::store::check::{self, Findings};
use crate::store::vault;

/// The command. `settings` are read only where the data file is checked.
pub fn run(command: &args::Verify, settings: impl FnOnce() -> Result<Config, Failure>) -> Result<Exit, Failure> {
    serve::harden();
    let verdict = match (&command.log, &command.key) {
        (Some(log), Some(key)) => exported(log, key)?,
        _ => data_file(&settings()?)?,
    };
    told(&verdict, command.json)
}

/// Checks the backup at `path`, which `kek` opens; `copied`: it does not say that it is one.
pub fn backup(path: &Path, kek: &Kek, config: &Config, json: bool, copied: bool) -> Result<Exit, Failure> {
    let mut verdict = stored(path, kek, config, None)?;
    if copied {
        verdict
            .remarks
            .push("a copy of a data file, not a backup: as of when is not known; `rosemary restore` takes it all the same".into());
    }
    told(&verdict, json)
}

fn told(verdict: &Verdict, json: bool) -> Result<Exit, Failure> {
    let exit = if verdict.wrong.is_empty() { Exit::Ok } else { Exit::Found };
    text::print(if json { verdict.json() } else { verdict.text() }.as_bytes())?;
    Ok(exit)
}

/// What is told at the end.
#[derive(Default)]
struct Verdict {
    facts: Vec<(&'static str, String)>,
    /// Amiss, but no row is touched by it.
    remarks: Vec<String>,
    wrong: Vec<String>,
    /// Findings beyond those listed.
    more: u64,
}

impl Verdict {
    fn fact(&mut self, name: &'static str, value: impl ToString) {
        self.facts.push((name, value.to_string()));
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for (name, value) in &self.facts {
            out += &format!("{name:<12} {value}\n");
        }
        for remark in &self.remarks {
            out += &format!("note         {remark}\n");
        }
        for wrong in &self.wrong {
            out += &format!("WRONG        {wrong}\n");
        }
        if self.more > 0 {
            out += &format!("WRONG        and {} more\n", self.more);
        }
        out + if self.wrong.is_empty() { "sound\n" } else { "NOT SOUND: keep the file as it is, as evidence, before anything is mended\n" }
    }

    fn json(&self) -> String {
        let facts = with_members(self.facts.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
        let all = json!({ "sound": self.wrong.is_empty(), "facts": facts, "notes": self.remarks, "wrong": self.wrong, "more": self.more });
        format!("{all}\n")
    }
}

fn data_file(config: &Config) -> Result<Verdict, Failure> {
    let mut verdict = stored(&config.db_path, &open::kek(config)?, config, config.anchor_file.as_deref())?;
    if config.anchor_file.is_none() {
        verdict
            .remarks
            .push("no anchor is set (RM_ANCHOR_FILE): that the whole file was rolled back to an older state would not be seen".into());
    }
    Ok(verdict)
}

fn stored(path: &Path, kek: &Kek, config: &Config, anchored: Option<&Path>) -> Result<Verdict, Failure> {
    let failure = |error| open::engine_failure(path, error);
    let mut verdict = Verdict::default();
    verdict.fact("file", path.display());
    let mut progress = Progress::new("checking blocks", 0);
    progress.at(0);
    let (report, engine) = Engine::check(path, &open::options(config), kek).map_err(failure)?;
    drop(progress);
    blocks(&mut verdict, &report);
    // Without its tree the tables cannot be read.
    let Some(engine) = engine else { return Ok(verdict) };
    let snapshot = engine.snapshot().map_err(failure)?;
    let mut progress = Progress::new("checking rows", 0);
    let mut before = ("", 0, 0);
    let found = check::check(&snapshot, engine.keys(), engine.instance(), Clock::system().now(), &mut |table, done| {
        let (_, earlier, last) = before;
        before = if table == before.0 { (table, earlier, done) } else { (table, earlier + last, done) };
        progress.at(before.1 + before.2);
    });
    drop(progress);
    match found {
        Ok(found) => {
            rows(&mut verdict, &found);
            if let Err(error) = vault::check_superblock(&engine, &snapshot) {
                verdict.wrong.push(format!("superblock: {error}"));
            }
            if let (Some(path), Some(end)) = (anchored, found.checkpoint) {
                match anchor::check(path, &engine, &snapshot, end.log, end.size) {
                    Ok(()) => verdict.fact("anchor", format_args!("{}: agrees", path.display())),
                    Err(error) => verdict.wrong.push(format!("anchor: {error}")),
                }
            }
            if found.checkpoint.is_some() {
                verdict.fact("log key", check::log_key(&engine).map_err(|error| open::store_failure(path, error.into()))?);
            }
        }
        Err(error) => verdict.wrong.push(format!("rows: {error}")),
    }
    Ok(verdict)
}

fn blocks(verdict: &mut Verdict, report: &Report) {
    verdict.fact("blocks", format_args!("{} open, {} never written, {} damaged", report.blocks, report.blank, report.damaged));
    if let Err(error) = &report.tree {
        verdict.wrong.push(format!("tree: {error}"));
    }
    for (copy, whole) in report.superblocks.iter().enumerate() {
        if !whole {
            verdict.wrong.push(format!("superblock: copy {} of 2 is damaged, or not the newest; the other opens the file", copy + 1));
        }
    }
    if report.damaged > 0 {
        let first: Vec<String> = report.damaged_first.iter().map(ToString::to_string).collect();
        let text = format!("{} blocks do not open (the first: {})", report.damaged, first.join(", "));
        match report.tree {
            Ok(()) => verdict.remarks.push(format!("{text}; no row lies in them: they are free, as a power cut leaves them")),
            Err(_) => verdict.wrong.push(format!("blocks: {text}")),
        }
    }
    if report.trailing_bytes > 0 {
        verdict.remarks.push(format!("{} bytes behind the last whole block; nothing reads them", report.trailing_bytes));
    }
    if report.lost_pair() {
        let text =
            "neither mirror of one page-0 pair opens: a torn write, as a power cut leaves it, or damage. The newest commit may be lost";
        verdict
            .remarks
            .push(format!("{text}: compare the log's size with the anchor, or with a checkpoint or export that is kept elsewhere"));
    }
    let newest = report.page_slots.iter().flatten().max();
    if report.page_slots.iter().flatten().filter(|counter| Some(*counter) == newest).count() < 2 {
        verdict.remarks.push("the newest page-0 slot has no mirror; the next commit makes one".into());
    }
}

fn rows(verdict: &mut Verdict, found: &Findings) {
    verdict.fact("rows", format_args!("{}, {} of them memories", found.rows, found.memories));
    if let Some(end) = found.checkpoint {
        verdict.fact("log", format_args!("{} entries, root {}", end.size, hex::encode(&end.root)));
    }
    for finding in &found.listed {
        let row = if finding.key.is_empty() { String::new() } else { format!(" row {}", finding.key) };
        verdict.wrong.push(format!("{}:{row} {}", finding.table, finding.what));
    }
    verdict.more = found.count.saturating_sub(u64::try_from(found.listed.len()).unwrap_or(u64::MAX));
}

/// Checks an export of the log.
fn exported(path: &Path, key: &str) -> Result<Verdict, Failure> {
    let key = Vkey::parse(key.trim()).map_err(|_| {
        Failure::new(Exit::Usage, "--key: not a log's public key; give the one that `rosemary doctor` printed, `rosemary/…+…+…`")
    })?;
    let failure = |error: io::Error| Failure::io(path, &error);
    let mut source: Box<dyn BufRead> = match path == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(BufReader::new(File::open(path).map_err(failure)?)),
    };
    let mut verdict = Verdict::default();
    verdict.fact("export", path.display());
    let mut progress = Progress::new("checking entries", 0);
    let (mut verifier, mut line, mut number) = (Verifier::new(), Vec::new(), 0);
    loop {
        line.clear();
        number += 1;
        let most = u64::try_from(limits::AUDIT_TRAILER_BYTES_MAX).expect("a small constant") + 1;
        if source.by_ref().take(most).read_until(b'\n', &mut line).map_err(failure)? == 0 {
            break;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let Ok(words) = std::str::from_utf8(&line) else {
            verdict.wrong.push(format!("line {number}: not UTF-8"));
            return Ok(verdict);
        };
        if let Err(fault) = verifier.line(words) {
            verdict.wrong.push(fault.to_string());
            return Ok(verdict);
        }
        progress.at(number);
    }
    match verifier.finish(&key) {
        Ok(verified) => {
            if verified.key != key {
                verdict.remarks.push("the key given was changed since: each key up to the log key above was introduced by an entry that the one before it signed".into());
            }
            verdict.fact("entries", format_args!("{} to {}, none missing", verified.first, verified.end.saturating_sub(1)));
            let end = verified.checkpoint;
            verdict.fact("log", format_args!("{} entries when signed, root {}", end.size, hex::encode(&end.root)));
            verdict.fact("log key", verified.key);
        }
        Err(fault) => verdict.wrong.push(fault.to_string()),
    }
    Ok(verdict)
}
