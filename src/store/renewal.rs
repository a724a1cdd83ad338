//! Renewal of DEKs: every holder gets a new one, all that the old one sealed is sealed again, and the old one goes.
//!
//! ```text
//! asked ─▶ every holder has a second DEK ─▶ fields sealed again, pass by pass, until one finds none ─▶ old DEKs dropped ─▶ epoch left
//! ```
//!
//! Invariants
//! - Which stage it is in is a row of META; within a stage the rows themselves say what is left, so after a crash the next start goes on.
//! - From the second stage on nothing is sealed under an old DEK: writes run one after the other, and each sees the DEKs as they are then.
//! - An old DEK is dropped only after a whole pass over every table found nothing under it; what old pages still hold of it dies with the
//!   epoch that is left afterwards.
//! - A row that changed while it was being sealed is left to the next pass: nothing that somebody wrote is put back.

use std::ops::Bound;

use crate::audit::{Detail, Word};
use crate::authn::Principal;
use crate::base::limits;
use crate::engine::Table;
use crate::policy::action::{RenewKeys, ResealFields};
use crate::store::rotator::{Doing, Stopped, go, look, waiting_for_erasure};
use crate::store::tables::meta::{self, Renewal};
use crate::store::tables::{
    CREDENTIALS, EMBEDDINGS, MEMORIES, META, OAUTH_CLIENTS, SUBJECTS, USERS, VERSIONS, credentials, grants, holders, memories, subjects,
    users,
};
use crate::store::tx::{StoreError, Tx};
use crate::store::vault::Vault;

/// Every table with sealed fields.
const TABLES: [Table; 8] = [META, USERS, CREDENTIALS, SUBJECTS, MEMORIES, VERSIONS, EMBEDDINGS, OAUTH_CLIENTS];

/// A row to be sealed again: where it is, what it was, what it is to be.
struct Resealed {
    table: Table,
    key: Vec<u8>,
    old: Vec<u8>,
    new: Vec<u8>,
}

/// Asks for it. Gives `false` if one was under way already: what that one drew is older than this wish, so who needs keys of now asks again
/// when it is done.
pub fn ask(vault: &Vault, who: &Principal) -> Result<bool, Stopped> {
    enter(vault, who, Some(Renewal::Doubling), None)
}

/// Goes on to the stage `to`, from nothing if `from` is none.
/// Whether it stood at `from`.
fn enter(vault: &Vault, who: &Principal, to: Option<Renewal>, from: Option<Renewal>) -> Result<bool, Stopped> {
    let word = to.map_or("done", Renewal::word);
    go::<RenewKeys, _>(vault, who, move |a| {
        a.detail(Detail::Setting(Word::of(word)));
        let enters = meta::renewal(a.tx())? == from;
        if enters {
            meta::put_renewal(a.tx_mut(), to);
        }
        Ok(enters)
    })
}

/// Does what the stage asks for. Gives `false` where it stepped back for somebody who waits to be erased.
pub fn go_on(vault: &Vault, who: &Principal, stage: Renewal) -> Result<bool, Stopped> {
    match stage {
        Renewal::Doubling => {
            each_holder(vault, who, holders::doubled)?;
            enter(vault, who, Some(Renewal::Sealing), Some(stage))?;
        }
        Renewal::Sealing => {
            loop {
                match pass(vault, who)? {
                    None => return Ok(false),
                    Some(0) => break,
                    Some(_) => {}
                }
            }
            enter(vault, who, Some(Renewal::Dropping), Some(stage))?;
        }
        Renewal::Dropping => {
            each_holder(vault, who, holders::newest_alone)?;
            // Whoever reads an older snapshot may still derive from an old DEK, and must not leave it in memory.
            let generation = vault.published()?.generation;
            vault.common().field_keys.forget(|_| true, generation);
            enter(vault, who, Some(Renewal::Leaving), Some(stage))?;
        }
        Renewal::Leaving => {
            crate::store::rotator::begin(vault, who)?;
            enter(vault, who, None, Some(stage))?;
        }
    }
    Ok(true)
}

