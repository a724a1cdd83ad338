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
//! - While the instance is frozen (`incident`) a write by anybody but the program itself is refused, inside its transaction, and recorded.
//! - A panic in work drops what it staged, leaves an entry with outcome `error`, and answers as a fault of ours.

mod later;

pub use later::Asked;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use crate::audit::{self, Actor, ActorKind, Decision, Detail, Device, Entry, Id, Outcome, Reason, RequestId, Resource, Word};
use crate::authn::credential::{Verifier, tool_of_label};
use crate::authn::{CredentialRef, Principal, Role, StoredCredential};
use crate::base::id::{CredentialId, MemoryId, OperationId, SubjectId};
use crate::base::time::Timestamp;
use crate::base::{duty, fault, limits};
use crate::engine::Space;
use crate::policy::action::{Action, Reads, Target, Writes, is_urgent};
use crate::policy::{Denied, Facts, Grant, Relation, decide};
use crate::store::incident;
use crate::store::phi::{Witness, sealed};
use crate::store::quota::Full;
use crate::store::sign_in;
use crate::store::tables::{credentials, grants, memories};
use crate::store::turns::Party;
use crate::store::tx::{Held, Staged, StoreError, Tx};
use crate::store::vault::Vault;
use crate::store::writer::{Ended, Job, JobEnd, Unavailable};

/// What the audit log will tell of a request beside who and what.
#[derive(Clone, Debug)]
pub struct Call {
    /// The operation, drawn by the server.
    pub operation: OperationId,
    /// The client's request id, already in the form the log takes.
    pub rid: Option<RequestId>,
    /// Where from.
    pub ip: Option<IpAddr>,
    /// The program that asks.
    pub device: Device,
    /// Status of the answer if all goes well.
    pub ok_status: u16,
    /// Of which generation the credentials were when the principal was admitted: in a view of the same generation it still stands.
    pub admitted: Option<u64>,
}

impl Call {
    /// A call of the program itself or of its operator at the console.
    pub fn internal() -> Self {
        Self { operation: OperationId::draw(), rid: None, ip: None, device: Device::Rosemary, ok_status: 200, admitted: None }
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
    held: Option<Held>,
}

impl<T> Recorded<T> {
    /// The value and the proof.
    pub fn into_parts(self) -> (T, Receipt) {
        (self.value, self.receipt)
    }

    /// What `choose` makes of the value, under the same proof; or what it gives instead.
    pub fn try_map<U, E>(self, choose: impl FnOnce(T) -> Result<U, E>) -> Result<Recorded<U>, E> {
        Ok(Recorded { value: choose(self.value)?, receipt: self.receipt, held: self.held })
    }

    /// The same, with the answer's place among the large ones.
    fn holding(self, held: Option<Held>) -> Self {
        Self { held, ..self }
    }

    /// The answer's place among the large ones, to be kept until it is sent.
    pub fn hold(&mut self) -> Option<Held> {
        self.held.take()
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

    /// The contract's `code` beside the error, where it has one.
    fn code(&self) -> Option<&'static str> {
        None
    }

    /// The quota that is used up, where that is why.
    fn full(&self) -> Option<Full> {
        None
    }
}

/// Work that refuses only when the store does.
#[derive(Debug, thiserror::Error)]
#[error("Internal server error")]
pub struct Failed;

impl From<StoreError> for Failed {
    fn from(_: StoreError) -> Self {
        Self
    }
}

impl Fault for Failed {
    fn audit(&self) -> (Reason, u16) {
        (Reason::WorkFailed, 500)
    }
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
    tx: Tx<'t>,
}

impl<'t, A: Action> Access<'t, A> {
    /// What the grant is for.
    pub fn target(&self) -> A::Target {
        self.grant.target()
    }

    /// Who was granted it.
    pub fn who(&self) -> &'t Principal {
        self.who
    }

    /// The time of this work.
    pub fn now(&self) -> Timestamp {
        self.tx.now
    }

    /// Puts a number into the entry that is not the number of ids noted.
    pub fn count(&mut self, n: u64) {
        self.tx.counted = Some(n);
    }

    /// Adds a detail to the entry.
    pub fn detail(&mut self, detail: Detail) {
        self.tx.details.set(detail);
    }

    /// Says in the entry that a safeguard is overridden.
    pub fn overrides(&mut self, safeguard: &'static str) {
        self.tx.overridden = true;
        self.detail(Detail::Setting(Word::of(safeguard)));
    }

