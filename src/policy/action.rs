//! The closed list of verbs: what each acts on, whether it reads or writes, whether it can touch PHI.
//!
//! Invariant: the list is sealed; a verb that is not here cannot be asked for, and none can be declared to write where it reads.

use crate::base::id::{CredentialId, MemoryId, OperationId, TenantId, UserId};

mod sealed {
    pub trait Sealed {}
    pub trait Reads {}
    pub trait Writes {}
}

/// One owner's memories in one workspace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Scope {
    /// The workspace.
    pub tenant: TenantId,
    /// Whose memories.
    pub owner: UserId,
}

/// A person's record and credentials.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Person(pub UserId);

/// The instance as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Instance;

/// What a verb acts on, without its type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// One memory.
    Memory(MemoryId),
    /// One owner's memories.
    Scope(Scope),
    /// A person.
    Person(Person),
    /// One credential.
    Credential(CredentialId),
    /// One operation of the asker's own.
    Operation(OperationId),
    /// The instance.
    Instance,
}

macro_rules! targets {
    ($($kind:ty => $name:ident;)*) => {$(
        impl From<$kind> for Target {
            fn from(value: $kind) -> Self {
                Target::$name(value)
            }
        }
    )*};
}
targets! { MemoryId => Memory; Scope => Scope; Person => Person; CredentialId => Credential; OperationId => Operation; }

impl From<Instance> for Target {
    fn from(_: Instance) -> Self {
        Target::Instance
    }
}

/// A verb of the product.
pub trait Action: sealed::Sealed + Send + 'static {
    /// What it acts on.
    type Target: Copy + Send + Into<Target> + 'static;
    /// Its name in the audit log and in the policy picture.
    const NAME: &'static str;
    /// Whether it can touch protected health information.
    const PHI: bool;
    /// Whether it may change something.
    const WRITES: bool;
    /// The type of the records that its audit entry names.
    const RESOURCE: &'static str;
}

/// A verb that changes nothing.
pub trait Reads: Action + sealed::Reads {}
/// A verb that may change something.
pub trait Writes: Action + sealed::Writes {}

