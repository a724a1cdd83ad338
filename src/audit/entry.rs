//! Audit entry v1: what was done, by whom, to what, and how it ended. One entry, one line of canonical JSON.
//!
//! Invariants
//! - Metadata only: every field is an id, a time, a number, a hash, an address or a word from a closed or bounded set. The one value that a
//!   client chooses is [`RequestId`], within its character set or hashed.
//! - [`Entry::parse`] accepts exactly the lines that [`Entry::line`] writes.
//! - A line has at most [`limits::AUDIT_IDS_PER_LINE_MAX`] ids; more become parts ([`Entry::parts`]).
//!
//! Not here: who decides that something is recorded (`store::gate`), where lines are kept (`store::tables`).

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use crate::audit::json::{Cursor, Json, Optional, Text, object, put_hex, put_uuid};
use crate::audit::merkle::Hash;
use crate::audit::names::{ActorKind, Decision, Device, Outcome, Purpose, Reason};
use crate::base::id::{
    BootId, CredentialId, FileId, InstanceId, LogId, MemoryId, OperationId, SubjectId, TenantId, UserId, format_uuid, parse_uuid,
};
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::crypto::hash::hmac_sha256;
use crate::crypto::secret::Key;

/// The line is not one that this program would write; nothing of it is in the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a canonical audit entry of version 1 (at byte {at})")]
pub struct EntryError {
    /// Where it first differs from one, in bytes from the line's beginning.
    pub at: usize,
}

/// An id of any kind; the fields beside it say of which.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 16]);

impl Id {
    /// The 16 bytes.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&format_uuid(&self.0))
    }
}

impl Text for Id {
    fn put_text(&self, out: &mut String) {
        put_uuid(&self.0, out);
    }

    fn from_text(text: &str) -> Option<Self> {
        parse_uuid(text).map(Self)
    }
}

macro_rules! id_from {
    ($($kind:ty)*) => {$(
        impl From<$kind> for Id {
            fn from(id: $kind) -> Self {
                Self(*id.bytes())
            }
        }
    )*};
}
id_from!(MemoryId UserId TenantId SubjectId CredentialId OperationId InstanceId FileId LogId);

/// A short word of the program or of the configuration, never of a request: `[a-z0-9_.]{1,64}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Word(Cow<'static, str>);

impl Word {
    /// A word of the program. Panics (at compile time where it is a constant) if it is not one.
    pub const fn of(text: &'static str) -> Self {
        assert!(Self::is_word(text.as_bytes()), "a word is [a-z0-9_.]{{1,64}}");
        Self(Cow::Borrowed(text))
    }

    /// A word of the configuration or of a record, such as a vendor; `None` if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::is_word(text.as_bytes()).then(|| Self(Cow::Owned(text.to_owned())))
    }

    /// Its characters.
    pub fn text(&self) -> &str {
        &self.0
    }

    const fn is_word(text: &[u8]) -> bool {
        let mut at = 0;
        while at < text.len() {
            if !matches!(text[at], b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.') {
                return false;
            }
            at += 1;
        }
        1 <= at && at <= 64
    }
}

impl Text for Word {
    fn put_text(&self, out: &mut String) {
        out.push_str(&self.0);
    }

    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

/// The version of the entry's form: the number 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct V1;

impl Json for V1 {
    fn put(&self, out: &mut String) {
        out.push('1');
    }

    fn get(from: &mut Cursor<'_>) -> Option<Self> {
        from.pass("1").map(|()| Self)
    }
}

/// The credential that was presented and recognised.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Credential {
    /// One with a record: its id.
    Stored(CredentialId),
    /// A static key: `env:NAME#` and 8 hex digits of HMAC(pepper, key), so that a changed key is seen.
    Static {
        /// The setting's name, `[A-Z0-9_]{1,64}`.
        name: Arc<str>,
        /// The first 4 bytes of the HMAC.
        mark: [u8; 4],
    },
}

