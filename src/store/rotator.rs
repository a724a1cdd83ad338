//! The rotator: the one thread that changes keys while the store serves. It does erasures (`erasure`), leaves epochs and renews DEKs (`renewal`), as the system
//! principal `rotator`, through the gate.
//!
//! ```text
//! one epoch ──superblock {e, e+1}──▶ two ──holders destroyed──▶ re-wrapping marked ──▶ all under e+1 ──superblock {e+1}──▶ one epoch
//! ```
//!
//! Invariants
//! - Where it stands is read from the file alone (epochs of the superblock, META `rewrap` and `renewal`, stages of ERASURES), so after a crash at any step
//!   the next start goes on from there.
//! - A superblock is durable before anything is wrapped under its new key, and the last re-wrapped DEK is durable before an old key goes.
//! - The generation of the superblock is written into the data after each change of it; a change whose entry a crash prevented gets one at the
//!   next start.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::audit::checkpoint::vkey;
use crate::audit::{Detail, Word, chain};
use crate::authn::Principal;
use crate::base::id::{InstanceId, SubjectId, TenantId, UserId};
use crate::base::{limits, log};
use crate::crypto::sign::SigningKey;
use crate::crypto::unlock::Kek;
use crate::engine::{Change, EngineError, Slot};
use crate::policy::action::{
    Action, AskErasure, ChangeAuditKey, ChangeEpoch, ChangeSlots, DestroyHolder, EndErasure, EraseMemories, Instance, RewrapKeys, Writes,
};
use crate::store::erasure::{self, Refusal, Stage, Whom};
use crate::store::gate::{Access, Call, Receipt, Refused};
use crate::store::ledger::{self, LedgerError};
use crate::store::renewal;
use crate::store::tables::holders::{self, Holder};
use crate::store::tables::memories::erase;
use crate::store::tables::{erasures, meta, signers};
use crate::store::tx::{StoreError, Tx};
use crate::store::vault::Vault;
use crate::store::writer::Unavailable;

/// What the rotator is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Doing {
    /// Nothing: there is one epoch, and nobody waits to be erased.
    #[default]
    Nothing,
    /// Removing rows and keys of holders.
    Erasing,
    /// Wrapping DEKs anew.
    Rewrapping,
    /// Giving holders new DEKs and sealing again what is theirs.
    Renewing,
    /// Waiting to try a step again that failed; the log says which.
    Waiting,
}

impl Doing {
    /// In the operator's words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Nothing => "idle",
            Self::Erasing => "erasing",
            Self::Rewrapping => "re-wrapping",
            Self::Renewing => "re-sealing",
            Self::Waiting => "waiting after a failure",
        }
    }
}

/// How the rotation stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// What is being done.
    pub doing: Doing,
    /// DEKs wrapped anew, rows sealed again, or memories removed, since that began.
    pub done: u64,
    /// Grows with each time that everything asked for was found done.
    rounds: u64,
    asked: u64,
    seen: u64,
}

/// How others ask the rotator to look, and wait for it.
pub struct Rotation {
    ask: SyncSender<()>,
    state: Mutex<Progress>,
    changed: Condvar,
}

impl Rotation {
    pub(in crate::store) fn new(ask: SyncSender<()>) -> Self {
        Self { ask, state: Mutex::default(), changed: Condvar::new() }
    }

    pub(in crate::store) fn wake(&self) {
        let _ = self.ask.try_send(());
    }

    /// So much more of this is done.
    pub(in crate::store) fn more(&self, doing: Doing, done: u64) {
        self.set(|state| {
            state.done = if state.doing == doing { state.done + done } else { done };
            state.doing = doing;
        });
    }

    fn set(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.state.lock().expect("no code panics while it holds this lock"));
        self.changed.notify_all();
    }
}

impl Vault {
    /// How the rotation stands.
    pub fn rotation_progress(&self) -> Progress {
        *self.rotation().state.lock().expect("no code panics while it holds this lock")
    }

