//! Settings: `RM_*` variables of the environment, read once at the start, checked as a whole.
//!
//! ```text
//! environment ─ raw (text, each name taken once) ─ settings (the table) ─ parse (text → value) ─ Config
//! ```
//!
//! Invariants
//! - All problems are found in one start; each names the variable, its value (never a secret's) and the remedy.
//! - A name that is not in the table is a problem, with the nearest name as a hint or the reason why this version does not obey it.
//! - Blank means unset. Nothing is guessed: `007` is a tenant label, not a number.
//! - Reading files named by `*_FILE` is the only input beside the environment; nothing is written.

pub mod document;
pub mod files;
pub mod parse;
mod raw;
pub mod relay;
pub mod settings;

use std::ffi::OsString;
use std::io::Read as _;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::base::limits;
use crate::base::log::Level;
use crate::crypto::secret::Secret;
use raw::Whose;
pub use raw::{Problems, Warning};

/// Name of the systemd credential that holds the key (`LoadCredential=rosemary.kek:…`).
pub const KEK_CREDENTIAL: &str = "rosemary.kek";

/// The settings as meant.
#[derive(Debug)]
pub struct Config {
    /// The data file.
    pub db_path: PathBuf,
    /// Label of the tenant, `[A-Za-z0-9._-]{1,64}`.
    pub tenant_label: String,
    /// E-mail address of the owner, in lower case.
    pub owner_email: String,
    /// Addresses to listen on, at least one.
    pub listen: Vec<IpAddr>,
    /// TCP port; 0 = any free one.
    pub port: u16,
    /// The address that clients use.
    pub public_url: Option<PublicUrl>,
    /// What opens the data file.
    pub kek: KekChoice,
    /// Certificates and versions.
    pub tls: Tls,
    /// Acts for the owner.
    pub api_key: Option<Secret<String>>,
    /// Act for the owner as an agent; vendors and keys are pairwise distinct.
    pub agent_keys: Vec<AgentKey>,
    /// The program that asks for people who signed in at it.
    pub dashboard: Option<Dashboard>,
    /// Further administrators, in lower case.
    pub admin_emails: Vec<String>,
    /// People who may be known here, as far as the dashboard makes them known; 0 = no bound.
    pub seats_max: u32,
    /// Days for which a grant of OAuth lives.
    pub oauth_grant_days: u32,
    /// Requests a minute; `None` = no limit.
    pub limits: RateLimits,
    /// Connections at once.
    pub max_connections: u32,
    /// Connections at once from one address; not more than `max_connections`.
    pub max_connections_per_address: u32,
    /// Whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Page cache, MiB.
    pub cache_mib: u32,
    /// Search index, MiB.
    pub index_mib: u32,
    /// Memories that a person other than the owner may have; none: as many as they like.
    pub memories_max: Option<NonZeroU32>,
    /// What embeds memories and queries.
    pub embedding: Option<EmbeddingModel>,
    /// Least important level that is logged.
    pub log: Level,
    /// Where the anchor is kept.
    pub anchor_file: Option<PathBuf>,
    /// Where backups are kept.
    pub backup_dir: Option<PathBuf>,
    /// The key that opens backups, if not the data file's own.
    pub backup_key_file: Option<PathBuf>,
    /// Hours between two backups; 0 = only when asked for.
    pub backup_every_hours: u32,
    /// Days for which a backup is kept.
    pub backup_keep_days: u32,
    /// Days between two restore drills; 0 = none.
    pub backup_drill_days: u32,
    /// Must the kernel lock the running service in?
    pub egress_lock: bool,
    /// The language model, if one may be asked.
    pub model: Option<Model>,
    /// Where the relay comes in, if not on a socket that is passed in.
    pub relay_socket: Option<PathBuf>,
    /// The user that the relay runs as.
    pub relay_user: Option<String>,
    /// Is memory to be kept out of swap by the program itself?
    pub lock_memory: bool,
    /// Where the operator of this machine speaks to the running service.
    pub console_socket: PathBuf,
    /// Where SIGHUP reads the level of the log anew.
    pub settings_file: Option<PathBuf>,
}