impl Text for Credential {
    fn put_text(&self, out: &mut String) {
        match self {
            Self::Stored(id) => id.put_text(out),
            Self::Static { name, mark } => {
                out.push_str("env:");
                out.push_str(name);
                out.push('#');
                put_hex(mark, out);
            }
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        let Some((name, mark)) = text.strip_prefix("env:").and_then(|rest| rest.split_once('#')) else {
            return CredentialId::parse(text).map(Self::Stored);
        };
        let sound = (1..=64).contains(&name.len()) && name.bytes().all(|c| matches!(c, b'A'..=b'Z' | b'0'..=b'9' | b'_'));
        sound.then_some(Self::Static { name: name.into(), mark: Text::from_text(mark)? })
    }
}

/// Through what the actor had access, where it was not simply as owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// Membership of an org.
    Org(Id),
    /// Membership of a team.
    Team(Id),
    /// A share.
    Share(Id),
}

impl Text for Via {
    fn put_text(&self, out: &mut String) {
        let (kind, id) = match self {
            Self::Org(id) => ("org:", id),
            Self::Team(id) => ("team:", id),
            Self::Share(id) => ("share:", id),
        };
        out.push_str(kind);
        id.put_text(out);
    }

    fn from_text(text: &str) -> Option<Self> {
        let (kind, id) = text.split_once(':')?;
        let kind = match kind {
            "org" => Self::Org,
            "team" => Self::Team,
            "share" => Self::Share,
            _ => return None,
        };
        Id::from_text(id).map(kind)
    }
}

/// The client's own id of its request: as it came if that is `[A-Za-z0-9._-]{1,64}`, else `h:` and 32 hex digits of a keyed hash.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RequestId(String);

impl RequestId {
    /// The id for what a client sent. The hash is the first half of HMAC-SHA-256 under the lookup key over the fields `rid`, `client`
    /// ([`hmac_sha256`]).
    pub fn of_client(client: &[u8], lookup: &Key) -> Self {
        match std::str::from_utf8(client) {
            Ok(text) if Self::is_plain(text) => Self(text.to_owned()),
            _ => {
                let mut hashed = "h:".to_owned();
                put_hex(&hmac_sha256(lookup, &[b"rid", client])[..16], &mut hashed);
                Self(hashed)
            }
        }
    }

    /// Its characters.
    pub fn text(&self) -> &str {
        &self.0
    }

    fn is_plain(text: &str) -> bool {
        (1..=64).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
    }
}

impl Text for RequestId {
    fn put_text(&self, out: &mut String) {
        out.push_str(&self.0);
    }

    fn from_text(text: &str) -> Option<Self> {
        let hashed = || text.strip_prefix("h:").and_then(<[u8; 16]>::from_text).is_some();
        (Self::is_plain(text) || hashed()).then(|| Self(text.to_owned()))
    }
}

object! {
    /// Who acted.
    Actor {
        /// Those for whom the actor acted, nearest first.
        "behalf" behalf opt Vec<Id>;
        /// The user, or the credential of an agent or service.
        "id" id opt Option<Id>;
        /// `user`, `agent`, `service`, `system` or `none`.
        "kind" kind one ActorKind;
        /// The agent's vendor.
        "vendor" vendor opt Option<Word>;
    }
}

object! {
    /// What was acted upon.
    Resource {
        /// The records touched or returned, in the order of the answer.
        "ids" ids one Vec<Id>;
        /// Their type, for example `memory`.
        "type" kind one Word;
    }
}

object! {
    /// Which line this is of an entry with more ids than one line holds.
    Part {
        /// Counted from 1.
        "no" no one u32;
        /// How many there are; they follow one another in the log.
        "of" of one u32;
    }
}

