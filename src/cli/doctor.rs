//! `rosemary doctor`: the posture of this instance. What is on, off, weak, not built in this version, and not to be seen from here.
//!
//! Invariants
//! - Nothing is changed. The data file is opened for reading only where nobody else has it; else the report says what was not seen.
//! - What is weak or could not be used names its remedy; then the exit code is 1.
//! - No text promises what this version does not do.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::api::ops::status as ops;
use crate::base::time::{Clock, Timestamp};
use crate::base::{hex, limits};
use crate::cli::exit::{Exit, Failure};
use crate::cli::{args, open, serve, text};
use crate::config::{Config, TlsVersion, settings};
use crate::crypto::unlock;
use crate::engine::{Engine, EngineError};
use crate::sandbox;
use crate::store::{check, embedder, kept, status};

/// Free space below this multiple of the reserve is weak.
const RESERVES_FREE: u64 = 8;
/// The service's own limit on swap, where systemd runs it.
const SWAP_MAX: &str = "/sys/fs/cgroup/system.slice/rosemary.service/memory.swap.max";

/// How a safeguard stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    On,
    Off,
    Weak,
    Absent,
    Unknown,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Weak => "weak",
            Self::Absent => "absent",
            Self::Unknown => "unknown",
        }
    }
}

/// One line of the report.
struct Line {
    name: &'static str,
    state: State,
    what: String,
    remedy: String,
}

/// The report while it is made.
#[derive(Default)]
struct Posture(Vec<Line>);

impl Posture {
    fn tell(&mut self, name: &'static str, state: State, what: impl ToString, remedy: impl ToString) {
        self.0.push(Line { name, state, what: what.to_string(), remedy: remedy.to_string() });
    }

    fn on(&mut self, name: &'static str, what: impl ToString) {
        self.tell(name, State::On, what, "");
    }

    fn weak(&mut self, name: &'static str, what: impl ToString, remedy: impl ToString) {
        self.tell(name, State::Weak, what, remedy);
    }

    fn weak_count(&self) -> usize {
        self.0.iter().filter(|line| line.state == State::Weak).count()
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for line in &self.0 {
            out += &format!("{:<8} {:<20} {}\n", line.state.name(), line.name, line.what);
            if !line.remedy.is_empty() {
                out += &format!("{:<29} -> {}\n", "", line.remedy);
            }
        }
        match self.weak_count() {
            0 => out + "\nNothing is weak.\n",
            weak => format!("{out}\n{weak} weak: see the remedies above.\n"),
        }
    }

    fn json(&self) -> String {
        let lines: Vec<_> = self
            .0
            .iter()
            .map(|line| json!({ "name": line.name, "state": line.state.name(), "what": line.what, "remedy": line.remedy }))
            .collect();
        format!("{}\n", json!({ "weak": self.weak_count(), "checks": lines }))
    }
}

