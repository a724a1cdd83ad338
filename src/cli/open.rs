//! What the commands share: from settings to an open data file, and the exit code of everything that can go wrong on the way.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::authn::Vendor;
use crate::base::file::open_regular;
use crate::base::time::Clock;
use crate::base::{hex, limits, log};
use crate::cli::backup::KeyOf;
use crate::cli::exit::{Exit, Failure};
use crate::cli::terminal;
use crate::config::{Config, EmbeddingModel, KekChoice, TlsVersion, settings};
use crate::crypto::hash::sha256 as sha256_of;
use crate::crypto::ladder::LadderError;
use crate::crypto::secret::Secret;
use crate::crypto::unlock::{KdfCost, Kek, KekSource};
use crate::embed::{Model, ModelError};
use crate::engine::{Engine, EngineError, Options};
use crate::http::{TlsError, TlsFiles, TlsIdentity};
use crate::store::gate::Refused;
use crate::store::tables::TABLES;
use crate::store::upkeep::{DataKey, Schedule};
use crate::store::vault::{self, OpenError, Settings, SignIn, Store};
use crate::store::writer::Unavailable;

/// How this program's data file is made and opened.
pub fn options(config: &Config) -> Options {
    let cache_bytes = usize::try_from(config.cache_mib).unwrap_or(64) * 1024 * 1024;
    Options { cache_bytes, stride: 4608, tables: TABLES, kdf: KdfCost::DEFAULT }
}

/// Where the KEK is, if it is a file.
fn kek_source(config: &Config) -> Option<KekSource> {
    match &config.kek {
        KekChoice::KeyFile(path) => Some(KekSource::KeyFile(path.clone())),
        KekChoice::PassphraseFile(path) => Some(KekSource::PassphraseFile(path.clone())),
        KekChoice::Credential(path) => Some(KekSource::Credential(path.clone())),
        KekChoice::Console => None,
    }
}

/// The schedule of backups and drills, if there is a folder for them. Without a file, `kek` is what opens the data.
pub fn schedule(config: &Config, kek: &Arc<Kek>) -> Option<Schedule> {
    let hours = |hours: u32| Duration::from_secs(u64::from(hours) * 3600);
    Some(Schedule {
        folder: config.backup_dir.clone()?,
        backup_key: config.backup_key_file.clone().map(KekSource::KeyFile),
        data_key: kek_source(config).map_or_else(|| DataKey::Held(Arc::clone(kek)), DataKey::At),
        every: (config.backup_every_hours > 0).then(|| hours(config.backup_every_hours)),
        keep: hours(config.backup_keep_days * 24),
        drill: (config.backup_drill_days > 0).then(|| hours(config.backup_drill_days * 24)),
        options: options(config),
    })
}

/// Reads the KEK: from its file, or without one as a passphrase from the terminal.
pub fn kek(config: &Config) -> Result<Kek, Failure> {
    let Some(source) = kek_source(config) else { return terminal::passphrase("passphrase of the data file: ").map(Kek::passphrase) };
    Kek::read(&source).map_err(|error| Failure::new(Exit::KekMissing, format_args!("{}: {error}", config.kek.source())))
}

/// The backup at `path`, over an overlay, and the index of the key among `keys` that opened it.
///
/// Errors: none of them opens it, or it is damaged or no backup; the file is named.
pub fn with_first(path: &Path, config: &Config, keys: &[(KeyOf, Kek)]) -> Result<(Engine, usize), Failure> {
    let mut last = None;
    for (index, (_, kek)) in keys.iter().enumerate() {
        match Engine::inspect(path, &options(config), kek) {
            Ok(engine) => return Ok((engine, index)),
            // Another key may fit; what is said of the first, which is the likeliest, is what the operator reads.
            Err(error @ EngineError::Keys(_)) => last = last.or(Some(error)),
            Err(error) => return Err(backup_failure(path, error)),
        }
    }
    let error = last.expect("there is at least one key");
    Err(Failure::new(Exit::KekWrong, format_args!("{}: {error}; --key names another key file", path.display())))
}

/// A failure of the backup at `path`.
pub fn backup_failure(path: &Path, error: EngineError) -> Failure {
    let name = path.display();
    match error {
        EngineError::Missing(_) => {
            Failure::new(Exit::NoInput, format_args!("{name}: no such file; see `rosemary backup list` and RM_BACKUP_DIR"))
        }
        EngineError::NotRosemary => {
            Failure::new(Exit::SuperblockDamaged, format_args!("{name}: not a backup, or its head is damaged; use another one"))
        }
        EngineError::Damaged(what) => Failure::new(
            Exit::DataDamaged,
            format_args!("{name}: the backup is damaged: {what} does not verify; keep it as evidence, use another one"),
        ),
        EngineError::Block(block) => Failure::new(
            Exit::DataDamaged,
            format_args!("{name}: the backup is damaged: block {block} does not open; keep it as evidence, use another one"),
        ),
        error => engine_failure(path, error),
    }
}