    /// Says in the entry that it tells of what a crash kept from being told.
    pub(in crate::store) fn recovered(&mut self) {
        self.tx.recovered = true;
    }

    /// The view, for the tables.
    pub(in crate::store) fn tx(&self) -> &Tx<'t> {
        &self.tx
    }

    /// The view, for tables that note or stage.
    pub(in crate::store) fn tx_mut(&mut self) -> &mut Tx<'t> {
        &mut self.tx
    }

    /// The vault, for the index and the log.
    pub(in crate::store) fn vault(&self) -> &'t Vault {
        self.vault
    }
}

impl<A: Action> sealed::Sealed for Access<'_, A> {}
impl<A: Action> Witness for Access<'_, A> {}

/// What a token turned out to be.
pub enum Admission {
    /// A good credential, as of this generation of the credentials.
    Principal(Principal, u64),
    /// A credential that was revoked.
    Revoked(CredentialId),
    /// A grant of OAuth whose access token's time is over.
    Expired(CredentialId),
    /// The dashboard's key: it speaks for the person whom its token names ([`Vault::admit_dashboard`]).
    Dashboard,
    /// Not a credential of ours.
    Unknown,
}

/// What came of a request before its entry is durable: how it ended, and what its work gave if it was let in and did not panic.
struct Found<T, E>(Came, Option<Result<T, E>>);

/// Where a job leaves what came of it.
struct Slot<T, E>(Arc<Mutex<Option<Found<T, E>>>>);

impl<T, E> Default for Slot<T, E> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// A verb without its type.
#[derive(Clone, Copy)]
struct Verb {
    name: &'static str,
    phi: bool,
    writes: bool,
    resource: &'static str,
}

impl Verb {
    const fn of<A: Action>() -> Self {
        Self { name: A::NAME, phi: A::PHI, writes: A::WRITES, resource: A::RESOURCE }
    }
}

