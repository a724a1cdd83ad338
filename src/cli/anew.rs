//! `rosemary keys rotate all`: a new file of the same data, under new keys of every kind, in the data file's place.
//!
//! Invariants
//! - Until the new file has passed every check nothing moves; at any moment the old file or the new one has the path.
//! - Interrupted at any point, the same command run again ends it.
//! - The old file keeps a second name, or is wiped if the operator says so; what stays as it was is said out loud.

use std::io;
use std::path::Path;

use crate::audit::checkpoint::Checkpoint;
use crate::audit::{Detail, Word};
use crate::base::id::FileId;
use crate::base::time::Clock;
use crate::cli::exit::{Exit, Failure};
use crate::cli::keys::{console, finish, new_kek, stopped};
use crate::cli::progress::Progress;
use crate::cli::{args, backup, open, restore, say};
use crate::config::Config;
use crate::crypto::unlock::Kek;
use crate::engine::{Engine, EngineError};
use crate::policy::action::{ChangeAllKeys, Instance};
use crate::store::anchor;
use crate::store::anew::{self, AnewError, Order, Renewed};
use crate::store::erasure::Refusal;
use crate::store::gate::Call;
use crate::store::kept;
use crate::store::restore::{Facts, facts};
use crate::store::vault::Vault;

const WIPED: &str =
    "the old file's keys were written over and it was removed; disks, above all SSDs, may keep remnants, which the old keys open";

/// The command.
pub fn run(how: &args::RotateAll, mut config: Config) -> Result<Exit, Failure> {
    let (path, clock, present) = (config.db_path.clone(), Clock::system(), open::kek(&config)?);
    let old = match Engine::inspect(&path, &open::options(&config), &present) {
        // Cut off after the new file took its place: the new key opens it.
        Err(error @ EngineError::Keys(_)) => match later(how, &config)? {
            Some(kek) => return done_before(how, &config, &kek, &clock),
            None => return Err(open::engine_failure(&path, error)),
        },
        old => old.map_err(|error| open::engine_failure(&path, error))?,
    };
    let before = facts(&old, &clock).map_err(|error| open::store_failure(&path, error))?;
    let opens = |kek: Kek| old.opens_with(&kek);
    let asked_for = named(how).is_none_or(|path| path.exists() && new_kek(old.instance(), &new_key(how, false)).is_ok_and(opens));
    if asked_for && anew::untouched(&old, &before).map_err(|error| open::store_failure(&path, error))?.is_some() {
        drop(old);
        return done_before(how, &config, &present, &clock);
    }
    let bytes = old.bytes().map_err(|error| open::engine_failure(&path, error))?;
    backup::room(&path, bytes)?;
    let kek = other_kek(how, &old)?;
    drop(old);
    say(
        "a new file under new keys is made beside the data file, which needs as much free space again; the data file stays as it is until then",
    );
    say(
        "what is carried on: the pepper, which recognises credentials and opens nothing. Keys of people and programs, and grants, go on working; \
         if those may be known too, run `rosemary incident revoke-all` first",
    );
    leave(&mut config, &present)?;
    let old = Engine::inspect(&path, &open::options(&config), &present).map_err(|error| open::engine_failure(&path, error))?;
    let before = facts(&old, &clock).map_err(|error| open::store_failure(&path, error))?;
    anchored(&config, &old, &before)?;
    end_wiping(&path)?;
    let kept = kept::name(&path, &clock);
    let kek = kek.as_ref().unwrap_or(&present);
    let gone: Vec<_> = old.slots(kek).into_iter().filter(|slot| !slot.opened).collect();
    let made = make(&old, &before, &config, &clock, kek, &kept)?;
    drop(old);
    restore::anchor_anew(&config, kek, &clock)?;
    say(&format!(
        "{}: {} memories and {} audit entries under new keys of every kind; {} rows checked, all sound",
        path.display(),
        made.found.memories,
        made.checkpoint.size,
        made.found.rows
    ));
    say(&format!("the audit log's key before: {}", made.log_keys.0));
    say(&format!("the audit log's key now:    {}", made.log_keys.1));
    for slot in gone {
        say(&format!("slot {} ({}) is gone: enrol its key again (keys add, keys shares)", slot.number, slot.kind.name()));
    }
    if let Some(new) = named(how) {
        say(&format!(
            "the new key alone opens the file: point {} to {} before the next start, and keep a copy of it away from the data",
            config.kek.source(),
            new.display()
        ));
    } else {
        say("the present key alone opens the file; if it was known too, run again with --key-file and another one");
    }
    dispose(how, &path, before.file, &kept)?;
    say(
        "backups made before open with the keys of before, and restoring one brings those keys back: make a new one now (rosemary backup make)",
    );
    Ok(Exit::Ok)
}

