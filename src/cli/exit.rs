//! Exit codes: one table, printed by `rosemary --help`, `rosemary man` and `docs/commands.md`.
//!
//! Invariants
//! - Codes differ and are stable: scripts and units depend on them. 2 is clap's, 65 to 78 are those of sysexits.h, ours begin at 80.
//! - This is the one file that turns an error into a code.

use std::fmt;
use std::process::ExitCode;

use crate::config::Problems;

macro_rules! exits {
    ($($id:ident = $code:literal $text:literal;)+) => {
        /// How a run ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Exit { $(#[doc = $text] $id = $code),+ }

        impl Exit {
            /// Every code, ascending.
            pub const ALL: &'static [Exit] = &[$(Exit::$id),+];

            /// The number that the shell sees.
            pub const fn code(self) -> u8 {
                match self { $(Exit::$id => $code),+ }
            }

            /// What it means, in one line.
            pub const fn text(self) -> &'static str {
                match self { $(Exit::$id => $text),+ }
            }
        }
    };
}

exits! {
    Ok = 0 "done";
    Found = 1 "verify, doctor or status found problems; the report names them";
    Usage = 2 "wrong arguments";
    BadInput = 65 "a file to import is malformed; nothing of the faulty line was stored";
    NoInput = 66 "a file to read is not there (the data file: run init)";
    Unavailable = 69 "the address is in use or cannot be listened on";
    Internal = 70 "a fault of the program itself";
    Exists = 73 "a file to create is already there; it was not touched";
    Io = 74 "reading or writing failed";
    Temporary = 75 "try again: the service is busy or stopping";
    Permission = 77 "not permitted: check owner and mode of the file named";
    Config = 78 "settings are wrong; every fault is listed";
    KekWrong = 80 "the key given does not open this data file";
    KekMissing = 81 "the key's file or credential is missing or unusable";
    SuperblockDamaged = 82 "both copies of the superblock are damaged";
    FormatNewer = 83 "the data file was written by a newer version";
    FileLocked = 84 "another process has the data file open";
    DiskFull = 85 "not enough free space";
    AnchorRefused = 86 "the anchor refuses the data file: older than the anchor says, or the anchor is missing or not its own";
    OutcomeUnknown = 87 "a failed write could not be resolved; start again to recover";
    DataDamaged = 88 "the data file is damaged: run verify";
    TenantDiffers = 89 "RM_TENANT_ID is not the label sealed in the data file";
    CertificateUnusable = 90 "a certificate or its key cannot be read or used";
    FolderUnwritable = 91 "a folder cannot be written to";
    LockUnenforced = 92 "the kernel cannot enforce the egress lock, and RM_EGRESS_LOCK is on";
    OtherInstance = 93 "the backup is of another instance than the data file in its place";
    BackupOlder = 94 "the data in place is newer than the backup, or may be; --discard-newer gives it up";
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Ends the process at once: only where nothing can be put in order any more.
#[allow(clippy::disallowed_methods, reason = "the store is beyond recovery: running on, or dropping it, would be worse")]
pub fn now(exit: Exit) -> ! {
    std::process::exit(i32::from(exit.code()))
}

/// The table as help prints it.
pub fn help() -> String {
    let mut text = String::from("Exit codes:\n");
    for exit in Exit::ALL {
        text.push_str(&format!("  {:>3}  {}\n", exit.code(), exit.text()));
    }
    text
}

/// Why a command ended without doing its work: a code, and one line for the operator that names the thing and the remedy.
///
/// The message must hold no record text, key or query.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    /// The line, or several for settings; without `rosemary:` before it.
    pub message: String,
}

impl Failure {
    /// A failure with a code and its line.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    /// An operating system's error about `path`, under the code that fits it.
    pub fn io(path: &std::path::Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let (exit, remedy) = match error.kind() {
            ErrorKind::NotFound => (Exit::NoInput, "check the path"),
            ErrorKind::IsADirectory | ErrorKind::NotADirectory => (Exit::Io, "name a file in a folder that is there"),
            ErrorKind::PermissionDenied => (Exit::Permission, "check owner and mode"),
            ErrorKind::ReadOnlyFilesystem => (Exit::FolderUnwritable, "the file system is read-only; mount it writable"),
            ErrorKind::AlreadyExists => (Exit::Exists, "move it away or name another path"),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => (Exit::DiskFull, "free some space"),
            _ => (Exit::Io, "check the disk"),
        };
        Self::new(exit, format_args!("{}: {error}; {remedy}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::new(Exit::Config, problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_stay_below_those_of_the_shell_and_of_signals() {
        assert!(Exit::ALL.windows(2).all(|pair| pair[0].code() < pair[1].code()));
        assert!(Exit::ALL.iter().all(|exit| exit.code() < 126));
    }

    #[test]
    fn an_error_of_the_system_names_the_path_and_a_remedy() {
        let failure = Failure::io(std::path::Path::new("/x"), &std::io::ErrorKind::StorageFull.into());
        assert_eq!(failure.exit, Exit::DiskFull);
        assert!(failure.message.starts_with("/x: ") && failure.message.ends_with("free some space"));
    }
}
