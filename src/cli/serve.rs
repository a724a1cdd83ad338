//! `rosemary serve`: opens the store, listens, and answers until told to stop.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::api::door::Door;
use crate::api::ops::status::Surroundings;
use crate::api::run::{Api, Settings};
use crate::audit::{Detail, Word};
use crate::authn::Principal;
use crate::base::log::{self, Level, Operator};
use crate::cli::console::{self, Attempt, Console};
use crate::cli::desk::{Desk, Facts};
use crate::cli::exit::{Exit, Failure};
use crate::cli::{open, status};
use crate::config::{self, Config, KekChoice, settings};
use crate::crypto::unlock::{Kek, SlotKind};
use crate::egress::hub::{self, Entrance, Hub, Listening};
use crate::http::{self, Authority, Server, TlsIdentity};
use crate::identity::Refusal;
use crate::policy::action::{Instance, UnlockInstance};
use crate::sandbox::{self, Folders, Given, Notify};
use crate::store::gate::Call;
use crate::store::kept;
use crate::store::upkeep::Upkeep;
use crate::store::{self, Store, Vault};

/// What the service manager shows of a service that answers.
const ANSWERING: &str = "answering";
/// Of one that waits for its key.
const LOCKED: &str = "locked: waiting for rosemary unlock";
/// Of one that has been given a key.
const OPENING: &str = "opening the data file";
/// The packaged relay's user.
const RELAY_USER: &str = "rosemary-relay";
/// How long a signal waits at most before it is obeyed.
const TURN: Duration = Duration::from_millis(50);

/// A running service: locked, or open.
pub struct Running {
    server: Server,
    door: Arc<Door>,
    console: Option<Console>,
    /// Where keys arrive, and what the store will be told, while it is locked.
    sealed: Option<(Receiver<Attempt>, store::vault::Settings)>,
    open: Option<Open>,
    /// Where the relay comes in, if there is a language model to ask.
    entrance: Option<Entrance>,
    tls: Arc<TlsIdentity>,
    told: Told,
    notify: Notify,
    around: Arc<Surroundings>,
}

/// What is there once the data file is open.
struct Open {
    store: Store,
    upkeep: Option<Upkeep>,
    relay: Option<(Arc<Hub>, Listening)>,
}

/// What a process was started with, beside its settings.
#[derive(Default)]
pub struct Outside {
    /// Listeners that somebody else opened; without any, the settings' own are opened.
    pub given: Given,
    /// The service manager.
    pub notify: Notify,
}

impl Outside {
    /// Takes passed listeners, closes every other inherited descriptor, and connects to the service manager.
    fn receive() -> Result<Self, Failure> {
        let given = sandbox::receive()
            .map_err(|error| Failure::new(Exit::Unavailable, format_args!("LISTEN_FDS: {error}; see systemd.socket(5)")))?;
        Ok(Self { given, notify: Notify::connect() })
    }
}

/// What signals have told the process to do.
#[derive(Default)]
struct Told {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Told {
    /// Listens to SIGTERM, SIGINT and SIGHUP from here on: one that comes while the store is opened is obeyed after it.
    fn listen() -> Result<Self, Failure> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let told = Self::default();
        for (signal, flag) in [(SIGTERM, &told.stop), (SIGINT, &told.stop), (SIGHUP, &told.reload)] {
            signal_hook::flag::register(signal, Arc::clone(flag))
                .map_err(|error| Failure::new(Exit::Internal, format_args!("signals cannot be received: {error}")))?;
        }
        Ok(told)
    }
}

/// Listeners passed in, or those of the settings.
fn listeners(config: &Config, given: Vec<TcpListener>) -> Result<Vec<TcpListener>, Failure> {
    if !given.is_empty() {
        return Ok(given);
    }
    http::bind(&config.listen, config.port).map_err(|error| {
        let addresses: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
        Failure::new(
            Exit::Unavailable,
            format_args!(
                "RM_LISTEN={} RM_PORT={}: cannot be listened on ({error}); choose an address of this machine and a free port",
                addresses.join(","),
                config.port
            ),
        )
    })
}

