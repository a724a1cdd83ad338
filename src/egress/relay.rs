//! The relay: a process that takes orders from the service and carries them out. The only one that opens connections to other machines.
//!
//! Invariants
//! - What it may reach is settled before it connects to the service; no order adds to it.
//! - It restarts without the service and the service without it: a lost connection is made again, and an order that was under way is lost.
//! - It keeps nothing: neither what is sent nor what is answered outlives the order.

use std::io;
use std::net::{IpAddr, Shutdown};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::base::log::{self, Level, Operator};
use crate::base::{fault, limits};
use crate::config::relay::RelayConfig;
use crate::egress::address;
use crate::egress::client::{Client, Post};
use crate::egress::frame::{self, End, FrameError, Hello, Order, Outcome, Said, What};
use crate::egress::resolve::Names;
use crate::sandbox::Folders;

/// What the relay works with.
pub struct Relay {
    config: RelayConfig,
    client: Client,
    names: Names,
    under_way: AtomicUsize,
}

impl Relay {
    /// A relay for this configuration.
    ///
    /// Errors: there are no certificates to check destinations by; the text is for the operator.
    pub fn new(config: RelayConfig) -> Result<Self, String> {
        let client = Client::new(config.ca.as_deref(), Duration::from_secs(config.seconds.into()))?;
        Ok(Self { config, client, names: Names::system(), under_way: AtomicUsize::new(0) })
    }

    /// What its kernel lock must leave open: the files that names are looked up in, and the listed ports.
    pub fn needs(&self) -> (Folders, Vec<u16>) {
        let read = ["/etc", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager"].map(PathBuf::from).to_vec();
        (Folders { read, write: Vec::new() }, self.config.allow.iter().map(|to| to.port).collect())
    }

    /// Connects to the service, obeys it, and does so again when the connection ends. Never returns.
    pub fn run(self) -> ! {
        let relay = Arc::new(self);
        let mut told = false;
        loop {
            match connect(&relay.config.socket) {
                Ok(service) => {
                    log::line(Level::Info, "connected to the service", &[]);
                    told = false;
                    let ended = relay.obey(&service);
                    log::line(Level::Info, "the connection to the service ended", &[("why", &Operator::text(&ended))]);
                }
                Err(error) if !told => {
                    // Said once, not twice a second.
                    log::line(Level::Warn, "the service does not listen", &[("error", &Operator::text(&error))]);
                    told = true;
                }
                Err(_) => {}
            }
            thread::sleep(limits::RELAY_PAUSE);
        }
    }

    /// Takes orders until the connection ends.
    fn obey(self: &Arc<Self>, service: &UnixStream) -> FrameError {
        let number = |n: usize| u16::try_from(n).expect("a list is short");
        let hello = Hello {
            destinations: number(self.config.allow.len()),
            model: self.config.model.as_ref().map(|model| number(model.index)),
            locked: self.config.lock,
        };
        let taken = (|| -> Result<(), FrameError> {
            service.set_write_timeout(Some(limits::EGRESS_FRAME_TIME_MAX))?;
            frame::write(service, &Said::Relay(hello))?;
            let answers = Arc::new(Mutex::new(service.try_clone()?));
            loop {
                let Order { number, what } = frame::read(service, None)?;
                self.take(number, what, &answers)?;
            }
        })();
        let _ = service.shutdown(Shutdown::Both);
        taken.expect_err("orders are taken until that fails")
    }

    /// Carries out one order in a thread of its own, if there is room for one more.
    fn take(self: &Arc<Self>, number: u64, what: What, answers: &Arc<Mutex<UnixStream>>) -> Result<(), FrameError> {
        if self.under_way.fetch_add(1, Ordering::SeqCst) >= limits::EGRESS_ORDERS_MAX {
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            return tell(answers, number, End::without(Outcome::Busy));
        }
        let (relay, to) = (Arc::clone(self), Arc::clone(answers));
        let started = thread::Builder::new().name("order".into()).spawn(move || {
            let end = fault::catch(|| relay.carry_out(&what)).unwrap_or_else(|_| End::without(Outcome::BrokenOff));
            log::line(Level::Info, "an order ended", &[("order", &number), ("for", &what.word()), ("ended", &end.outcome.word())]);
            relay.under_way.fetch_sub(1, Ordering::SeqCst);
            // If it cannot be told, the reader of this connection finds out too.
            let _ = tell(&to, number, end);
        });
        if started.is_err() {
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            return tell(answers, number, End::without(Outcome::Busy));
        }
        Ok(())
    }

    fn carry_out(&self, what: &What) -> End {
        match what {
            What::Test(index) => {
                let Some(to) = self.config.allow.get(usize::from(*index)) else { return End::without(Outcome::NotListed) };
                End::without(match leads(&self.config, usize::from(*index), &self.names) {
                    Ok(addresses) => self.client.handshake(to, &addresses),
                    Err(refused) => refused,
                })
            }
            What::Model(body) => {
                let Some(model) = &self.config.model else { return End::without(Outcome::NotListed) };
                let to = &self.config.allow[model.index];
                let path = format!("{}/chat/completions", model.path);
                match leads(&self.config, model.index, &self.names) {
                    Ok(addresses) => self.client.post(&Post { to, path: &path, key: model.key.as_ref(), body }, &addresses),
                    Err(refused) => End::without(refused),
                }
            }
        }
    }
}

/// The addresses of the destination of this number, counted from 0, looked up now, all of them allowed: private ones if it is the model's and the
/// settings ask for that, whatever the connection is for.
///
/// Errors: how an attempt to get there ends.
pub fn leads(config: &RelayConfig, index: usize, names: &Names) -> Result<Vec<IpAddr>, Outcome> {
    let to = config.allow.get(index).ok_or(Outcome::NotListed)?;
    let internal = config.model.as_ref().is_some_and(|model| model.index == index && model.internal);
    let found = names.lookup(&to.host).ok_or(Outcome::NameUnknown)?;
    if address::are_allowed(&found, internal) { Ok(found) } else { Err(Outcome::AddressRefused) }
}

fn tell(answers: &Mutex<UnixStream>, number: u64, end: End) -> Result<(), FrameError> {
    let line = answers.lock().unwrap_or_else(PoisonError::into_inner);
    // After half a frame nothing that follows would be understood as it is meant.
    frame::write(&line, &Said::Done(number, end)).inspect_err(|_| {
        let _ = line.shutdown(Shutdown::Both);
    })
}

/// The service's socket.
#[allow(clippy::disallowed_methods, reason = "the relay's own process, to the socket that its settings name")]
pub fn connect(socket: &std::path::Path) -> io::Result<UnixStream> {
    UnixStream::connect(socket)
}
