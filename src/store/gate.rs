//! The gate: the one place where principal, policy, audit and data meet, and the only door to the tables.
//!
//! ```text
//! credential ──admit──▶ Principal ──read/write──▶ facts ▶ decide ▶ Grant ▶ Access ▶ work ▶ entry durable ▶ Recorded
//!                                                          └── Denied ▶ entry durable ▶ Refused
//! ```
//!
//! Invariants
//! - No data without an [`Access`], no `Access` without a `Grant` from `policy::decide`, no answer without a [`Receipt`].
//! - A write is admitted, decided and done inside the transaction that commits it; its entry is in the same commit.
//! - A read's answer is held until its entry is durable; if credentials changed meanwhile it is decided anew.
//! - A panic in work drops what it staged, leaves an entry with outcome `error`, and answers as a fault of ours.

use std::any::Any;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use crate::audit::{Device, Outcome, Reason};
use crate::authn::credential::verifier;
use crate::authn::{CredentialRef, Principal, StoredCredential};
use crate::base::id::{CredentialId, OperationId};
use crate::base::limits;
use crate::engine::Space;
use crate::policy::action::{Action, Reads, Target, Writes};
use crate::policy::{Denied, Facts, Grant, Relation, decide};
use crate::store::draft::Draft;
use crate::store::phi::{Witness, sealed};
use crate::store::tables::{credentials, memories};
use crate::store::tx::{Staged, StoreError, Tx};
use crate::store::vault::{Published, Vault};
use crate::store::writer::{Ended, JobEnd, Unavailable};

/// What the audit log will tell of a request beside who and what.
#[derive(Clone, Debug)]
pub struct Call {
    /// The operation, drawn by the server.
    pub operation: OperationId,
    /// The client's request id, already in the form the log takes.
    pub rid: Option<String>,
    /// Where from.
    pub ip: Option<IpAddr>,
    /// The program that asks.
    pub device: Device,
    /// Status of the answer if all goes well.
    pub ok_status: u16,
}

impl Call {
    /// A call of the program itself or of its operator at the console.
    pub fn internal() -> Self {
        Self { operation: OperationId::draw(), rid: None, ip: None, device: Device::Rosemary, ok_status: 200 }
    }
}

/// Proof that the entry with this index in the audit log is durable.
#[derive(Clone, Copy, Debug)]
pub struct Receipt {
    index: u64,
}

impl Receipt {
    /// The entry's index.
    pub fn index(&self) -> u64 {
        self.index
    }
}

impl sealed::Sealed for Receipt {}
impl Witness for Receipt {}

/// A value whose audit entry is durable: the only thing an answer with data is made from.
#[derive(Debug)]
pub struct Recorded<T> {
    value: T,
    receipt: Receipt,
}

impl<T> Recorded<T> {
    /// The value and the proof.
    pub fn into_parts(self) -> (T, Receipt) {
        (self.value, self.receipt)
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Refused<E> {
    /// Policy said no; recorded.
    Denied(Denied, Receipt),
    /// The work itself refused; recorded, nothing changed.
    Work(E, Receipt),
    /// The work hit a fault of ours; recorded, nothing changed.
    Fault(Receipt),
    /// The credential was revoked before the answer; recorded.
    Revoked(Receipt),
    /// The store cannot answer now; no data leaves, and unless said otherwise nothing happened.
    Unavailable(Unavailable),
}

/// What a refusal by work means for the log and the answer.
pub trait Fault: From<StoreError> {
    /// Reason for the log and HTTP status.
    fn audit(&self) -> (Reason, u16);
}

/// Reason for the log and HTTP status of a denial.
pub fn denial(denied: &Denied) -> (Reason, u16) {
    let reason = match denied.relation {
        Relation::Own => Reason::NotPermitted,
        Relation::Visible => Reason::VendorMismatch,
        Relation::Hidden => Reason::VendorHidden,
        Relation::Trashed => Reason::Trashed,
        Relation::Foreign => Reason::NotOwner,
        Relation::ForeignTenant => Reason::ForeignTenant,
        Relation::Absent => Reason::NotFound,
    };
    (reason, if denied.visible { 403 } else { 404 })
}

/// A grant in use: tied to one snapshot or transaction and to one piece of work.
pub struct Access<'t, A: Action> {
    grant: Grant<A>,
    who: &'t Principal,
    vault: &'t Vault,
    tx: &'t mut Tx<'t>,
}

impl<A: Action> Access<'_, A> {
    /// What the grant is for.
    pub fn target(&self) -> A::Target {
        self.grant.target()
    }