object! {
    /// One audit entry; see the module text and `docs/audit.md`.
    Entry {
        /// Who acted: `kind`, and where known `id`, `vendor` and `behalf`.
        "actor" actor one Actor;
        /// The process's start (random UUID); `mono_ms` counts from it.
        "boot" boot one BootId;
        /// How many alike this entry stands for; absent means one.
        "count" count opt Option<u64>;
        /// The credential: its id, or `env:NAME#` and a mark for a static key.
        "cred" cred opt Option<Credential>;
        /// `allow` or `deny`.
        "decision" decision one Decision;
        /// Further facts of the operation: ids, words, numbers, hashes.
        "det" det opt Details;
        /// The client program, from a closed list.
        "device" device opt Option<Device>;
        /// The entry's index in the log, counted from 0.
        "i" i one u64;
        /// The client's address; in a counted entry an IPv6 address ends in 64 zero bits.
        "ip" ip opt Option<IpAddr>;
        /// Milliseconds of the monotonic clock since `boot`.
        "mono_ms" mono_ms one u64;
        /// How many records were touched or returned in all, over all parts.
        "n" n one u64;
        /// The operation's name.
        "op" op one Word;
        /// The id the server drew for the operation.
        "opid" opid opt Option<OperationId>;
        /// The sharing group within the tenant.
        "org" org opt Option<Id>;
        /// Where the credential says the request comes from.
        "origin" origin opt Option<Word>;
        /// `ok`, `refused`, `error` or `unknown`.
        "outcome" outcome one Outcome;
        /// Present when the entry has several lines.
        "part" part opt Option<Part>;
        /// Whether the operation touches protected health information.
        "phi" phi one bool;
        /// First 16 bytes of the hash of the policy table that decided.
        "policy" policy opt Option<[u8; 16]>;
        /// The stated purpose, a code of HL7 v3 PurposeOfUse.
        "purpose" purpose opt Option<Purpose>;
        /// Why it was refused, failed or happened.
        "reason" reason opt Option<Reason>;
        /// What was acted upon: `ids` and `type`.
        "res" res opt Option<Resource>;
        /// The client's request id, or `h:` and a keyed hash of it.
        "rid" rid opt Option<RequestId>;
        /// The actor's role in the tenant.
        "role" role opt Option<Word>;
        /// The HTTP status of the answer, 0 where there is none.
        "status" status one u16;
        /// The persons that the touched records are about.
        "subjects" subjects opt Vec<SubjectId>;
        /// Wall time, UTC.
        "t" t one Timestamp;
        /// The tenant; absent for what concerns the whole instance.
        "tenant" tenant opt Option<TenantId>;
        /// 1.
        "v" v one V1;
        /// `org:`, `team:` or `share:` and its id, where access came through it.
        "via" via opt Option<Via>;
    }
}

impl Actor {
    /// Nobody recognised.
    pub const NONE: Self = Self { behalf: Vec::new(), id: None, kind: ActorKind::None, vendor: None };
    /// Rosemary itself.
    pub const SYSTEM: Self = Self { behalf: Vec::new(), id: None, kind: ActorKind::System, vendor: None };
}

impl Entry {
    /// An entry of `op` (`[a-z0-9_.]{1,64}`, a name of the program) by `actor`: allowed, ok, touching nothing, all else absent or zero
    /// until set. `i`, `t`, `boot` and `mono_ms` are set where it is appended.
    pub fn new(op: &'static str, actor: Actor) -> Self {
        Self {
            actor,
            boot: BootId::from_bytes([0; 16]),
            count: None,
            cred: None,
            decision: Decision::Allow,
            det: Details::default(),
            device: None,
            i: 0,
            ip: None,
            mono_ms: 0,
            n: 0,
            op: Word::of(op),
            opid: None,
            org: None,
            origin: None,
            outcome: Outcome::Ok,
            part: None,
            phi: false,
            policy: None,
            purpose: None,
            reason: None,
            res: None,
            rid: None,
            role: None,
            status: 0,
            subjects: Vec::new(),
            t: Timestamp::default(),
            tenant: None,
            v: V1,
            via: None,
        }
    }

    /// Makes it a refusal: denied, for `reason`, answered with `status`.
    pub fn refuse(&mut self, reason: Reason, status: u16) {
        (self.decision, self.outcome, self.reason, self.status) = (Decision::Deny, Outcome::Refused, Some(reason), status);
    }