/// Work without its types: takes the facts that policy rests on and a view, and gives the view back with how it came out.
type Work<'w, 't> = &'w mut dyn FnMut(Result<Facts, StoreError>, Tx<'t>) -> (Tx<'t>, Came);

impl Vault {
    /// Who presents `token`: one HMAC, then a look-up among the configured keys and in the file; what the file said is known until credentials change.
    ///
    /// Errors: the store cannot be read.
    pub fn admit(&self, token: &str) -> Result<Admission, Unavailable> {
        let verifier = Verifier::of(self.keys().pepper(), token);
        let published = self.published()?;
        if let Some(key) = self.static_keys().find(&verifier) {
            let who = Principal::of_static_key(self.tenant(), self.owner(), key);
            let revoked = incident::is_revoked(&self.reading(&published), who.credential()).map_err(|_| Unavailable::Latched)?;
            return Ok(if revoked { Admission::Unknown } else { Admission::Principal(who, published.generation) });
        }
        let tx = self.reading(&published);
        let look_up = || -> Result<Option<StoredCredential>, StoreError> {
            let Some((tenant, id)) = credentials::find(&tx, &verifier.0)? else { return Ok(None) };
            let found = credentials::stored(&tx, tenant, id)?;
            if let Some(found) = found {
                self.standing().put(verifier.0, found, published.generation);
            }
            Ok(found)
        };
        let found = self.standing().get(&verifier.0, published.generation).map_or_else(look_up, |found| Ok(Some(found)));
        let found = found.map_err(|_| Unavailable::Latched)?;
        let granted =
            if found.is_none() { self.granted(&tx, &verifier, published.generation).map_err(|_| Unavailable::Latched)? } else { None };
        if let Some(granted) = granted {
            return Ok(granted);
        }
        match found {
            None if self.is_dashboard(&tx, &verifier).map_err(|_| Unavailable::Latched)? => Ok(Admission::Dashboard),
            None => Ok(Admission::Unknown),
            Some(row) => match Principal::of_user_key(&row, self.is_admin(row.user)) {
                Ok(who) => Ok(Admission::Principal(who, published.generation)),
                Err(revoked) => Ok(Admission::Revoked(revoked.0)),
            },
        }
    }

    /// Who presents the access token of a grant, if that is what it is.
    fn granted(&self, tx: &Tx<'_>, verifier: &Verifier, generation: u64) -> Result<Option<Admission>, StoreError> {
        let Some(token) = grants::token(tx, &verifier.0)?.filter(|token| token.kind == grants::Kind::Access) else { return Ok(None) };
        let row = grants::get(tx, token.tenant, token.user, token.grant)?.ok_or(StoreError::Missing("oauth_grants"))?;
        let ends_at = row.access.ends_at.min(self.grant_ends_at(token.user, &row));
        if ends_at <= tx.now {
            return Ok(Some(Admission::Expired(token.grant)));
        }
        let who = Principal::of_grant(token.tenant, token.user, &grants::reference(token.grant, &row)?, ends_at);
        Ok(Some(Admission::Principal(who, generation)))
    }

    /// Whether this is the dashboard's own key, and one that was not revoked.
    fn is_dashboard(&self, tx: &Tx<'_>, verifier: &Verifier) -> Result<bool, StoreError> {
        match self.dashboard().and_then(|(keys, _)| keys.find(verifier)) {
            Some(key) => Ok(!incident::is_revoked_key(tx, key.id)?),
            None => Ok(false),
        }
    }

    /// The AI tool's agent that `who` is where only agents are let in (MCP): an agent stays what it is, and a person's own key speaks for the
    /// tool that its label names. `None` for a credential that speaks for none. The label itself stays here.
    ///
    /// Errors: the store cannot be read.
    pub fn agent_of(&self, who: Principal) -> Result<Option<Principal>, Unavailable> {
        let CredentialRef::Stored(id) = who.credential() else { return Ok(who.vendor().is_some().then_some(who)) };
        if who.vendor().is_some() {
            return Ok(Some(who));
        }
        let published = self.published()?;
        let label = credentials::label(&self.reading(&published), who.tenant(), *id).map_err(|_| Unavailable::Latched)?;
        Ok(label.map(|label| who.speaking_for(tool_of_label(label.inner()))))
    }

    /// Whether `who` still stands. Looked up only if credentials changed since `generation`, which is brought up to date. While the store is
    /// shut nobody does.
    pub fn stands(&self, who: &Principal, generation: &mut u64) -> bool {
        let Some(published) = self.shown() else { return false };
        let tx = self.reading(&published);
        let seen = std::mem::replace(generation, published.generation);
        standing(&tx, who, Some(seen)).unwrap_or(false)
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
        self.read_or_walk(who, target, call, false, work)
    }

    /// As [`Vault::read`], for work that goes through many records: it begins when it is its asker's turn, which ends with it ([`super::turns`]).
    pub fn walk<A: Reads, T, E: Fault>(
        &self,
        who: &Principal,
        target: A::Target,
        call: &Call,
        work: impl for<'t> Fn(&mut Access<'t, A>) -> Result<T, E>,
    ) -> Result<Recorded<T>, Refused<E>> {
        self.read_or_walk(who, target, call, true, work)
    }

    fn read_or_walk<A: Reads, T, E: Fault>(
        &self,
        who: &Principal,
        target: A::Target,
        call: &Call,
        in_turn: bool,
        work: impl for<'t> Fn(&mut Access<'t, A>) -> Result<T, E>,
    ) -> Result<Recorded<T>, Refused<E>> {
        if self.space() == Space::NoReads {
            return Err(self.no_space(who));
        }
        let mut found = None;
        let durable = self.attempts(who, call, in_turn, &mut |tx| {
            let (came, told) = perform::<A, T, E>(self, who, target, call, tx, |access| work(access));
            found = Some(came);
            told
        });
        match durable {
            Ok((index, held)) => settle(found, index).map(|recorded| recorded.holding(held)),
            Err(unavailable) => Err(Refused::Unavailable(unavailable)),
        }
    }

    /// Reads until what was read still holds when its entry is durable; the entry's index, and the answer's place among the large ones.
    fn attempts(
        &self,
        who: &Principal,
        call: &Call,
        in_turn: bool,
        read: &mut dyn FnMut(Tx<'_>) -> Told,
    ) -> Result<(u64, Option<Held>), Unavailable> {
        duty::step_aside();
        for _ in 0..limits::READ_ATTEMPTS_MAX {
            let turn = in_turn.then(|| self.turns().take(Party::of(who, self.owner())));
            let published = self.published()?;
            let told = read(self.reading(&published));
            let generation = published.generation;
            drop((published, turn));
            if let Ended::Durable(index) = self.append(who, call, told.entry, generation)? {
                return Ok((index, told.held));
            }
        }
        Err(self.busy(who))
    }

    /// Refuses a read that other changes always overtook. Counted as [`Vault::no_space`] is.
    fn busy(&self, who: &Principal) -> Unavailable {
        self.refuse_credential(who.credential(), Reason::Conflict, 503);
        Unavailable::Busy
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
        if self.space() != Space::Ample && !is_urgent(A::NAME) {
            return Err(self.no_space(who));
        }
        let (job, slot) = self.job::<A, T, E>(who.clone(), target, call.clone(), work);
        written(&slot, self.submit(job, who, call))
    }

    /// A write as the writer's job, and where it leaves what came of it.
    fn job<A: Writes, T: Send + 'static, E: Fault + Send + 'static>(
        &self,
        who: Principal,
        target: A::Target,
        call: Call,
        work: impl for<'t> FnOnce(&mut Access<'t, A>) -> Result<T, E> + Send + 'static,
    ) -> (Job, Slot<T, E>) {
        let slot = Slot::default();
        let (result, vault) = (Arc::clone(&slot.0), self.clone());
        let job = move |tx: Tx<'_>| -> JobEnd {
            let (found, told) = perform::<A, T, E>(&vault, &who, target, &call, tx, work);
            *result.lock().expect("no code panics while it holds this lock") = Some(found);
            told.committed()
        };
        (Box::new(job), slot)
    }

    /// Refuses for want of room. Counted, not recorded each time: entries are what the last of the room is for.
    fn no_space<E>(&self, who: &Principal) -> Refused<E> {
        self.refuse_credential(who.credential(), Reason::NoSpace, 507);
        Refused::Unavailable(Unavailable::NoSpace)
    }

    /// Records a refusal that came before any verb was tried (schema, route, role), and waits until the entry is durable.
    pub fn record(&self, who: &Principal, call: &Call, op: &'static str, reason: Reason, status: u16) -> Result<Receipt, Unavailable> {
        let mut entry = opened(who, call, op, false);
        entry.refuse(reason, status);
        // While the store is shut nothing is recorded; credentials that change meanwhile change nothing of a refusal.
        self.published()?;
        match self.append_whatever(who, call, entry)? {
            Ended::Durable(index) => Ok(Receipt { index }),
            Ended::Stale => Err(Unavailable::Busy),
        }
    }
}