/// The site's language model, as the service knows it; where it is, the relay knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name at its endpoint.
    pub name: String,
    /// How freely it may answer.
    pub temperature: Temperature,
    /// Tokens that it may answer with.
    pub max_tokens: u32,
    /// What it is told before the memories.
    pub system_prompt: String,
    /// Characters of memories that it is given.
    pub context_chars: usize,
}

/// A model's temperature, in hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Temperature(pub u32);

impl Temperature {
    /// As a number.
    pub fn value(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

/// `https://host[:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    /// Name or IP literal in lower case; IPv6 in brackets, as in a Host field.
    pub host: String,
    /// Port; 443 if the URL names none.
    pub port: u16,
    /// The URL without a trailing slash, the default port left out.
    pub text: String,
}

/// Where the key-encryption key comes from. The files are read when the data file is opened, by [`files::read_secret`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KekChoice {
    /// A file of random bytes.
    KeyFile(PathBuf),
    /// A file with a passphrase.
    PassphraseFile(PathBuf),
    /// A systemd credential, as a file in the unit's private folder.
    Credential(PathBuf),
    /// Nowhere on this machine: somebody brings it to the console at each start.
    Console,
}

impl KekChoice {
    /// Who named the file: a setting, or systemd.
    pub fn source(&self) -> &'static str {
        match self {
            Self::KeyFile(_) => settings::KEK_FILE.row.name,
            Self::PassphraseFile(_) => settings::KEK_PASSPHRASE_FILE.row.name,
            Self::Credential(_) => "the systemd credential rosemary.kek",
            Self::Console => settings::SEALED_START.row.name,
        }
    }

    /// The file, whichever kind it is, if there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::KeyFile(path) | Self::PassphraseFile(path) | Self::Credential(path) => Some(path),
            Self::Console => None,
        }
    }
}

/// Paths of the TLS files and the oldest version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Did the operator name them? Else they are beside the data file and `init` makes them.
    pub own: bool,
    /// CA of client certificates; `None` = clients need none.
    pub client_ca: Option<PathBuf>,
    /// Oldest version accepted.
    pub min_version: TlsVersion,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// RFC 5246, with ECDHE and AEAD only.
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// A model's file and the hash that it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingModel {
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

/// One `RM_AGENT_KEY_<VENDOR>`.
#[derive(Debug)]
pub struct AgentKey {
    /// `[a-z0-9_-]{1,50}`.
    pub vendor: String,
    /// Name of the variable, without `_FILE`.
    pub name: String,
    /// The key.
    pub key: Secret<String>,
}

/// What a dashboard shows: its own key, and tokens signed under its secret.
#[derive(Debug)]
pub struct Dashboard {
    /// Shown in `Authorization`.
    pub service_key: Secret<String>,
    /// Signs what is shown in `X-Dashboard-Token`.
    pub jwt_secret: Secret<String>,
}

/// Requests a minute; `None` = that limit is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// One address without a valid credential.
    pub address: Option<NonZeroU32>,
    /// One credential.
    pub credential: Option<NonZeroU32>,
    /// Administrative routes.
    pub admin: Option<NonZeroU32>,
}

impl Config {
    /// Reads the settings from environment variables (`std::env::vars_os()`, or a list made by a test or by `demo`).
    ///
    /// Warnings do not stop the start; print them. Errors: [`Problems`], all of them; exit with code 78.
    pub fn from_env(vars: impl Iterator<Item = (OsString, OsString)>) -> Result<(Self, Vec<Warning>), Problems> {
        let mut raw = raw::Raw::collect(vars);
        let config = Self::take(&mut raw);
        let warnings = raw.finish(Whose::Service)?;
        Ok((config.expect("what is missing has been noted as a problem"), warnings))
    }

