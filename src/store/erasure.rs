//! Erasing a holder: a user, or a subject (somebody memories are about).
//!
//! Deleting rows is not enough, since a copy-on-write file keeps old pages. What dies is the key: the holder's DEK is destroyed together with
//! the key of the epoch that wrapped it, so that what old pages and free space hold opens no more. Order (each step durable before the next):
//!
//! 1. superblock {e, e+1}; from here on DEKs are wrapped under e+1;
//! 2. the holder's rows go, in steps; the last one takes the DEK and leaves a tombstone;
//! 3. everybody else's DEKs are wrapped anew under e+1 (`rotator`);
//! 4. superblock {e+1}, both copies; then the entry of the end, and the receipt.
//!
//! Invariants
//! - A holder whose DEK may ever have been wrapped under e+1 is not erased by the run that leaves e: it waits for the next one.
//! - After step 2 no answer holds anything of the holder: reads under way are decided anew, as after a revocation.
//! - The owner of the instance and the workspace itself are not erased.

use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

use crate::audit::receipt::{ErasureReceipt, HeldBackup};
use crate::audit::{Detail, Reason};
use crate::base::id::{MemoryId, SubjectId, UserId};
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::policy::action::{AskErasure, DestroyHolder, EndErasure, EraseMemories, ReadErasures, Scope};
use crate::store::gate::{Access, Fault};
use crate::store::phi::Phi;
use crate::store::tables::backups::{self, BackupRow};
use crate::store::tables::erasures::{self, ErasureRow, Tombstone};
use crate::store::tables::holders;
pub use crate::store::tables::holders::Holder;
use crate::store::tables::log::LogError;
use crate::store::tables::memories::erase;
use crate::store::tables::signers;
use crate::store::tables::{credentials, grants, meta, past, subjects, usage, users};
use crate::store::tx::StoreError;

pub use crate::store::tables::erasures::{Place, Stage};

/// Who is to be erased.
#[derive(Debug)]
pub enum Whom {
    /// A person with a sign-in, by e-mail address, or by id.
    User(Phi),
    /// A subject, by external name, or by id.
    Subject(Phi),
    /// One of either kind.
    Known(Holder),
}

/// Why an erasure was not begun or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Nobody of that id or name.
    #[error("Nobody of that id or name is known")]
    Unknown,
    /// A subject is named as another one's id.
    #[error("This is the name of one subject and the id of another; nobody was erased: give the first one's own id")]
    Ambiguous,
    /// The owner.
    #[error("The owner of the instance cannot be erased; make somebody else the owner first (RM_OWNER_EMAIL)")]
    Owner,
    /// There is something left to remove: the step is to be tried again.
    #[error("memories were written meanwhile")]
    NotYet,
    /// The store failed.
    #[error("Internal server error")]
    Store(#[from] StoreError),
}

impl Fault for Refusal {
    fn audit(&self) -> (Reason, u16) {
        match self {
            Self::Unknown => (Reason::NotFound, 404),
            Self::Owner => (Reason::NotPermitted, 409),
            Self::Ambiguous | Self::NotYet => (Reason::Conflict, 409),
            Self::Store(_) => (Reason::WorkFailed, 500),
        }
    }
}

/// An erasure as its asker sees it.
#[derive(Clone, Debug)]
pub struct Erasure {
    /// The holder's id, which is also the erasure's.
    pub id: [u8; 16],
    /// Whether it is a person with a sign-in; else a subject.
    pub user: bool,
    /// How far it has come.
    pub stage: Stage,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// When rows and key were destroyed.
    pub destroyed_at: Option<Timestamp>,
    /// When the last key that opened old pages was gone.
    pub shredded_at: Option<Timestamp>,
    /// The epoch that died with it; 0 before that is known.
    pub epoch: u32,
    /// Memories that were removed.
    pub memories: u64,
    /// Number of its tombstone; 0 before there is one.
    pub tombstone: u64,
    /// Where the log tells of its destruction and of its end, once there is a receipt.
    pub entries: Option<(Place, Place)>,
}