/// Changes every row of DEKS that `change` wants otherwise.
fn each_holder(vault: &Vault, who: &Principal, change: holders::ChangeRow) -> Result<(), Stopped> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        vault.still_goes()?;
        let (rows, next) = look(vault, |tx| holders::to_change(tx, after.as_deref(), limits::REWRAP_CHUNK, change))?;
        if !rows.is_empty() {
            let count = go::<RenewKeys, _>(vault, who, move |a| {
                let count = holders::put_changed(a.tx_mut(), rows, change)?;
                a.count(count);
                // What readers hold of these keys is looked up anew.
                a.tx_mut().staged.credentials_changed = true;
                Ok(count)
            })?;
            vault.rotation().more(Doing::Renewing, count);
        }
        match next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

/// One pass over every table. Gives how many rows were under old DEKs; `None` if it stepped back.
fn pass(vault: &Vault, who: &Principal) -> Result<Option<u64>, Stopped> {
    let mut found = 0;
    for table in TABLES {
        let mut after: Option<Vec<u8>> = None;
        loop {
            vault.still_goes()?;
            if waiting_for_erasure(vault)? {
                return Ok(None);
            }
            let (rows, next) = look(vault, |tx| chunk(tx, table, after.as_deref()))?;
            if !rows.is_empty() {
                found += u64::try_from(rows.len()).expect("a chunk is short");
                let count = go::<ResealFields, _>(vault, who, move |a| {
                    let mut count = 0;
                    for Resealed { table, key, old, new } in rows {
                        if a.tx().get(table, &key)?.is_some_and(|now| now == old) {
                            a.tx_mut().put(table, key, new);
                            count += 1;
                        }
                    }
                    a.count(count);
                    Ok(count)
                })?;
                vault.rotation().more(Doing::Renewing, count);
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    Ok(Some(found))
}

/// Seals rows after `after` again, on a snapshot, beside the writer. Gives them, and where to go on if the table goes on.
fn chunk(tx: &Tx<'_>, table: Table, after: Option<&[u8]>) -> Result<(Vec<Resealed>, Option<Vec<u8>>), StoreError> {
    let (mut rows, mut bytes, mut seen) = (Vec::new(), 0, 0);
    for item in tx.reader.range(table, after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)? {
        let (key, old) = item?;
        seen += 1;
        let new = match table {
            META => meta::resealed(tx, &key, &old)?,
            USERS => users::resealed(tx, &key, &old)?,
            CREDENTIALS => credentials::resealed(tx, &key, &old)?,
            SUBJECTS => subjects::resealed(tx, &key, &old)?,
            OAUTH_CLIENTS => grants::resealed(tx, &key, &old)?,
            _ => memories::resealed(tx, table, &key, &old)?,
        };
        if let Some(new) = new {
            bytes += new.len();
            rows.push(Resealed { table, key: key.clone(), old, new });
        }
        if rows.len() == limits::RESEAL_CHUNK || bytes >= limits::RESEAL_CHUNK_BYTES || seen == limits::RESEAL_SEEN {
            return Ok((rows, Some(key)));
        }
    }
    Ok((rows, None))
}

#[cfg(test)]
mod tests {
    /// A table whose fields are not sealed again would lose them with the old DEKs. Whoever seals in a new file adds it to `chunk` and here.
    #[test]
    fn every_file_that_seals_fields_has_them_sealed_again() {
        let known = [
            "subjects.rs",
            "users.rs",
            "credentials.rs",
            "tables/grants.rs",
            "memories/write.rs",
            "memories/embedding.rs",
            "memories/reseal.rs",
            "vault.rs",
            "memories/transfer.rs",
            "holders.rs",
        ];
        let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        let mut unknown = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if !path.ends_with("renewal.rs") && path.extension().is_some_and(|end| end == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let seals = text.contains("holders::seal(") || text.contains("field_key(tx, scope");
                    if seals && !known.iter().any(|known| path.ends_with(known)) {
                        unknown.push(path);
                    }
                }
            }
        }
        assert!(unknown.is_empty(), "{unknown:?} seal fields that a renewal of DEKs does not seal again");
    }
}