    /// Takes every setting, then puts them together. `None` only after a problem was noted.
    fn take(raw: &mut raw::Raw) -> Option<Self> {
        let db_path = raw.take(&settings::DB_PATH);
        let tenant_label = raw.take(&settings::TENANT_ID);
        let owner_email = raw.take(&settings::OWNER_EMAIL);
        let anchor_file = raw.take(&settings::ANCHOR_FILE);
        let kek = take_kek(raw);
        let backup_dir = raw.take(&settings::BACKUP_DIR);
        let backup_key_file = raw.take(&settings::BACKUP_KEY_FILE);
        let backup_every_hours = raw.take(&settings::BACKUP_EVERY_HOURS);
        let backup_keep_days = raw.take(&settings::BACKUP_KEEP_DAYS);
        let backup_drill_days = raw.take(&settings::BACKUP_DRILL_DAYS);
        let listen = raw.take(&settings::LISTEN);
        let port = raw.take(&settings::PORT);
        let public_url = raw.take(&settings::PUBLIC_URL);
        let trusted_proxies = raw.take(&settings::TRUSTED_PROXIES);
        let tls = take_tls(raw, db_path.as_deref());
        let (api_key, agent_keys, dashboard) = raw.take_static_keys();
        let admin_emails = raw.take(&settings::OWNER_EMAILS).unwrap_or_default();
        let seats_max = raw.take(&settings::MAX_SEATS);
        let oauth_grant_days = raw.take(&settings::OAUTH_GRANT_DAYS);
        let address = raw.take(&settings::RATE_LIMIT);
        let credential = raw.take(&settings::CREDENTIAL_RATE_LIMIT);
        let admin = raw.take(&settings::ADMIN_RATE_LIMIT);
        let max_connections = raw.take(&settings::MAX_CONNECTIONS);
        let max_connections_per_address = raw.take(&settings::MAX_CONNECTIONS_PER_ADDRESS);
        let cache_mib = raw.take(&settings::CACHE_MIB);
        let index_mib = raw.take(&settings::INDEX_MIB);
        let memories_max = raw.take(&settings::SANDBOX_MEMORY_CAP);
        let embedding = take_embedding(raw);
        let egress_lock = raw.take(&settings::EGRESS_LOCK);
        let lock_memory = raw.take(&settings::LOCK_MEMORY);
        let console_socket = raw.take(&settings::CONSOLE_SOCKET);
        let settings_file = raw.take(&settings::SETTINGS_FILE);
        let log = raw.take(&settings::LOG);
        raw.take(&settings::DEPLOYMENT_MODE);
        raw.take(&settings::DISABLE_TELEMETRY);
        let model = take_model(raw);
        let relay_socket = raw.take(&settings::RELAY_SOCKET);
        let relay_user = raw.take(&settings::RELAY_USER);

        if let (Some(one), Some(all)) = (max_connections_per_address, max_connections)
            && one > all
        {
            let name = settings::MAX_CONNECTIONS_PER_ADDRESS.row.name;
            let text = format!("more than {}, which is {all}; lower the one or raise the other", settings::MAX_CONNECTIONS.row.name);
            raw.problem(name, Some(&one.to_string()), text);
        }
        check_paths(raw, &db_path, &anchor_file, &kek, &backup_key_file, &tls);
        if let (Some(db), Some(dir)) = (&db_path, &backup_dir)
            && db.parent() == Some(dir)
        {
            raw.warn(
                settings::BACKUP_DIR.row.name,
                "the data file's folder, which is lost together with the data file; put it on another disk",
            );
        }

        let beside = |db: &PathBuf| db.with_file_name("console.sock");
        Some(Self {
            console_socket: console_socket.or_else(|| db_path.as_ref().map(beside))?,
            db_path: db_path?,
            tenant_label: tenant_label?,
            owner_email: owner_email?,
            listen: listen?,
            port: port?,
            public_url,
            kek: kek?,
            tls: tls?,
            api_key,
            agent_keys,
            dashboard,
            admin_emails,
            seats_max: seats_max?,
            oauth_grant_days: oauth_grant_days?,
            limits: RateLimits {
                address: NonZeroU32::new(address?),
                credential: NonZeroU32::new(credential?),
                admin: NonZeroU32::new(admin?),
            },
            max_connections: max_connections?,
            max_connections_per_address: max_connections_per_address?,
            trusted_proxies: trusted_proxies.unwrap_or_default(),
            cache_mib: cache_mib?,
            index_mib: index_mib?,
            memories_max: NonZeroU32::new(memories_max?),
            embedding,
            log: log?,
            anchor_file,
            backup_dir,
            backup_key_file,
            backup_every_hours: backup_every_hours?,
            backup_keep_days: backup_keep_days?,
            backup_drill_days: backup_drill_days?,
            egress_lock: egress_lock?,
            model: model?,
            relay_socket,
            relay_user,
            lock_memory: lock_memory?,
            settings_file,
        })
    }
}