    /// The entry's line, without a line end: RFC 8785 canonical JSON.
    pub fn line(&self) -> String {
        let ids = self.subjects.len() + self.res.as_ref().map_or(0, |res| res.ids.len());
        let mut out = String::with_capacity(768 + 39 * ids);
        self.put(&mut out);
        out
    }

    /// Reads a line.
    ///
    /// Errors: [`EntryError`] for anything that [`Entry::line`] would not have written, byte for byte.
    pub fn parse(line: &str) -> Result<Self, EntryError> {
        if line.len() > limits::AUDIT_LINE_BYTES_MAX {
            return Err(EntryError { at: limits::AUDIT_LINE_BYTES_MAX });
        }
        let mut from = Cursor::new(line);
        let entry = Self::get(&mut from).filter(|entry| from.left() == 0 && entry.is_sound());
        let entry = entry.ok_or(EntryError { at: line.len() - from.left() })?;
        let again = entry.line();
        if again != line {
            let at = again.bytes().zip(line.bytes()).take_while(|(a, b)| a == b).count();
            return Err(EntryError { at });
        }
        Ok(entry)
    }

    /// Whether it needs one line only.
    pub fn is_one_line(&self) -> bool {
        self.res.as_ref().map_or(0, |res| res.ids.len()).max(self.subjects.len()) <= limits::AUDIT_IDS_PER_LINE_MAX
    }

    /// The lines that this entry needs: itself, or several with at most [`limits::AUDIT_IDS_PER_LINE_MAX`] record ids and as many subjects
    /// each, in order. `n` stays the whole's.
    pub fn parts(mut self) -> Vec<Self> {
        const MAX: usize = limits::AUDIT_IDS_PER_LINE_MAX;
        let most = self.res.as_ref().map_or(0, |res| res.ids.len()).max(self.subjects.len());
        if most <= MAX {
            return vec![self];
        }
        let of = most.div_ceil(MAX);
        let ids = self.res.as_mut().map(|res| std::mem::take(&mut res.ids)).unwrap_or_default();
        let subjects = std::mem::take(&mut self.subjects);
        let chunk = |no: usize, length: usize| no.saturating_mul(MAX).min(length)..(no + 1).saturating_mul(MAX).min(length);
        let mut parts = Vec::with_capacity(of);
        for no in 0..of {
            let mut part = self.clone();
            if let Some(res) = &mut part.res {
                res.ids = ids[chunk(no, ids.len())].to_vec();
            }
            part.subjects = subjects[chunk(no, subjects.len())].to_vec();
            let number = |n: usize| u32::try_from(n).expect("an answer has fewer than 2^32 parts");
            part.part = Some(Part { no: number(no + 1), of: number(of) });
            parts.push(part);
        }
        parts
    }

    /// What the types do not say.
    fn is_sound(&self) -> bool {
        let ids = self.res.as_ref().map_or(0, |res| res.ids.len());
        ids.max(self.subjects.len()) <= limits::AUDIT_IDS_PER_LINE_MAX
            && self.actor.behalf.len() <= limits::AUDIT_BEHALF_MAX
            && self.part.as_ref().is_none_or(|part| (1..=part.of).contains(&part.no) && part.of > 1)
    }
}

/// Declares the closed list of details, in the order of their keys. A key has one type, whatever the operation.
macro_rules! details {
    ($($key:literal $variant:ident($kind:ty): $meaning:literal;)+) => {
        /// A further fact of an operation.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum Detail { $(#[doc = $meaning] $variant($kind),)+ }

        impl Detail {
            /// Key and meaning of every detail, in the order of their keys.
            pub const ALL: &'static [(&'static str, &'static str)] = &[$(($key, $meaning),)+];

            /// Its key.
            pub const fn key(&self) -> &'static str {
                match self { $(Self::$variant(_) => $key,)+ }
            }

            fn put(&self, out: &mut String) {
                match self { $(Self::$variant(value) => value.put(out),)+ }
            }

            fn get(key: &str, from: &mut Cursor<'_>) -> Option<Self> {
                match key { $($key => Json::get(from).map(Self::$variant),)+ _ => None }
            }
        }
    };
}

