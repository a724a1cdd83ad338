//! Telling the service manager how it goes (sd_notify(3)): ready, reloading, stopping, alive.
//!
//! Invariants
//! - The socket is connected before the lock; afterwards only this one peer can be told anything, and nothing is read from it.
//! - No manager, no socket: then every call does nothing. A message that cannot be sent is not waited for.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The line to the service manager.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// Connects to the manager named by `NOTIFY_SOCKET`, and learns from `WATCHDOG_USEC` how often it wants a sign of life.
    pub fn connect() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        Self { socket: dial(&name), watchdog: watchdog() }
    }

    /// How often to call [`Notify::alive`]: twice in each period, as the manual advises. `None`: the manager does not watch.
    pub fn interval(&self) -> Option<Duration> {
        self.watchdog.map(|period| period / 2)
    }

    /// The service answers requests.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// Settings are being read anew; to be followed by [`Notify::ready`].
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// The service is going down.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping");
    }

    /// A sign of life.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, message: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(message.as_bytes());
        }
    }
}

/// A datagram socket that can speak to `name` alone: a path, or an abstract name after `@`.
#[allow(clippy::disallowed_methods, reason = "the service manager of this machine, named by it; before the lock")]
fn dial(name: &std::ffi::OsStr) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    match name.to_str().and_then(|name| name.strip_prefix('@')) {
        Some(abstracted) => socket.connect_addr(&SocketAddr::from_abstract_name(abstracted.as_bytes()).ok()?).ok()?,
        None => socket.connect(name).ok()?,
    }
    Some(socket)
}

fn watchdog() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|usec| meant && *usec > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_reach_the_socket_that_was_named_and_no_other() {
        let name = format!("rosemary-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let notify = Notify { socket: dial(format!("@{name}").as_ref()), watchdog: None };
        notify.ready("listening");
        notify.alive();
        let mut buffer = [0; 64];
        let n = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"READY=1\nSTATUS=listening");
        let n = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"WATCHDOG=1");
        Notify::default().ready("nobody listens");
    }
}
