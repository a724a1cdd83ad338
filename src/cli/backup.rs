//! `rosemary backup`: made, listed and verified by the operator while the service is stopped. While it runs, it makes them itself.

use std::path::Path;
use std::sync::Arc;

use crate::api::ops::backups;
use crate::authn::Principal;
use crate::base::time::{Clock, Timestamp};
use crate::cli::exit::{Exit, Failure};
use crate::cli::progress::Progress;
use crate::cli::{args, open, output, say, serve, text, verify};
use crate::config::{Config, settings};
use crate::crypto::unlock::{Kek, KekSource};
use crate::engine::EngineError;
use crate::policy::action::{Instance, ListBackups};
use crate::store::backup::{self, BackupError, Backups, Order, RowFault, Where};
use crate::store::gate::Call;
use crate::store::restore;
use crate::store::upkeep::{self, DrillError};

/// The command.
pub fn run(command: &args::Backup, mut config: Config) -> Result<Exit, Failure> {
    serve::harden();
    match command {
        args::Backup::Make { file } => make(file.as_deref(), &mut config),
        args::Backup::List { json } => list(*json, &mut config),
        args::Backup::Drill => drill(&mut config),
        args::Backup::Verify { file, json, key } => check(file, *json, key.as_deref(), &config),
    }
}

/// The backup key of the settings, if there is one.
pub fn key(config: &Config) -> Result<Option<Kek>, Failure> {
    let name = settings::BACKUP_KEY_FILE.row.name;
    let read = |path: &std::path::PathBuf| {
        Kek::read(&KekSource::KeyFile(path.clone())).map_err(|error| Failure::new(Exit::KekMissing, format_args!("{name}: {error}")))
    };
    config.backup_key_file.as_ref().map(read).transpose()
}

/// A failure of a backup as an exit.
pub fn failure(error: &BackupError) -> Failure {
    let exit = match error {
        BackupError::File(_, EngineError::Exists(_)) => Exit::Exists,
        BackupError::File(_, EngineError::Full) | BackupError::NoRoom { .. } => Exit::DiskFull,
        BackupError::File(_, EngineError::Uncreatable { .. }) | BackupError::Folder(..) => Exit::FolderUnwritable,
        BackupError::File(_, EngineError::Damaged(_) | EngineError::Block(_)) => Exit::DataDamaged,
        BackupError::File(..) => Exit::Io,
        BackupError::Unavailable(_) | BackupError::Stopping => Exit::Temporary,
        BackupError::Unrecorded => Exit::DataDamaged,
    };
    Failure::new(exit, error)
}

fn make(file: Option<&Path>, config: &mut Config) -> Result<Exit, Failure> {
    let folder = config.backup_dir.clone();
    let place = match (file, &folder) {
        (Some(file), _) => {
            output::vacant(file)?;
            Where::File(file)
        }
        (None, Some(folder)) => {
            output::writable(folder, folder)?;
            Where::Folder(folder)
        }
        (None, None) => {
            let name = settings::BACKUP_DIR.row.name;
            return Err(Failure::new(Exit::Usage, format_args!("{name} is not set: name the file to make")));
        }
    };
    let key = key(config)?;
    let store = open::store(config)?;
    if let Some(folder) = &folder {
        store.vault().settle_backups(folder).map_err(|error| failure(&error))?;
    }
    let mut progress = Progress::new("copying rows", 0);
    let never = backup::never();
    let made = store.vault().backup(Order {
        place,
        key: key.as_ref(),
        keep: None,
        gentle: false,
        stop: &never,
        progress: &mut |rows| progress.at(rows),
    });
    drop(progress);
    store.stop();
    let made = made.map_err(|error| failure(&error))?;
    say(&format!(
        "backup {} in {} ms, {} bytes, audit entries 0 to {}",
        made.id,
        made.took.as_millis(),
        made.backup.bytes,
        made.backup.size
    ));
    text::print(format!("{}\n", made.path.display()).as_bytes())
}

fn list(as_json: bool, config: &mut Config) -> Result<Exit, Failure> {
    let store = open::store(config)?;
    let vault = store.vault().clone();
    let console = Principal::system(vault.tenant(), vault.owner(), "console");
    let listed = vault.read::<ListBackups, _, RowFault>(&console, Instance, &Call::internal(), backup::list);
    drop(vault);
    store.stop();
    let found = listed.map_err(|refused| open::refused("listing backups", &refused))?.into_parts().0;
    text::print(if as_json { format!("{}\n", backups::document(&found)) } else { table(&found) }.as_bytes())
}