/// The files that the service needs once it runs.
fn folders(config: &Config) -> Folders {
    let parent = |path: &Path| path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let read = [Some(&config.tls.cert), Some(&config.tls.key), config.tls.client_ca.as_ref(), config.settings_file.as_ref()];
    let keys = [config.kek.path(), config.backup_key_file.as_deref()];
    Folders {
        // Folders of files that are read again later, since a renewed file is another one under the same name.
        read: read.into_iter().flatten().map(|path| parent(path)).chain(keys.into_iter().flatten().map(Path::to_owned)).collect(),
        write: [Some(&config.db_path), config.anchor_file.as_ref()]
            .into_iter()
            .flatten()
            .map(|path| parent(path))
            .chain(config.backup_dir.clone())
            .collect(),
    }
}

/// Has the kernel lock this process in, as the settings want it.
fn lock(config: &Config) -> Result<(), Failure> {
    let name = settings::EGRESS_LOCK.row.name;
    if !config.egress_lock {
        log::line(Level::Warn, "the kernel's egress lock is off", &[("setting", &name)]);
        return Ok(());
    }
    sandbox::engage(&folders(config)).map_err(|error| {
        Failure::new(Exit::LockUnenforced, format_args!("{error}; run a kernel that does, or set {name}=off and know what it costs"))
    })
}

/// Keeps all memory, present and to come, out of swap, if the settings want it.
fn lock_memory(config: &Config) -> Result<bool, Failure> {
    use rustix::mm::{MlockAllFlags, mlockall};
    if !config.lock_memory {
        return Ok(false);
    }
    let name = settings::LOCK_MEMORY.row.name;
    // Each page as it is first used: what is only reserved costs nothing.
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).map(|()| true).map_err(|error| {
        let error = std::io::Error::from(error);
        Failure::new(
            Exit::Config,
            format_args!(
                "{name}: the kernel refused ({error}); allow it (LimitMEMLOCK=infinity in the unit, ulimit -l unlimited), or set {name}=off"
            ),
        )
    })
}

/// Takes what the system grants for connections, and says where it is too little for as many as the settings let in.
fn take_grants(config: &Config) {
    let name = settings::MAX_CONNECTIONS.row.name;
    for short in sandbox::take_grants(config.max_connections) {
        let text = "fewer connections than the setting lets in can be served at once; raise the system's limit, or lower the setting";
        log::line(
            Level::Warn,
            text,
            &[
                ("setting", &name),
                ("of", &short.what),
                ("granted", &short.granted),
                ("needed", &short.needed),
                ("raised_by", &Operator::text(&short.remedy)),
            ],
        );
    }
}

/// The console's socket. A service that serves without one is worth more than none; one that is locked could never be unlocked.
fn console(config: &Config) -> Result<Result<UnixListener, std::io::Error>, Failure> {
    let (name, path) = (settings::CONSOLE_SOCKET.row.name, &config.console_socket);
    match console::listen(path) {
        Err(error) if config.kek == KekChoice::Console => {
            let remedy = match error.kind() {
                std::io::ErrorKind::AddrInUse => "another service answers there: stop it, or name another path",
                _ => "name a path in a folder of the service's user",
            };
            Err(Failure::new(Exit::Unavailable, format_args!("{name}: {}: {error}; {remedy}", path.display())))
        }
        listener => Ok(listener),
    }
}

/// Where the relay comes in: a socket passed in, or that of the settings; none where nothing may leave.
fn entrance(config: &Config, given: Vec<UnixListener>) -> Result<Option<Entrance>, Failure> {
    if config.model.is_none() {
        return Ok(None);
    }
    let (name, user_name) = (settings::RELAY_SOCKET.row.name, settings::RELAY_USER.row.name);
    let listener = match (given.into_iter().next(), &config.relay_socket) {
        (Some(listener), _) => listener,
        (None, Some(path)) => hub::listen(path).map_err(|error| {
            Failure::new(
                Exit::Unavailable,
                format_args!("{name}: {}: {error}; name a path in a folder of the service's user", path.display()),
            )
        })?,
        (None, None) => {
            let off = settings::DISABLE_MODEL_EGRESS.row.name;
            return Err(Failure::new(
                Exit::Config,
                format_args!("{off}=false: there is no socket for the relay: enable rosemary-relay.socket, or set {name} (docs/egress.md)"),
            ));
        }
    };
    let user = match &config.relay_user {
        Some(user) => hub::user_id(user).ok_or_else(|| {
            Failure::new(Exit::Config, format_args!("{user_name}={user}: there is no such user in /etc/passwd; name the relay's"))
        })?,
        None => hub::user_id(RELAY_USER).unwrap_or_else(|| rustix::process::geteuid().as_raw()),
    };
    Ok(Some(Entrance { listener, user }))
}

