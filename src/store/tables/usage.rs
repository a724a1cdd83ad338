//! USAGE: how much people used the service, by month, counted with the commit of the entry that says so.
//!
//! The audit log has every use; these counts spare whoever asks for a month from reading it. What counts, by the entry of a use that went well:
//!
//! | counted as | operation | when |
//! |---|---|---|
//! | write | `memory.create` | once an entry, however many memories it made |
//! | read | `memory.read`, `memory.list` | if it gave any memory |
//! | query | `memory.query`, `model.chat` | always |
//!
//! Keys: log 16 → the first of its entries that is counted (u64): a log that began before this was counted has one above 0.
//! tenant 16 | user 16 | `2026-11` → counts.
//!
//! Invariant: the counts are those of the entries, agents' uses being those of their person (`check`); an erased user has none.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::audit::{ActorKind, Entry, Outcome};
use crate::base::codec;
use crate::base::id::{LogId, TenantId, UserId};
use crate::base::time::Timestamp;
use crate::engine::{Batch, EngineError, Read};
use crate::policy::action::Scope;
use crate::store::check::{Fault, ensure};
use crate::store::tables::{USAGE, key, users};
use crate::store::tx::{StoreError, Tx, row};

/// One person's uses in one month.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct UsageRow {
    /// Writes.
    pub writes: u64,
    /// Reads.
    pub reads: u64,
    /// Questions to the language model.
    pub queries: u64,
}

/// What is counted and not yet in the table.
#[derive(Default)]
pub struct Meter {
    counted: BTreeMap<Vec<u8>, UsageRow>,
    /// The day of the last entry and its month: most entries of a batch are of one day.
    day: (u64, String),
}

/// `2026-11`, of a time in it.
fn month(at: Timestamp) -> String {
    let mut text = at.to_string();
    text.truncate(7);
    text
}

impl Meter {
    /// Counts an entry made at `at`, if it is one that counts.
    pub fn count(&mut self, entry: &Entry, at: Timestamp) {
        let first = entry.part.as_ref().is_none_or(|part| part.no == 1);
        let user = match entry.actor.kind {
            ActorKind::User => entry.actor.id,
            ActorKind::Agent => entry.actor.behalf.first().copied(),
            ActorKind::Service | ActorKind::System | ActorKind::None => None,
        };
        let (Some(tenant), Some(user), true) = (entry.tenant, user, first && entry.outcome == Outcome::Ok) else { return };
        let one = match entry.op.text() {
            "memory.create" => UsageRow { writes: 1, ..UsageRow::default() },
            "memory.read" | "memory.list" if entry.n > 0 => UsageRow { reads: 1, ..UsageRow::default() },
            "memory.query" | "model.chat" => UsageRow { queries: 1, ..UsageRow::default() },
            _ => return,
        };
        let day = at.ms() / 86_400_000;
        if self.day.0 != day || self.day.1.is_empty() {
            self.day = (day, month(at));
        }
        self.counted.entry(key(&[tenant.bytes(), user.bytes(), self.day.1.as_bytes()])).or_default().add(one);
    }

    /// Puts what was counted into the batch that holds the entries.
    pub fn put(self, batch: &mut Batch<'_>) -> Result<(), EngineError> {
        for (key, counted) in self.counted {
            let mut sum = counted;
            if let Some(bytes) = batch.get(USAGE, &key)? {
                sum.add(codec::decode(1, &bytes).map_err(|_| EngineError::Damaged("a count of use"))?);
            }
            batch.put(USAGE, &key, &codec::encode(1, &sum))?;
        }
        Ok(())
    }

    /// Takes the counts of one row of the table out, to be compared with it.
    pub fn take(&mut self, key: &[u8]) -> Option<UsageRow> {
        self.counted.remove(key)
    }

    /// Rows that the table should have, of people who are there.
    pub fn left(&self, tx: &Tx<'_>, tenant: TenantId) -> Result<Vec<&[u8]>, StoreError> {
        let there = |key: &[u8]| user_of(tenant, key).map_or(Ok(false), |user| users::exists(tx, tenant, user));
        self.counted.keys().map(Vec::as_slice).filter_map(|key| there(key).map(|is| is.then_some(key)).transpose()).collect()
    }
}

impl UsageRow {
    fn add(&mut self, other: Self) {
        self.writes = self.writes.saturating_add(other.writes);
        self.reads = self.reads.saturating_add(other.reads);
        self.queries = self.queries.saturating_add(other.queries);
    }
}

/// Notes that the entries of `log` count from `size` on, unless that is known.
pub fn begin(batch: &mut Batch<'_>, log: LogId, size: u64) -> Result<(), EngineError> {
    match batch.get(USAGE, log.bytes())? {
        Some(_) => Ok(()),
        None => batch.put(USAGE, log.bytes(), &codec::encode(1, &size)),
    }
}

/// The first entry of `log` that is counted; none of them if that is not known.
pub fn first(tx: &Tx<'_>, log: LogId) -> Result<u64, StoreError> {
    tx.get(USAGE, log.bytes())?.map_or(Ok(u64::MAX), |bytes| row("usage", &bytes))
}

/// A person's months and uses, the newest first.
pub fn months(tx: &Tx<'_>, scope: Scope) -> Result<Vec<(String, UsageRow)>, StoreError> {
    let rows = tx.prefix(USAGE, &key(&[scope.tenant.bytes(), scope.owner.bytes()]))?.rev();
    rows.map(|item| {
        let (key, bytes) = item?;
        Ok((String::from_utf8_lossy(&key[32..]).into_owned(), row("usage", &bytes)?))
    })
    .collect()
}

/// Stages the end of a person's counts.
pub fn forget(tx: &mut Tx<'_>, scope: Scope) -> Result<(), StoreError> {
    let keys: Vec<Vec<u8>> = (tx.prefix(USAGE, &key(&[scope.tenant.bytes(), scope.owner.bytes()]))?)
        .map(|item| item.map(|(key, _)| key))
        .collect::<Result<_, _>>()?;
    keys.into_iter().for_each(|key| tx.delete(USAGE, key));
    Ok(())
}

fn user_of(tenant: TenantId, key: &[u8]) -> Option<UserId> {
    let (user, month) = key.strip_prefix(tenant.bytes())?.split_first_chunk::<16>()?;
    let dated = month.len() == 7 && month[4] == b'-' && month.iter().enumerate().all(|(at, byte)| at == 4 || byte.is_ascii_digit());
    dated.then_some(UserId::from_bytes(*user))
}

/// A row of USAGE: a log's beginning, or the uses that the entries tell of.
pub fn check(tx: &Tx<'_>, tenant: TenantId, key: &[u8], bytes: &[u8], told: &mut Meter) -> Result<(), Fault> {
    if key.len() == 16 {
        return Ok(row::<u64>("usage", bytes).map(drop)?);
    }
    let user = user_of(tenant, key).ok_or(Fault::Wrong("not a key of this table"))?;
    ensure(users::exists(tx, tenant, user)?, "its person has no row")?;
    ensure(told.take(key) == Some(row("usage", bytes)?), "the count is not that of the entries")
}
