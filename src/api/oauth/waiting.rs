//! What OAuth waits for, in memory alone: clients nobody has consented to yet, people's decisions, codes to be exchanged. Pure: times come in.
//!
//! Invariants
//! - At most [`limits::OAUTH_WAITING_MAX`] of each; a new one takes the place of the oldest of whoever has most of them (an address, a person), so a
//!   flood ends its own and nobody else's.
//! - A code is good once. Shown again, it is told from one that never was, together with the grant that came of it.
//! - A restart forgets all of it: clients register and people decide anew.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::api::throttle::Key;
use crate::authn::credential::Verifier;
use crate::authn::oauth::{ClientId, Scope};
use crate::authn::{Principal, Vendor};
use crate::base::id::CredentialId;
use crate::base::limits;
use crate::store::grants::Client;

/// One that waits for its person's decision: 32 hex digits name it.
pub type PendingId = String;

/// What a client asks a person for.
#[derive(Clone)]
pub struct Pending {
    /// Which client.
    pub client: Arc<Client>,
    /// Where the person is sent back to; one of the client's.
    pub redirect_uri: String,
    /// Given back to the client as it came.
    pub state: Option<String>,
    /// SHA-256 of the code verifier.
    pub challenge: [u8; 32],
    /// What is asked for.
    pub scope: Scope,
    /// This server, as the client knows it.
    pub issuer: String,
}

/// A code.
#[derive(Clone)]
pub struct Code {
    /// What was asked for.
    pub asked: Pending,
    /// Who consented.
    pub by: Principal,
    /// As which vendor.
    pub vendor: Vendor,
    state: Use,
}

#[derive(Clone)]
enum Use {
    Unused,
    /// Taken; the grant is not known yet. Whether it was shown again meanwhile.
    Taken {
        again: bool,
    },
    Used(CredentialId),
}

/// What a code turned out to be.
pub enum Shown {
    /// Good, and used up by this.
    Good(Box<Code>),
    /// Used up before; the grant that came of it and who consented, if it is known yet.
    Again(Option<(CredentialId, Box<Code>)>),
    /// Not a code, or its time is over, or it does not fit what it was shown with.
    Bad,
}

/// What something that waits turned out to be.
pub enum Waits<V> {
    /// It is there.
    There(V),
    /// Its time is over.
    Over,
    /// It never was, or was decided.
    Unknown,
}

struct Bounded<K, V> {
    life_ms: u64,
    held: HashMap<K, (V, u64)>,
    /// When each was made, of whom, and which it is, the oldest first.
    order: VecDeque<(u64, Key, K)>,
}

impl<K: Clone + Eq + Hash, V> Bounded<K, V> {
    fn new(life: Duration) -> Self {
        Self { life_ms: u64::try_from(life.as_millis()).expect("a short time"), held: HashMap::new(), order: VecDeque::new() }
    }

    fn put(&mut self, key: K, of: Key, value: V, now_ms: u64) {
        // What is over stays known as such for as long again.
        while self.order.front().is_some_and(|(made, ..)| now_ms.saturating_sub(*made) >= 2 * self.life_ms) {
            self.forget(0);
        }
        if self.order.len() >= limits::OAUTH_WAITING_MAX {
            // Decided ones are gone already, and wait no more.
            let held = &self.held;
            self.order.retain(|(_, _, key)| held.contains_key(key));
        }
        if self.order.len() >= limits::OAUTH_WAITING_MAX {
            self.forget(self.oldest_of_the_greediest(of));
        }
        self.order.push_back((now_ms, of, key.clone()));
        self.held.insert(key, (value, now_ms));
    }

    fn forget(&mut self, at: usize) {
        if let Some((_, _, key)) = self.order.remove(at) {
            self.held.remove(&key);
        }
    }

    /// Where the oldest of whoever has most stands; `newcomer` has one more than they have.
    fn oldest_of_the_greediest(&self, newcomer: Key) -> usize {
        let mut count: HashMap<Key, usize> = HashMap::from([(newcomer, 1)]);
        for (_, of, _) in &self.order {
            *count.entry(*of).or_default() += 1;
        }
        let most = count.values().copied().max().unwrap_or_default();
        self.order.iter().position(|(_, of, _)| count[of] == most).unwrap_or_default()
    }

    fn get(&mut self, key: &K, now_ms: u64) -> Waits<&mut V> {
        match self.held.get_mut(key) {
            Some((value, made)) if now_ms.saturating_sub(*made) < self.life_ms => Waits::There(value),
            Some(_) => Waits::Over,
            None => Waits::Unknown,
        }
    }