    /// Has the rotator look for what is to be done.
    pub fn rotate_soon(&self) {
        self.rotation().set(|state| state.asked += 1);
        self.rotation().wake();
    }

    /// Waits until all that was asked for before is done, `most` has passed, or a step failed; whether it is done. `tell` hears of progress
    /// and says whether to wait on.
    pub fn rotation_done(&self, most: Duration, mut tell: impl FnMut(Progress) -> bool) -> bool {
        let rotation = self.rotation();
        self.rotate_soon();
        let mut state = rotation.state.lock().expect("no code panics while it holds this lock");
        let (wanted, end) = (state.asked, std::time::Instant::now() + most);
        while state.seen < wanted {
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() || self.is_stopping() || state.doing == Doing::Waiting {
                return false;
            }
            state = rotation
                .changed
                .wait_timeout(state, left.min(Duration::from_millis(200)))
                .expect("no code panics while it holds this lock")
                .0;
            if !tell(*state) {
                return false;
            }
        }
        true
    }

    /// Leaves the epoch: begins it if none is being left, and lets the rotator do the rest. Gives the new epoch.
    ///
    /// Errors: `Refused` by the engine where an epoch is being left already; the store's.
    pub fn rotate_epoch(&self, who: &Principal) -> Result<u32, Stopped> {
        begin(self, who)?;
        self.rotate_soon();
        Ok(self.keys().epoch())
    }

    /// Has every holder's DEK renewed, and the epoch left afterwards; the rotator does it. `false`: one was under way already, and goes on.
    ///
    /// Errors: the store's.
    pub fn rotate_deks(&self, who: &Principal) -> Result<bool, Stopped> {
        let fresh = renewal::ask(self, who)?;
        self.rotate_soon();
        Ok(fresh)
    }

    /// Has the log handed over to a new signing key; the rotator does it. One that was under way goes on and is the one that is meant.
    ///
    /// Errors: the engine's; the store's.
    pub fn rotate_audit_key(&self, who: &Principal) -> Result<(), Stopped> {
        if self.keys().next_signing().is_none() {
            let generation = self.engine().rewrite(&Change::NextSigning)?;
            note_generation::<ChangeAuditKey>(self, who, generation, Word::of("begin"), |_| Ok(()))?;
        }
        self.rotate_soon();
        Ok(())
    }

    /// Entries in the log when its key was last changed; 0: never.
    ///
    /// Errors: the store's.
    pub fn handed_over_at(&self) -> Result<u64, Stopped> {
        let log = self.log();
        Ok(look(self, |tx| signers::retired(tx.reader, log))?.last().map_or(0, |(size, _)| *size))
    }

    /// Ends a long piece of work when the store stops.
    pub(in crate::store) fn still_goes(&self) -> Result<(), Stopped> {
        if self.is_stopping() { Err(Stopped::Stopping) } else { Ok(()) }
    }

    /// The epoch under which DEKs are wrapped now.
    pub fn epoch(&self) -> u32 {
        self.keys().epoch()
    }

    /// The data's identity, for a key that is to be made for it.
    pub fn instance(&self) -> InstanceId {
        self.engine().instance()
    }

    /// The key slots in use, and which of them `kek` opens.
    pub fn slots(&self, kek: &Kek) -> Vec<Slot> {
        self.engine().slots(kek)
    }

    /// Changes key slots, and records it before it is told.
    ///
    /// Errors: as [`Engine::rewrite`](crate::engine::Engine::rewrite); the store's, when the slots are changed and the entry follows at the next start.
    pub fn change_slots(&self, who: &Principal, change: &Change, word: &'static str) -> Result<Receipt, Stopped> {
        let generation = self.engine().rewrite(change)?;
        note_generation::<ChangeSlots>(self, who, generation, Word::of(word), |_| Ok(()))
    }
}

/// Why a step did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The file, or the change itself.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A row.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store takes no write now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The work refused.
    #[error(transparent)]
    Refused(Refusal),
    /// Policy, or a fault of the program.
    #[error("a step of the rotation was not permitted or failed inside")]
    Fault,
    /// The ledger of erased holders.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
}