details! {
    "ahead_ms" Ahead(u64): "by how many milliseconds the wall clock was set ahead";
    "attempts" Attempts(u64): "attempts that failed before";
    "back_ms" Back(u64): "by how many milliseconds the wall clock was set back";
    "bytes" Bytes(u64): "bytes read or written";
    "code" Code(u64): "status that another server answered with";
    "created" Created(u64): "records made";
    "cred" Credential(CredentialId): "the credential that was made, changed or revoked";
    "dest" Destination(u64): "number of a destination in the operator's list of where the relay may go, counted from 1";
    "end" End(u64): "index after the last entry concerned";
    "ended" Ended(Word): "how a longer piece of work ended";
    "epoch" Epoch(u64): "the epoch of keys concerned";
    "file" File(FileId): "the physical copy concerned";
    "filter" Filter(Word): "by what a list was filtered";
    "first" First(u64): "index of the first entry concerned";
    "generation" Generation(u64): "generation of the superblock";
    "hits" Hits(u64): "records that matched, before the page was cut";
    "instance" Instance(InstanceId): "the data concerned";
    "key_new" KeyNew([u8; 4]): "id of the log's signing key from here on, as in its C2SP verifier key";
    "key_old" KeyOld([u8; 4]): "id of the log's signing key up to here";
    "key_public" KeyPublic(Hash): "the public key of the log from here on, Ed25519";
    "limit" Limit(u64): "the most records asked for";
    "log" Log(LogId): "another log, for example the one before a restore";
    "lost" Lost(u64): "operations of unknown outcome that were found not done";
    "memories" Memories(u64): "memories removed";
    "merged" Merged(bool): "whether an exact repeat was united with an older record";
    "offset" Offset(u64): "records skipped before the page";
    "opid" Operation(OperationId): "another operation, for example the one whose outcome became known";
    "order" Order(Word): "the order of a list";
    "protocol" Protocol(Word): "the protocol spoken, for example mcp";
    "refused" Refused(u64): "requests refused without data while the store was shut";
    "root" Root(Hash): "root of the tree of `size` entries";
    "setting" Setting(Word): "the setting or safeguard concerned";
    "size" Size(u64): "entries in a log";
    "slot" Slot(u64): "the key slot concerned";
    "tags" Tags(u64): "tags asked for";
    "tombstone" Tombstone(u64): "number of an erased holder's tombstone";
    "took_ms" TookMs(u64): "how long a longer piece of work took";
    "use" Use(Word): "what an outbound connection was for";
    "vendor" Vendor(Word): "the vendor concerned";
    "version" Version(u64): "the version made or read";
    "words" Words(u64): "words in a query";
}

/// An entry's details: at most one of a key, in the order of their keys.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Details(Vec<Detail>);

impl Details {
    /// Adds one, or replaces the one with its key.
    pub fn set(&mut self, detail: Detail) {
        match self.0.binary_search_by_key(&detail.key(), Detail::key) {
            Ok(at) => self.0[at] = detail,
            Err(at) => self.0.insert(at, detail),
        }
    }

    /// All, in order.
    pub fn all(&self) -> &[Detail] {
        &self.0
    }
}

impl Optional for Details {
    fn absent(&self) -> bool {
        self.0.is_empty()
    }
}

impl Json for Details {
    fn put(&self, out: &mut String) {
        let mut open = '{';
        for detail in &self.0 {
            out.push(std::mem::replace(&mut open, ','));
            out.push('"');
            out.push_str(detail.key());
            out.push_str("\":");
            detail.put(out);
        }
        out.push('}');
    }

