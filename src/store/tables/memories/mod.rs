//! Memories: record v1 (DESIGN 10), its order, counts and versions.
//!
//! Sealed: title, content, tags, metadata, speaker, run id. Under the block key: ids, times, enums, vendors, look-alike digest.
//! `memory` is what the layers above see, `row` what lies in the file, `seal` the way between them; `read`, `write`, `trash` and `transfer`
//! are the functions that ask for an `Access`; `index` feeds search, `embedding` keeps vectors, `check` is the whole-file check.
//!
//! Invariants
//! - A live memory has one row in ORDER under its creation time, a trashed one under its deletion time; COUNTS agree with ORDER.
//! - A version is the row as it was, its envelopes bound to the record version that wrote them; only `reseal` writes them anew, under other keys.
//! - What an agent's vendor may not see is not returned by any function here.

pub(in crate::store) mod check;
mod embedding;
pub(in crate::store) mod erase;
mod index;
mod memory;
mod read;
mod reseal;
mod row;
mod seal;
mod transfer;
mod trash;
mod write;

use crate::store::tables::ORDER;

#[cfg(any(fuzzing, feature = "bench-internals"))]
pub(in crate::store) use embedding::EmbeddingRow;
pub use embedding::{Progress, Unembedded, embed, unembedded_before, unembedded_of};
pub(in crate::store) use embedding::{progress, vector};
pub use index::chunk;
pub(in crate::store) use index::{prepared_with, recent};
pub use memory::{Memory, MemoryType, NewMemory, Part, Replacement, State, Text, Version};
pub use read::{
    Outline, answer, count_replies, either, entities_of, entity_named, get, history, is_trashed, length, mention, one, outlined, page,
    replies, seen, several, subject_named, survey, thread, total, versions, walk,
};
pub(in crate::store) use reseal::{anew, resealed};
pub use row::OrderPlace;
#[cfg(any(fuzzing, feature = "bench-internals"))]
pub(in crate::store) use row::VersionRow;
pub(in crate::store) use row::{MemoryRow, facts, growth};
#[cfg(test)]
pub(in crate::store) use seal::contents;
pub use seal::{Entity, EntityKind};
pub use transfer::{ExportPlace, Imported, export, import};
pub use trash::{Moved, Share, purge, purge_trash, restore, trash, trash_one};
pub use write::{insert, reply, revise};
