//! Stored credentials that were looked up and stand, in memory: what a request's key is, without asking the file again.
//!
//! Invariants
//! - It holds what one generation of the credentials says and nothing else: whoever asks with another generation is told nothing, so a
//!   revocation holds for the very next answer.
//! - It names keys by their verifier (a keyed hash), holds at most [`limits::STANDING_MAX`] of them, and only such as stand.

use std::collections::HashMap;
use std::sync::RwLock;

use crate::authn::StoredCredential;
use crate::base::limits;

/// See the module text.
#[derive(Default)]
pub(in crate::store) struct Standing(RwLock<Known>);

#[derive(Default)]
struct Known {
    generation: u64,
    found: HashMap<[u8; 32], StoredCredential>,
}

impl Standing {
    /// The credential of this verifier, if it was found to stand in this generation.
    pub fn get(&self, verifier: &[u8; 32], generation: u64) -> Option<StoredCredential> {
        let known = self.0.read().expect("no code panics while it holds this lock");
        if known.generation == generation { known.found.get(verifier).copied() } else { None }
    }

    /// Keeps what a reader of this generation found. One that is revoked is not kept, nor anything of an older generation.
    pub fn put(&self, verifier: [u8; 32], found: StoredCredential, generation: u64) {
        if found.revoked_at.is_some() {
            return;
        }
        let mut known = self.0.write().expect("no code panics while it holds this lock");
        if generation < known.generation {
            return;
        }
        if generation > known.generation || known.found.len() >= limits::STANDING_MAX {
            known.found.clear();
        }
        known.generation = generation;
        known.found.insert(verifier, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{CredentialId, TenantId, UserId};
    use crate::base::time::Timestamp;

    #[test]
    fn only_what_stands_in_the_asked_generation_is_known() {
        let standing = Standing::default();
        let row = StoredCredential {
            id: CredentialId::draw(),
            tenant: TenantId::draw(),
            user: UserId::draw(Timestamp::from_ms(1)),
            revoked_at: None,
        };
        standing.put([1; 32], row, 5);
        assert_eq!(standing.get(&[1; 32], 5).unwrap().id, row.id);
        for generation in [4, 6] {
            assert!(standing.get(&[1; 32], generation).is_none());
        }
        assert!(standing.get(&[2; 32], 5).is_none());
        standing.put([2; 32], StoredCredential { revoked_at: Some(Timestamp::from_ms(2)), ..row }, 5);
        assert!(standing.get(&[2; 32], 5).is_none(), "revoked");
        standing.put([3; 32], row, 4);
        assert!(standing.get(&[3; 32], 4).is_none(), "an older reader");
        standing.put([4; 32], row, 6);
        assert!(standing.get(&[1; 32], 6).is_none() && standing.get(&[1; 32], 5).is_none(), "another generation begins with nothing");
        assert!(standing.get(&[4; 32], 6).is_some());
    }

    #[test]
    fn it_is_bounded() {
        let standing = Standing::default();
        let row = StoredCredential {
            id: CredentialId::draw(),
            tenant: TenantId::draw(),
            user: UserId::draw(Timestamp::from_ms(1)),
            revoked_at: None,
        };
        for n in 0..3 * limits::STANDING_MAX as u64 {
            let mut verifier = [0; 32];
            verifier[..8].copy_from_slice(&n.to_le_bytes());
            standing.put(verifier, row, 1);
        }
        assert!(standing.0.read().unwrap().found.len() <= limits::STANDING_MAX);
    }
}