/// How the API is told of limits and of its address.
fn api_settings(config: &Config, port: u16, hub: Option<&Arc<Hub>>, around: &Arc<Surroundings>) -> Settings {
    let rate = |limit: Option<std::num::NonZeroU32>| limit.map_or(0, std::num::NonZeroU32::get);
    Settings {
        address_per_minute: rate(config.limits.address),
        credential_per_minute: rate(config.limits.credential),
        admin_per_minute: rate(config.limits.admin),
        public_url: config.public_url.as_ref().map_or_else(|| format!("https://localhost:{port}"), |url| url.text.clone()),
        model: config.model.clone().zip(hub.cloned()),
        surroundings: Arc::clone(around),
    }
}

/// Opens the data file with `kek`, and the door. `settings` are there still after a failure that another key may avert.
fn bring_up(
    config: &Config,
    settings: &mut Option<store::vault::Settings>,
    kek: Kek,
    door: &Door,
    port: u16,
    entrance: Option<&Entrance>,
    around: &Arc<Surroundings>,
) -> Result<Open, Failure> {
    let kek = Arc::new(kek);
    let store = open::store_with(config, settings, &kek)?;
    end_wiping(config);
    let vault = store.vault().clone();
    let hub = Hub::new();
    let relay = entrance.map(|entrance| hub.start(entrance)).transpose();
    let started =
        relay.and_then(|relay| match open::schedule(config, &kek).map(|schedule| Upkeep::start(vault.clone(), schedule)).transpose() {
            Ok(upkeep) => Ok((relay, upkeep)),
            Err(error) => {
                relay.map(Listening::stop).unwrap_or_default();
                Err(error)
            }
        });
    match started {
        Ok((relay, upkeep)) => {
            let relay = relay.map(|listening| (hub, listening));
            door.open(Arc::new(Api::new(vault, &api_settings(config, port, relay.as_ref().map(|(hub, _)| hub), around))));
            Ok(Open { store, upkeep, relay })
        }
        Err(error) => {
            drop(vault);
            store.stop();
            Err(Failure::new(Exit::Temporary, format_args!("a thread could not be started: {error}")))
        }
    }
}

/// Ends the wiping of an old file, from which `keys rotate all` was cut off: its name is the operator's word for it. Once the file that took its
/// place is open and agrees with its anchor: until then the old one may be the last that is whole.
fn end_wiping(config: &Config) {
    let ended = kept::end_wiping(&config.db_path).unwrap_or_else(|error| vec![(config.db_path.clone(), Err(error))]);
    for (name, how) in ended {
        let (file, error) = (Operator::text(&name.display()), how.err());
        match error {
            None => log::line(
                Level::Info,
                "an old file that was being wiped when something cut it off is wiped and removed",
                &[("file", &file)],
            ),
            Some(error) => log::line(
                Level::Warn,
                "an old file that was to be wiped is still there",
                &[("file", &file), ("error", &Operator::text(&error))],
            ),
        }
    }
}

