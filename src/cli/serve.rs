//! `rosemary serve`: opens the store, listens, and answers until told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::api::run::{Api, Settings};
use crate::base::log::{self, Level, Operator};
use crate::cli::exit::{Exit, Failure};
use crate::cli::open;
use crate::config::Config;
use crate::http::{self, Authority, Server, TlsIdentity};
use crate::store::{Store, Vault};

/// A running service.
pub struct Running {
    server: Server,
    store: Store,
    tls: Arc<TlsIdentity>,
    told: Told,
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

/// Starts the service that the settings describe.
pub fn start(config: &mut Config) -> Result<Running, Failure> {
    let told = Told::listen()?;
    let tls = open::tls(config)?;
    let store = open::store(config)?;
    let listeners = http::bind(&config.listen, config.port).map_err(|error| {
        let addresses: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
        Failure::new(
            Exit::Unavailable,
            format_args!(
                "RM_LISTEN={} RM_PORT={}: cannot be listened on ({error}); choose an address of this machine and a free port",
                addresses.join(","),
                config.port
            ),
        )
    });
    let started = listeners.and_then(|listeners| {
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
    });
    match started {
        Ok(server) => Ok(Running { server, store, tls, told }),
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

    /// Serves until SIGTERM or SIGINT; SIGHUP reads the certificate anew. Then drains and closes.
    pub fn until_told(self, config: &Config) {
        for address in self.server.addresses() {
            log::line(Level::Info, "listening", &[("address", address)]);
        }
        while !self.told.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
            if self.told.reload.swap(false, Ordering::Relaxed) {
                match self.tls.reload(&open::tls_files(config)) {
                    Ok(()) => log::line(Level::Info, "the certificate was read anew", &[]),
                    Err(error) => log::line(Level::Error, "the certificate in use stays", &[("error", &Operator::text(&error))]),
                }
            }
        }
        self.stop();
    }

    /// Drains and closes.
    pub fn stop(self) {
        log::line(Level::Info, "stopping", &[]);
        self.server.stop();
        self.store.stop();
        log::line(Level::Info, "stopped", &[]);
    }
}

/// The command.
pub fn run(mut config: Config) -> Result<Exit, Failure> {
    harden();
    start(&mut config)?.until_told(&config);
    Ok(Exit::Ok)
}

/// No core dumps, not traceable by other processes of this user. A system that refuses is not a reason to stop; `doctor` tells.
pub fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}
