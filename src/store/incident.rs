//! When something has gone wrong: every credential dead at once, the instance read-only, and what an officer must know.
//!
//! Invariants
//! - Revoking is one commit: after it no stored credential and no key of the settings is taken, until new ones are made or set.
//! - While it is frozen nobody changes a record: a write is refused and recorded; reads go on and are recorded. It stays so over restarts.
//! - Freezing keeps the checkpoint of that moment for good, so that what was there can be proved later.
//! - A report holds times, counts, ids and hashes alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::audit::{Detail, Entry, Outcome, Reason, Word};
use crate::authn::CredentialRef;
use crate::authn::credential::SettingId;
use crate::base::id::{FileId, InstanceId, LogId};
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::config::settings;
use crate::policy::action::{FreezeInstance, ReportIncident, RevokeAll};
use crate::store::backup::BackupRow;
use crate::store::gate::{Access, Fault};
use crate::store::tables::{CHECKPOINTS, META, backups, credentials, grants, log, meta, signers, users};
use crate::store::tx::{StoreError, Tx};

/// Name of the row in META.
pub(in crate::store) const ROW: &[u8] = b"incident";

/// What is known of incidents; all of it is kept after they are over.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Incident {
    /// When all credentials were last revoked.
    pub revoked_at: Option<Timestamp>,
    /// How many stored ones that were.
    pub revoked: u64,
    /// Keys of the settings that are not taken any more: name and id.
    pub settings: Vec<(String, SettingId)>,
    /// Since when it is frozen; none: it is not.
    pub frozen_at: Option<Timestamp>,
    /// Entries in the log at that moment: a checkpoint of this size is kept.
    pub frozen_size: u64,
    /// When it was last thawed.
    pub thawed_at: Option<Timestamp>,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is already.
    #[error("the instance is frozen already")]
    Frozen,
    /// It is not.
    #[error("the instance is not frozen")]
    NotFrozen,
    /// The store failed.
    #[error("Internal server error")]
    Store(#[from] StoreError),
}

impl Fault for Refusal {
    fn audit(&self) -> (Reason, u16) {
        match self {
            Self::Frozen | Self::NotFrozen => (Reason::Conflict, 409),
            Self::Store(_) => (Reason::WorkFailed, 500),
        }
    }
}

/// What is known of incidents in this view.
pub fn known(tx: &Tx<'_>) -> Result<Incident, StoreError> {
    Ok(meta::fact(tx, ROW)?.unwrap_or_default())
}

/// Whether this is a key of the settings that was revoked.
pub(in crate::store) fn is_revoked(tx: &Tx<'_>, credential: &CredentialRef) -> Result<bool, StoreError> {
    credential.configured().map_or(Ok(false), |id| is_revoked_key(tx, id))
}

/// The same for a key by its id, which its value alone makes: under another name it stays revoked.
pub(in crate::store) fn is_revoked_key(tx: &Tx<'_>, id: SettingId) -> Result<bool, StoreError> {
    Ok(tx.get(META, ROW)?.is_some() && known(tx)?.settings.iter().any(|(_, revoked)| *revoked == id))
}

/// Whether the verb is refused in this view because the instance is frozen. The program's own work goes on, an import by its operator does not;
/// whoever shuts a key out may.
pub(in crate::store) fn bars(tx: &Tx<'_>, verb: &str, system: bool) -> Result<bool, StoreError> {
    let spared = matches!(verb, "key.revoke" | "oauth.revoke" | "oauth.replay") || system && verb != "memory.import";
    Ok(!spared && tx.get(META, ROW)?.is_some() && known(tx)?.frozen_at.is_some())
}

/// Revokes every credential. Gives how many stored ones, and how many keys of the settings.
pub fn revoke_all(a: &mut Access<'_, RevokeAll>) -> Result<(u64, u64), Refusal> {
    let tenant = a.who().tenant();
    let vault = a.vault();
    let mut keys: Vec<(String, SettingId)> = vault.static_keys().iter().map(|key| (key.name.to_string(), key.id)).collect();
    if let Some(ids) = vault.dashboard_ids() {
        let names = [&settings::DASHBOARD_SERVICE_KEY.row, &settings::DASHBOARD_JWT_SECRET.row].map(|row| row.name.to_owned());
        keys.extend(names.into_iter().zip(ids));
    }
    let tx = a.tx_mut();
    let revoked = credentials::revoke_all(tx, tenant)? + grants::remove_everybodys(tx, tenant)?;
    let mut incident = known(tx)?;
    let mut fresh = 0;
    for key in keys {
        if !incident.settings.contains(&key) {
            incident.settings.push(key);
            fresh += 1;
        }
    }
    (incident.revoked_at, incident.revoked) = (Some(tx.now), revoked);
    meta::put_fact(tx, ROW, &incident);
    // Reads under way are decided anew, streams end.
    tx.staged.credentials_changed = true;
    a.count(revoked + fresh);
    Ok((revoked, fresh))
}

