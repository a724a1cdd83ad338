//! `rosemary restore`: a data file from a backup, in place or aside.
//!
//! Invariants
//! - Nothing that exists is lost: a file that makes way keeps a second name, and until a restored one has passed every check nothing moves.
//! - What is in place is given up only if the operator says so, whenever it is newer than the backup or may be. Another instance's data
//!   or another tenant's is never replaced.
//! - Interrupted at any point, the same command run again ends it.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::audit::checkpoint::Anchor;
use crate::base::id::{FileId, InstanceId};
use crate::base::time::Clock;
use crate::cli::backup::{self, KeyOf};
use crate::cli::exit::{Exit, Failure};
use crate::cli::progress::Progress;
use crate::cli::{args, init, open, output, say, serve, text};
use crate::config::{Config, KekChoice, settings};
use crate::crypto::unlock::Kek;
use crate::engine::{Engine, EngineError, Place, Unlock};
use crate::store::backup::BackupRow;
use crate::store::ledger::LedgerError;
use crate::store::restore::{self, Facts, Order, Overridden, RestoreError, Restored};
use crate::store::{anchor, kept, ledger};

/// The command.
pub fn run(command: &args::Restore, mut config: Config) -> Result<Exit, Failure> {
    serve::harden();
    let clock = Clock::system();
    let keys = backup::keys(&config, command.key.as_deref())?;
    let (source, index) = open::with_first(&command.file, &config, &keys)?;
    let facts = restore::facts(&source, &clock).map_err(|error| open::store_failure(&command.file, error))?;
    if facts.label != config.tenant_label {
        let name = settings::TENANT_ID.row.name;
        return Err(Failure::new(
            Exit::TenantDiffers,
            format_args!("{name}: {} is a backup of another tenant's data; set the label it was made with", command.file.display()),
        ));
    }
    let kek = data_key(&config, facts.instance)?;
    let fits = keys[index].0 == KeyOf::Data || source.opens_with(&kek);
    let unlock = if fits { Unlock::AsHere } else { Unlock::Only(&kek) };
    match &command.to {
        Some(path) => {
            let restored = make(&source, &facts, &clock, path, unlock, Place::New, Overridden::default(), &[])?;
            say(&format!("{}: restored aside; nothing else was touched", path.display()));
            report(command.json, path, &facts, &restored, None)
        }
        None => {
            let done = in_place(command, &config, &source, &facts, &clock, &kek, unlock)?;
            drop(source);
            erase_again(&mut config)?;
            match done {
                Some((restored, kept)) => report(command.json, &config.db_path, &facts, &restored, kept.as_deref()),
                None => Ok(Exit::Ok),
            }
        }
    }
}

/// The key that opens the data file; one that is missing is made, as `init` does, for this instance.
fn data_key(config: &Config, instance: InstanceId) -> Result<Kek, Failure> {
    match &config.kek {
        KekChoice::KeyFile(path) if !path.exists() => {
            output::vacant(path)?;
            let kek = Kek::write_key_file(path, instance).map_err(|error| Failure::io(path, &error))?;
            say(&format!("made the key file {}: keep a copy of it away from the data, without it the data is lost", path.display()));
            Ok(kek)
        }
        _ => open::kek(config),
    }
}

#[allow(clippy::too_many_arguments, reason = "the parts of one order")]
fn make(
    source: &Engine,
    facts: &Facts,
    clock: &Clock,
    path: &Path,
    unlock: Unlock<'_>,
    place: Place<'_>,
    overridden: Overridden,
    known: &[(FileId, BackupRow)],
) -> Result<Restored, Failure> {
    let mut progress = Progress::new("restoring", 0);
    let never = crate::store::backup::never();
    let order = Order { path, unlock, place, overridden, known, stop: &never, progress: &mut |_, rows| progress.at(rows) };
    restore::restore(source, facts, clock, order).map_err(|error| match error {
        RestoreError::Open(error) => open::store_failure(path, error),
        RestoreError::Unsound(_) => Failure::new(Exit::DataDamaged, error),
    })
}

const UNREAD: &str = "what it knew of backups cannot be read: receipts of erasures name those in RM_BACKUP_DIR, and not what else it, or a backup \
                      made by hand, may hold";

/// What lies where the restored file shall be.
enum There {
    /// No file.
    Nothing,
    /// This data, and what is newer in it than in the backup, in words.
    Newer(String),
    /// This data, no newer than the backup.
    NotNewer,
    /// What this very restore made before it was cut off.
    Restored,
}

