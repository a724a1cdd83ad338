//! The indexer: builds a scope's search index in the background when it is first asked for, as a system principal through the gate.
//!
//! Invariant: an index becomes ready only when it holds exactly the live memories of its scope (see `index/indexes.rs`).

use crate::authn::Principal;
use crate::base::{limits, log};
use crate::policy::action::{IndexMemories, Scope};
use crate::store::gate::{Call, Failed, Refused};
use crate::store::index::indexes::State;
use crate::store::tables::memories;
use crate::store::vault::{IndexRequests, Vault};
use crate::store::writer::Unavailable;

/// Builds what is asked for until the vault stops.
pub fn run(vault: &Vault, requests: &IndexRequests) {
    while let Ok(Some(scope)) = requests.recv()
        && !vault.is_stopping()
    {
        if vault.indexes().state((scope.tenant, scope.owner)) == State::Absent && build(vault, scope).is_err() {
            log::line(log::Level::Warn, "a search index was not built; it is tried again when it is asked for", &[("owner", &scope.owner)]);
        }
    }
}

fn build(vault: &Vault, scope: Scope) -> Result<(), Unavailable> {
    let Some(mut build) = vault.indexes().begin((scope.tenant, scope.owner)) else { return Ok(()) };
    let system = Principal::system(scope.tenant, scope.owner, "indexer");
    // From here on every write in the scope is queued, but for those of the batch under way, which may not have known. This entry comes after
    // them: once it is durable, what is read is at least as new as they are.
    let begun = vault.read::<IndexMemories, _, Failed>(&system, scope, &Call::internal(), |access| {
        access.count(0);
        Ok(())
    });
    begun.map_err(|refused| match refused {
        Refused::Unavailable(why) => why,
        _ => Unavailable::Latched,
    })?;
    let seq = vault.published()?.seq;
    let mut after = None;
    loop {
        if vault.is_stopping() {
            return Ok(());
        }
        let chunk = vault.read::<IndexMemories, _, Failed>(&system, scope, &Call::internal(), |access| {
            let (chunk, last) = memories::chunk(access, after, limits::INDEX_CHUNK)?;
            access.count(u64::try_from(chunk.len()).expect("a chunk is small"));
            Ok((chunk.into_iter().map(|(memory, vector)| memories::prepared_with(&memory, vector)).collect::<Vec<_>>(), last))
        });
        let (prepared, last) = match chunk {
            Ok(recorded) => recorded.into_parts().0,
            Err(Refused::Unavailable(why)) => return Err(why),
            Err(_) => return Err(Unavailable::Latched),
        };
        if build.push(&prepared).is_err() {
            return Err(Unavailable::Busy);
        }
        match last {
            Some(last) => after = Some(last),
            None => return build.finish(seq).map_err(|_| Unavailable::Busy),
        }
    }
}