    fn live(&self, now_ms: u64) -> usize {
        self.held.values().filter(|(_, made)| now_ms.saturating_sub(*made) < self.life_ms).count()
    }
}

struct Held {
    clients: Bounded<ClientId, Arc<Client>>,
    pending: Bounded<PendingId, Pending>,
    codes: Bounded<Verifier, Code>,
}

/// All that waits; see the module text.
pub struct Waiting(Mutex<Held>);

impl Default for Waiting {
    fn default() -> Self {
        let (clients, pending) = (Bounded::new(limits::OAUTH_WAIT), Bounded::new(limits::OAUTH_WAIT));
        Self(Mutex::new(Held { clients, pending, codes: Bounded::new(limits::OAUTH_CODE_LIFE) }))
    }
}

impl Waiting {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a client that registered from `address` until somebody consents to it.
    pub fn register(&self, client: Client, address: impl Into<Key>, now_ms: u64) {
        self.held().clients.put(client.id, address.into(), Arc::new(client), now_ms);
    }

    /// A client that nobody has consented to yet.
    pub fn client(&self, id: ClientId, now_ms: u64) -> Option<Arc<Client>> {
        match self.held().clients.get(&id, now_ms) {
            Waits::There(client) => Some(Arc::clone(client)),
            Waits::Over | Waits::Unknown => None,
        }
    }

    /// Waits for a person's decision under this id, for which a browser at `address` asked.
    pub fn ask(&self, id: PendingId, pending: Pending, address: impl Into<Key>, now_ms: u64) {
        self.held().pending.put(id, address.into(), pending, now_ms);
    }

    /// What the person is asked.
    pub fn pending(&self, id: &PendingId, now_ms: u64) -> Waits<Pending> {
        match self.held().pending.get(id, now_ms) {
            Waits::There(pending) => Waits::There(pending.clone()),
            Waits::Over => Waits::Over,
            Waits::Unknown => Waits::Unknown,
        }
    }

    /// The person decided: whether nobody had before.
    pub fn decided(&self, id: &PendingId) -> bool {
        self.held().pending.held.remove(id).is_some()
    }

    /// Keeps a code of this verifier.
    pub fn give(&self, verifier: Verifier, asked: Pending, by: Principal, vendor: Vendor, now_ms: u64) {
        self.held().codes.put(verifier, by.user().into(), Code { asked, by, vendor, state: Use::Unused }, now_ms);
    }

    /// Shows a code, which is used up if it is good and `fits` what it is shown with.
    pub fn show(&self, verifier: &Verifier, fits: impl FnOnce(&Pending) -> bool, now_ms: u64) -> Shown {
        let mut held = self.held();
        let code = match held.codes.get(verifier, now_ms) {
            Waits::There(code) if fits(&code.asked) => code,
            Waits::There(_) | Waits::Over | Waits::Unknown => return Shown::Bad,
        };
        match &mut code.state {
            Use::Unused => {
                code.state = Use::Taken { again: false };
                Shown::Good(Box::new(code.clone()))
            }
            Use::Taken { again } => {
                *again = true;
                Shown::Again(None)
            }
            Use::Used(grant) => Shown::Again(Some((*grant, Box::new(code.clone())))),
        }
    }

    /// The code gave this grant; or none, and it is good again. Whether it was shown again meanwhile.
    pub fn settle(&self, verifier: &Verifier, grant: Option<CredentialId>) -> bool {
        let mut held = self.held();
        let Some((code, _)) = held.codes.held.get_mut(verifier) else { return false };
        let again = matches!(code.state, Use::Taken { again: true });
        code.state = match grant {
            Some(grant) => Use::Used(grant),
            None => Use::Unused,
        };
        again
    }

    /// Clients, decisions and codes that are waited for.
    pub fn counts(&self, now_ms: u64) -> [usize; 3] {
        let held = self.held();
        [held.clients.live(now_ms), held.pending.live(now_ms), held.codes.live(now_ms)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{TenantId, UserId};
    use crate::base::time::Timestamp;
    use std::net::{IpAddr, Ipv4Addr};

    fn address(n: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))
    }

    fn client(n: u64) -> Client {
        Client { id: ClientId(n.to_be_bytes()), secret: None, name: String::new(), redirect_uris: Vec::new() }
    }

    fn pending() -> Pending {
        Pending {
            client: Arc::new(client(1)),
            redirect_uri: String::new(),
            state: None,
            challenge: [1; 32],
            scope: Scope { write: true },
            issuer: String::new(),
        }
    }