/// Starts the service that the settings describe.
pub fn start(config: &mut Config, outside: Outside) -> Result<Running, Failure> {
    let told = Told::listen()?;
    let tls = open::tls(config)?;
    // Read before the lock, as nothing needs its file later.
    let model = open::model(config)?;
    let Given { tcp, unix } = outside.given;
    let listeners = listeners(config, tcp)?;
    let entrance = entrance(config, unix)?;
    let (console, without) = match console(config)? {
        Ok(listener) => (Some(listener), None),
        Err(error) => (None, Some(error)),
    };
    // Before any other thread: what is started from here on is inside.
    take_grants(config);
    let memory_locked = lock_memory(config)?;
    lock(config)?;
    let no_thread = |error| Failure::new(Exit::Unavailable, format_args!("the service could not start: {error}"));
    let console = console.map(Console::start).transpose().map_err(no_thread)?;
    let (console, attempts) = console.unzip();
    let port = listeners.first().and_then(|l| l.local_addr().ok()).map_or(config.port, |address| address.port());
    let around = Surroundings { since: Some(Instant::now()), certificate: Some(Arc::clone(&tls)), ..status::around(config, memory_locked) };
    let around = Arc::new(around);
    let (door, mut settings) =
        (Arc::new(Door::shut(config.model.is_some())), Some(store::vault::Settings { model, ..open::store_settings(config) }));
    let open = match config.kek {
        KekChoice::Console => None,
        _ => {
            console.iter().for_each(Console::opening);
            Some(bring_up(config, &mut settings, open::kek(config)?, &door, port, entrance.as_ref(), &around)?)
        }
    };
    // Only now: where the data file is another service's, the console is too, and that is said already.
    if let Some(error) = without {
        let name = settings::CONSOLE_SOCKET.row.name;
        let text = match error.kind() {
            std::io::ErrorKind::AddrInUse => "there is no console; another service answers on its socket, name another path",
            _ => "there is no console; name a path in a folder of the service's user",
        };
        log::line(Level::Warn, text, &[("setting", &name), ("error", &Operator::text(&error))]);
    }
    let http = http::Settings {
        max_connections: config.max_connections,
        max_per_address: config.max_connections_per_address,
        trusted_proxies: config.trusted_proxies.clone(),
        public: config.public_url.as_ref().and_then(|url| Authority::parse(&format!("{}:{}", url.host, url.port))),
        ..http::Settings::default()
    };
    let server = match Server::start(listeners, http, Arc::clone(&tls), Arc::new(Arc::clone(&door))) {
        Ok(server) => server,
        Err(error) => {
            drop(door);
            if let Some(open) = open {
                open.stop();
            }
            return Err(no_thread(error));
        }
    };
    let _ = around.connections.set(server.counter());
    if let (Some(console), Some(open)) = (&console, &open) {
        console.open(|stop| desk(open, config, &told, stop, &around));
    }
    let sealed = if open.is_none() { attempts.zip(settings) } else { None };
    Ok(Running { server, door, console, sealed, open, entrance, tls, told, notify: outside.notify, around })
}

fn desk(open: &Open, config: &Config, told: &Told, stop: Arc<AtomicBool>, around: &Arc<Surroundings>) -> Desk {
    let relay = open.relay.as_ref().map(|(hub, _)| Arc::clone(hub));
    Desk {
        vault: open.store.vault().clone(),
        relay,
        reload: Arc::clone(&told.reload),
        stop,
        config: Facts { db_path: config.db_path.clone() },
        surroundings: Arc::clone(around),
    }
}

/// Records that the service was unlocked, with what, and what came before.
fn note_unlocked(vault: &Vault, kind: SlotKind, refused: u64, failed: u32) -> Result<(), Failure> {
    let who = Principal::system(vault.tenant(), vault.owner(), "console");
    let noted = vault.write::<UnlockInstance, _, Refusal>(&who, Instance, &Call::internal(), move |access| {
        access.detail(Detail::Attempts(failed.into()));
        access.detail(Detail::Refused(refused));
        access.detail(Detail::Setting(Word::of(kind.word())));
        Ok(())
    });
    noted.map(drop).map_err(|refused| open::refused("the unlocking was not recorded", &refused))
}

impl Open {
    fn stop(self) {
        self.relay.map(|(_, listening)| listening.stop()).unwrap_or_default();
        self.upkeep.map(Upkeep::stop).unwrap_or_default();
        self.store.stop();
    }
}

impl Running {
    /// The store's gate, once it is open.
    pub fn vault(&self) -> Option<&Vault> {
        self.open.as_ref().map(|open| open.store.vault())
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.server.addresses().first().map_or(0, std::net::SocketAddr::port)
    }