/// What the log will tell of a request, and what it staged. What is done with it is the same for every verb and stands once in the program; only
/// [`perform`] and the doors around it are made for each (LAYOUT 4).
struct Told {
    entry: Box<Entry>,
    staged: Staged,
    held: Option<Held>,
}

/// How a request came out, without what it found.
#[derive(Clone, Copy)]
enum Came {
    Done,
    Denied(Denied),
    Refused(Reason, u16),
    /// What is decided on could not be read: nothing was decided, so nothing was allowed.
    Unreadable(u16),
    Fault,
    Revoked,
    ReadOnly,
}

impl Told {
    /// What work touched, whether or not it came to its end.
    fn worked(&mut self, tx: Tx<'_>, kind: &'static str, done: bool) {
        touched(&mut self.entry, kind, tx.noted, tx.subjects, tx.counted);
        self.entry.det = tx.details;
        self.entry.reason = match (tx.overridden, tx.recovered) {
            (true, _) => Some(Reason::Override),
            (false, true) => Some(Reason::Recovered),
            (false, false) => None,
        };
        if done {
            (self.staged, self.held) = (tx.staged, tx.held);
        }
    }

    fn came(&mut self, how: Came, target: Target, kind: &'static str, ok_status: u16) {
        let entry = &mut *self.entry;
        match how {
            Came::Done => entry.status = ok_status,
            Came::Denied(denied) => {
                if let (Target::Memory(id), true) = (target, denied.relation != Relation::Absent) {
                    touched(entry, kind, vec![*id.bytes()], Vec::new(), None);
                }
                let (reason, status) = denial(&denied);
                entry.refuse(reason, status);
            }
            Came::Refused(reason, status) => {
                entry.refuse(reason, status);
                entry.decision = Decision::Allow;
            }
            Came::Unreadable(status) => {
                entry.refuse(Reason::Unreadable, status);
                entry.outcome = Outcome::Error;
            }
            Came::Fault => (entry.outcome, entry.reason, entry.status) = (Outcome::Error, Some(Reason::Panic), 500),
            Came::Revoked => entry.refuse(Reason::RevokedCredential, 401),
            Came::ReadOnly => entry.refuse(Reason::ReadOnly, 503),
        }
    }

    fn committed(self) -> JobEnd {
        JobEnd::Entry(self.entry, self.staged)
    }
}

