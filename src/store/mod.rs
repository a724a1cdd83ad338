//! Store: the tables and the gate, their only door.
//!
//! `gate` is the door; `vault` the open store; `standing` the keys it knows; `writer` the one writer, between its `queue` and the `answers` that follow a commit; `events`
//! tells subscribers of commits; `tables` one file a noun; `phi` protected text; `index` search in memory; `embedder` what texts mean,
//! made in the background; `check` the whole-file check; `anchor` against rollback; `kept` what another file took the place of; `rotator` and `renewal` change keys; `incident` shuts out and freezes; `backup` and `restore` copies of the whole, `upkeep` when they are made; `quota` what a
//! person may have, `turns` who goes through many records now; `migrate` old files.

pub mod accounts;
pub mod anchor;
pub mod anew;
mod answers;
pub mod backup;
pub mod check;
pub mod embedder;
pub mod erasure;
pub mod events;
pub mod gate;
pub mod grants;
pub mod incident;
pub mod index;
mod indexer;
pub mod kept;
pub mod ledger;
pub mod log_view;
pub mod migrate;
pub mod phi;
mod queue;
pub mod quota;
mod recent;
pub mod renewal;
pub mod restore;
pub mod rotator;
pub mod search;
pub mod sign_in;
mod standing;
pub mod status;
pub mod stopwatch;
pub mod tables;
mod turns;
pub mod tx;
pub mod upkeep;
pub mod vault;
pub mod writer;

pub use gate::Receipt;
pub use tables::memories;
pub use vault::{Store, Vault};

#[cfg(test)]
pub(crate) mod campaign;