    fn get(from: &mut Cursor<'_>) -> Option<Self> {
        let mut details = Self::default();
        from.pass("{")?;
        loop {
            let key = from.string()?;
            from.pass(":")?;
            details.set(Detail::get(key, from)?);
            if from.pass(",").is_none() {
                from.pass("}")?;
                return Some(details);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::crypto::secret::Secret;

    /// Compares with a golden file under `tests/vectors`, or writes it when `UPDATE_VECTORS` is set.
    pub fn golden(name: &str, found: &str) {
        let path = format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_VECTORS").is_some() {
            std::fs::write(&path, found).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), found, "{path}");
    }

    fn stamped(mut entry: Entry, i: u64) -> Entry {
        entry.i = i;
        entry.boot = BootId::from_bytes([0xb0; 16]);
        entry.mono_ms = 1000 + i;
        entry.t = Timestamp::from_ms(1_795_301_176_123 + i);
        entry
    }

    /// An entry with every field, and with no field that may be absent; then typical ones.
    pub fn samples() -> Vec<Entry> {
        let id = |n: u8| Id([n; 16]);
        let memory = |n: u8| Resource { ids: vec![id(n), id(n + 1)], kind: Word::of("memory") };
        let mut full = Entry::new(
            "memory.search",
            Actor { behalf: vec![id(0xa1), id(0xa2)], id: Some(id(0xa0)), kind: ActorKind::Agent, vendor: Some(Word::of("claude")) },
        );
        full.count = Some(3);
        full.cred = Some(Credential::Static { name: "RM_AGENT_KEY_CLAUDE".into(), mark: [0xde, 0xad, 0xbe, 0xef] });
        full.device = Some(Device::of_user_agent(b"python-requests/2.32.3"));
        full.ip = Some("2001:db8::1".parse().unwrap());
        full.n = 401;
        full.opid = Some(OperationId::from_bytes([0x0f; 16]));
        full.org = Some(id(0x09));
        full.origin = Some(Word::of("claude"));
        full.part = Some(Part { no: 1, of: 3 });
        full.phi = true;
        full.policy = Some([0x50; 16]);
        full.purpose = Some(Purpose::Treat);
        full.refuse(Reason::VendorHidden, 404);
        full.res = Some(memory(0x10));
        full.rid = Some(RequestId::of_client(b"Req-1.a_b", &Secret::new([1; 32])));
        full.role = Some(Word::of("agent"));
        full.subjects = vec![SubjectId::from_bytes([0x51; 16])];
        full.tenant = Some(TenantId::from_bytes([0x7e; 16]));
        full.via = Some(Via::Team(id(0x22)));
        for detail in [Detail::Words(4), Detail::Root([0xcc; 32]), Detail::Limit(50), Detail::Order(Word::of("newest")), Detail::Limit(10)]
        {
            full.det.set(detail);
        }

        let bare = Entry::new("service.start", Actor::SYSTEM);

        let mut write = Entry::new("memory.create", Actor { id: Some(id(0xa0)), kind: ActorKind::User, ..Actor::NONE });
        write.cred = Some(Credential::Stored(CredentialId::from_bytes([0xc4; 16])));
        (write.n, write.phi, write.status) = (1, true, 201);
        write.tenant = full.tenant;
        write.res = Some(Resource { ids: vec![id(0x10)], kind: Word::of("memory") });
        write.rid = Some(RequestId::of_client("Jürgen \"; DROP".as_bytes(), &Secret::new([1; 32])));
        write.det.set(Detail::Merged(false));

        let mut empty = Entry::new("memory.list", Actor { id: Some(id(0xa0)), kind: ActorKind::User, ..Actor::NONE });
        (empty.phi, empty.status, empty.tenant) = (true, 200, full.tenant);
        empty.res = Some(Resource { ids: vec![], kind: Word::of("memory") });

        let mut refusals = Entry::new("request.refused", Actor::NONE);
        refusals.refuse(Reason::BadCredential, 401);
        refusals.ip = Some("192.0.2.7".parse().unwrap());
        refusals.count = Some(4711);

        let mut restored = Entry::new("log.open", Actor::SYSTEM);
        restored.det.set(Detail::Log(LogId::from_bytes([0x10; 16])));
        restored.det.set(Detail::Size(crate::audit::json::INTEGER_MAX));
        restored.det.set(Detail::Root([0xab; 32]));

        let all = [full, bare, write, empty, refusals, restored];
        (0..).zip(all).map(|(i, entry)| stamped(entry, i)).collect()
    }

    #[test]
    fn lines_are_the_golden_ones_and_read_back() {
        let samples = samples();
        let lines: String = samples.iter().map(|entry| entry.line() + "\n").collect();
        golden("audit/entries.ndjson", &lines);
        for (entry, line) in samples.iter().zip(lines.lines()) {
            assert_eq!(Entry::parse(line).as_ref(), Ok(entry));
            // serde_json keeps an object's keys sorted, so printing again gives the canonical form of an all-ASCII text.
            assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap().to_string(), line);
        }
    }

