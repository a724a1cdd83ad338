//! How the store stands: counts, times and ids for who operates the instance, never content.

use std::path::Path;

use crate::audit::checkpoint::Checkpoint;
use crate::base::id::{FileId, InstanceId, TenantId};
use crate::base::time::{Clock, Timestamp};
use crate::engine::{Engine, Space};
use crate::policy::action::{Action, Instance, Reads};
use crate::store::anchor;
use crate::store::backup::{BackupRow, DrillRow, State};
use crate::store::erasure::Stage;
use crate::store::gate::Access;
use crate::store::incident;
use crate::store::rotator::Progress;
use crate::store::tables::{backups, erasures, log, meta, signers};
use crate::store::tx::{Common, StoreError, Tx};
use crate::store::vault::OpenError;

/// What there is to tell.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The data.
    pub instance: InstanceId,
    /// The workspace.
    pub tenant: TenantId,
    /// The audit log as signed.
    pub checkpoint: Checkpoint,
    /// When its newest entry was made.
    pub written: Timestamp,
    /// Bytes of the data file.
    pub bytes: u64,
    /// Room on its disk, as the store judges it.
    pub space: Space,
    /// Since when records are read-only, if an incident froze them.
    pub frozen: Option<Timestamp>,
    /// The anchor, if one is configured.
    pub anchor: Option<Anchored>,
    /// Backups that are done and not removed.
    pub backups: u64,
    /// The newest of them.
    pub last_backup: Option<(FileId, BackupRow)>,
    /// Whether one is being made.
    pub backing_up: bool,
    /// How the last restore drill ended.
    pub drill: Option<DrillRow>,
    /// The epoch of keys, and the one that is being left.
    pub epoch: (u32, Option<u32>),
    /// When all keys were left for new ones the last time.
    pub renewed: Option<Timestamp>,
    /// What the rotator does.
    pub rotation: Progress,
    /// Erasures asked for and not begun, under way, and done.
    pub erasures: [u64; 3],
    /// Bytes of all search indexes.
    pub index_bytes: u64,
}

/// How the anchor stands.
#[derive(Clone, Debug)]
pub struct Anchored {
    /// When it was written, if it can be read and is this log's.
    pub at: Option<Timestamp>,
    /// Entries that it does not know of yet.
    pub behind: u64,
}

/// How the open store stands.
pub fn read<A: Reads + Action<Target = Instance>>(a: &mut Access<'_, A>) -> Result<Condition, StoreError> {
    let vault = a.vault().clone();
    let mut found = look(a.tx(), vault.engine(), vault.anchor())?;
    found.rotation = vault.rotation_progress();
    found.index_bytes = u64::try_from(vault.indexes().bytes()).unwrap_or(u64::MAX);
    Ok(found)
}

/// How the store in an inspected file stands, which nobody has open.
///
/// Errors: it was never initialised, or a row cannot be read.
pub fn of(engine: &Engine, anchor: Option<&Path>, clock: &Clock) -> Result<Condition, OpenError> {
    let (snapshot, common) = (engine.snapshot()?, Common::new(engine.instance()));
    let tx = Tx::new(&snapshot, engine.keys(), &common, clock.now(), true);
    meta::instance(&tx)?.ok_or(OpenError::NotInitialised)?;
    Ok(look(&tx, engine, anchor)?)
}

fn look(tx: &Tx<'_>, engine: &Engine, anchor: Option<&Path>) -> Result<Condition, StoreError> {
    let instance = meta::instance(tx)?.ok_or(StoreError::Missing("meta"))?;
    let note = log::checkpoint_note(tx.reader)?.ok_or(StoreError::Missing("meta"))?;
    let checkpoint = signers::checkpoint(tx.reader, &tx.keys, instance.log, &note).map_err(|_| StoreError::Missing("meta"))?;
    let all = backups::all(tx)?;
    let done = |(_, row): &&(FileId, BackupRow)| row.state == State::Done;
    let mut counts = [0; 3];
    for (_, row) in erasures::all(tx, instance.tenant)? {
        let at = match (row.stage, row.entries) {
            (Stage::Asked, _) => 0,
            (_, None) => 1,
            (_, Some(_)) => 2,
        };
        counts[at] += 1;
    }
    let keys = engine.keys();
    Ok(Condition {
        instance: engine.instance(),
        tenant: instance.tenant,
        checkpoint,
        written: log::written(tx.reader, checkpoint.size)?,
        bytes: engine.bytes()?,
        space: engine.space(),
        frozen: incident::known(tx)?.frozen_at,
        anchor: anchor.map(|path| anchored(path, tx, checkpoint)),
        backups: u64::try_from(all.iter().filter(done).count()).unwrap_or(u64::MAX),
        last_backup: all.iter().rev().find(done).cloned(),
        backing_up: all.iter().any(|(_, row)| row.state == State::Begun),
        drill: meta::fact(tx, meta::DRILL)?,
        epoch: (keys.epoch(), keys.old_epoch()),
        renewed: meta::fact::<meta::RenewedMark>(tx, meta::RENEWED)?.map(|mark| mark.at),
        rotation: Progress::default(),
        erasures: counts,
        index_bytes: 0,
    })
}

fn anchored(path: &Path, tx: &Tx<'_>, now: Checkpoint) -> Anchored {
    let seen = anchor::read(path).ok().and_then(|text| signers::anchor(tx.reader, &tx.keys, now.log, &text).ok());
    let at = std::fs::metadata(path).ok().map(|about| Timestamp::modified(&about));
    match seen {
        Some(anchor) => Anchored { at, behind: now.size.saturating_sub(anchor.checkpoint.size) },
        None => Anchored { at: None, behind: now.size },
    }
}
