//! Descriptors that the process was started with: listeners passed in by systemd (sd_listen_fds(3)) are taken, all others are closed.
//!
//! Invariant: after [`receive`] the process holds standard input, output and error, the listeners it was given, and nothing else.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use rustix::net::sockopt;

/// Listeners that somebody else opened.
#[derive(Debug, Default)]
pub struct Given {
    /// For clients, over TLS.
    pub tcp: Vec<TcpListener>,
    /// For the relay.
    pub unix: Vec<UnixListener>,
}

/// Takes what was passed in and closes the rest. To be called before the process opens anything of its own.
///
/// Errors: a descriptor was passed that is no listening stream socket; its number is named.
pub fn receive() -> io::Result<Given> {
    let mut passed = ListenFd::from_env();
    let mut given = Given::default();
    for index in 0..passed.len() {
        if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
            given.tcp.push(listener);
        } else if let Ok(Some(listener)) = passed.take_unix_listener(index) {
            given.unix.push(listener);
        } else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("descriptor {} that was passed in is no stream socket", 3 + index),
            ));
        }
    }
    for socket in &given.tcp {
        listening(socket)?;
    }
    for socket in &given.unix {
        listening(socket)?;
    }
    let kept: Vec<RawFd> = given.tcp.iter().map(|s| s.as_raw_fd()).chain(given.unix.iter().map(|s| s.as_raw_fd())).collect();
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|fd| *fd > 2 && !kept.contains(fd)) {
        // The folder just read is among them and closed already; nothing else can go wrong that a second try would mend.
        let _ = nix::unistd::close(descriptor);
    }
    Ok(given)
}

fn listening(socket: &(impl std::os::fd::AsFd + std::os::fd::AsRawFd)) -> io::Result<()> {
    if sockopt::socket_acceptconn(socket)? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("socket {} that was passed in does not listen", socket.as_raw_fd())))
}