/// The audit entry of a request, opened before anything is decided.
fn opened(who: &Principal, call: &Call, op: &'static str, phi: bool) -> Entry {
    let actor = match who.role() {
        Role::User => Actor { behalf: Vec::new(), id: Some(who.user().into()), kind: ActorKind::User, vendor: None },
        Role::Agent(vendor) => {
            Actor { behalf: vec![who.user().into()], id: None, kind: ActorKind::Agent, vendor: Word::parse(vendor.name()) }
        }
        Role::System(name) => Actor { vendor: Word::parse(name), ..Actor::SYSTEM },
    };
    let mut entry = Entry::new(op, actor);
    entry.cred = audit_credential(who.credential());
    entry.tenant = Some(who.tenant());
    entry.role = Some(match who.role() {
        Role::User if who.is_admin() => Word::of("admin"),
        Role::User => Word::of("user"),
        Role::Agent(_) => Word::of("agent"),
        Role::System(_) => Word::of("system"),
    });
    entry.origin = match who.credential() {
        CredentialRef::Dashboard { .. } => Some(Word::of("dashboard")),
        CredentialRef::Grant(_) => Some(Word::of("oauth")),
        _ => None,
    };
    entry.phi = phi;
    entry.rid = call.rid.clone();
    entry.ip = call.ip;
    entry.device = Some(call.device);
    entry.opid = Some(call.operation);
    entry
}

/// How the audit log names a credential.
pub(in crate::store) fn audit_credential(credential: &CredentialRef) -> Option<audit::Credential> {
    match credential {
        CredentialRef::Stored(id) | CredentialRef::Grant(id) => Some(audit::Credential::Stored(*id)),
        CredentialRef::Static { name, id } | CredentialRef::Dashboard { name, id } => {
            Some(audit::Credential::Static { name: Arc::clone(name), mark: id.mark() })
        }
        CredentialRef::None => None,
    }
}

/// A request's way through the gate: checks the credential again, loads facts, lets `work` decide and do, and writes into the entry how it ended.
fn course<'t>(who: &Principal, verb: Verb, target: Target, call: &Call, mut tx: Tx<'t>, work: Work<'_, 't>) -> (Came, Told) {
    let mut told = Told { entry: Box::new(opened(who, call, verb.name, verb.phi)), staged: Staged::default(), held: None };
    // Where it cannot be read whether the instance is frozen, it is taken for frozen.
    let barred = verb.writes && incident::bars(&tx, verb.name, matches!(who.role(), Role::System(_))).unwrap_or(true);
    let facts = if barred { Ok(None) } else { grounds(&mut tx, who, target, call.admitted) };
    let came = match facts.transpose() {
        None if barred => Came::ReadOnly,
        None => Came::Revoked,
        Some(facts) => {
            let (tx, came) = work(facts, tx);
            // Of what was refused before any work, only `came` tells.
            if !matches!(came, Came::Denied(_)) {
                told.worked(tx, verb.resource, matches!(came, Came::Done));
            }
            came
        }
    };
    told.came(came, target, verb.resource, call.ok_status);
    (came, told)
}

/// The one part of the way that is made for each verb: decides, and works under `catch`.
fn perform<'t, A: Action, T, E: Fault>(
    vault: &'t Vault,
    who: &'t Principal,
    target: A::Target,
    call: &Call,
    mut tx: Tx<'t>,
    work: impl FnOnce(&mut Access<'t, A>) -> Result<T, E>,
) -> (Found<T, E>, Told) {
    let (mut work, mut found) = (Some(work), None);
    tx.asker = Some((who, vault.owner()));
    let (came, told) = course(who, Verb::of::<A>(), target.into(), call, tx, &mut |facts, tx| {
        let facts = match facts {
            Ok(facts) => facts,
            Err(error) => {
                let error = E::from(error);
                let status = error.audit().1;
                found = Some(Err(error));
                return (tx, Came::Unreadable(status));
            }
        };
        let (grant, work) = match (decide::<A>(who, target, &facts), work.take()) {
            (Ok(grant), Some(work)) => (grant, work),
            (Err(denied), _) => return (tx, Came::Denied(denied)),
            (Ok(_), None) => return (tx, Came::Fault),
        };
        // The access lives outside the unwinding closure, so that after a panic the entry still tells what was touched.
        let mut access = Access { grant, who, vault, tx };
        let came = match fault::catch(|| work(&mut access)) {
            Ok(Ok(value)) => {
                found = Some(Ok(value));
                Came::Done
            }
            Ok(Err(error)) => refused(&mut found, error),
            Err(_) => Came::Fault,
        };
        (access.tx, came)
    });
    (Found(came, found), told)
}