fn table(found: &Backups) -> String {
    let time = |at: Option<Timestamp>| at.map_or("-".to_owned(), |at| at.to_string());
    let mut out = format!("{:<36}  {:<8}  {:<24}  {:<24}  {:>12}  {:>10}  key\n", "id", "state", "begun", "kept until", "bytes", "entries");
    for (id, row) in &found.all {
        let key = if row.own_key { "backup key" } else { "data file's" };
        out += &format!(
            "{id}  {:<8}  {}  {:<24}  {:>12}  {:>10}  {key}\n",
            row.state.name(),
            row.begun_at,
            time(row.expires_at),
            row.bytes,
            row.size
        );
    }
    if let Some(drill) = found.drill {
        out += &format!(
            "last restore drill: {}, {} in {} ms, of backup {}\n",
            drill.at,
            if drill.passed { "passed" } else { "FAILED" },
            drill.restore_ms,
            drill.backup
        );
    }
    out
}

fn drill(config: &mut Config) -> Result<Exit, Failure> {
    let name = settings::BACKUP_DIR.row.name;
    let kek = Arc::new(open::kek(config)?);
    let schedule = open::schedule(config, &kek)
        .ok_or_else(|| Failure::new(Exit::Usage, format_args!("{name} is not set: there is nothing to restore from")))?;
    let mut settings = Some(open::store_settings(config));
    let store = open::store_with(config, &mut settings, &kek)?;
    let done = upkeep::run_drill(store.vault(), &schedule, &backup::never());
    store.stop();
    let drill = done.map_err(|error| {
        let exit = match &error {
            DrillError::None(_) => Exit::NoInput,
            DrillError::Key(_) => Exit::KekMissing,
            DrillError::Record(error) => failure(error).exit,
            DrillError::Stopping => Exit::Temporary,
            DrillError::File(..) | DrillError::Restore(_) | DrillError::TooLong(_) => Exit::DataDamaged,
        };
        Failure::new(exit, format_args!("the restore drill failed: {error}"))
    })?;
    let hours = crate::base::limits::RESTORE_TIME_MAX.as_secs() / 3600;
    let line = format!(
        "passed: {} memories of backup {} restored and checked in {} ms (at most {hours} hours)\n",
        drill.memories, drill.backup, drill.restore_ms
    );
    text::print(line.as_bytes())
}

fn check(file: &Path, json: bool, given: Option<&Path>, config: &Config) -> Result<Exit, Failure> {
    let keys = keys(config, given)?;
    let (engine, index) = open::with_first(file, config, &keys)?;
    let copied = restore::facts(&engine, &Clock::system()).is_ok_and(|facts| facts.taken_at.is_none());
    drop(engine);
    verify::backup(file, &keys[index].1, config, json, copied)
}

/// The keys that may open a backup, in the order in which they are tried: the one given, the backup key, the data file's own.
///
/// Errors: there is none; a key that is named and cannot be read, unless another may do.
pub fn keys(config: &Config, given: Option<&Path>) -> Result<Vec<(KeyOf, Kek)>, Failure> {
    if let Some(path) = given {
        let kek = Kek::read(&KekSource::KeyFile(path.to_owned()))
            .map_err(|error| Failure::new(Exit::KekMissing, format_args!("--key: {error}")))?;
        return Ok(vec![(KeyOf::Given, kek)]);
    }
    let tried = [(KeyOf::Backup, key(config)), (KeyOf::Data, open::kek(config).map(Some))];
    let (mut found, mut failed) = (Vec::new(), None);
    for (of, read) in tried {
        match read {
            Ok(Some(kek)) => found.push((of, kek)),
            Ok(None) => {}
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// Whether a further file of so many bytes fits beside the file at `path`.
///
/// Errors: it does not.
pub fn room(path: &Path, bytes: u64) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    backup::room(folder, bytes).map_err(|error| failure(&error))
}

/// Whose a key is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyOf {
    /// Named on the command line.
    Given,
    /// `RM_BACKUP_KEY_FILE`.
    Backup,
    /// The data file's.
    Data,
}