/// The level of the log in a file of settings, one `NAME=value` a line; the default if it names none.
///
/// Errors: the file cannot be read, or its value is none; the text is for the operator.
pub fn level_in(path: &Path) -> Result<Level, String> {
    let row = &settings::LOG.row;
    let shown = path.display();
    let mut text = zeroize::Zeroizing::new(String::with_capacity(limits::SETTINGS_FILE_BYTES_MAX));
    let most = u64::try_from(limits::SETTINGS_FILE_BYTES_MAX).expect("a small constant");
    files::open_private(path)?.take(most).read_to_string(&mut text).map_err(|error| format!("{shown}: {error}; check the file"))?;
    let value = text.lines().rev().find_map(|line| line.trim().strip_prefix(row.name)?.trim_start().strip_prefix('='));
    let value = value.map(|value| value.trim().trim_matches(['"', '\''])).filter(|value| !value.is_empty());
    (settings::LOG.parse)(row, value.unwrap_or("info")).map_err(|error| format!("{shown}: {}: {error}", row.name))
}

/// Exactly one of key file, passphrase file, systemd credential and sealed start.
fn take_kek(raw: &mut raw::Raw) -> Option<KekChoice> {
    let typed_wrong = raw.problem_count();
    let sealed = raw.take(&settings::SEALED_START).unwrap_or_default();
    let choices: Vec<KekChoice> = [
        raw.take(&settings::KEK_FILE).map(KekChoice::KeyFile),
        raw.take(&settings::KEK_PASSPHRASE_FILE).map(KekChoice::PassphraseFile),
        raw.credentials.as_ref().map(|folder| folder.join(KEK_CREDENTIAL)).filter(|path| path.exists()).map(KekChoice::Credential),
        sealed.then_some(KekChoice::Console),
    ]
    .into_iter()
    .flatten()
    .collect();
    if raw.problem_count() > typed_wrong {
        return None;
    }
    match choices.as_slice() {
        [choice] => Some(choice.clone()),
        [] => {
            let (file, passphrase) = (settings::KEK_FILE.row.name, settings::KEK_PASSPHRASE_FILE.row.name);
            let text = format!(
                "not set, and there is no other key; name a key file here, a passphrase file in {passphrase}, \
                 give the unit the credential {KEK_CREDENTIAL}, or set {}=on to unlock by hand at each start",
                settings::SEALED_START.row.name
            );
            raw.problem(file, None, text);
            None
        }
        [first, rest @ ..] => {
            let others: Vec<&str> = rest.iter().map(KekChoice::source).collect();
            raw.problem(first.source(), None, format!("given together with {}; keep one source of the key", others.join(" and ")));
            None
        }
    }
}

/// The language model; `Some(None)` where none may be asked.
fn take_model(raw: &mut raw::Raw) -> Option<Option<Model>> {
    let off = raw.take(&settings::DISABLE_MODEL_EGRESS);
    let name = raw.take(&settings::MODEL_NAME);
    let temperature = raw.take(&settings::MODEL_TEMPERATURE);
    let max_tokens = raw.take(&settings::MODEL_MAX_TOKENS);
    let system_prompt = raw.take(&settings::SYSTEM_PROMPT);
    let context_chars = raw.take(&settings::CONTEXT_CHAR_BUDGET);
    if off? {
        return Some(None);
    }
    let Some(name) = name else {
        let (missing, off) = (settings::MODEL_NAME.row.name, settings::DISABLE_MODEL_EGRESS.row.name);
        raw.problem(missing, None, format!("not set although {off} is false; give the model's name, or set {off}=true"));
        return None;
    };
    Some(Some(Model {
        name,
        temperature: temperature?,
        max_tokens: max_tokens?,
        system_prompt: system_prompt?,
        context_chars: usize::try_from(context_chars?).ok()?,
    }))
}