impl From<Refused<Refusal>> for Stopped {
    fn from(refused: Refused<Refusal>) -> Self {
        match refused {
            Refused::Unavailable(why) => why.into(),
            Refused::Work(why, _) => Self::Refused(why),
            Refused::Denied(..) | Refused::Fault(_) | Refused::Revoked(_) => Self::Fault,
        }
    }
}

/// Looks for work whenever asked, until the vault stops.
pub fn run(vault: &Vault, asked: &Receiver<()>) {
    let mut wait = None;
    loop {
        match wait {
            None => {}
            Some(pause) => {
                let _ = asked.recv_timeout(pause);
            }
        }
        if vault.is_stopping() {
            return;
        }
        let before = vault.rotation_progress().asked;
        wait = Some(match go_on(vault) {
            Ok(()) => {
                vault
                    .rotation()
                    .set(|state| (state.doing, state.done, state.rounds, state.seen) = (Doing::Nothing, 0, state.rounds + 1, before));
                Duration::from_secs(3600)
            }
            Err(_) if vault.is_stopping() => return,
            Err(error) => {
                log::line(
                    log::Level::Error,
                    "a rotation or erasure stopped and is tried again",
                    &[("error", &log::Operator::text(&error))],
                );
                vault.rotation().set(|state| state.doing = Doing::Waiting);
                limits::ROTATE_PAUSE
            }
        });
    }
}

fn system(vault: &Vault) -> Principal {
    Principal::system(vault.tenant(), vault.owner(), "rotator")
}

fn write<A: Writes + Action<Target = Instance>, T: Send + 'static>(
    vault: &Vault,
    who: &Principal,
    work: impl for<'t> FnOnce(&mut Access<'t, A>) -> Result<T, Refusal> + Send + 'static,
) -> Result<(T, Receipt), Stopped> {
    Ok(vault.write::<A, T, Refusal>(who, Instance, &Call::internal(), work)?.into_parts())
}

/// A write of the rotator, or of what it calls, whose receipt nobody needs.
pub(in crate::store) fn go<A: Writes + Action<Target = Instance>, T: Send + 'static>(
    vault: &Vault,
    who: &Principal,
    work: impl for<'t> FnOnce(&mut Access<'t, A>) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Stopped> {
    Ok(write::<A, T>(vault, who, work)?.0)
}

/// Whether somebody waits to be erased.
pub(in crate::store) fn waiting_for_erasure(vault: &Vault) -> Result<bool, Stopped> {
    let tenant = vault.tenant();
    Ok(look(vault, |tx| erasures::all(tx, tenant))?.iter().any(|(_, row)| row.stage == Stage::Asked))
}

/// Records a superblock of this generation.
fn note_generation<A: Writes + Action<Target = Instance>>(
    vault: &Vault,
    who: &Principal,
    generation: u64,
    what: Word,
    more: impl for<'t> FnOnce(&mut Tx<'t>) -> Result<(), StoreError> + Send + 'static,
) -> Result<Receipt, Stopped> {
    let epoch = vault.keys().epoch();
    let noted = write::<A, _>(vault, who, move |a| {
        a.detail(Detail::Generation(generation));
        a.detail(Detail::Epoch(epoch.into()));
        a.detail(Detail::Setting(what));
        let tx = a.tx_mut();
        meta::put_generation(tx, generation.max(meta::generation(tx)?));
        Ok(more(tx)?)
    })?;
    Ok(noted.1)
}

pub(in crate::store) fn look<T>(vault: &Vault, look: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>) -> Result<T, Stopped> {
    let published = vault.published()?;
    Ok(look(&vault.reading(&published))?)
}

/// Begins an epoch: superblock {e, e+1}, then its entry.
pub(in crate::store) fn begin(vault: &Vault, who: &Principal) -> Result<(), Stopped> {
    let generation = vault.engine().rewrite(&Change::NextEpoch)?;
    note_generation::<ChangeEpoch>(vault, who, generation, Word::of("begin"), |_| Ok(()))?;
    Ok(())
}