    /// Who was granted it.
    pub fn who(&self) -> &Principal {
        self.who
    }
}

impl<'t, A: Action> Access<'t, A> {
    /// The view, for the tables.
    pub(in crate::store) fn tx(&self) -> &Tx<'t> {
        self.tx
    }

    /// The view, for tables that note or stage.
    pub(in crate::store) fn tx_mut(&mut self) -> &mut Tx<'t> {
        self.tx
    }

    /// The vault, for the index.
    pub(in crate::store) fn vault(&self) -> &'t Vault {
        self.vault
    }

    /// Puts a number into the entry that is not the number of ids noted.
    pub fn count(&mut self, n: u64) {
        self.tx.counted = Some(n);
    }

    /// The time of this work.
    pub fn now(&self) -> crate::base::time::Timestamp {
        self.tx.now
    }
}

impl<A: Action> sealed::Sealed for Access<'_, A> {}
impl<A: Action> Witness for Access<'_, A> {}

/// What a token turned out to be.
pub enum Admission {
    /// A good credential.
    Principal(Principal),
    /// A credential that was revoked.
    Revoked(CredentialId),
    /// Not a credential of ours.
    Unknown,
}

/// What came of work before its entry is durable.
enum Found<T, E> {
    Value(T),
    Denied(Denied),
    Work(E),
    Fault,
    Revoked,
}

impl Vault {
    /// Who presents `token`: one HMAC, then a look-up among the configured keys and in the file.
    ///
    /// Errors: the store cannot be read.
    pub fn admit(&self, token: &str) -> Result<Admission, Unavailable> {
        let verifier = verifier(self.keys().pepper(), token);
        if let Some(key) = self.static_key(&verifier) {
            return Ok(Admission::Principal(key));
        }
        let published = self.published()?;
        let tx = self.reading(&published);
        let found = (|| -> Result<Option<StoredCredential>, StoreError> {
            let Some((tenant, id)) = credentials::find(&tx, &verifier)? else { return Ok(None) };
            credentials::stored(&tx, tenant, id)
        })();
        match found.map_err(|_| Unavailable::Latched)? {
            None => Ok(Admission::Unknown),
            Some(row) => match Principal::of_user_key(&row, self.owner()) {
                Ok(who) => Ok(Admission::Principal(who)),
                Err(revoked) => Ok(Admission::Revoked(revoked.0)),
            },
        }
    }