/// The key file, passphrase file or credential that is named for the new file.
fn named(how: &args::RotateAll) -> Option<&Path> {
    how.key_file.as_deref().or(how.passphrase_file.as_deref()).or(how.credential_file.as_deref())
}

fn new_key(how: &args::RotateAll, make: bool) -> args::NewKek {
    let (key_file, passphrase_file, credential_file) = (how.key_file.clone(), how.passphrase_file.clone(), how.credential_file.clone());
    args::NewKek { key_file, passphrase_file, credential_file, make }
}

/// The key for the new file, if it is to be another one than the present.
fn other_kek(how: &args::RotateAll, old: &Engine) -> Result<Option<Kek>, Failure> {
    let Some(named) = named(how) else { return Ok(None) };
    // One that is there already was made by a run that was cut off.
    let make = how.make && !named.exists();
    if how.make && !make {
        say(&format!("{}: is there already, and is taken as the new key", named.display()));
    }
    let kek = new_kek(old.instance(), &new_key(how, make))?;
    match old.opens_with(&kek) {
        true => Err(Failure::new(Exit::Usage, format_args!("{}: opens the data file already; name a new key", named.display()))),
        false => Ok(Some(kek)),
    }
}

/// The key that is named, if it opens what is in place.
fn later(how: &args::RotateAll, config: &Config) -> Result<Option<Kek>, Failure> {
    if !named(how).is_some_and(Path::exists) {
        return Ok(None);
    }
    let Some(instance) = kept::in_clear(&config.db_path).map(|(_, instance)| instance) else { return Ok(None) };
    let kek = new_kek(instance, &new_key(how, false))?;
    Ok(Engine::inspect(&config.db_path, &open::options(config), &kek).is_ok().then_some(kek))
}

/// What a run that was cut off after its end left to do.
fn done_before(how: &args::RotateAll, config: &Config, kek: &Kek, clock: &Clock) -> Result<Exit, Failure> {
    let path = &config.db_path;
    let engine = Engine::inspect(path, &open::options(config), kek).map_err(|error| open::engine_failure(path, error))?;
    let before = facts(&engine, clock).map_err(|error| open::store_failure(path, error))?;
    let known = anew::untouched(&engine, &before).map_err(|error| open::store_failure(path, error))?;
    anchored(config, &engine, &before)?;
    drop(engine);
    restore::anchor_anew(config, kek, clock)?;
    end_wiping(path)?;
    let since = if known.is_some() { ", and nothing happened in it since" } else { "" };
    say(&format!("{}: is under new keys already{since}; what was missing is completed", path.display()));
    if let Some((mark, kept)) = known.and_then(|mark| Some((mark, kept::names_of(path, mark.from).ok()?.into_iter().next()?))) {
        dispose(how, path, mark.from, &kept)?;
    }
    Ok(Exit::Ok)
}

/// Refuses a file that the anchor does not speak of: one that was rolled back must not pass for one that this command left, and be anchored anew.
fn anchored(config: &Config, engine: &Engine, facts: &Facts) -> Result<(), Failure> {
    let (path, Checkpoint { log, size, .. }) = (&config.db_path, facts.checkpoint);
    let Some(anchor) = &config.anchor_file else { return Ok(()) };
    let snapshot = engine.snapshot().map_err(|error| open::engine_failure(path, error))?;
    anchor::check(anchor, engine, &snapshot, log, size).map_err(|error| open::store_failure(path, error.into()))
}