impl Erasure {
    pub(in crate::store) fn of(id: [u8; 16], row: &ErasureRow) -> Self {
        let ErasureRow { kind, stage, asked_at, destroyed_at, shredded_at, epoch, memories, tombstone, entries } = row.clone();
        Self { id, user: kind == 1, stage, asked_at, destroyed_at, shredded_at, epoch, memories, tombstone, entries }
    }
}

/// Stages that somebody is to be erased; asked again, it is the same erasure. A user's keys are revoked with it, a subject's name leads nowhere.
pub fn ask(a: &mut Access<'_, AskErasure>, whom: &Whom) -> Result<Erasure, Refusal> {
    let tenant = a.who().tenant();
    let tx = a.tx_mut();
    let holder = match whom {
        Whom::User(name) => {
            let email = Zeroizing::new(name.inner().trim().to_ascii_lowercase());
            users::find(tx, tenant, &email)?.or_else(|| UserId::parse(&email)).map(Holder::User)
        }
        Whom::Subject(name) => {
            let name = Zeroizing::new(name.inner().nfc().collect::<String>());
            let (named, meant) = (subjects::find(tx, tenant, &name)?, SubjectId::parse(&name));
            if let (Some(named), Some(meant)) = (named, meant)
                && named != meant
                && !holders::epochs(tx, tenant, Holder::Subject(meant))?.is_empty()
            {
                return Err(Refusal::Ambiguous);
            }
            named.or(meant).map(Holder::Subject)
        }
        Whom::Known(holder) => Some(*holder),
    };
    let holder = holder.ok_or(Refusal::Unknown)?;
    let id = holder.id(tenant);
    tx.note(&id);
    if let Some(known) = erasures::get(tx, tenant, id)? {
        return if known.kind == holder.kind() { Ok(Erasure::of(id, &known)) } else { Err(Refusal::Unknown) };
    }
    if holders::epochs(tx, tenant, holder)?.is_empty() {
        return Err(Refusal::Unknown);
    }
    match holder {
        Holder::User(user) => {
            if meta::instance(tx)?.is_none_or(|instance| instance.owner == user) {
                return Err(Refusal::Owner);
            }
            credentials::remove_all(tx, tenant, user)?;
            grants::remove_all(tx, tenant, user)?;
            // Who signs in without a key is looked at anew too.
            tx.staged.credentials_changed = true;
        }
        Holder::Subject(subject) => {
            subjects::forget_name(tx, tenant, subject)?;
            tx.note_subject(Some(subject));
        }
        Holder::Tenant => return Err(Refusal::Unknown),
    }
    let erasure = ErasureRow {
        kind: holder.kind(),
        stage: Stage::Asked,
        asked_at: tx.now,
        destroyed_at: None,
        shredded_at: None,
        epoch: 0,
        memories: 0,
        tombstone: 0,
        entries: None,
    };
    erasures::put(tx, tenant, id, &erasure);
    Ok(Erasure::of(id, &erasure))
}

/// Every erasure, in the order of their ids.
pub fn list(a: &mut Access<'_, ReadErasures>) -> Result<Vec<Erasure>, Refusal> {
    let tenant = a.who().tenant();
    let found: Vec<Erasure> = erasures::all(a.tx(), tenant)?.iter().map(|(id, row)| Erasure::of(*id, row)).collect();
    a.count(u64::try_from(found.len()).expect("a list's length fits 64 bits"));
    Ok(found)
}

/// Counts removed memories in the erasure's row.
fn counted(a: &mut Access<'_, EraseMemories>, id: [u8; 16], removed: u64) -> Result<(), StoreError> {
    let tenant = a.who().tenant();
    let tx = a.tx_mut();
    let mut erasure = erasures::get(tx, tenant, id)?.ok_or(StoreError::Missing("erasures"))?;
    erasure.memories += removed;
    erasures::put(tx, tenant, id, &erasure);
    Ok(())
}

/// Removes some of a user's memories; whether none is left.
pub(in crate::store) fn remove_owned(a: &mut Access<'_, EraseMemories>, owner: UserId) -> Result<bool, Refusal> {
    let scope = Scope { tenant: a.who().tenant(), owner };
    let (removed, none) = erase::purge_owned(a.tx_mut(), scope, limits::ERASE_CHUNK, limits::PURGE_CHUNK)?;
    counted(a, *owner.bytes(), removed)?;
    Ok(none)
}

