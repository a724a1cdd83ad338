//! The kernel's lock around the process: what it may still do once it serves, whatever its code is made to try.
//!
//! ```text
//! inherited descriptors closed ─ listeners open ─ notify socket connected ─ Landlock (folders) ─ seccomp (every thread) ─ store, workers
//! ```
//!
//! Invariants
//! - After [`engage`] no thread, whenever it was started, can make, connect or bind a socket, run a program, trace a process, pass
//!   descriptors, or use io_uring: the kernel answers "operation not permitted".
//! - Files outside the folders of the settings cannot be opened by any thread started afterwards, and nothing in them can be run.
//! - A lock that the kernel cannot enforce is an error; whoever starts the service without it has said so in its settings.
//! - It can only be tightened: there is no way back before the process ends.

mod granted;
mod inherited;
mod landlock;
mod notify;
mod probe;
mod seccomp;

use std::path::PathBuf;

pub use granted::take as take_grants;
pub use inherited::{Given, receive};
pub use notify::Notify;
pub use probe::attempts;

/// Which files the process needs once it serves. A path that is not there is left out.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// Files and folders that are read.
    pub read: Vec<PathBuf>,
    /// Folders in which files are made, written, renamed and removed.
    pub write: Vec<PathBuf>,
}

/// Why the lock is not engaged.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The kernel has no Landlock, or it is switched off.
    #[error("the kernel does not enforce Landlock (Linux 5.13 or later, with landlock in its lsm= list)")]
    NoLandlock,
    /// Landlock refused.
    #[error("Landlock: {0}")]
    Landlock(String),
    /// seccomp refused.
    #[error("seccomp: {0}")]
    Seccomp(String),
}

/// Locks every thread of this process, and those it will start.
///
/// Errors: [`LockError`]; then the process may be locked in part, and must not go on as if it were whole.
pub fn engage(folders: &Folders) -> Result<(), LockError> {
    landlock::engage(folders, &[])?;
    seccomp::engage(seccomp::Whose::Service)
}

/// Locks the relay's process: it may make sockets of the kinds it needs and connect to the TCP ports in `ports` (on kernels that know such
/// rules), but listen on none, run no program, and open no file outside `folders`.
///
/// Errors: [`LockError`]; then the process may be locked in part, and must not go on.
pub fn engage_relay(folders: &Folders, ports: &[u16]) -> Result<(), LockError> {
    landlock::engage(folders, ports)?;
    seccomp::engage(seccomp::Whose::Relay)
}

/// Whether this kernel enforces file rules at all.
pub fn is_enforceable() -> bool {
    landlock::is_there()
}