    /// Reads: decides and works on a snapshot, then holds the value until its entry is durable.
    ///
    /// Errors: see [`Refused`]; no variant carries data.
    pub fn read<A: Reads, T, E: Fault>(
        &self,
        who: &Principal,
        target: A::Target,
        call: &Call,
        work: impl for<'t> Fn(&mut Access<'t, A>) -> Result<T, E>,
    ) -> Result<Recorded<T>, Refused<E>> {
        if self.space() == Space::NoReads {
            return Err(Refused::Unavailable(Unavailable::NoSpace));
        }
        for _ in 0..limits::READ_ATTEMPTS_MAX {
            let published = self.published().map_err(Refused::Unavailable)?;
            let mut tx = self.reading(&published);
            let mut draft = Draft::new(who, call, A::NAME, A::PHI, target.into());
            let found = perform::<A, T, E>(self, who, target, &mut tx, |access| work(access));
            conclude(&mut draft, &found, tx, call);
            match self.append(draft, published.generation) {
                Ok(Ended::Durable(index)) => return settle(found, Receipt { index }),
                Ok(Ended::Stale) => {}
                Err(unavailable) => return Err(Refused::Unavailable(unavailable)),
            }
        }
        Err(Refused::Unavailable(Unavailable::Busy))
    }

    /// Writes: admits, decides and works inside the transaction that also holds the entry, and returns after the commit.
    ///
    /// Errors: see [`Refused`]; nothing has changed unless the variant says that the outcome is unknown.
    pub fn write<A: Writes, T: Send + 'static, E: Fault + Send + 'static>(
        &self,
        who: &Principal,
        target: A::Target,
        call: &Call,
        work: impl for<'t> FnOnce(&mut Access<'t, A>) -> Result<T, E> + Send + 'static,
    ) -> Result<Recorded<T>, Refused<E>> {
        if self.space() != Space::Ample {
            return Err(Refused::Unavailable(Unavailable::NoSpace));
        }
        if let Target::Scope(scope) = target.into() {
            self.warm(scope);
        }
        let slot: Arc<Mutex<Option<Found<T, E>>>> = Arc::default();
        let (result, principal, request, vault) = (Arc::clone(&slot), who.clone(), call.clone(), self.clone());
        let job = move |mut tx: Tx<'_>| -> JobEnd {
            let mut draft = Draft::new(&principal, &request, A::NAME, A::PHI, target.into());
            let found = perform::<A, T, E>(&vault, &principal, target, &mut tx, work);
            let staged = match &found {
                Found::Value(_) => std::mem::take(&mut tx.staged),
                _ => Staged::default(),
            };
            conclude(&mut draft, &found, tx, &request);
            *result.lock().expect("no code panics while it holds this lock") = Some(found);
            JobEnd::Entry(draft, staged)
        };
        match self.submit(Box::new(job), call.operation, who) {
            Ok(Ended::Durable(index)) => {
                let found = slot.lock().expect("no code panics while it holds this lock").take();
                settle(found.unwrap_or(Found::Fault), Receipt { index })
            }
            Ok(Ended::Stale) => Err(Refused::Unavailable(Unavailable::Busy)),
            Err(unavailable) => Err(Refused::Unavailable(unavailable)),
        }
    }

    /// Records a refusal that came before any verb was tried (schema, route, role), and waits until the entry is durable.
    pub fn record(&self, who: &Principal, call: &Call, op: &'static str, reason: Reason, status: u16) -> Result<Receipt, Unavailable> {
        let mut draft = Draft::new(who, call, op, false, Target::Instance);
        draft.refuse(reason, status);
        let generation = self.published()?.generation;
        match self.append(draft, generation)? {
            Ended::Durable(index) => Ok(Receipt { index }),
            Ended::Stale => Err(Unavailable::Busy),
        }
    }
}

/// Checks the credential again, loads facts, decides, and works under `catch_unwind`.
fn perform<A: Action, T, E: Fault>(
    vault: &Vault,
    who: &Principal,
    target: A::Target,
    tx: &mut Tx<'_>,
    work: impl for<'t> FnOnce(&mut Access<'t, A>) -> Result<T, E>,
) -> Found<T, E> {
    let decided = (|| -> Result<_, StoreError> {
        if !standing(tx, who)? {
            return Ok(None);
        }
        let facts = facts(vault, tx, who, target.into())?;
        Ok(Some(decide::<A>(who, target, &facts)))
    })();
    let grant = match decided {
        Err(error) => return Found::Work(E::from(error)),
        Ok(None) => return Found::Revoked,
        Ok(Some(Err(denied))) => {
            if let Target::Memory(id) = target.into()
                && denied.relation != Relation::Absent
            {
                tx.note(id.bytes());
            }
            return Found::Denied(denied);
        }
        Ok(Some(Ok(grant))) => grant,
    };
    let worked: Result<Result<T, E>, Box<dyn Any + Send>> = catch_unwind(AssertUnwindSafe(|| run(vault, who, grant, tx, work)));
    match worked {
        Ok(Ok(value)) => Found::Value(value),
        Ok(Err(error)) => Found::Work(error),
        Err(_) => Found::Fault,
    }
}