/// Removes these memories about a subject; whose they were, and whether all are gone.
pub(in crate::store) fn remove_about(
    a: &mut Access<'_, EraseMemories>,
    subject: SubjectId,
    ids: &[MemoryId],
) -> Result<(Vec<UserId>, bool), Refusal> {
    let tenant = a.who().tenant();
    let (removed, owners, all) = erase::purge_about(a.tx_mut(), tenant, subject, ids, limits::PURGE_CHUNK)?;
    counted(a, *subject.bytes(), removed)?;
    Ok((owners, all))
}

/// Step 2's last act: the holder's row and DEK go, a tombstone stays. Only if every DEK is still under the epoch `old` that is being left.
///
/// Errors: `NotYet` if there are memories again; `false` if the holder must wait for the next run.
pub(in crate::store) fn destroy(a: &mut Access<'_, DestroyHolder>, id: [u8; 16], old: u32) -> Result<bool, Refusal> {
    let tenant = a.who().tenant();
    let tx = a.tx_mut();
    let mut erasure = erasures::get(tx, tenant, id)?.ok_or(StoreError::Missing("erasures"))?;
    let holder = erasures::holder(erasure.kind, id).ok_or(StoreError::Missing("erasures"))?;
    if erasure.stage != Stage::Asked {
        return Ok(true);
    }
    if meta::rewrapping(tx)?.is_some() || holders::epochs(tx, tenant, holder)?.iter().any(|epoch| *epoch > old) {
        return Ok(false);
    }
    match holder {
        Holder::User(user) => {
            let scope = Scope { tenant, owner: user };
            if !erase::owns_nothing(tx, scope)? {
                return Err(Refusal::NotYet);
            }
            credentials::remove_all(tx, tenant, user)?;
            grants::remove_all(tx, tenant, user)?;
            erase::forget_counts(tx, scope)?;
            usage::forget(tx, scope)?;
            users::remove(tx, tenant, user)?;
        }
        Holder::Subject(subject) => {
            subjects::forget_name(tx, tenant, subject)?;
            subjects::remove(tx, tenant, subject);
            tx.note_subject(Some(subject));
        }
        Holder::Tenant => return Err(StoreError::Missing("erasures").into()),
    }
    holders::remove(tx, tenant, holder);
    let tombstone = Tombstone { tenant, kind: erasure.kind, holder: id, at: tx.now, epoch: old };
    erasure.tombstone = erasures::bury(tx, &tombstone)?;
    (erasure.stage, erasure.destroyed_at, erasure.epoch) = (Stage::Destroyed, Some(tx.now), old);
    erasures::put(tx, tenant, id, &erasure);
    // Reads under way that may have seen the holder are decided anew.
    tx.staged.credentials_changed = true;
    tell_destroyed(a, id, &erasure);
    Ok(true)
}

fn tell_destroyed(a: &mut Access<'_, DestroyHolder>, id: [u8; 16], erasure: &ErasureRow) {
    a.tx_mut().note(&id);
    a.detail(Detail::Epoch(erasure.epoch.into()));
    a.detail(Detail::Tombstone(erasure.tombstone));
}

/// Tells of the destruction once more, where a crash lost the place of the entry that told of it.
pub(in crate::store) fn destroyed_again(a: &mut Access<'_, DestroyHolder>, id: [u8; 16]) -> Result<(), Refusal> {
    let tenant = a.who().tenant();
    let erasure = erasures::get(a.tx(), tenant, id)?.filter(|row| row.stage != Stage::Asked).ok_or(StoreError::Missing("erasures"))?;
    if erasure.kind == 2 {
        a.tx_mut().note_subject(Some(SubjectId::from_bytes(id)));
    }
    a.recovered();
    tell_destroyed(a, id, &erasure);
    Ok(())
}