    #[test]
    fn keys_of_every_table_are_in_canonical_order() {
        for fields in [Entry::FIELDS, Actor::FIELDS, Resource::FIELDS, Part::FIELDS] {
            assert!(fields.is_sorted_by(|a, b| a.0 < b.0));
        }
        assert!(Detail::ALL.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn anything_but_the_canonical_form_is_refused() {
        let line = samples()[2].line();
        let change = |from: &str, to: &str| {
            assert!(line.contains(from), "{from}");
            line.replacen(from, to, 1)
        };
        for bad in [
            String::new(),
            "{}".to_owned(),
            format!(" {line}"),
            format!("{line}\n"),
            format!("{line}{line}"),
            change(",\"", ", \""),
            change("\"n\":1", "\"n\":01"),
            change("\"n\":1", "\"n\":1.0"),
            change("\"n\":1", "\"n\":-1"),
            change("\"n\":1", "\"n\":9007199254740992"),
            change("\"n\":1", "\"n\":99999999999999999999"),
            change("\"n\":1", "\"n\":\"1\""),
            change("\"n\":1", "\"n\":1,\"n\":1"),
            change("\"n\":1", "\"n\":1,\"note\":1"),
            change("\"n\":1,", ""),
            change("\"v\":1", "\"v\":2"),
            change("\"status\":201", "\"status\":65536"),
            change("\"phi\":true", "\"phi\":null"),
            change("\"op\":\"memory.create\"", "\"op\":\"memory-create\""),
            change("\"op\":\"memory.create\"", "\"op\":\"Memory.create\""),
            change("\"op\":\"memory.create\"", "\"op\":\"\""),
            change("\"op\":\"memory.create\"", "\"op\":\"memory\\u002ecreate\""),
            change("\"decision\":\"allow\"", "\"decision\":\"maybe\""),
            change("\"det\":{\"merged\":false}", "\"det\":{}"),
            change("\"det\":{\"merged\":false}", "\"det\":{\"merged\":0}"),
            change("\"det\":{\"merged\":false}", "\"det\":{\"text\":false}"),
            change("\"det\":{\"merged\":false}", "\"det\":{\"merged\":false,\"limit\":1}"),
            change("\"det\":{\"merged\":false}", "\"det\":{\"merged\":false,\"merged\":false}"),
            change("c4c4c4c4-", "C4c4c4c4-"),
            change("\"rid\":\"h:", "\"rid\":\"g:"),
            change(".125Z", ".125+00:00"),
            change("\"type\":\"memory\"", "\"type\":\"memory\",\"x\":1"),
            change("\"tenant\"", "\"subjects\":[],\"tenant\""),
            change("\"rid\"", "\"part\":{\"no\":2,\"of\":1},\"rid\""),
        ] {
            let error = Entry::parse(&bad).expect_err(&bad);
            assert!(error.at <= bad.len() && !format!("{error}").contains("memory"));
        }
        assert!(Entry::parse(&"x".repeat(limits::AUDIT_LINE_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn no_changed_byte_is_read_as_the_same_entry() {
        for sample in samples() {
            let line = sample.line();
            for at in 0..line.len() {
                for flip in [1, 2, 4, 8, 16, 32, 64] {
                    let mut bytes = line.clone().into_bytes();
                    bytes[at] ^= flip;
                    let Ok(text) = String::from_utf8(bytes) else { continue };
                    if let Ok(entry) = Entry::parse(&text) {
                        assert_ne!(entry, sample);
                        assert_eq!(entry.line(), text);
                    }
                }
                assert!(Entry::parse(&line[..at]).is_err());
            }
        }
    }

    #[test]
    fn an_entry_of_many_ids_becomes_parts_that_fit_a_line() {
        let mut entry = samples().remove(0);
        let subjects: Vec<SubjectId> = (0..201u8).map(|n| SubjectId::from_bytes([n; 16])).collect();
        for (ids, parts) in [(0usize, 2u32), (200, 2), (401, 3), (10_000, 50)] {
            let all: Vec<Id> = (0..ids).map(|n| Id((n as u128).to_be_bytes())).collect();
            entry.res = Some(Resource { ids: all.clone(), kind: Word::of("memory") });
            entry.subjects = subjects.clone();
            let split = entry.clone().parts();
            assert_eq!(split.len(), parts as usize);
            assert_eq!(split.iter().flat_map(|part| part.res.clone().unwrap().ids).collect::<Vec<_>>(), all);
            assert_eq!(split.iter().flat_map(|part| part.subjects.clone()).collect::<Vec<_>>(), subjects);
            for (no, part) in (1..).zip(&split) {
                assert_eq!((&part.part, part.n), (&Some(Part { no, of: parts }), 401));
                assert_eq!(Entry::parse(&part.line()).as_ref(), Ok(part));
            }
        }
        let mut small = samples().remove(2);
        assert_eq!(small.clone().parts(), [small.clone()]);
        small.res.as_mut().unwrap().ids = vec![Id([1; 16]); 201];
        assert!(Entry::parse(&small.line()).is_err(), "201 ids on one line");
    }

    #[test]
    fn the_largest_line_is_within_its_bound() {
        let mut entry = samples().remove(0);
        let word = Word::parse(&"w".repeat(64)).unwrap();
        entry.res = Some(Resource { ids: vec![Id([1; 16]); 200], kind: word.clone() });
        entry.subjects = vec![SubjectId::from_bytes([2; 16]); 200];
        entry.actor.behalf = vec![Id([3; 16]); limits::AUDIT_BEHALF_MAX];
        (entry.actor.vendor, entry.op, entry.origin, entry.role) =
            (Some(word.clone()), word.clone(), Some(word.clone()), Some(word.clone()));
        entry.rid = Some(RequestId("r".repeat(64)));
        for detail in [Detail::Filter(word.clone()), Detail::Setting(word.clone()), Detail::Protocol(word)] {
            entry.det.set(detail);
        }
        assert!(Entry::parse(&entry.line()).is_ok());
    }

    #[test]
    fn a_request_id_is_plain_or_hashed_and_never_the_client_text() {
        let key = Secret::new([7; 32]);
        let of = |client: &[u8]| RequestId::of_client(client, &key);
        assert_eq!(of(b"a-Z.0_9").text(), "a-Z.0_9");
        assert_eq!(of("x".repeat(64).as_bytes()).text().len(), 64);
        for client in ["", "a b", "h:00", "ä", "a\"", "\u{0}", &"x".repeat(65)] {
            let rid = of(client.as_bytes());
            assert!(rid.text().starts_with("h:") && rid.text().len() == 34, "{client}");
            assert_eq!(RequestId::from_text(rid.text()), Some(rid));
        }
        assert_ne!(of(b" "), of(b"  "));
        assert_ne!(of(b" "), RequestId::of_client(b" ", &Secret::new([8; 32])));
        assert_eq!(RequestId::from_text("h:00"), None);
    }
}