/// Ends what is under way in the old file, and has its log say that it is left.
fn leave(config: &mut Config, present: &Kek) -> Result<(), Failure> {
    let (path, mut settings) = (config.db_path.clone(), Some(open::store_settings(config)));
    let store = open::store_with(config, &mut settings, present)?;
    let left = finish(store.vault(), &|| false, &mut say).and_then(|()| told(store.vault(), &path));
    store.stop();
    left
}

fn told(vault: &Vault, path: &Path) -> Result<(), Failure> {
    let done = vault.write::<ChangeAllKeys, _, Refusal>(&console(vault), Instance, &Call::internal(), |a| {
        a.detail(Detail::Setting(Word::of("begin")));
        Ok(())
    });
    done.map(drop).map_err(|refused| stopped(path, "nothing was changed", refused.into()))
}

fn make(old: &Engine, before: &Facts, config: &Config, clock: &Clock, kek: &Kek, kept: &Path) -> Result<Renewed, Failure> {
    let (mut progress, never, path) = (Progress::new("sealing again", 0), crate::store::backup::never(), &config.db_path);
    let anchor = config.anchor_file.as_deref();
    let order = Order { path, kept, kek, anchor, stop: &never, progress: &mut |_, rows| progress.at(rows) };
    anew::anew(old, before, clock, order).map_err(|error| match error {
        AnewError::Open(error) => open::store_failure(path, error),
        AnewError::Unsound(_) => Failure::new(Exit::DataDamaged, format_args!("{}: nothing was changed: {error}", path.display())),
        AnewError::Unfinished => Failure::new(Exit::Temporary, error),
        AnewError::Ledger(_) => Failure::new(Exit::AnchorRefused, error),
    })
}

/// What becomes of the old file: kept under `kept`, further names that runs which were cut off gave it taken away; or wiped. A copy of it is
/// another file, and not touched; it is named, and so is what was kept earlier.
fn dispose(how: &args::RotateAll, path: &Path, file: FileId, kept: &Path) -> Result<(), Failure> {
    let failure = |error: io::Error| Failure::io(kept, &error);
    let old = std::fs::symlink_metadata(kept).map_err(failure)?;
    if kept::is_same(&old, &std::fs::metadata(path).map_err(failure)?) {
        return Err(Failure::new(Exit::Internal, format_args!("{}: is the data file itself; it was not touched", kept.display())));
    }
    for name in kept::names_of(path, file).map_err(failure)?.into_iter().filter(|name| name != kept) {
        if std::fs::symlink_metadata(&name).is_ok_and(|about| kept::is_same(&about, &old)) {
            std::fs::remove_file(&name).map_err(|error| Failure::io(&name, &error))?;
        }
    }
    if how.wipe_old {
        kept::wipe(path, kept).map_err(failure)?;
        say(WIPED);
    } else {
        say(&format!(
            "the old file is kept as {}: the old keys open it. Keep it as evidence away from this machine, or remove it once the service runs",
            kept.display()
        ));
    }
    for other in kept::beside(path).map_err(failure)?.iter().filter(|name| *name != kept) {
        say(&format!(
            "{}: is there too, from an earlier change or restore, or as a copy; it was not touched, and the keys of its time open it",
            other.display()
        ));
    }
    Ok(())
}

/// Ends the wiping of an old file that a run before was cut off from, once it is known that the one in its place opens.
fn end_wiping(path: &Path) -> Result<(), Failure> {
    for (name, how) in kept::end_wiping(path).map_err(|error| Failure::io(path, &error))? {
        how.map_err(|error| Failure::io(&name, &error))?;
        say(&format!("{}: an earlier run was cut off here. {WIPED}", name.display()));
    }
    Ok(())
}