fn in_place(
    command: &args::Restore,
    config: &Config,
    source: &Engine,
    facts: &Facts,
    clock: &Clock,
    kek: &Kek,
    unlock: Unlock<'_>,
) -> Result<Option<(Restored, Option<PathBuf>)>, Failure> {
    let path = &config.db_path;
    // Held until the end: no service can open the file that is about to make way.
    let (there, held) = look(path, config, facts, clock, kek)?;
    let anchored = config.anchor_file.as_deref().and_then(|path| anchored(path, source, facts));
    let (forgotten, alien) = config.anchor_file.as_deref().map(|path| forgotten(path, source)).transpose()?.unwrap_or_default();
    if let (Some(what), false) = (&forgotten, command.forget_erasures) {
        return Err(Failure::new(
            Exit::AnchorRefused,
            format_args!("{what}. Put the right list back; or, to have back whoever it would name, run again with --forget-erasures"),
        ));
    }
    let restored = match (&there, &anchored) {
        (There::Restored, _) => {
            say(&format!("{}: restored from this backup already; what was missing is completed", path.display()));
            None
        }
        (There::Newer(what), _) | (There::Nothing | There::NotNewer, Some(what)) if !command.discard_newer => {
            return Err(Failure::new(
                Exit::BackupOlder,
                format_args!("{what}. Use a newer backup; or, to give up what was written since, run again with --discard-newer"),
            ));
        }
        (there, anchored) => {
            let kept = kept::name(path, clock);
            let nothing = matches!(there, There::Nothing);
            let place = if nothing { Place::New } else { Place::Over(&kept) };
            let (known, whole) = match nothing {
                true => (Vec::new(), true),
                false => restore::known_of(path, held.as_ref(), facts, clock.now()),
            };
            let newer = matches!(there, There::Newer(_)) || anchored.is_some();
            let overridden = Overridden { newer, erased: forgotten.is_some() };
            let restored = make(source, facts, clock, path, unlock, place, overridden, &known)?;
            if !nothing {
                say(&format!("the file that was there is kept as {}; it keeps whoever is erased from now on", kept.display()));
            }
            if let Some((id, _)) = known.last() {
                say(&format!("receipts of erasures name it as backup {id}"));
            }
            if !whole {
                say(UNREAD);
            }
            Some((restored, (!nothing).then_some(kept)))
        }
    };
    drop(held);
    if let (true, Some(anchor)) = (alien, &config.anchor_file) {
        // Nothing that is in place from here on can read it; it is kept for whoever looks into this.
        let list = ledger::path_beside(anchor);
        std::fs::rename(&list, kept::name(&list, clock)).map_err(|error| Failure::io(&list, &error))?;
    }
    complete(config, kek, clock)?;
    Ok(restored)
}

/// Whom the list beside the anchor names is erased from what was restored, before it serves.
fn erase_again(config: &mut Config) -> Result<(), Failure> {
    let Some(path) = config.anchor_file.as_deref().map(ledger::path_beside) else { return Ok(()) };
    if path.exists() {
        say(&format!("{}: whom it names is erased from what was restored", path.display()));
        open::store(config)?.stop();
    }
    Ok(())
}

/// What is wrong with the list of erased holders, in words: the anchor knows of more than it and the backup name; or it is under other keys than
/// the backup's (the second value), as after `keys rotate all`.
///
/// Errors: the list cannot be read.
fn forgotten(path: &Path, source: &Engine) -> Result<(Option<String>, bool), Failure> {
    let refused = |error: &dyn std::fmt::Display| Failure::new(Exit::AnchorRefused, error);
    let snapshot = source.snapshot().map_err(|error| refused(&error))?;
    let keys = source.keys();
    let known = match ledger::known(path, source.instance(), &keys, &snapshot) {
        Ok(known) => known.len(),
        Err(error @ LedgerError::Damaged(_)) => {
            return Ok((Some(format!("{error}; or it was written under later keys than the backup's (keys rotate all)")), true));
        }
        Err(error) => return Err(refused(&error)),
    };
    // An anchor that a later key of the log signed cannot be checked with the backup's: what it claims is enough to refuse.
    let seen = anchor::read(path).ok().and_then(|text| anchor::of_any_log(&text, &snapshot, &keys).or_else(|| Anchor::claimed(&text)));
    let known = u64::try_from(known).unwrap_or(u64::MAX);
    let what = seen.filter(|anchor| anchor.instance == source.instance() && anchor.tombstones > known).map(|anchor| {
        format!("{}: {} holders were erased, and the list beside it and the backup name {known}", path.display(), anchor.tombstones)
    });
    Ok((what, false))
}

/// What else a service needs: the anchor of the new log, and a certificate.
fn complete(config: &Config, kek: &Kek, clock: &Clock) -> Result<(), Failure> {
    anchor_anew(config, kek, clock)?;
    init::certificate(config)
}

/// Writes the anchor as the data file says now, which nobody has open, and puts the list of erased holders in place that waits for its keys.
pub fn anchor_anew(config: &Config, kek: &Kek, clock: &Clock) -> Result<(), Failure> {
    if let Some(anchor) = &config.anchor_file {
        let path = &config.db_path;
        let engine = Engine::inspect(path, &open::options(config), kek).map_err(|error| open::engine_failure(path, error))?;
        let facts = restore::facts(&engine, clock).map_err(|error| open::store_failure(path, error))?;
        let snapshot = engine.snapshot().map_err(|error| open::engine_failure(path, error))?;
        let settled = ledger::settle(&ledger::path_beside(anchor), engine.instance(), &engine.keys());
        let known = settled.and_then(|()| ledger::known(anchor, engine.instance(), &engine.keys(), &snapshot));
        let known = known.map_err(|error| Failure::new(Exit::AnchorRefused, error))?;
        let erased = u64::try_from(known.len()).unwrap_or(u64::MAX);
        anchor::write(anchor, &engine, &snapshot, facts.checkpoint, erased).map_err(|error| Failure::io(anchor, &error))?;
    }
    Ok(())
}