/// Does all that is to be done.
fn go_on(vault: &Vault) -> Result<(), Stopped> {
    let who = system(vault);
    let (generation, recorded) = (vault.engine().generation(), look(vault, meta::generation)?);
    if generation > recorded {
        // A crash came between a superblock and its entry.
        let noted = write::<ChangeSlots, _>(vault, &who, move |a| {
            a.detail(Detail::Generation(generation));
            a.recovered();
            meta::put_generation(a.tx_mut(), generation);
            Ok(())
        });
        noted?;
    }
    hand_over(vault, &who)?;
    let mut mended = false;
    loop {
        if vault.is_stopping() {
            return Err(Stopped::Stopping);
        }
        let tenant = vault.tenant();
        let all = look(vault, |tx| erasures::all(tx, tenant))?;
        let of =
            |stage: fn(Stage) -> bool| -> Vec<[u8; 16]> { all.iter().filter(|(_, row)| stage(row.stage)).map(|(id, _)| *id).collect() };
        let (asked, destroyed) = (of(|stage| stage == Stage::Asked), of(|stage| stage == Stage::Destroyed));
        if let Some(old) = vault.keys().old_epoch() {
            leave(vault, &who, old, &asked)?;
        } else if !std::mem::replace(&mut mended, true) && all.iter().any(|(_, row)| row.stage != Stage::Asked && row.entries.is_none()) {
            // A crash came between the last superblock and the entries of the end.
            vault.engine().settle()?;
            end(vault, &who, &all, &HashMap::new())?;
        } else if !asked.is_empty() {
            begin(vault, &who)?;
        } else if !destroyed.is_empty() {
            mended = false;
        } else if let Some(stage) = look(vault, meta::renewal)? {
            renewal::go_on(vault, &who, stage)?;
        } else {
            return Ok(());
        }
    }
}

/// Hands the log over to the next signing key, if there is one:
///
/// ```text
/// one key ──superblock {old, next}──▶ two ──entry and checkpoint, signed by both──▶ the next signs ──superblock {next}──▶ one key
/// ```
fn hand_over(vault: &Vault, who: &Principal) -> Result<(), Stopped> {
    let Some(next) = vault.keys().next_signing().map(SigningKey::public) else { return Ok(()) };
    let keys = vault.keys();
    if look(vault, |tx| signers::handed_over(tx.reader, &keys))?.is_none() {
        let old = vkey(vault.log(), keys.signing().public());
        let new = old.with_public(next);
        write::<ChangeAuditKey, _>(vault, who, move |a| {
            chain::details(&old, &new).into_iter().for_each(|detail| a.detail(detail));
            a.tx_mut().staged.hands_over = true;
            Ok(())
        })?;
    }
    let generation = vault.engine().rewrite(&Change::NextSigningAlone)?;
    note_generation::<ChangeAuditKey>(vault, who, generation, Word::of("end"), |_| Ok(()))?;
    Ok(())
}

/// Leaves epoch `old`: destroys who was asked for, wraps the rest anew, drops the old key, and tells the end.
fn leave(vault: &Vault, who: &Principal, old: u32, asked: &[[u8; 16]]) -> Result<(), Stopped> {
    // Where the log tells of each destruction.
    let mut told = HashMap::new();
    // Whatever was wrapped with the keys of before is committed once this entry is.
    if look(vault, meta::rewrapping)?.is_none() {
        vault.rotation().set(|state| (state.doing, state.done) = (Doing::Erasing, 0));
        barrier(vault, who, "barrier")?;
        for id in asked {
            if let Some(index) = erase_one(vault, who, *id, old)? {
                told.insert(*id, index);
            }
        }
        write_ledger(vault)?;
        write::<RewrapKeys, _>(vault, who, move |a| {
            a.detail(Detail::Epoch(old.into()));
            a.detail(Detail::Setting(Word::of("begin")));
            meta::put_rewrapping(a.tx_mut(), Some(old));
            Ok(())
        })?;
    } else {
        barrier(vault, who, "resumed")?;
    }
    forget_destroyed(vault)?;
    rewrap(vault, who)?;
    let generation = vault.engine().rewrite(&Change::NewestEpochAlone)?;
    note_generation::<ChangeEpoch>(vault, who, generation, Word::of("end"), |tx| {
        meta::put_rewrapping(tx, None);
        Ok(())
    })?;
    let tenant = vault.tenant();
    let all = look(vault, |tx| erasures::all(tx, tenant))?;
    end(vault, who, &all, &told)
}