/// Certificate and key: both named, or both beside the data file.
fn take_tls(raw: &mut raw::Raw, db_path: Option<&Path>) -> Option<Tls> {
    let typed_wrong = raw.problem_count();
    let (cert, key) = (raw.take(&settings::TLS_CERT), raw.take(&settings::TLS_KEY));
    if raw.problem_count() > typed_wrong {
        return None;
    }
    let client_ca = raw.take(&settings::TLS_CLIENT_CA);
    let min_version = raw.take(&settings::TLS_MIN_VERSION);
    let own = cert.is_some();
    let (cert, key) = match (cert, key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => (db_path?.with_file_name("cert.pem"), db_path?.with_file_name("key.pem")),
        (one, _) => {
            let (set, missing) = (&settings::TLS_CERT.row, &settings::TLS_KEY.row);
            let (set, missing) = if one.is_some() { (set, missing) } else { (missing, set) };
            raw.problem(missing.name, None, format!("not set although {} is; set both or neither", set.name));
            return None;
        }
    };
    Some(Tls { cert, key, own, client_ca, min_version: min_version? })
}

/// The model and its hash: both or neither.
fn take_embedding(raw: &mut raw::Raw) -> Option<EmbeddingModel> {
    let typed_wrong = raw.problem_count();
    let (path, sha256) = (raw.take(&settings::EMBEDDING_MODEL), raw.take(&settings::EMBEDDING_MODEL_SHA256));
    if raw.problem_count() > typed_wrong {
        return None;
    }
    let (model, hash) = (settings::EMBEDDING_MODEL.row.name, settings::EMBEDDING_MODEL_SHA256.row.name);
    match (path, sha256) {
        (Some(path), Some(sha256)) => return Some(EmbeddingModel { path, sha256 }),
        (None, None) => {}
        (Some(_), None) => raw.problem(
            hash,
            None,
            format!("not set although {model} is: a model is used only under its hash; `sha256sum` of the file prints it"),
        ),
        (None, Some(_)) => raw.problem(model, None, format!("not set although {hash} is; set both or neither")),
    }
    None
}

/// No file may serve two purposes; an anchor beside the data file is rolled back together with it.
fn check_paths(
    raw: &mut raw::Raw,
    db: &Option<PathBuf>,
    anchor: &Option<PathBuf>,
    kek: &Option<KekChoice>,
    backup_key: &Option<PathBuf>,
    tls: &Option<Tls>,
) {
    // one PEM file may hold both certificate and key
    let cert = tls.as_ref().map(|tls| tls.cert.as_path()).filter(|cert| tls.as_ref().is_some_and(|tls| tls.key != **cert));
    let uses = [
        (settings::DB_PATH.row.name, db.as_deref()),
        (settings::ANCHOR_FILE.row.name, anchor.as_deref()),
        (kek.as_ref().map_or("", KekChoice::source), kek.as_ref().and_then(KekChoice::path)),
        (settings::BACKUP_KEY_FILE.row.name, backup_key.as_deref()),
        (settings::TLS_KEY.row.name, tls.as_ref().map(|tls| tls.key.as_path())),
        (settings::TLS_CERT.row.name, cert),
        (settings::TLS_CLIENT_CA.row.name, tls.as_ref().and_then(|tls| tls.client_ca.as_deref())),
    ];
    for (i, (name, path)) in uses.iter().enumerate() {
        if let Some((twin, _)) = uses[..i].iter().find(|(_, other)| path.is_some() && other == path) {
            raw.problem(name, path.and_then(Path::to_str), format!("the same file as {twin}; give each its own"));
        }
    }
    if let (Some(db), Some(anchor)) = (db, anchor)
        && db.parent() == anchor.parent()
    {
        let text = "in the data file's folder, where whoever rolls back the one rolls back the other; put it on another disk";
        raw.warn(settings::ANCHOR_FILE.row.name, text);
    }
}

#[cfg(test)]
mod tests;