/// A failure of the data file at `path`.
pub fn engine_failure(path: &Path, error: EngineError) -> Failure {
    let exit = match &error {
        EngineError::Exists(_) => Exit::Exists,
        EngineError::Missing(_) => Exit::NoInput,
        EngineError::Locked(_) => Exit::FileLocked,
        EngineError::NotRosemary => Exit::SuperblockDamaged,
        EngineError::Newer { .. } | EngineError::UnknownTable => Exit::FormatNewer,
        EngineError::Keys(LadderError::Damaged | LadderError::UnknownEpoch(_)) => Exit::SuperblockDamaged,
        EngineError::Keys(LadderError::SlotsFull | LadderError::Cost) => Exit::Config,
        EngineError::Keys(_) => Exit::KekWrong,
        EngineError::Damaged(what) if what.contains("superblock") => Exit::SuperblockDamaged,
        EngineError::Damaged(_) | EngineError::Block(_) => Exit::DataDamaged,
        EngineError::Full => Exit::DiskFull,
        EngineError::Unopenable { .. } => Exit::Permission,
        EngineError::Uncreatable { .. } => Exit::FolderUnwritable,
        EngineError::Io { kind } => return Failure::io(path, &std::io::Error::from(*kind)),
        EngineError::Spoilt { .. } | EngineError::Unconfirmed(_) => Exit::Io,
        EngineError::Latched | EngineError::Panicked | EngineError::TooLarge(_) | EngineError::InUse => Exit::Internal,
    };
    let text = error.to_string();
    let name = path.display().to_string();
    if text.contains(&name) { Failure::new(exit, text) } else { Failure::new(exit, format_args!("{name}: {text}")) }
}

/// A failure to open the store in an opened file.
pub fn store_failure(path: &Path, error: OpenError) -> Failure {
    let exit = match error {
        OpenError::Engine(error) => return engine_failure(path, error),
        OpenError::OtherTenant => Exit::TenantDiffers,
        OpenError::NewerTables { .. } => Exit::FormatNewer,
        OpenError::NotInitialised | OpenError::Backup => Exit::NoInput,
        OpenError::Anchor(_) | OpenError::OlderSuperblock { .. } => Exit::AnchorRefused,
        OpenError::Store(_) | OpenError::Log(_) => Exit::DataDamaged,
        OpenError::Erasing(_) | OpenError::Thread(_) => Exit::Temporary,
    };
    Failure::new(exit, format_args!("{}: {error}", path.display()))
}

/// Opens the store as the service does. Static keys are taken out of the settings.
pub fn store(config: &mut Config) -> Result<Store, Failure> {
    store_and_model(config, None)
}

/// As [`store`], with a model that makes vectors meanwhile.
pub fn store_and_model(config: &mut Config, model: Option<Arc<Model>>) -> Result<Store, Failure> {
    let (kek, mut settings) = (kek(config)?, Some(Settings { model, ..store_settings(config) }));
    store_with(config, &mut settings, &kek)
}

/// What the store is told. Static keys are taken out of the settings.
pub fn store_settings(config: &mut Config) -> Settings {
    let agents = std::mem::take(&mut config.agent_keys).into_iter();
    let mut static_keys: Vec<(String, Option<Vendor>, Secret<String>)> =
        agents.map(|agent| (agent.name, Vendor::parse(&agent.vendor), agent.key)).collect();
    static_keys.extend(config.api_key.take().map(|key| ("RM_API_KEY".to_owned(), None, key)));
    Settings {
        label: config.tenant_label.clone(),
        owner_email: config.owner_email.clone(),
        static_keys,
        sign_in: SignIn {
            dashboard: config.dashboard.take().map(|dashboard| (dashboard.service_key, dashboard.jwt_secret)),
            admins: config.admin_emails.clone(),
            seats_max: config.seats_max,
            grant_days: config.oauth_grant_days,
        },
        index_bytes: usize::try_from(config.index_mib).unwrap_or(256) * 1024 * 1024,
        memories_max: config.memories_max.map(|most| most.get().into()),
        anchor: config.anchor_file.clone(),
        model: None,
        clock: Clock::system(),
        fatal: Box::new(|| {
            log::line(log::Level::Error, "stopping; start again to recover", &[]);
            crate::cli::exit::now(Exit::OutcomeUnknown)
        }),
    }
}