/// Waits until every batch that began before is committed.
fn barrier(vault: &Vault, who: &Principal, word: &'static str) -> Result<(), Stopped> {
    let generation = vault.engine().generation();
    note_generation::<ChangeEpoch>(vault, who, generation, Word::of(word), |_| Ok(())).map(drop)
}

/// Erases a holder: the index of the entry that tells of it, or nothing if it must wait for the next run.
fn erase_one(vault: &Vault, who: &Principal, id: [u8; 16], old: u32) -> Result<Option<u64>, Stopped> {
    let tenant = vault.tenant();
    let row = look(vault, |tx| erasures::get(tx, tenant, id))?.ok_or(StoreError::Missing("erasures"))?;
    let holder = erasures::holder(row.kind, id).ok_or(StoreError::Missing("erasures"))?;
    // One that this run cannot take waits for the next; its rows may go all the same.
    loop {
        match holder {
            Holder::User(owner) => remove_owned(vault, who, owner)?,
            Holder::Subject(subject) => remove_about(vault, who, tenant, subject)?,
            Holder::Tenant => return Err(Stopped::Fault),
        }
        match write::<DestroyHolder, _>(vault, who, move |a| erasure::destroy(a, id, old)) {
            Ok((done, receipt)) => return Ok(done.then(|| receipt.index())),
            Err(Stopped::Refused(Refusal::NotYet)) => {}
            Err(error) => return Err(error),
        }
    }
}

fn remove_owned(vault: &Vault, who: &Principal, owner: UserId) -> Result<(), Stopped> {
    while !write::<EraseMemories, _>(vault, who, move |a| erasure::remove_owned(a, owner))?.0 {
        vault.rotation().set(|state| state.done += 1);
        if vault.is_stopping() {
            return Err(Stopped::Stopping);
        }
    }
    Ok(())
}