    #[test]
    fn a_flood_of_registrations_is_bounded_and_ends_its_own() {
        let waiting = Waiting::default();
        for n in 0..10_000 {
            waiting.register(client(n), address(1), n);
        }
        assert_eq!(waiting.counts(10_000)[0], limits::OAUTH_WAITING_MAX);
        assert!(waiting.client(ClientId(9_999_u64.to_be_bytes()), 10_000).is_some());
        assert!(waiting.client(ClientId(1_u64.to_be_bytes()), 10_000).is_none());
        let over = u64::try_from(limits::OAUTH_WAIT.as_millis()).unwrap();
        assert!(waiting.client(ClientId(9_999_u64.to_be_bytes()), 9_999 + over).is_none());
        assert_eq!(waiting.counts(10_000 + over)[0], 0);
    }

    #[test]
    fn a_flood_from_one_address_costs_nobody_else_their_decision() {
        // It took the places of all that waited: within minutes nobody could let a connector in.
        let waiting = Waiting::default();
        for n in 0..10 {
            waiting.ask(format!("theirs {n}"), pending(), address(n), 0);
        }
        for n in 0..10_000 {
            waiting.ask(format!("flood {n}"), pending(), address(99), n);
        }
        for n in 0..10 {
            assert!(matches!(waiting.pending(&format!("theirs {n}"), 10_000), Waits::There(_)));
        }
        assert!(matches!(waiting.pending(&"flood 0".into(), 10_000), Waits::Unknown));
        assert!(matches!(waiting.pending(&"flood 9999".into(), 10_000), Waits::There(_)));
        assert_eq!(waiting.counts(10_000)[1], limits::OAUTH_WAITING_MAX);
        // Nor do many addresses push out one that is still asked for later: the greediest gives way.
        waiting.ask("late".into(), pending(), address(50), 10_001);
        assert!(matches!(waiting.pending(&"late".into(), 10_001), Waits::There(_)));
        // What was decided gives its place back before anybody loses theirs.
        assert!((0..10).all(|n| waiting.decided(&format!("flood {}", 9_999 - n))));
        for n in 0..10 {
            waiting.ask(format!("next {n}"), pending(), address(60), 10_002);
        }
        assert!(matches!(waiting.pending(&"flood 9989".into(), 10_002), Waits::There(_)));
        assert_eq!(waiting.counts(10_002)[1], limits::OAUTH_WAITING_MAX);
    }

    #[test]
    fn a_decision_is_waited_for_half_an_hour_and_made_once() {
        let waiting = Waiting::default();
        waiting.ask("a".into(), pending(), address(1), 0);
        let over = u64::try_from(limits::OAUTH_WAIT.as_millis()).unwrap();
        assert!(matches!(waiting.pending(&"a".into(), over - 1), Waits::There(_)));
        assert!(matches!(waiting.pending(&"a".into(), over), Waits::Over));
        assert!(matches!(waiting.pending(&"b".into(), 0), Waits::Unknown));
        assert!(waiting.decided(&"a".into()) && !waiting.decided(&"a".into()));
        assert!(matches!(waiting.pending(&"a".into(), 0), Waits::Unknown));
    }

    #[test]
    fn a_code_is_good_once_for_five_minutes_and_a_misfit_leaves_it_good() {
        let waiting = Waiting::default();
        let (verifier, vendor) = (Verifier([1; 32]), Vendor::parse("oauth").unwrap());
        let who = Principal::system(TenantId::draw(), UserId::draw(Timestamp::from_ms(1)), "test");
        waiting.give(verifier, pending(), who.clone(), vendor.clone(), 0);
        assert!(matches!(waiting.show(&verifier, |_| false, 1), Shown::Bad));
        assert!(matches!(waiting.show(&Verifier([2; 32]), |_| true, 1), Shown::Bad));
        assert!(matches!(waiting.show(&verifier, |_| true, 1), Shown::Good(_)));
        assert!(matches!(waiting.show(&verifier, |_| true, 2), Shown::Again(None)));
        let grant = CredentialId::draw();
        assert!(waiting.settle(&verifier, Some(grant)), "it was shown again meanwhile");
        assert!(matches!(waiting.show(&verifier, |_| true, 3), Shown::Again(Some((known, _))) if known == grant));
        let over = u64::try_from(limits::OAUTH_CODE_LIFE.as_millis()).unwrap();
        assert!(matches!(waiting.show(&verifier, |_| true, over), Shown::Bad));
        let other = Verifier([3; 32]);
        waiting.give(other, pending(), who, vendor, 0);
        assert!(matches!(waiting.show(&other, |_| true, 1), Shown::Good(_)) && !waiting.settle(&other, None));
        assert!(matches!(waiting.show(&other, |_| true, 1), Shown::Good(_)), "what surely did not happen can be asked again");
    }
}
