//! Engine: ordered bytes in one sealed file. The only layer that names redb; it knows no table's meaning.
//!
//! Promise: tables of byte keys in order, snapshots that readers on many threads share, one atomic and durable batch at a time. Every stored
//! byte is sealed and bound to its file and place. What a caller is told about a commit is true: refused means surely nothing was written,
//! an unknown outcome is called that, and then nothing more is answered until [`Engine::recover`] has read the medium anew.

mod batch;
mod block;
mod check;
mod copy;
mod error;
mod frozen;
mod header;
mod medium;
mod rewrite;

pub use batch::{Batch, Engine, Options, Place, Range, Read, Snapshot, Space, Table, beside};
pub use copy::{Plan, Row, Unlock};

pub use check::Report;
pub use error::{CommitError, EngineError};
pub use header::Change;
pub use rewrite::Slot;

/// What reads stored bytes, for fuzz targets only.
#[cfg(any(fuzzing, feature = "bench-internals"))]
pub mod stored {
    pub use super::block::{Blocks, SEALED_BYTES, place};
    pub use super::header::{
        BLOCK_BYTES, PAGE_SLOT_BYTES, PageZero, SLOT_STARTS, STRIDES, SUPERBLOCK_BYTES, SUPERBLOCK_STARTS, Superblock, place_aad,
    };
    pub use super::medium::Medium;
}

#[cfg(test)]
pub(crate) mod campaign;