    fn status(&self) -> &'static str {
        if self.open.is_some() { ANSWERING } else { LOCKED }
    }

    /// Serves until SIGTERM or SIGINT; SIGHUP reads the certificate and the level of the log anew. Then drains and closes.
    ///
    /// Errors: a locked service was given its key, and what it then met leaves it unable to serve.
    pub fn until_told(mut self, config: &Config) -> Result<(), Failure> {
        for address in self.server.addresses() {
            log::line(Level::Info, "listening", &[("address", address)]);
        }
        if self.open.is_none() {
            log::line(Level::Warn, "locked: unlock it with `rosemary unlock`", &[]);
        }
        self.notify.ready(self.status());
        let mut last = Instant::now();
        let mut fatal = None;
        while !self.told.stop.load(Ordering::Relaxed) && fatal.is_none() {
            std::thread::sleep(TURN);
            if let Some(attempt) = self.sealed.as_ref().and_then(|(attempts, _)| attempts.try_recv().ok()) {
                fatal = self.attempt(attempt, config).err();
            }
            if self.told.reload.swap(false, Ordering::Relaxed) {
                self.notify.reloading();
                self.reload(config);
                self.notify.ready(self.status());
            }
            // Whoever watches hears nothing from a service that cannot answer any more, and starts it anew.
            if self.notify.interval().is_some_and(|interval| last.elapsed() >= interval) && self.vault().is_none_or(Vault::is_up) {
                last = Instant::now();
                self.notify.alive();
            }
        }
        self.notify.stopping();
        self.stop();
        fatal.map_or(Ok(()), Err)
    }

    /// Tries a key that was brought. A wrong one, and what the operator can mend meanwhile, leave the service locked.
    ///
    /// Errors: the data file was opened and the service cannot go on.
    fn attempt(&mut self, attempt: Attempt, config: &Config) -> Result<(), Failure> {
        let Some((attempts, settings)) = self.sealed.take() else { return Ok(()) };
        let Attempt { kek, answer } = attempt;
        let (kind, mut settings) = (kek.kind(), Some(settings));
        if let Some(console) = &self.console {
            console.opening();
        }
        self.notify.ready(OPENING);
        drop(attempts);
        let refused = self.door.refused();
        let opened = bring_up(config, &mut settings, kek, &self.door, self.port(), self.entrance.as_ref(), &self.around);
        match (opened, settings, &self.console) {
            (Ok(open), _, Some(console)) => {
                let failed = console.open(|stop| desk(&open, config, &self.told, stop, &self.around));
                let noted = note_unlocked(open.store.vault(), kind, refused, failed);
                self.open = Some(open);
                log::line(Level::Info, "unlocked", &[("with", &kind.word())]);
                self.notify.ready(self.status());
                // An unlocking that is not on record is as if it had not been.
                let _ = answer.send(noted.as_ref().copied().map_err(|failure| Failure::new(failure.exit, failure)));
                noted
            }
            (Err(failure), Some(settings), Some(console)) => {
                log::line(Level::Warn, "a key that was brought did not open the data file", &[("error", &Operator::text(&failure))]);
                self.sealed = Some((console.locked_again(), settings));
                self.notify.ready(self.status());
                let _ = answer.send(Err(failure));
                Ok(())
            }
            (Err(failure), _, _) => {
                let _ = answer.send(Err(Failure::new(failure.exit, &failure)));
                Err(failure)
            }
            (Ok(open), _, None) => {
                self.open = Some(open);
                Ok(())
            }
        }
    }

    /// What SIGHUP asks for. What cannot be read stays as it is.
    fn reload(&self, config: &Config) {
        match self.tls.reload(&open::tls_files(config)) {
            Ok(()) => log::line(Level::Info, "the certificate was read anew", &[]),
            Err(error) => log::line(Level::Error, "the certificate in use stays", &[("error", &Operator::text(&error))]),
        }
        let Some(path) = &config.settings_file else { return };
        match config::level_in(path) {
            Ok(level) => {
                log::set_level(level);
                log::line(Level::Info, "the level of the log was read anew", &[]);
            }
            Err(error) => log::line(Level::Error, "the level of the log stays", &[("error", &Operator::text(&error))]),
        }
    }

    /// Drains and closes.
    pub fn stop(self) {
        log::line(Level::Info, "stopping", &[]);
        // Whoever brings a key from now on is told so instead of being waited for.
        drop(self.sealed);
        self.server.stop();
        self.console.map(Console::stop).unwrap_or_default();
        drop(self.door);
        if let Some(open) = self.open {
            open.stop();
        }
        log::line(Level::Info, "stopped", &[]);
    }
}

/// The command.
pub fn run(mut config: Config) -> Result<Exit, Failure> {
    harden();
    start(&mut config, Outside::receive()?)?.until_told(&config)?;
    Ok(Exit::Ok)
}

/// No core dumps, not traceable by other processes of this user. A system that refuses is not a reason to stop; `doctor` tells.
pub fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}
