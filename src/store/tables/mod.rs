//! Tables: one file a noun, with its key, its value and its indexes.
//!
//! Invariants
//! - Every key begins with the tenant where the noun belongs to one.
//! - Nothing that was typed by a person stands in a key or in a clear column: look-ups are keyed HMACs.
//! - Functions that touch memories, people or keys ask for an `Access`; those below the gate take a `Tx` and are visible to `store` only.

pub mod backups;
pub(in crate::store) mod credentials;
pub(in crate::store) mod erasures;
pub(in crate::store) mod grants;
pub(in crate::store) mod holders;
pub(in crate::store) mod log;
pub mod memories;
pub(in crate::store) mod meta;
pub(in crate::store) mod past;
pub(in crate::store) mod signers;
pub(in crate::store) mod subjects;
pub(in crate::store) mod usage;
pub(in crate::store) mod users;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::engine::Table;

macro_rules! tables {
    ($($(#[$text:meta])* $name:ident = $index:literal $label:literal;)*) => {
        /// Names of the tables in the file, by index.
        pub const TABLES: &[&str] = &[$($label,)*];
        $($(#[$text])* pub(in crate::store) const $name: Table = Table($index);)*
    };
}

tables! {
    /// Name → value: schema version, workspace, owner, log id.
    META = 0 "meta";
    /// tenant | holder kind | holder id → the holder's wrapped DEKs.
    DEKS = 1 "deks";
    /// tenant | user → person.
    USERS = 2 "users";
    /// tenant | HMAC(e-mail) → user.
    USER_LOOKUP = 3 "user_lookup";
    /// tenant | credential → credential.
    CREDENTIALS = 4 "credentials";
    /// HMAC(pepper, key) → tenant and credential.
    CREDENTIAL_LOOKUP = 5 "credential_lookup";
    /// tenant | subject → subject.
    SUBJECTS = 6 "subjects";
    /// tenant | HMAC(subject's external name) → subject id.
    SUBJECT_LOOKUP = 7 "subject_lookup";
    /// tenant | memory → memory.
    MEMORIES = 8 "memories";
    /// tenant | owner | state | time | memory → look-alike digest; nothing for a reply.
    ORDER = 9 "memory_order";
    /// tenant | owner | what → count.
    COUNTS = 10 "memory_counts";
    /// tenant | memory | version → the memory as it was.
    VERSIONS = 11 "memory_versions";
    /// index → audit line.
    AUDIT = 12 "audit";
    /// level | tile → 256 hashes.
    AUDIT_TILES = 13 "audit_tiles";
    /// size → checkpoint kept for good; the latest is in META.
    CHECKPOINTS = 14 "checkpoints";
    /// tenant | parent | time | memory → nothing: the replies of a memory.
    CHILDREN = 15 "memory_children";
    /// backup → what is known of it.
    BACKUPS = 16 "backups";
    /// log | what | place → lines, tiles and checkpoints of the logs before a restore.
    PAST_LOGS = 17 "past_logs";
    /// tenant | holder → how far the erasure of a holder has come.
    ERASURES = 18 "erasures";
    /// number → who was erased.
    TOMBSTONES = 19 "tombstones";
    /// log → first entry that counts; tenant | user | month → uses.
    USAGE = 20 "usage";
    /// tenant | memory → the vector of its text, sealed.
    EMBEDDINGS = 21 "embeddings";
    /// tenant | client → client of OAuth that somebody consented to.
    OAUTH_CLIENTS = 22 "oauth_clients";
    /// tenant | user | grant → what a client of OAuth was granted.
    OAUTH_GRANTS = 23 "oauth_grants";
    /// HMAC(pepper, token) → tenant, user, grant and what the token is.
    OAUTH_TOKENS = 24 "oauth_tokens";
    /// tenant | user | grant | end | HMAC(pepper, token) → nothing: refresh tokens that were used.
    OAUTH_SPENT = 25 "oauth_spent";
    /// log | size → the key that signed it up to there, and its handover to the next.
    AUDIT_KEYS = 26 "audit_keys";
}

/// Bytes that serde writes as one string of bytes, not as a sequence of numbers.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl Visitor<'_> for BytesVisitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(BytesVisitor)
    }
}

/// A key from its parts.
pub(in crate::store) fn key(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// The parts of a key `tenant | id`.
pub(in crate::store) fn tenant_and_id(key: &[u8]) -> Option<([u8; 16], [u8; 16])> {
    let (tenant, id) = key.split_first_chunk::<16>()?;
    Some((*tenant, id.try_into().ok()?))
}

/// The end of the range of all keys that begin with `prefix`: the next prefix of that length. `prefix` is not all 0xff.
pub(in crate::store) fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// Reads `bytes` as a row of each table; the names of those that take them. For fuzz targets only.
#[cfg(any(fuzzing, feature = "bench-internals"))]
pub fn readable_as(bytes: &[u8]) -> Vec<&'static str> {
    use crate::base::id::{CredentialId, SubjectId, TenantId, UserId};
    use crate::store::tx::row;
    let mut names = Vec::new();
    macro_rules! read {
        ($($name:literal $kind:ty;)*) => {$(
            if row::<$kind>($name, bytes).is_ok() {
                names.push($name);
            }
        )*};
    }
    read! {
        "meta" meta::InstanceRow;
        "deks" holders::DekRow;
        "users" users::UserRow;
        "user_lookup" UserId;
        "credentials" credentials::CredentialRow;
        "credential_lookup" (TenantId, CredentialId);
        "subjects" subjects::SubjectRow;
        "subject_lookup" SubjectId;
        "memories" memories::MemoryRow;
        "memory_versions" memories::VersionRow;
        "embeddings" memories::EmbeddingRow;
        "erasures" erasures::ErasureRow;
        "tombstones" erasures::Tombstone;
        "backups" backups::BackupRow;
        "usage" usage::UsageRow;
        "oauth_clients" grants::ClientRow;
        "oauth_grants" grants::GrantRow;
        "oauth_tokens" grants::TokenRow;
        "audit_keys" signers::SignerRow;
        "tags" Vec<String>;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_a_prefix_ends_at_the_next_one() {
        assert_eq!(after(&[1, 2]), [1, 3]);
        assert_eq!(after(&[1, 255]), [2]);
    }
}