/// The command.
pub fn run(command: &args::Doctor) -> Result<Exit, Failure> {
    serve::harden();
    let (config, warnings) = Config::from_env(std::env::vars_os())?;
    let mut posture = Posture::default();
    for warning in &warnings {
        posture.weak("setting", warning, "");
    }
    files(&mut posture, &config);
    data(&mut posture, &config);
    anchor(&mut posture, &config);
    memory(&mut posture, &config);
    tls(&mut posture, &config);
    rates(&mut posture, &config);
    static_keys(&mut posture, &config);
    dashboard(&mut posture, &config);
    machine(&mut posture, &config);
    backups(&mut posture, &config);
    embeddings(&mut posture, &config);
    absent(&mut posture);
    model(&mut posture, &config);
    // Last: the lock closes the files too.
    way_out(&mut posture, &config);
    text::print(if command.json { posture.json() } else { posture.text() }.as_bytes())?;
    Ok(if posture.weak_count() == 0 { Exit::Ok } else { Exit::Found })
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The file, or the nearest folder above it that is there.
fn nearest(path: &Path) -> io::Result<Metadata> {
    fs::metadata(path).or_else(|_| fs::metadata(folder_of(path)))
}

/// A file or folder without any of the `forbidden` mode bits.
fn private(posture: &mut Posture, name: &'static str, path: &Path, forbidden: u32) {
    match fs::metadata(path) {
        Err(error) => posture.weak(name, format_args!("{}: {error}", path.display()), "check the path, or run rosemary init"),
        Ok(about) if about.mode() & forbidden != 0 => posture.weak(
            name,
            format_args!("{}: mode {:04o} lets others read or change it", path.display(), about.mode() & 0o7777),
            format_args!("chmod {:04o} {}", about.mode() & 0o7777 & !forbidden, path.display()),
        ),
        Ok(about) => posture.on(name, format_args!("{}: mode {:04o}", path.display(), about.mode() & 0o7777)),
    }
}

fn files(posture: &mut Posture, config: &Config) {
    private(posture, "data file", &config.db_path, 0o077);
    private(posture, "data folder", folder_of(&config.db_path), 0o022);
    for name in kept::half_wiped(&config.db_path).unwrap_or_default() {
        let what = format!("{}: was to be wiped, and is still there: it may hold keys of before", name.display());
        posture.weak("old file", what, "start the service anew, or run rosemary keys rotate all again");
    }
    let Some(key) = config.kek.path() else {
        let what = "no key lies on this machine: the service starts locked";
        return posture.tell("key", State::On, what, "unlock it at each start: rosemary unlock");
    };
    private(posture, "key", key, unlock::EXPOSING_BITS);
    match (nearest(&config.db_path), nearest(key)) {
        (Ok(data), Ok(key)) if data.dev() == key.dev() => posture.weak(
            "key apart from data",
            "key and data are on one disk: whoever takes the disk has both",
            "keep the key on another device, or seal it to this machine (LoadCredentialEncrypted= in the unit)",
        ),
        (Ok(_), Ok(_)) => posture.on("key apart from data", "key and data are on different devices"),
        _ => posture.tell("key apart from data", State::Unknown, "not both files can be looked at", "run doctor as the service's user"),
    }
}

/// What only the opened file tells.
fn data(posture: &mut Posture, config: &Config) {
    let opened = open::kek(config).and_then(|kek| match Engine::inspect(&config.db_path, &open::options(config), &kek) {
        Ok(engine) => Ok(Some(engine)),
        Err(EngineError::Locked(_)) => Ok(None),
        Err(error) => Err(open::engine_failure(&config.db_path, error)),
    });
    match opened {
        Ok(Some(engine)) => {
            let slots = engine.key_slots();
            let what = format!("{slots} of {} in use: whoever holds no such key cannot open the file, you included", limits::KEY_SLOTS);
            posture.tell("key slots", State::On, what, "keep a copy of each key away from the data");
            match engine.slot_kinds().contains(&unlock::SlotKind::Shares) {
                true => posture.on("recovery shares", "printed shares open the data file together, should the key be lost"),
                false => posture.weak(
                    "recovery shares",
                    "none: if the key is lost, so is the data",
                    "rosemary keys shares, printed, for several people",
                ),
            }
            standing(posture, config, &engine);
            match check::log_key(&engine) {
                Ok(key) => posture.on("log key", format_args!("{key} (auditors check exports with it)")),
                Err(error) => posture.weak("log key", error, "run rosemary verify"),
            }
        }
        Ok(None) => {
            let what = "the data file is in use: key slots, log key and contents were not looked at";
            posture.tell("data file's inside", State::Unknown, what, "stop the service and run doctor and verify");
        }
        Err(failure) => posture.weak("data file's inside", failure.message, "the service will not start either"),
    }
}

/// The model, and how many memories wait for their vectors.
fn embeddings(posture: &mut Posture, config: &Config) {
    let model = match open::model(config) {
        Err(failure) => return posture.weak("embeddings", failure.message, "the service will not start"),
        Ok(None) => {
            let what = "no model: search goes by words alone";
            return posture.tell("embeddings", State::Off, what, format_args!("{} names one", settings::EMBEDDING_MODEL.row.name));
        }
        Ok(Some(model)) => model,
    };
    let which = format!("model {} of {} dimensions, by its hash", hex::encode(&model.id()), model.width());
    let opened = open::kek(config).ok().and_then(|kek| Engine::inspect(&config.db_path, &open::options(config), &kek).ok());
    let progress = opened.and_then(|engine| embedder::standing_in(&engine, &model.id()).ok());
    match progress {
        Some(progress) => {
            let waiting = progress.live.saturating_sub(progress.embedded);
            posture.on("embeddings", format_args!("{which}; {waiting} of {} memories wait for their vector", progress.live));
        }
        None => posture.on("embeddings", format_args!("{which}; who administrates the service asks GET /api/v1/embeddings how far it is")),
    }
}

/// What asks for attention in the file itself: backups, drills, erasures, as `rosemary status` has it.
fn standing(posture: &mut Posture, config: &Config, engine: &Engine) {
    let clock = Clock::system();
    match status::of(engine, config.anchor_file.as_deref(), &clock) {
        Ok(found) => {
            let told = ops::document(&found, &crate::cli::status::around(config, false), clock.now());
            // That nothing serves while doctor looks is no fault; certificate, space, clock and old files have lines of their own.
            let problems = told["problems"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
            let elsewhere = ["stopped", "certificate", "disk", "clock", "to be wiped"];
            let open: Vec<&str> = problems.filter(|text| !elsewhere.iter().any(|word| text.contains(word))).collect();
            match &found.last_backup {
                Some((_, row)) => posture.on("last backup", format_args!("{}, {} kept", row.begun_at, found.backups)),
                None if config.backup_dir.is_some() => {
                    posture.weak("last backup", "there is none yet", "rosemary backup make, or start the service")
                }
                None => {}
            }
            match &found.drill {
                Some(drill) if drill.passed => posture.on("restore drill", format_args!("passed {}, in {} ms", drill.at, drill.restore_ms)),
                Some(_) | None => {}
            }
            for problem in open.into_iter().filter(|text| !text.contains("no backup")) {
                posture.weak("standing", problem, "see docs/operations.md");
            }
        }
        Err(error) => posture.weak("standing", error, "run rosemary verify"),
    }
}

fn anchor(posture: &mut Posture, config: &Config) {
    let Some(path) = &config.anchor_file else {
        let what =
            format!("off ({} is not set): an older copy put in the data file's place would not be noticed", settings::ANCHOR_FILE.row.name);
        return posture.weak("anchor", what, "name a file on another disk");
    };
    match (fs::metadata(path), nearest(&config.db_path)) {
        (Err(error), _) => posture.weak(
            "anchor",
            format_args!("{}: {error}; the service will not start", path.display()),
            "put it back, or after finding out why run rosemary anchor accept",
        ),
        (Ok(anchor), Ok(data)) if anchor.dev() == data.dev() => posture.weak(
            "anchor",
            format_args!("{}: on the data file's disk: whoever rolls back the disk rolls back both", path.display()),
            "put it on another disk",
        ),
        _ => posture.on("anchor", path.display()),
    }
}

fn memory(posture: &mut Posture, config: &Config) {
    let swaps = fs::read_to_string("/proc/swaps").map(|text| text.lines().count().saturating_sub(1));
    let name = settings::LOCK_MEMORY.row.name;
    let barred = fs::read_to_string(SWAP_MAX).is_ok_and(|max| max.trim() == "0");
    match swaps {
        Ok(0) => posture.on("swap", "this machine has none, so records in memory stay there"),
        Ok(_) if barred => posture.on("swap", "the unit keeps the service out of it (MemorySwapMax=0)"),
        Ok(_) if config.lock_memory => posture.on("swap", format_args!("{name}=on keeps the service out of it; else it does not start")),
        Ok(_) => posture.weak(
            "swap",
            "this machine swaps, and nothing seen here keeps the service out of it: record text could reach the disk in clear",
            format_args!("run it by the unit (MemorySwapMax=0), set {name}=on, or swapoff -a"),
        ),
        Err(error) => posture.tell("swap", State::Unknown, format_args!("/proc/swaps: {error}"), ""),
    }
    let core = rustix::process::getrlimit(rustix::process::Resource::Core);
    let dumpable = rustix::process::dumpable_behavior();
    if core.current == Some(0) && matches!(dumpable, Ok(rustix::process::DumpableBehavior::NotDumpable)) {
        posture.on("core dumps", "refused; other processes of the same user cannot trace this program");
    } else {
        posture.weak("core dumps", "this system does not let the program refuse them", "set LimitCORE=0 in the unit");
    }
}

fn tls(posture: &mut Posture, config: &Config) {
    match open::tls(config) {
        Err(failure) => posture.weak("certificate", failure.message, "the service will not start"),
        Ok(identity) => {
            let now = Clock::system().now();
            let kind = if config.tls.own { "your own" } else { "self-signed by init; clients must be given it as their CA file" };
            let remedy = if config.tls.own {
                "renew it, then send SIGHUP"
            } else {
                "replace cert.pem and key.pem beside the data file, then send SIGHUP"
            };
            match identity.not_after() {
                Some(end) if end <= now => posture.weak("certificate", format_args!("ended {end} ({kind})"), remedy),
                Some(end) if end <= now.plus(limits::CERTIFICATE_TIME_MIN) => {
                    posture.weak("certificate", format_args!("ends {end} ({kind})"), remedy)
                }
                Some(end) => posture.on("certificate", format_args!("until {end} ({kind})")),
                None => posture.weak("certificate", "says not legibly when it ends", "issue it anew"),
            }
        }
    }
    match &config.tls.client_ca {
        Some(path) => posture.on("client certificates", format_args!("required, signed by {}", path.display())),
        None => posture.tell(
            "client certificates",
            State::Off,
            "not asked for: whoever reaches the port may try a key",
            format_args!("{} asks for them", settings::TLS_CLIENT_CA.row.name),
        ),
    }
    match config.tls.min_version {
        TlsVersion::V1_3 => posture.on("TLS", "1.3 alone"),
        TlsVersion::V1_2 => posture.on("TLS", "1.2 and 1.3, forward secret ciphers alone"),
    }
}

fn rates(posture: &mut Posture, config: &Config) {
    let rates = [
        ("rate: addresses", settings::RATE_LIMIT.row.name, config.limits.address),
        ("rate: credentials", settings::CREDENTIAL_RATE_LIMIT.row.name, config.limits.credential),
        ("rate: administration", settings::ADMIN_RATE_LIMIT.row.name, config.limits.admin),
    ];
    for (name, setting, limit) in rates {
        match limit {
            Some(limit) => posture.on(name, format_args!("{limit} requests a minute")),
            None => {
                posture.weak(name, format_args!("rate limit off ({setting}=0): guessing and flooding are not slowed"), "remove the setting")
            }
        }
    }
}

fn static_keys(posture: &mut Posture, config: &Config) {
    let dashboard = [settings::DASHBOARD_SERVICE_KEY.row.name, settings::DASHBOARD_JWT_SECRET.row.name];
    let names = config.api_key.iter().map(|_| settings::API_KEY.row.name).chain(config.agent_keys.iter().map(|agent| agent.name.as_str()));
    let names = names.chain(config.dashboard.iter().flat_map(|_| dashboard));
    let (mut bare, mut filed) = (Vec::new(), Vec::new());
    for name in names {
        if std::env::var_os(name).is_some_and(|value| !value.is_empty()) { bare.push(name) } else { filed.push(name) }
    }
    if !bare.is_empty() {
        let what =
            format!("{} directly in the environment, where other processes of the user and crash reports may show them", bare.join(", "));
        posture.weak("static keys", what, "move each into a file and name it by its _FILE form");
    }
    if !filed.is_empty() {
        posture.on("static keys", format_args!("{}: from files; they end only by a restart without them", filed.join(", ")));
    }
    if bare.is_empty() && filed.is_empty() {
        posture.on("static keys", "none: every key can be listed and revoked");
    }
}

/// Who may act as anybody.
fn dashboard(posture: &mut Posture, config: &Config) {
    let (key, secret) = (settings::DASHBOARD_SERVICE_KEY.row.name, settings::DASHBOARD_JWT_SECRET.row.name);
    match (&config.dashboard, config.seats_max) {
        (None, _) => posture.tell("dashboard", State::Off, format_args!("{key} is not set: people sign in by their own keys alone"), ""),
        (Some(_), 0) => posture.tell(
            "dashboard",
            State::On,
            format_args!("whoever holds {key} and {secret} can act as anybody, and make anybody known"),
            format_args!("{} bounds whom it makes known", settings::MAX_SEATS.row.name),
        ),
        (Some(_), most) => {
            posture.on(
                "dashboard",
                format_args!("whoever holds {key} and {secret} can act as anybody; up to {most} people become known by it"),
            );
        }
    }
    let admins = config.admin_emails.len();
    posture.on("administrators", format_args!("the owner, and {admins} more by {}", settings::OWNER_EMAILS.row.name));
}

fn machine(posture: &mut Posture, config: &Config) {
    let folder: PathBuf = folder_of(&config.db_path).to_owned();
    match rustix::fs::statvfs(&folder) {
        Ok(about) => {
            let free = about.f_bavail.saturating_mul(about.f_frsize);
            let what =
                format!("{} MiB free at {}; writes stop below {} MiB", free >> 20, folder.display(), limits::RESERVE_WRITE_BYTES >> 20);
            match free < RESERVES_FREE * limits::RESERVE_WRITE_BYTES {
                true => posture.weak("disk space", what, "free some space or enlarge the disk"),
                false => posture.on("disk space", what),
            }
        }
        Err(error) => posture.tell("disk space", State::Unknown, format_args!("{}: {}", folder.display(), io::Error::from(error)), ""),
    }
    let now = Clock::system().now();
    let written = fs::metadata(&config.db_path).ok().and_then(|about| u64::try_from(about.mtime()).ok());
    let ahead = written.is_some_and(|written| Timestamp::from_ms(written.saturating_mul(1000)) > now.plus(Duration::from_secs(60)));
    if ahead || now.ms() < limits::CLOCK_MS_MIN {
        posture.weak(
            "clock",
            format_args!("it is {now} here, before the data file was last written or this program was made"),
            "set the clock, and keep it by NTP",
        );
    } else {
        posture.on("clock", format_args!("{now}"));
    }
    if fs::metadata(&config.db_path).is_ok_and(|about| about.uid() == 0) {
        posture.weak("user", "the data file belongs to root, so the service runs as root", "run it as a user of its own, as the unit does");
    }
}

/// Whether memories may go to a language model.
fn model(posture: &mut Posture, config: &Config) {
    let name = settings::DISABLE_MODEL_EGRESS.row.name;
    match &config.model {
        None => posture.tell("model egress", State::Off, format_args!("{name}=true: /query and /chat refuse, nothing leaves"), ""),
        Some(model) => {
            posture.on(
                "model egress",
                format_args!(
                    "{name}=false: {} is asked through the relay alone, each time on record; see rosemary egress list",
                    model.name
                ),
            );
        }
    }
}

/// The lock that the service would have: engaged in this process, and every way out tried from inside.
fn way_out(posture: &mut Posture, config: &Config) {
    let name = settings::EGRESS_LOCK.row.name;
    if !config.egress_lock {
        let what = format!("{name}=off: the program opens no outbound socket, but the kernel would let it");
        return posture.weak("egress lock", what, format_args!("remove {name}"));
    }
    let attempts = match sandbox::attempts() {
        Ok(attempts) => attempts,
        Err(error) => {
            return posture.weak("egress lock", format_args!("{error}; the service will not start"), "run a kernel that enforces it");
        }
    };
    let refused = attempts.iter().filter(|attempt| attempt.refused.is_some()).count();
    if refused == attempts.len() {
        posture.on("egress lock", format_args!("{refused} ways out tried, {refused} refused by the kernel"));
    } else {
        let open: Vec<&str> = attempts.iter().filter(|attempt| attempt.refused.is_none()).map(|attempt| attempt.what.as_str()).collect();
        let what = format!("the kernel let the program try: {}", open.join(", "));
        posture.weak(
            "egress lock",
            what,
            "report it, with the kernel's version, and deny the service's user outbound traffic in the firewall",
        );
    }
    for attempt in attempts {
        let answer = attempt.refused.unwrap_or_else(|| "let through".to_owned());
        posture.tell(
            "egress attempt",
            if answer == "let through" { State::Weak } else { State::On },
            format_args!("{}: {answer}", attempt.what),
            "",
        );
    }
}

/// Whether there is anything to restore from.
fn backups(posture: &mut Posture, config: &Config) {
    let name = settings::BACKUP_DIR.row.name;
    let Some(folder) = &config.backup_dir else {
        return posture.weak("backup", "no folder for backups is set", format_args!("set {name} to a folder on another disk"));
    };
    match (fs::metadata(folder), nearest(&config.db_path)) {
        (Err(error), _) => {
            posture.weak("backup", format_args!("{name}: {}: {error}", folder.display()), "make the folder, for the service's user")
        }
        (Ok(about), _) if !about.is_dir() => {
            posture.weak("backup", format_args!("{name}: {}: not a folder", folder.display()), "name a folder")
        }
        (Ok(about), _) if about.mode() & 0o077 != 0 => {
            posture.weak(
                "backup",
                format_args!("{name}: {}: open to other users", folder.display()),
                format_args!("chmod 700 {}", folder.display()),
            );
        }
        (Ok(about), Ok(data)) if about.dev() == data.dev() => {
            posture.weak("backup", format_args!("{name}: {}: on the disk of the data file", folder.display()), "put it on another disk");
        }
        _ => posture.on("backup", format_args!("{}", folder.display())),
    }
}

/// What this version has not, so that nobody relies on it.
fn absent(posture: &mut Posture) {
    for (name, what, remedy) in [
        ("legal hold", "nothing refuses a deletion or erasure because of a hold in this version", "ask before you erase"),
        ("retention", "nothing is deleted by age in this version", "delete by hand where the law asks for it"),
    ] {
        posture.tell(name, State::Absent, what, remedy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_weak_is_counted_and_named_in_both_forms() {
        let mut posture = Posture::default();
        posture.on("a", "well");
        posture.weak("b", "broken", "mend it");
        assert!(posture.text().contains("-> mend it") && posture.text().contains("1 weak"));
        let json: serde_json::Value = serde_json::from_str(&posture.json()).unwrap();
        assert_eq!((json["weak"].as_u64(), json["checks"][1]["state"].as_str()), (Some(1), Some("weak")));
    }
}