fn refused<T, E: Fault>(found: &mut Option<Result<T, E>>, error: E) -> Came {
    let (reason, status) = error.audit();
    *found = Some(Err(error));
    Came::Refused(reason, status)
}

/// What the decision rests on in this view; `None` if the credential does not stand any more.
fn grounds(tx: &mut Tx<'_>, who: &Principal, target: Target, admitted: Option<u64>) -> Result<Option<Facts>, StoreError> {
    if !standing(tx, who, admitted)? {
        return Ok(None);
    }
    Ok(Some(match target {
        Target::Memory(id) => memories::facts(tx, who.tenant(), id)?,
        Target::Credential(id) => {
            let row = credentials::stored(tx, who.tenant(), id)?.filter(|row| row.revoked_at.is_none());
            // Grants are looked up among the asker's own alone: others are not there.
            let grant = grants::get(tx, who.tenant(), who.user(), id)?.map(|_| (who.tenant(), who.user()));
            Facts::Holder(row.map(|row| (row.tenant, row.user)).or(grant))
        }
        // Operations are looked up among the asker's own alone, by the work: others are not there.
        Target::Operation(_) => Facts::Holder(Some((who.tenant(), who.user()))),
        Target::Scope(_) | Target::Person(_) | Target::Instance => Facts::None,
    }))
}

/// Whether what proved `who` holds in this view. Looked up only if credentials changed since the generation `seen`.
fn standing(tx: &Tx<'_>, who: &Principal, seen: Option<u64>) -> Result<bool, StoreError> {
    if who.has_expired(tx.now) {
        return Ok(false);
    }
    if seen.is_some() && seen == tx.generation {
        return Ok(true);
    }
    match who.credential() {
        CredentialRef::Stored(id) => Ok(who.still_valid(credentials::stored(tx, who.tenant(), *id)?.as_ref())),
        CredentialRef::Grant(id) => Ok(grants::get(tx, who.tenant(), who.user(), *id)?.is_some()),
        CredentialRef::Dashboard { .. } => {
            Ok(sign_in::may_sign_in(tx, who.tenant(), who.user())? && !incident::is_revoked(tx, who.credential())?)
        }
        CredentialRef::Static { .. } | CredentialRef::None => Ok(!incident::is_revoked(tx, who.credential())?),
    }
}

/// Writes into the entry which records were touched or returned.
fn touched(entry: &mut Entry, kind: &'static str, ids: Vec<[u8; 16]>, subjects: Vec<SubjectId>, counted: Option<u64>) {
    entry.n = counted.unwrap_or_else(|| u64::try_from(ids.len()).expect("a list's length fits 64 bits"));
    if !ids.is_empty() {
        entry.res = Some(Resource { ids: ids.into_iter().map(|id| Id::from(MemoryId::from_bytes(id))).collect(), kind: Word::of(kind) });
    }
    entry.subjects = subjects;
}

/// What a write came to whose job left its outcome in `slot`.
fn written<T, E>(slot: &Slot<T, E>, end: Result<Ended, Unavailable>) -> Result<Recorded<T>, Refused<E>> {
    match end {
        Ok(Ended::Durable(index)) => {
            let found = slot.0.lock().expect("no code panics while it holds this lock").take();
            settle(found, index)
        }
        Ok(Ended::Stale) => Err(Refused::Unavailable(Unavailable::Busy)),
        Err(unavailable) => Err(Refused::Unavailable(unavailable)),
    }
}

/// What came of work whose entry, the log's `index`th, is durable.
fn settle<T, E>(found: Option<Found<T, E>>, index: u64) -> Result<Recorded<T>, Refused<E>> {
    let receipt = Receipt { index };
    let Some(Found(came, found)) = found else { return Err(Refused::Fault(receipt)) };
    match (came, found) {
        (Came::Done, Some(Ok(value))) => Ok(Recorded { value, receipt, held: None }),
        (Came::Denied(denied), _) => Err(Refused::Denied(denied, receipt)),
        (Came::Refused(..) | Came::Unreadable(_), Some(Err(error))) => Err(Refused::Work(error, receipt)),
        (Came::Revoked, _) => Err(Refused::Revoked(receipt)),
        (Came::ReadOnly, _) => Err(Refused::Unavailable(Unavailable::ReadOnly)),
        (Came::Done | Came::Refused(..) | Came::Unreadable(_) | Came::Fault, _) => Err(Refused::Fault(receipt)),
    }
}
