//! What can go wrong below the tables, split by what the caller can do about it.

use std::io;

use crate::crypto::ladder::LadderError;
use crate::engine::block::BlockError;
use crate::engine::frozen::SpoiltError;

/// Why the engine did not do what was asked. Carries places and sizes, never content.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// `create` never replaces a file.
    #[error("{0}: exists already; choose another path or move it away")]
    Exists(String),
    /// There is no such file.
    #[error("{0}: no such file; check RM_DB_PATH, or make it with `rosemary init`")]
    Missing(String),
    /// Another process has the file.
    #[error("{0}: in use by another process; stop that one first")]
    Locked(String),
    /// The system does not let this user have the file.
    #[error("{path}: cannot be opened ({kind}); check that this user may read and write it")]
    Unopenable {
        /// The file.
        path: String,
        /// What the system said.
        kind: io::ErrorKind,
    },
    /// The system does not let this user make the file.
    #[error("{path}: cannot be made ({kind}); check that its folder exists and that this user may write there")]
    Uncreatable {
        /// The file.
        path: String,
        /// What the system said.
        kind: io::ErrorKind,
    },
    /// Not a file of this product.
    #[error("not a Rosemary data file, or its head is destroyed; check the path, or keep the file as evidence and restore a backup")]
    NotRosemary,
    /// Written by a later version.
    #[error("data file format {found} is newer than this program's; use the version that wrote it, or a later one")]
    Newer {
        /// The format found.
        found: u16,
    },
    /// Holds tables that this program does not know.
    #[error("the data file holds tables of a later version; use the version that wrote it, or a later one")]
    UnknownTable,
    /// No key, or not the right one.
    #[error(transparent)]
    Keys(#[from] LadderError),
    /// Stored bytes are not what was written. Stop writing, keep the file, restore a backup.
    #[error("data file damaged: {0} does not verify; keep the file as evidence and restore a backup")]
    Damaged(&'static str),
    /// One block is not what was written.
    #[error("data file damaged: block {0} does not open; keep the file as evidence and restore a backup")]
    Block(u64),
    /// The disk is full.
    #[error("the disk is full; free space and try again")]
    Full,
    /// The system refused a read, write or sync.
    #[error("data file: {kind}")]
    Io {
        /// What the system said.
        kind: io::ErrorKind,
    },
    /// A view of how it was cannot be shown any more: the data goes on, a copy made from the view does not.
    #[error("what changed in the data file meanwhile could not be kept beside it ({kind}); free space there and try again")]
    Spoilt {
        /// What the system said.
        kind: io::ErrorKind,
    },
    /// A file was made and has its name, and then something failed: it may not stay so after a power cut. Whoever asked must not say that
    /// nothing has changed.
    #[error(
        "it is whole and in its place, but whether it stays there after a power cut is not confirmed ({0}); check the disk, then run the same command again"
    )]
    Unconfirmed(String),
    /// Something failed before; nothing is answered until recovery.
    #[error("the store is latched shut after a failure; recovery is needed")]
    Latched,
    /// The storage library panicked; the store is latched shut.
    #[error("the storage library stopped unexpectedly; the store is latched shut")]
    Panicked,
    /// A value or key is larger than the store can hold.
    #[error("a value of {0} bytes is larger than the store can hold")]
    TooLarge(usize),
    /// The caller still holds snapshots where none may be, or a view where there may be one.
    #[error("snapshots, or a view of how it was, are still in use")]
    InUse,
}

impl EngineError {
    /// The system's error, with ours inside it found again.
    pub fn io(error: io::Error) -> Self {
        if let Some(inner) = error.get_ref() {
            if let Some(block) = inner.downcast_ref::<BlockError>() {
                return Self::Block(block.0);
            }
            if let Some(spoilt) = inner.downcast_ref::<SpoiltError>() {
                return Self::Spoilt { kind: spoilt.0 };
            }
        }
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            kind => Self::Io { kind },
        }
    }

    /// Whether the store must be latched shut after it: all but what is the caller's own doing.
    pub(super) fn latches(&self) -> bool {
        matches!(
            self,
            Self::Damaged(_) | Self::Block(_) | Self::Full | Self::Io { .. } | Self::Spoilt { .. } | Self::Panicked | Self::Latched
        )
    }
}

impl From<redb::StorageError> for EngineError {
    fn from(error: redb::StorageError) -> Self {
        match error {
            redb::StorageError::Io(error) => Self::io(error),
            redb::StorageError::ValueTooLarge(bytes) => Self::TooLarge(bytes),
            redb::StorageError::PreviousIo | redb::StorageError::DatabaseClosed => Self::Latched,
            redb::StorageError::LockPoisoned(_) => Self::Panicked,
            _ => Self::Damaged("the tree of tables"),
        }
    }
}

/// Errors of redb that wrap a storage error; anything else is a tree that is not ours.
macro_rules! from_redb {
    ($($kind:ident)*) => {$(
        impl From<redb::$kind> for EngineError {
            fn from(error: redb::$kind) -> Self {
                match error {
                    redb::$kind::Storage(error) => error.into(),
                    _ => Self::Damaged("the tree of tables"),
                }
            }
        }
    )*};
}
from_redb! { DatabaseError TransactionError TableError CommitError }

/// Why a commit is not confirmed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Surely nothing was written.
    #[error(transparent)]
    Refused(EngineError),
    /// A write or sync failed midway: the batch may be there or not. Everything is latched until recovery tells.
    #[error("outcome unknown: {0}")]
    Unknown(EngineError),
}