/// What lies at `path`, and its lock.
///
/// Errors: another instance's data; a file in use.
fn look(path: &Path, config: &Config, backup: &Facts, clock: &Clock, kek: &Kek) -> Result<(There, Option<Engine>), Failure> {
    let other = |instance: InstanceId| {
        Failure::new(
            Exit::OtherInstance,
            format_args!(
                "{}: holds instance {instance}, the backup is of instance {}; it was not touched. Restore aside with --to, or set another {}",
                path.display(),
                backup.instance,
                settings::DB_PATH.row.name
            ),
        )
    };
    let unsure = |why: &str| There::Newer(format!("{}: {why}, so whether it is newer than the backup cannot be told", path.display()));
    match Engine::inspect(path, &open::options(config), kek) {
        Err(EngineError::Missing(_)) => Ok((There::Nothing, None)),
        Err(error @ EngineError::Locked(_)) => Err(open::engine_failure(path, error)),
        Err(error) => match kept::in_clear(path) {
            Some((_, instance)) if instance != backup.instance => Err(other(instance)),
            _ => Ok((unsure(&format!("does not open ({error})")), None)),
        },
        Ok(engine) if engine.instance() != backup.instance => Err(other(engine.instance())),
        Ok(engine) => {
            let there = match restore::facts(&engine, clock) {
                Err(error) => unsure(&format!("cannot be read ({error})")),
                Ok(facts) if facts.restored.is_some_and(|mark| mark.backup == backup.file) && facts.checkpoint.size == 1 => There::Restored,
                Ok(facts) => compare(path, &engine, &facts, backup).unwrap_or_else(|error| unsure(&format!("cannot be read ({error})"))),
            };
            Ok((there, Some(engine)))
        }
    }
}

fn compare(path: &Path, engine: &Engine, facts: &Facts, backup: &Facts) -> Result<There, crate::store::vault::OpenError> {
    let (here, there) = (facts.checkpoint, backup.checkpoint);
    if here == there || here.log == there.log && here.size < there.size {
        return Ok(There::NotNewer);
    }
    let since = backup.taken_at.map_or(String::new(), |at| format!(" of {at}"));
    Ok(There::Newer(match restore::continues(engine, &there)? {
        true => format!("{}: holds {} audit entries that were written after this backup{since}", path.display(), here.size - there.size),
        false => format!("{}: has another history than this backup{since}: it was restored, or written to, since", path.display()),
    }))
}

/// What the anchor knows that the backup does not hold, in words.
fn anchored(path: &Path, source: &Engine, facts: &Facts) -> Option<String> {
    let text = match anchor::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        text => text.ok(),
    };
    let name = settings::ANCHOR_FILE.row.name;
    let seen = text.and_then(|text| restore::anchor_of(source, facts.checkpoint.log, &text));
    match seen {
        Some(anchor) if anchor.checkpoint.size <= facts.checkpoint.size => None,
        Some(anchor) => Some(format!(
            "{name}: {}: saw {} audit entries of this log, the backup holds {}",
            path.display(),
            anchor.checkpoint.size,
            facts.checkpoint.size
        )),
        None => Some(format!(
            "{name}: {}: speaks of another log than the backup's, or was signed by another key: the data was restored or replaced, or the log's key changed, since",
            path.display()
        )),
    }
}

fn report(as_json: bool, path: &Path, facts: &Facts, restored: &Restored, kept: Option<&Path>) -> Result<Exit, Failure> {
    let found = &restored.found;
    if as_json {
        let document = json!({
            "file": path.display().to_string(), "bytes": restored.bytes, "rows": found.rows, "memories": found.memories,
            "taken_at": facts.taken_at.map(|at| at.to_string()), "past_log": facts.checkpoint.log.to_string(),
            "past_entries": facts.checkpoint.size, "log": restored.checkpoint.log.to_string(),
            "replaced": kept.map(|kept| kept.display().to_string()),
        });
        return text::print(format!("{document}\n").as_bytes());
    }
    let taken = facts.taken_at.map_or("from a copy of a data file, not a backup".to_owned(), |at| format!("as of {at}"));
    text::print(
        format!(
            "{}: {taken}, {} memories, {} audit entries kept read-only; {} rows checked, all sound\nnext: rosemary doctor && rosemary serve\n",
            path.display(),
            found.memories,
            facts.checkpoint.size,
            found.rows
        )
        .as_bytes(),
    )
}
