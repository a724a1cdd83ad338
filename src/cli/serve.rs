//! `rosemary serve`: opens the store, listens, and answers until told to stop.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::api::run::{Api, Settings};
use crate::base::log::{self, Level, Operator};
use crate::cli::exit::{Exit, Failure};
use crate::cli::open;
use crate::config::{self, Config, settings};
use crate::http::{self, Authority, Server, TlsIdentity};
use crate::sandbox::{self, Folders, Given, Notify};
use crate::store::upkeep::Upkeep;
use crate::store::{Store, Vault};

/// What the service manager shows of a service that answers.
const READY: &str = "answering";
/// How long a signal waits at most before it is obeyed.
const TURN: Duration = Duration::from_millis(50);

/// A running service.
pub struct Running {
    server: Server,
    store: Store,
    tls: Arc<TlsIdentity>,
    told: Told,
    notify: Notify,
    upkeep: Option<Upkeep>,
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
        let given = sandbox::receive().map_err(|error| Failure::new(Exit::Unavailable, format_args!("LISTEN_FDS: {error}; see systemd.socket(5)")))?;
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
fn listeners(config: &Config, given: Given) -> Result<Vec<TcpListener>, Failure> {
    if !given.tcp.is_empty() {
        return Ok(given.tcp);
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
    let keys = [Some(config.kek.path()), config.backup_key_file.as_deref()];
    Folders {
        // Folders of files that are read again later, since a renewed file is another one under the same name.
        read: read.into_iter().flatten().map(|path| parent(path)).chain(keys.into_iter().flatten().map(Path::to_owned)).collect(),
        write: [Some(&config.db_path), config.anchor_file.as_ref()].into_iter().flatten().map(|path| parent(path)).chain(config.backup_dir.clone()).collect(),
    }
}

/// Has the kernel lock this process in, as the settings want it.
fn lock(config: &Config) -> Result<(), Failure> {
    let name = settings::EGRESS_LOCK.row.name;
    if !config.egress_lock {
        log::line(Level::Warn, "the kernel's egress lock is off", &[("setting", &name)]);
        return Ok(());
    }
    sandbox::engage(&folders(config))
        .map_err(|error| Failure::new(Exit::LockUnenforced, format_args!("{error}; run a kernel that does, or set {name}=off and know what it costs")))
}

/// Starts the service that the settings describe.
pub fn start(config: &mut Config, outside: Outside) -> Result<Running, Failure> {
    let told = Told::listen()?;
    let tls = open::tls(config)?;
    let listeners = listeners(config, outside.given)?;
    // Before any other thread: what is started from here on is inside.
    lock(config)?;
    let store = open::store(config)?;
    let started = {
        let port = listeners.first().and_then(|l| l.local_addr().ok()).map_or(config.port, |address| address.port());
        let rate = |limit: Option<std::num::NonZeroU32>| limit.map_or(0, std::num::NonZeroU32::get);
        let settings = Settings {
            address_per_minute: rate(config.limits.address),
            credential_per_minute: rate(config.limits.credential),
            admin_per_minute: rate(config.limits.admin),
            public_url: config.public_url.as_ref().map_or_else(|| format!("https://localhost:{port}"), |url| url.text.clone()),
        };
        let http = http::Settings {
            max_connections: config.max_connections,
            max_per_address: config.max_connections_per_address,
            trusted_proxies: config.trusted_proxies.clone(),
            public: config.public_url.as_ref().and_then(|url| Authority::parse(&format!("{}:{}", url.host, url.port))),
            ..http::Settings::default()
        };
        let api = Arc::new(Api::new(store.vault().clone(), &settings));
        Server::start(listeners, http, Arc::clone(&tls), Arc::new(api))
            .map_err(|error| Failure::new(Exit::Unavailable, format_args!("the service could not start: {error}")))
    };
    let started = started.and_then(|server| match open::schedule(config).map(|schedule| Upkeep::start(store.vault().clone(), schedule)).transpose() {
        Ok(upkeep) => Ok((server, upkeep)),
        Err(error) => {
            server.stop();
            Err(Failure::new(Exit::Temporary, format_args!("a thread could not be started: {error}")))
        }
    });
    match started {
        Ok((server, upkeep)) => Ok(Running { server, store, tls, told, notify: outside.notify, upkeep }),
        Err(failure) => {
            store.stop();
            Err(failure)
        }
    }
}

impl Running {
    /// The store's gate.
    pub fn vault(&self) -> &Vault {
        self.store.vault()
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.server.addresses().first().map_or(0, std::net::SocketAddr::port)
    }

    /// Serves until SIGTERM or SIGINT; SIGHUP reads the certificate and the level of the log anew. Then drains and closes.
    pub fn until_told(self, config: &Config) {
        for address in self.server.addresses() {
            log::line(Level::Info, "listening", &[("address", address)]);
        }
        self.notify.ready(READY);
        let mut last = Instant::now();
        while !self.told.stop.load(Ordering::Relaxed) {
            std::thread::sleep(TURN);
            if self.told.reload.swap(false, Ordering::Relaxed) {
                self.notify.reloading();
                self.reload(config);
                self.notify.ready(READY);
            }
            // Whoever watches hears nothing from a service that cannot answer any more, and starts it anew.
            if self.notify.interval().is_some_and(|interval| last.elapsed() >= interval) && self.vault().is_up() {
                last = Instant::now();
                self.notify.alive();
            }
        }
        self.notify.stopping();
        self.stop();
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
        self.server.stop();
        self.upkeep.map(Upkeep::stop).unwrap_or_default();
        self.store.stop();
        log::line(Level::Info, "stopped", &[]);
    }
}

/// The command.
pub fn run(mut config: Config) -> Result<Exit, Failure> {
    harden();
    start(&mut config, Outside::receive()?)?.until_told(&config);
    Ok(Exit::Ok)
}

/// No core dumps, not traceable by other processes of this user. A system that refuses is not a reason to stop; `doctor` tells.
pub fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}