/// Lends the view to an `Access` for the time of the work.
fn run<A: Action, T, E: Fault>(
    vault: &Vault,
    who: &Principal,
    grant: Grant<A>,
    tx: &mut Tx<'_>,
    work: impl for<'t> FnOnce(&mut Access<'t, A>) -> Result<T, E>,
) -> Result<T, E> {
    // The view is moved into the access's lifetime and back, so that work cannot keep it.
    let mut lent = Tx::new(tx.reader, tx.keys, tx.common, tx.now, tx.committed);
    lent.recents = tx.recents;
    let result = {
        let mut inner = lent;
        let result = work_on(vault, who, grant, &mut inner, work);
        tx.staged = std::mem::take(&mut inner.staged);
        tx.noted = std::mem::take(&mut inner.noted);
        tx.subjects = std::mem::take(&mut inner.subjects);
        tx.counted = inner.counted;
        result
    };
    result
}

fn work_on<'t, A: Action, T, E: Fault>(
    vault: &'t Vault,
    who: &'t Principal,
    grant: Grant<A>,
    tx: &'t mut Tx<'t>,
    work: impl for<'x> FnOnce(&mut Access<'x, A>) -> Result<T, E>,
) -> Result<T, E> {
    work(&mut Access { grant, who, vault, tx })
}

/// Whether the principal's credential still stands in this view.
fn standing(tx: &Tx<'_>, who: &Principal) -> Result<bool, StoreError> {
    match who.credential() {
        CredentialRef::Stored(id) => Ok(who.still_valid(credentials::stored(tx, who.tenant(), *id)?.as_ref())),
        CredentialRef::Static(_) | CredentialRef::None => Ok(true),
    }
}

/// What policy must know of the target, from the view in which the work will run.
fn facts(vault: &Vault, tx: &Tx<'_>, who: &Principal, target: Target) -> Result<Facts, StoreError> {
    match target {
        Target::Memory(id) => memories::facts(tx, who.tenant(), id),
        Target::Credential(id) => {
            Ok(Facts::Holder(credentials::stored(tx, who.tenant(), id)?.filter(|row| row.revoked_at.is_none()).map(|row| (row.tenant, row.user))))
        }
        Target::Operation(id) => vault.operation_holder(tx, who, id),
        Target::Scope(_) | Target::Person(_) | Target::Instance => Ok(Facts::None),
    }
}

/// Writes into the entry how it ended.
fn conclude<T, E: Fault>(draft: &mut Draft, found: &Found<T, E>, tx: Tx<'_>, call: &Call) {
    match found {
        Found::Value(_) => draft.succeed(call.ok_status),
        Found::Denied(denied) => {
            let (reason, status) = denial(denied);
            draft.deny(reason, status);
        }
        Found::Work(error) => {
            let (reason, status) = error.audit();
            draft.refuse(reason, status);
        }
        Found::Fault => draft.end(Outcome::Error, Some(Reason::Panic), 500),
        Found::Revoked => draft.deny(Reason::RevokedCredential, 401),
    }
    draft.touched(tx.noted, tx.subjects, tx.counted);
}

fn settle<T, E>(found: Found<T, E>, receipt: Receipt) -> Result<Recorded<T>, Refused<E>> {
    match found {
        Found::Value(value) => Ok(Recorded { value, receipt }),
        Found::Denied(denied) => Err(Refused::Denied(denied, receipt)),
        Found::Work(error) => Err(Refused::Work(error, receipt)),
        Found::Fault => Err(Refused::Fault(receipt)),
        Found::Revoked => Err(Refused::Revoked(receipt)),
    }
}

impl Vault {
    /// A view of a published snapshot.
    fn reading<'p>(&'p self, published: &'p Published) -> Tx<'p> {
        Tx::new(&published.snapshot, self.keys(), self.common(), self.clock().now(), true)
    }
}
