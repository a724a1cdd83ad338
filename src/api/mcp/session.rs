//! Sessions of legacy MCP clients: in memory only.
//!
//! A session holds no data and no authority: every request is authenticated by its own credential. What it holds is the version that was agreed
//! on, and which stream is its newest.
//!
//! Invariants
//! - A session is its opener's: to another person, or another credential, it does not exist.
//! - At most [`limits::MCP_SESSIONS_MAX`] at once, and [`limits::MCP_SESSIONS_PER_PERSON_MAX`] of one person, by however many credentials. Opening
//!   one never fails: beyond a person's own bound their least recently used ends; beyond that of all, the least recently used of whoever has most.
//!   Its client is told 404 and begins again, as the protocol has it.
//! - A session that was not used for [`limits::MCP_SESSION_IDLE`] is gone; an open stream uses it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::authn::{CredentialRef, Principal};
use crate::base::id::{McpSessionId, TenantId, UserId};
use crate::base::limits;

/// Who may use a session.
#[derive(Clone, PartialEq, Eq)]
struct Opener {
    tenant: TenantId,
    user: UserId,
    credential: CredentialRef,
}

impl Opener {
    fn of(who: &Principal) -> Self {
        Self { tenant: who.tenant(), user: who.user(), credential: who.credential().clone() }
    }

    fn person(&self) -> (TenantId, UserId) {
        (self.tenant, self.user)
    }
}

struct Session {
    opener: Opener,
    version: &'static str,
    used_ms: u64,
    stream: u64,
}

/// The sessions that are open. Times are milliseconds of one monotonic clock.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<McpSessionId, Session>>);