/// The model of the settings, if they name one.
///
/// Errors: it cannot be read, is another than was meant, or no model.
pub fn model(config: &Config) -> Result<Option<Arc<Model>>, Failure> {
    let Some(EmbeddingModel { path, sha256 }) = &config.embedding else { return Ok(None) };
    let setting = settings::EMBEDDING_MODEL.row.name;
    let bytes = model_bytes(path).map_err(|error| {
        Failure::new(Exit::Config, format_args!("{setting}={}: {error}; name a file that the service's user can read", path.display()))
    })?;
    match Model::pinned(&bytes, sha256) {
        Ok(model) => Ok(Some(Arc::new(model))),
        Err(ModelError::OtherHash) => {
            let (found, hash) = (hex::encode(&sha256_of(&[&bytes])), settings::EMBEDDING_MODEL_SHA256.row.name);
            let what = "the file is not the one that was meant. Find out why; put that one back, or if this one is right set";
            Err(Failure::new(Exit::Config, format_args!("{setting}={}: its SHA-256 is {found}, not {hash}: {what} {hash}", path.display())))
        }
        Err(error) => {
            Err(Failure::new(Exit::Config, format_args!("{setting}={}: {error}; make it anew with convert-model", path.display())))
        }
    }
}

/// A model's file.
pub fn model_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(limits::ENCODER_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match u64::try_from(bytes.len()).is_ok_and(|length| length <= limits::ENCODER_BYTES_MAX) {
        true => Ok(bytes),
        false => Err(std::io::Error::other("longer than any model")),
    }
}

/// Opens the store with `kek`. `settings` are there still after a failure that another key, or what the operator mends meanwhile, may avert.
pub fn store_with(config: &Config, settings: &mut Option<Settings>, kek: &Kek) -> Result<Store, Failure> {
    // Looked at first without a byte written: a start that is refused leaves the file as it was.
    let (options, path) = (options(config), &config.db_path);
    let inspected = Engine::inspect(path, &options, kek).map_err(|error| engine_failure(path, error))?;
    vault::examine(&inspected, settings.as_ref().expect("settings are taken once")).map_err(|error| store_failure(path, error))?;
    drop(inspected);
    let engine = Engine::open(path, &options, kek).map_err(|error| engine_failure(path, error))?;
    Store::open(engine, settings.take().expect("settings are taken once")).map_err(|error| store_failure(path, error))
}

/// Where the certificate is.
pub fn tls_files(config: &Config) -> TlsFiles {
    TlsFiles {
        certificate: config.tls.cert.clone(),
        key: config.tls.key.clone(),
        client_ca: config.tls.client_ca.clone(),
        only_tls13: config.tls.min_version == TlsVersion::V1_3,
    }
}

/// Reads the certificate.
pub fn tls(config: &Config) -> Result<Arc<TlsIdentity>, Failure> {
    TlsIdentity::load(&tls_files(config)).map(Arc::new).map_err(tls_failure)
}

/// A failure of certificate or key.
pub fn tls_failure(error: TlsError) -> Failure {
    Failure::new(Exit::CertificateUnusable, error)
}

/// Why the store did not do what a command asked of it; `doing` says what that was.
pub fn refused<E: std::fmt::Display>(doing: &str, refused: &Refused<E>) -> Failure {
    let exit = match refused {
        Refused::Unavailable(Unavailable::NoSpace) => Exit::DiskFull,
        Refused::Unavailable(Unavailable::Unknown(_)) => Exit::OutcomeUnknown,
        Refused::Unavailable(Unavailable::ReadOnly) => Exit::Permission,
        Refused::Unavailable(_) => Exit::Temporary,
        Refused::Denied(..) | Refused::Revoked(_) => Exit::Permission,
        Refused::Work(..) => Exit::DataDamaged,
        Refused::Fault(_) => Exit::Internal,
    };
    match refused {
        Refused::Unavailable(why) => Failure::new(exit, format_args!("{doing}: {why}")),
        Refused::Work(error, _) => Failure::new(exit, format_args!("{doing}: {error}; run verify")),
        Refused::Denied(..) | Refused::Revoked(_) => Failure::new(exit, format_args!("{doing}: not permitted")),
        Refused::Fault(_) => Failure::new(exit, format_args!("{doing}: the program met a fault of its own")),
    }
}