/// Makes the instance read-only, and keeps the checkpoint of now. Gives its size.
pub fn freeze(a: &mut Access<'_, FreezeInstance>) -> Result<u64, Refusal> {
    let now = a.now();
    let mut incident = known(a.tx())?;
    if incident.frozen_at.is_some() {
        return Err(Refusal::Frozen);
    }
    let tx = a.tx_mut();
    let note = log::checkpoint_note(tx.reader)?.ok_or(StoreError::Missing("meta"))?;
    let size = log::size_of(&note).ok_or(StoreError::Missing("meta"))?;
    tx.put(CHECKPOINTS, size.to_be_bytes().to_vec(), note.into_bytes());
    (incident.frozen_at, incident.frozen_size) = (Some(now), size);
    meta::put_fact(tx, ROW, &incident);
    a.detail(Detail::Setting(Word::of("frozen")));
    a.detail(Detail::Size(size));
    Ok(size)
}

/// Lets records be written again.
pub fn thaw(a: &mut Access<'_, FreezeInstance>) -> Result<(), Refusal> {
    let mut incident = known(a.tx())?;
    if incident.frozen_at.take().is_none() {
        return Err(Refusal::NotFrozen);
    }
    incident.thawed_at = Some(a.now());
    meta::put_fact(a.tx_mut(), ROW, &incident);
    a.detail(Detail::Setting(Word::of("thawed")));
    Ok(())
}

/// How often an operation was done and refused.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    /// Entries, counted ones for as many as they stand for.
    pub entries: u64,
    /// Of these, refused or failed.
    pub refused: u64,
    /// Records touched or returned.
    pub records: u64,
    /// Entries that concern protected health information.
    pub phi: u64,
}

/// What an officer must know.
#[derive(Debug)]
pub struct Report {
    /// When it was made.
    pub at: Timestamp,
    /// The data.
    pub instance: InstanceId,
    /// This copy of it.
    pub file: FileId,
    /// Its log.
    pub log: LogId,
    /// The log's public key.
    pub vkey: String,
    /// The log's newest signed checkpoint.
    pub checkpoint: String,
    /// What was done.
    pub incident: Incident,
    /// The epoch of keys.
    pub epoch: u32,
    /// People, and credentials that are taken now.
    pub people: u64,
    /// Stored credentials that are taken now.
    pub live: u64,
    /// Backups that are there, with the epochs of keys that they hold.
    pub backups: Vec<(FileId, BackupRow)>,
    /// From when on entries were counted.
    pub since: Timestamp,
    /// Index of the first entry counted, and after the last.
    pub entries: (u64, u64),
    /// By operation.
    pub operations: BTreeMap<String, Tally>,
}

/// Puts the report together: entries since then are counted, at most [`limits::REPORT_ENTRIES_MAX`] of the newest.
pub fn report(a: &mut Access<'_, ReportIncident>, since: Timestamp) -> Result<Report, Refusal> {
    let (tenant, vault, at) = (a.who().tenant(), a.vault(), a.now());
    let tx = a.tx();
    let note = log::checkpoint_note(tx.reader)?.ok_or(StoreError::Missing("meta"))?;
    let end = log::size_of(&note).ok_or(StoreError::Missing("meta"))?;
    let (mut first, mut operations) = (end, BTreeMap::<String, Tally>::new());
    while first > end.saturating_sub(limits::REPORT_ENTRIES_MAX) {
        let line = log::line(tx.reader, first - 1)?.ok_or(StoreError::Missing("audit"))?;
        let entry = Entry::parse(&line).map_err(|_| StoreError::Missing("audit"))?;
        if entry.t < since {
            break;
        }
        first -= 1;
        let tally = operations.entry(entry.op.text().to_owned()).or_default();
        let times = entry.count.unwrap_or(1);
        tally.entries += times;
        tally.refused += if entry.outcome == Outcome::Ok { 0 } else { times };
        tally.phi += if entry.phi { times } else { 0 };
        // A part repeats the number of the whole.
        tally.records += if entry.part.as_ref().is_none_or(|part| part.no == 1) { entry.n } else { 0 };
    }
    let report = Report {
        at,
        instance: tx.common.instance,
        file: vault.file(),
        log: vault.log(),
        vkey: signers::newest(tx.reader, &tx.keys, vault.log())?.to_string(),
        checkpoint: note,
        incident: known(tx)?,
        epoch: tx.keys.epoch(),
        people: users::all(tx, tenant)?.len() as u64,
        live: credentials::live(tx, tenant)?,
        backups: backups::all(tx)?.into_iter().filter(|(_, backup)| backup.may_exist()).collect(),
        since,
        entries: (first, end),
        operations,
    };
    a.count(end - first);
    Ok(report)
}
