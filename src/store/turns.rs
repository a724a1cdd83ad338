//! Turns: work that goes through many records is done by few at once, and those who wait for it take turns.
//!
//! Selections, briefings and graphs open thousands of records for one request. They gain nothing by being more than there are processors, and one
//! of these stays free for everybody else. Who asks for many of them at once waits for themself: whoever
//! comes with one is next.
//!
//! Invariants
//! - As many turns at once as there are processors but one, and one at least.
//! - Those who wait are served in the order in which they came, but whoever has none comes before those who have a turn and wait for another; whoever
//!   waits for several goes to the end with each.
//! - A turn is taken before a view of the store, and given back before a commit is waited for: nobody who has one waits for the writer, and nobody who
//!   waits for one keeps old blocks from being used anew. The writer itself takes none.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::authn::{CredentialRef, Principal};
use crate::base::duty;
use crate::base::id::UserId;

/// Who has a part of what is shared out: a person, whatever credentials they come with; of the owner, for whom in many a house all agents act, each
/// credential.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Party(UserId, CredentialRef);

impl Party {
    /// Whose part `who` takes.
    pub fn of(who: &Principal, owner: UserId) -> Self {
        Self(who.user(), if who.user() == owner { who.credential().clone() } else { CredentialRef::None })
    }
}

/// See the module text.
pub struct Turns {
    line: Mutex<Line>,
    moved: Condvar,
}

struct Line {
    most: usize,
    /// Who has a turn, once for each.
    taken: Vec<Party>,
    /// Everybody who waits, once, and for how many turns.
    waiting: VecDeque<(Party, usize)>,
}

/// A turn, until it is dropped.
pub struct Turn<'t>(&'t Turns, Party);

impl Default for Turns {
    fn default() -> Self {
        Self::of(std::thread::available_parallelism().map_or(1, NonZero::get).saturating_sub(1).max(1))
    }
}

impl Turns {
    fn of(most: usize) -> Self {
        Self { line: Mutex::new(Line { most, taken: Vec::new(), waiting: VecDeque::new() }), moved: Condvar::new() }
    }

    /// Waits for a turn.
    pub fn take(&self, party: Party) -> Turn<'_> {
        duty::step_aside();
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.join(&party);
        let mut line = self.moved.wait_while(line, |line| !line.is_turn_of(&party)).unwrap_or_else(PoisonError::into_inner);
        line.taken.push(party.clone());
        if let Some((party, turns)) = line.waiting.pop_front().filter(|(_, turns)| *turns > 1) {
            line.waiting.push_back((party, turns - 1));
        }
        drop(line);
        self.moved.notify_all();
        Turn(self, party)
    }
}

impl Line {
    fn join(&mut self, party: &Party) {
        if let Some((_, turns)) = self.waiting.iter_mut().find(|(one, _)| one == party) {
            *turns += 1;
            return;
        }
        let before = self.waiting.iter().position(|(one, _)| self.taken.contains(one) && !self.taken.contains(party));
        self.waiting.insert(before.unwrap_or(self.waiting.len()), (party.clone(), 1));
    }

    fn is_turn_of(&self, party: &Party) -> bool {
        self.taken.len() < self.most && self.waiting.front().is_some_and(|(first, _)| first == party)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut line = self.0.line.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = line.taken.iter().position(|one| *one == self.1) {
            line.taken.swap_remove(at);
        }
        drop(line);
        self.0.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn party(n: u8) -> Party {
        Party(UserId::from_bytes([n; 16]), CredentialRef::None)
    }

    #[test]
    fn whoever_asks_for_many_turns_waits_behind_whoever_asks_for_one() {
        let turns = Turns::of(1);
        let (tell, told) = channel();
        let first = turns.take(party(1));
        std::thread::scope(|scope| {
            let wait = |n: u8, before: usize| {
                let (turns, tell) = (&turns, tell.clone());
                scope.spawn(move || {
                    let _turn = turns.take(party(n));
                    tell.send(n).unwrap();
                });
                while turns.line.lock().unwrap().waiting.iter().map(|(_, turns)| turns).sum::<usize>() < before {
                    std::thread::yield_now();
                }
            };
            for before in 1..=8 {
                wait(1, before);
            }
            wait(2, 9);
            wait(3, 10);
            wait(3, 11);
            assert!(told.try_recv().is_err());
            drop(first);
        });
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [2, 3, 1, 3, 1, 1, 1, 1, 1, 1, 1]);
        let line = turns.line.lock().unwrap();
        assert!(line.taken.is_empty() && line.waiting.is_empty());
    }

    #[test]
    fn as_many_turns_are_taken_at_once_as_there_are() {
        let turns = Turns::of(2);
        let held = [turns.take(party(1)), turns.take(party(1))];
        turns.line.lock().unwrap().join(&party(2));
        let is_turn = || turns.line.lock().unwrap().is_turn_of(&party(2));
        assert!(!is_turn());
        drop(held);
        assert!(is_turn() && Turns::default().line.lock().unwrap().most >= 1);
    }
}