impl Sessions {
    fn open_ones(&self, now_ms: u64) -> MutexGuard<'_, HashMap<McpSessionId, Session>> {
        const IDLE_MS: u64 = limits::MCP_SESSION_IDLE.as_secs() * 1000;
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, session| now_ms.saturating_sub(session.used_ms) < IDLE_MS);
        open
    }

    /// Opens a session; another may end for it.
    pub fn open(&self, who: &Principal, version: &'static str, now_ms: u64) -> McpSessionId {
        let opener = Opener::of(who);
        let mut open = self.open_ones(now_ms);
        let mut count = HashMap::from([(opener.person(), 1)]);
        for session in open.values() {
            *count.entry(session.opener.person()).or_insert(0) += 1;
        }
        // Who is beyond their own bound has most: nobody else is.
        if count[&opener.person()] > limits::MCP_SESSIONS_PER_PERSON_MAX || open.len() >= limits::MCP_SESSIONS_MAX {
            let most = count.values().copied().max();
            let theirs = open.iter().filter(|(_, session)| count.get(&session.opener.person()).copied() == most);
            let oldest = theirs.min_by_key(|(_, session)| session.used_ms).map(|(id, _)| *id);
            oldest.and_then(|id| open.remove(&id));
        }
        let id = McpSessionId::draw();
        open.insert(id, Session { opener, version, used_ms: now_ms, stream: 0 });
        id
    }

    fn with<T>(&self, who: &Principal, id: McpSessionId, now_ms: u64, work: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let mut open = self.open_ones(now_ms);
        let session = open.get_mut(&id).filter(|session| session.opener == Opener::of(who))?;
        session.used_ms = now_ms;
        Some(work(session))
    }

    /// The version of a session of `who`, which is used now.
    pub fn version(&self, who: &Principal, id: McpSessionId, now_ms: u64) -> Option<&'static str> {
        self.with(who, id, now_ms, |session| session.version)
    }

    /// Ends a session of `who`; whether there was one.
    pub fn end(&self, who: &Principal, id: McpSessionId, now_ms: u64) -> bool {
        let mut open = self.open_ones(now_ms);
        let own = open.get(&id).is_some_and(|session| session.opener == Opener::of(who));
        own && open.remove(&id).is_some()
    }

    /// A new stream of a session of `who`; an older one is over.
    pub fn listen(&self, who: &Principal, id: McpSessionId, now_ms: u64) -> Option<u64> {
        self.with(who, id, now_ms, |session| {
            session.stream += 1;
            session.stream
        })
    }

    /// Whether `stream` is still the newest of a session that is open; if so, the session is used.
    pub fn listens(&self, who: &Principal, id: McpSessionId, stream: u64, now_ms: u64) -> bool {
        let mut open = self.open_ones(now_ms);
        let session = open.get_mut(&id).filter(|session| session.opener == Opener::of(who) && session.stream == stream);
        session.map(|session| session.used_ms = now_ms).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::Vendor;
    use crate::authn::credential::{SettingId, StaticKey};
    use crate::base::time::Timestamp;

    const VERSION: &str = "2025-11-25";

    /// Somebody's AI tools.
    fn agents() -> impl FnMut(u32) -> Principal {
        let (tenant, owner) = (TenantId::draw(), UserId::draw(Timestamp::from_ms(1)));
        move |n| {
            Principal::of_static_key(
                tenant,
                owner,
                &StaticKey { name: "RM_AGENT_KEY_X".into(), vendor: Vendor::parse("x"), id: SettingId(u128::from(n).to_be_bytes()) },
            )
        }
    }

    #[test]
    fn a_session_is_its_openers_and_ends() {
        let (sessions, mut agent) = (Sessions::default(), agents());
        let (me, other) = (agent(1), agent(2));
        let id = sessions.open(&me, "2025-06-18", 0);
        assert_eq!(sessions.version(&me, id, 1), Some("2025-06-18"));
        assert_eq!(sessions.version(&other, id, 1), None);
        assert!(sessions.listen(&other, id, 1).is_none() && !sessions.end(&other, id, 1));
        let (first, second) = (sessions.listen(&me, id, 1).unwrap(), sessions.listen(&me, id, 1).unwrap());
        assert!(!sessions.listens(&me, id, first, 1) && sessions.listens(&me, id, second, 1) && !sessions.listens(&other, id, second, 1));
        assert!(sessions.end(&me, id, 1) && !sessions.end(&me, id, 1));
        assert!(!sessions.listens(&me, id, second, 1));
        assert_eq!(sessions.version(&me, McpSessionId::draw(), 1), None);
    }

    #[test]
    fn an_idle_session_is_forgotten_and_a_stream_keeps_one() {
        const IDLE_MS: u64 = limits::MCP_SESSION_IDLE.as_secs() * 1000;
        let (sessions, me) = (Sessions::default(), agents()(1));
        let (idle, heard) = (sessions.open(&me, VERSION, 0), sessions.open(&me, VERSION, 0));
        let stream = sessions.listen(&me, heard, 0).unwrap();
        assert!(sessions.listens(&me, heard, stream, IDLE_MS - 1));
        assert_eq!(sessions.version(&me, idle, IDLE_MS), None);
        assert!(sessions.version(&me, heard, IDLE_MS).is_some());
        assert_eq!(sessions.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn beyond_ones_own_bound_ones_oldest_ends() {
        let (sessions, mut greedy) = (Sessions::default(), agents());
        let first = sessions.open(&greedy(0), VERSION, 0);
        for n in 0..limits::MCP_SESSIONS_PER_PERSON_MAX {
            sessions.open(&greedy(u32::try_from(n).unwrap()), VERSION, 1);
        }
        assert_eq!(sessions.version(&greedy(0), first, 1), None, "their own oldest made room, whichever credential opened it");
        assert_eq!(sessions.0.lock().unwrap().len(), limits::MCP_SESSIONS_PER_PERSON_MAX);
    }

    #[test]
    fn when_all_places_are_taken_who_has_most_gives_one() {
        // Two people with 250 each, of 500, kept everybody else out for as long as they liked.
        let (sessions, mut modest) = (Sessions::default(), agents());
        let own = sessions.open(&modest(1), VERSION, 0);
        let mut theirs = Vec::new();
        for n in 0..2 * limits::MCP_SESSIONS_MAX / limits::MCP_SESSIONS_PER_PERSON_MAX {
            let greedy = agents()(0);
            for _ in 0..limits::MCP_SESSIONS_PER_PERSON_MAX {
                theirs.push((greedy.clone(), sessions.open(&greedy, VERSION, 1 + n as u64)));
            }
            assert!(sessions.0.lock().unwrap().len() <= limits::MCP_SESSIONS_MAX);
        }
        assert_eq!(sessions.version(&modest(1), own, 100), Some(VERSION), "who has few keeps them, however long they were idle");
        let held = |theirs: &[(Principal, McpSessionId)]| {
            theirs.iter().filter(|(who, id)| sessions.0.lock().unwrap().get(id).is_some_and(|one| one.opener == Opener::of(who))).count()
        };
        assert_eq!(held(&theirs), limits::MCP_SESSIONS_MAX - 1);
        let late = agents()(1);
        let opened = sessions.open(&late, VERSION, 101);
        assert_eq!(held(&theirs), limits::MCP_SESSIONS_MAX - 2);
        assert!(sessions.version(&late, opened, 102).is_some() && sessions.version(&modest(1), own, 102).is_some());
    }

    #[test]
    fn of_many_with_one_session_each_the_one_idle_longest_gives_way() {
        let sessions = Sessions::default();
        let everybody: Vec<_> = (0..limits::MCP_SESSIONS_MAX).map(|_| agents()(1)).collect();
        let theirs: Vec<_> = everybody.iter().map(|who| sessions.open(who, VERSION, 0)).collect();
        for (who, id) in everybody.iter().zip(&theirs).skip(1) {
            assert!(sessions.version(who, *id, 1).is_some());
        }
        sessions.open(&agents()(1), VERSION, 2);
        assert_eq!(sessions.version(&everybody[0], theirs[0], 2), None);
        assert!(everybody.iter().zip(&theirs).skip(1).all(|(who, id)| sessions.version(who, *id, 2).is_some()));
    }
}