macro_rules! actions {
    ($($(#[$text:meta])* $name:ident($target:ty) $way:ident $phi:literal $verb:literal;)*) => {
        $($(#[$text])*
        #[derive(Debug)]
        pub enum $name {}
        impl sealed::Sealed for $name {}
        impl Action for $name {
            type Target = $target;
            const NAME: &'static str = $verb;
            const PHI: bool = $phi;
            const WRITES: bool = is_writes(stringify!($way));
            const RESOURCE: &'static str = before_dot($verb);
        }
        impl sealed::$way for $name {}
        impl $way for $name {})*

        /// Every verb by name, in the order of this table.
        pub const VERBS: &[&str] = &[$($verb,)*];

        /// Whether each may change something.
        #[cfg(test)]
        pub const WAYS: &[(&str, bool)] = &[$(($verb, is_writes(stringify!($way))),)*];
    };
}

/// Whether a verb may use the last of the disk: it frees room, or shuts somebody out.
pub fn is_urgent(verb: &str) -> bool {
    matches!(
        verb,
        "memory.purge"
            | "memory.empty_trash"
            | "key.revoke"
            | "oauth.revoke"
            | "oauth.replay"
            | "erasure.ask"
            | "memory.erase"
            | "erasure.destroy"
            | "erasure.end"
            | "keys.epoch"
            | "keys.rewrap"
            | "keys.slots"
            | "keys.audit"
            | "keys.all"
            | "instance.unlock"
            | "incident.revoke_all"
            | "incident.freeze"
    )
}

/// Whether the table's word is `Writes`, not `Reads`.
const fn is_writes(way: &str) -> bool {
    way.len() == "Writes".len()
}

/// The noun of a verb: `memory` of `memory.read`.
const fn before_dot(verb: &'static str) -> &'static str {
    let mut at = 0;
    while verb.as_bytes()[at] != b'.' {
        at += 1;
    }
    verb.split_at(at).0
}

actions! {
    /// Write a new memory.
    CreateMemory(Scope) Writes true "memory.create";
    /// Read one memory.
    ReadMemory(MemoryId) Reads true "memory.read";
    /// Read one memory's earlier versions.
    ReadVersions(MemoryId) Reads true "memory.versions";
    /// Read a memory with its replies.
    ReadThread(MemoryId) Reads true "memory.thread";
    /// Reply to a memory.
    ReplyToMemory(MemoryId) Writes true "memory.reply";
    /// List memories.
    ListMemories(Scope) Reads true "memory.list";
    /// Have what becomes of memories told.
    WatchMemories(Scope) Reads false "memory.watch";
    /// Tell what became of one memory.
    TellEvent(Scope) Reads true "memory.event";
    /// Have a scope told in short: what it is about, by its tags and threads.
    BriefMemories(Scope) Reads true "memory.brief";
    /// See how memories hang together.
    GraphMemories(Scope) Reads true "memory.graph";
    /// See what is near a memory, and what a tag gathers.
    ReadAround(Scope) Reads true "memory.around";
    /// Search memories.
    SearchMemories(Scope) Reads true "memory.search";
    /// Have the site's language model answer a question from memories.
    QueryMemories(Scope) Reads true "memory.query";
    /// Replace a memory's text.
    UpdateMemory(MemoryId) Writes true "memory.update";
    /// Move a memory to the trash.
    TrashMemory(MemoryId) Writes true "memory.trash";
    /// Move the memories that carry a name to the trash.
    TrashMemories(Scope) Writes true "memory.trash_all";
    /// Take a memory out of the trash.
    RestoreMemory(MemoryId) Writes true "memory.restore";
    /// Remove a memory and its versions for good.
    PurgeMemory(MemoryId) Writes true "memory.purge";
    /// Remove everything in the trash for good.
    EmptyTrash(Scope) Writes true "memory.empty_trash";
    /// Open an MCP session, and be briefed.
    OpenMcp(Scope) Reads true "mcp.initialize";
    /// Ask what the MCP server is, and be briefed.
    DiscoverMcp(Scope) Reads true "mcp.discover";
    /// List the MCP tools.
    ListTools(Person) Reads false "mcp.tools";
    /// Call an MCP tool that there is not, or send what is no call at all.
    CallTool(Person) Reads false "mcp.call";
    /// Ask whether the MCP server is there.
    PingMcp(Person) Reads false "mcp.ping";
    /// Tell the MCP server something that it does not answer.
    NotifyMcp(Person) Reads false "mcp.notify";
    /// Set how much the MCP server should log to its client.
    SetMcpLevel(Person) Reads false "mcp.level";
    /// Hear what the MCP server has to say.
    ListenMcp(Person) Reads false "mcp.listen";
    /// End an MCP session.
    EndMcp(Person) Reads false "mcp.end";
    /// Ask who one is.
    ReadSelf(Person) Reads false "identity.read";
    /// Ask how much one may keep, keeps and used.
    ReadUsage(Scope) Reads false "usage.read";
    /// Pay for the service.
    Pay(Person) Reads false "billing.pay";
    /// Talk to the site's language model.
    Chat(Person) Reads true "model.chat";
    /// Ask which language models there are.
    ListModels(Person) Reads false "model.list";
    /// Change one's own names.
    UpdateSelf(Person) Writes false "identity.update";
    /// Make a key.
    CreateKey(Person) Writes false "key.create";
    /// List keys.
    ListKeys(Person) Reads false "key.list";
    /// Revoke a key.
    RevokeKey(CredentialId) Writes false "key.revoke";
    /// Consent to a client of OAuth.
    ConsentToClient(Person) Writes false "oauth.consent";
    /// Exchange a code for tokens.
    IssueTokens(Person) Writes false "oauth.issue";
    /// Exchange a refresh token for new ones.
    RefreshTokens(Person) Writes false "oauth.refresh";
    /// End a grant.
    RevokeGrant(CredentialId) Writes false "oauth.revoke";
    /// End a grant because something of it that was used up was shown again.
    EndReplayed(CredentialId) Writes false "oauth.replay";
    /// List one's grants.
    ListGrants(Person) Reads false "oauth.list";
    /// Count clients and grants.
    CountGrants(Instance) Reads false "oauth.status";
    /// Ask how one's own operation ended.
    ReadOperation(OperationId) Reads false "operation.read";
    /// Write many memories at once (operator's import).
    ImportMemories(Scope) Writes true "memory.import";
    /// Read all memories (operator's export).
    ExportMemories(Scope) Reads true "memory.export";
    /// Keep the vectors of memories.
    EmbedMemories(Scope) Writes true "memory.embed";
    /// Read how far the vectors of memories are.
    ReadEmbeddings(Instance) Reads false "embedding.read";
    /// Read memories to build the search index in memory.
    IndexMemories(Scope) Reads true "memory.index";
    /// Read the audit log (operator's export).
    ExportLog(Instance) Reads false "audit.export";
    /// Take the data file as it is against what its anchor says (operator's override).
    AcceptAnchor(Instance) Writes false "anchor.accept";
    /// Ask for a backup.
    AskBackup(Instance) Writes false "backup.ask";
    /// Begin a backup.
    BeginBackup(Instance) Writes false "backup.begin";
    /// Note how a backup ended, or that its file was removed.
    EndBackup(Instance) Writes false "backup.end";
    /// List backups and the last restore drill.
    ListBackups(Instance) Reads false "backup.list";
    /// Note how a restore drill ended.
    RecordDrill(Instance) Writes false "backup.drill";
    /// Hand the relay an order to connect to another machine.
    SendEgress(Instance) Reads true "egress.send";
    /// Note how such an order ended.
    EndEgress(Instance) Reads true "egress.end";
    /// Make a person known.
    CreatePerson(Instance) Writes false "person.create";
    /// Read how the instance stands.
    ReadStatus(Instance) Reads false "status.read";
    /// List everybody.
    ListPeople(Instance) Reads false "person.list";
    /// Ask whether one administrates the instance, and for lists that are empty here.
    ReadAdmin(Instance) Reads false "admin.read";
    /// Have a person, or one whom memories are about, erased.
    AskErasure(Instance) Writes false "erasure.ask";
    /// Read how erasures stand, and their receipts.
    ReadErasures(Instance) Reads false "erasure.read";
    /// Remove the memories that an erasure is about.
    EraseMemories(Instance) Writes true "memory.erase";
    /// Destroy the key of a holder.
    DestroyHolder(Instance) Writes true "erasure.destroy";
    /// Say that no key is left that opens what an erased holder's old pages hold.
    EndErasure(Instance) Writes false "erasure.end";
    /// Begin or end an epoch of keys.
    ChangeEpoch(Instance) Writes false "keys.epoch";
    /// Wrap holders' keys under the new epoch's.
    RewrapKeys(Instance) Writes false "keys.rewrap";
    /// Renew holders' keys, and say how far that has come.
    RenewKeys(Instance) Writes false "keys.renew";
    /// Seal fields again under their holders' new keys.
    ResealFields(Instance) Writes true "keys.reseal";
    /// Put another TLS key and certificate in place.
    ChangeTls(Instance) Writes false "keys.tls";
    /// Hand the audit log over to another signing key.
    ChangeAuditKey(Instance) Writes false "keys.audit";
    /// Leave all keys of the data file, for a new file under new ones.
    ChangeAllKeys(Instance) Writes false "keys.all";
    /// Change what unlocks the data file.
    ChangeSlots(Instance) Writes false "keys.slots";
    /// Revoke every credential.
    RevokeAll(Instance) Writes false "incident.revoke_all";
    /// Make the instance read-only, or let records be written again.
    FreezeInstance(Instance) Writes false "incident.freeze";
    /// Count what the log tells, for an officer.
    ReportIncident(Instance) Reads false "incident.report";
    /// Unlock a service that started locked.
    UnlockInstance(Instance) Writes false "instance.unlock";
}