/// Removes memories about the subject until a whole pass over the workspace finds none: its name leads nowhere, so none can come after that.
fn remove_about(vault: &Vault, who: &Principal, tenant: TenantId, subject: SubjectId) -> Result<(), Stopped> {
    loop {
        let (mut after, mut found) = (None, false);
        loop {
            if vault.is_stopping() {
                return Err(Stopped::Stopping);
            }
            let (ids, next) = look(vault, |tx| erase::about(tx, tenant, subject, after, limits::ERASE_CHUNK, limits::ERASE_SEEN))?;
            found |= !ids.is_empty();
            let mut left = !ids.is_empty();
            while left {
                let some = ids.clone();
                let ((owners, all), _) = write::<EraseMemories, _>(vault, who, move |a| erasure::remove_about(a, subject, &some))?;
                owners.iter().for_each(|owner| vault.indexes().drop_scope((tenant, *owner)));
                vault.rotation().set(|state| state.done += 1);
                left = !all;
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        if !found {
            return Ok(());
        }
    }
}

/// Drops from memory what derives from keys of destroyed holders.
fn forget_destroyed(vault: &Vault) -> Result<(), Stopped> {
    let tenant = vault.tenant();
    let generation = vault.published()?.generation;
    for (id, row) in look(vault, |tx| erasures::all(tx, tenant))? {
        if row.stage != Stage::Destroyed {
            continue;
        }
        let (user, subject) = (UserId::from_bytes(id), SubjectId::from_bytes(id));
        vault.common().field_keys.forget(|name| if row.kind == 1 { name.1 == user } else { name.2 == Some(subject) }, generation);
        if row.kind == 1 {
            vault.indexes().drop_scope((tenant, user));
        }
    }
    Ok(())
}

/// Wraps DEKs anew until a whole pass finds none under an old epoch.
fn rewrap(vault: &Vault, who: &Principal) -> Result<(), Stopped> {
    vault.rotation().set(|state| (state.doing, state.done) = (Doing::Rewrapping, 0));
    let mut found = true;
    while std::mem::replace(&mut found, false) {
        let mut after: Option<Vec<u8>> = None;
        loop {
            if vault.is_stopping() {
                return Err(Stopped::Stopping);
            }
            let (rows, next) = look(vault, |tx| holders::to_change(tx, after.as_deref(), limits::REWRAP_CHUNK, holders::wrapped_anew))?;
            if !rows.is_empty() {
                found = true;
                let (count, _) = write::<RewrapKeys, _>(vault, who, move |a| {
                    let count = holders::put_changed(a.tx_mut(), rows, holders::wrapped_anew)?;
                    a.count(count);
                    Ok(count)
                })?;
                vault.rotation().set(|state| state.done += count);
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    Ok(())
}

/// The entry of the end of each destroyed holder, and then where the log tells of destruction and end.
fn end(vault: &Vault, who: &Principal, all: &[([u8; 16], erasures::ErasureRow)], told: &HashMap<[u8; 16], u64>) -> Result<(), Stopped> {
    write_ledger(vault)?;
    for (id, row) in all {
        let id = *id;
        if row.stage == Stage::Asked || row.entries.is_some() {
            continue;
        }
        // Where a crash lost the index of an entry, it is told once more.
        let destroyed = match told.get(&id) {
            Some(index) => *index,
            None => write::<DestroyHolder, _>(vault, who, move |a| erasure::destroyed_again(a, id))?.1.index(),
        };
        let again = row.stage != Stage::Destroyed;
        let (_, receipt) = write::<EndErasure, _>(vault, who, move |a| {
            if again {
                a.recovered();
            }
            erasure::shredded(a, id)
        })?;
        let ended = receipt.index();
        write::<EndErasure, _>(vault, who, move |a| erasure::receipted(a, id, destroyed, ended))?;
    }
    Ok(())
}

/// Brings the list of erased holders beside the anchor up to date.
fn write_ledger(vault: &Vault) -> Result<(), Stopped> {
    let Some(anchor) = vault.anchor() else { return Ok(()) };
    let (path, instance, keys) = (ledger::path_beside(anchor), vault.engine().instance(), vault.keys());
    let before = ledger::read(&path, instance, &keys)?.map_or(0, |lines| lines.len());
    let published = vault.published()?;
    // What an older copy of the data put in this one's place does not know is kept, in front.
    let lines = ledger::known(anchor, instance, &keys, &published.snapshot)?;
    drop(published);
    if lines.len() != before {
        ledger::write(&path, instance, &keys, &lines)?;
    }
    vault.set_erased(u64::try_from(lines.len()).unwrap_or(u64::MAX));
    Ok(())
}

/// Has those erased whom the ledger names and this copy of the data still has: it is an older one. How many there are, those among them who
/// were asked for before a crash.
pub(in crate::store) fn ask_again(vault: &Vault) -> Result<u64, Stopped> {
    let Some(path) = vault.anchor().map(ledger::path_beside) else { return Ok(0) };
    let (who, tenant, mut found) = (system(vault), vault.tenant(), 0);
    let stones = ledger::read(&path, vault.engine().instance(), &vault.keys())?.unwrap_or_default();
    for stone in stones.iter().filter(|stone| stone.tenant == tenant) {
        let Some(holder) = erasures::holder(stone.kind, stone.holder) else { continue };
        let (there, asked) =
            look(vault, |tx| Ok((!holders::epochs(tx, tenant, holder)?.is_empty(), erasures::get(tx, tenant, stone.holder)?.is_some())))?;
        found += u64::from(there);
        if there && !asked {
            write::<AskErasure, _>(vault, &who, move |a| {
                a.recovered();
                erasure::ask(a, &Whom::Known(holder))
            })?;
        }
    }
    Ok(found)
}