/// Step 4: no key is left that opens what old pages hold of the holder. The entry is what the receipt is about.
pub(in crate::store) fn shredded(a: &mut Access<'_, EndErasure>, id: [u8; 16]) -> Result<(), Refusal> {
    let tenant = a.who().tenant();
    let tx = a.tx_mut();
    let mut erasure = erasures::get(tx, tenant, id)?.ok_or(StoreError::Missing("erasures"))?;
    if erasure.stage == Stage::Asked || erasure.entries.is_some() {
        return Err(StoreError::Missing("erasures").into());
    }
    (erasure.stage, erasure.shredded_at) = (Stage::Shredded, erasure.shredded_at.or(Some(tx.now)));
    erasures::put(tx, tenant, id, &erasure);
    tx.note(&id);
    if erasure.kind == 2 {
        tx.note_subject(Some(SubjectId::from_bytes(id)));
    }
    let (epoch, tombstone, memories) = (erasure.epoch, erasure.tombstone, erasure.memories);
    a.detail(Detail::Epoch(epoch.into()));
    a.detail(Detail::Tombstone(tombstone));
    a.detail(Detail::Memories(memories));
    Ok(())
}

/// Notes the indexes of the entries that [`destroy`] and [`shredded`] left: from here on there is a receipt.
pub(in crate::store) fn receipted(a: &mut Access<'_, EndErasure>, id: [u8; 16], destroyed: u64, ended: u64) -> Result<(), Refusal> {
    let (tenant, log) = (a.who().tenant(), a.vault().log());
    let tx = a.tx_mut();
    let mut erasure = erasures::get(tx, tenant, id)?.ok_or(StoreError::Missing("erasures"))?;
    let place = |index| Place { log, index };
    erasure.entries = Some((place(destroyed), place(ended)));
    erasures::put(tx, tenant, id, &erasure);
    tx.note(&id);
    a.detail(Detail::First(destroyed));
    a.detail(Detail::End(ended + 1));
    Ok(())
}

/// One erasure, and its receipt if it has come to its end: the signed note of [`audit::receipt`](crate::audit::receipt).
pub fn read(a: &mut Access<'_, ReadErasures>, id: [u8; 16]) -> Result<(Erasure, Option<(ErasureReceipt, String)>), Refusal> {
    let tenant = a.who().tenant();
    a.tx_mut().note(&id);
    let erasure = Erasure::of(id, &erasures::get(a.tx(), tenant, id)?.ok_or(Refusal::Unknown)?);
    let receipt = receipt(a, &erasure)?;
    let signing = signers::signing(a.tx().reader, &a.tx().keys)?;
    let signed = receipt.map(|receipt| {
        let note = receipt.note(a.vault().log(), signing);
        (receipt, note)
    });
    Ok((erasure, signed))
}

fn receipt(a: &Access<'_, ReadErasures>, erasure: &Erasure) -> Result<Option<ErasureReceipt>, Refusal> {
    let (Some((destroyed, ended)), Some(destroyed_at), Some(shredded_at)) = (erasure.entries, erasure.destroyed_at, erasure.shredded_at)
    else {
        return Ok(None);
    };
    let tx = a.tx();
    let proved = |place: Place| {
        past::proved(tx, a.vault().log(), place.log, place.index).map_err(|error| match error {
            LogError::Store(error) => error,
            LogError::Damaged | LogError::Note(_) => StoreError::Missing("audit"),
        })
    };
    // One of an earlier epoch holds the holder's key under that epoch's, if there was the holder then.
    let holds = |row: &BackupRow| row.may_exist() && row.epochs.0 <= erasure.epoch;
    let backups = backups::all(tx)?.into_iter().filter(|(_, row)| holds(row)).map(|(id, row)| HeldBackup {
        id,
        begun_at: row.begun_at,
        expires_at: row.expires_at,
        own_key: row.own_key,
    });
    Ok(Some(ErasureReceipt {
        issued_at: tx.now,
        instance: a.vault().instance(),
        tenant: a.who().tenant(),
        user: erasure.user,
        holder: erasure.id,
        asked_at: erasure.asked_at,
        destroyed_at,
        shredded_at,
        memories: erasure.memories,
        epoch: erasure.epoch,
        tombstone: erasure.tombstone,
        backups: backups.collect(),
        destroyed: proved(destroyed)?,
        ended: proved(ended)?,
    }))
}
