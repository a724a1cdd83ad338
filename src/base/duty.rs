//! Duty: a thread that is one of few which serve many hands its place over before it waits for anything.
//!
//! Invariants
//! - Whoever waits steps aside first: for a commit, a peer, a turn, or long work. Once is enough until the next duty begins.
//! - A thread that was never enlisted, or is off duty, loses nothing by stepping aside.

use std::cell::{Cell, RefCell};

thread_local! {
    static ON_DUTY: Cell<bool> = const { Cell::new(false) };
    static RELIEF: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
}

/// This thread serves among others; `relief` has another take its place.
pub fn enlist(relief: impl Fn() + 'static) {
    RELIEF.set(Some(Box::new(relief)));
}

/// This thread serves no longer, and keeps nothing of what it served.
pub fn discharge() {
    ON_DUTY.set(false);
    drop(RELIEF.take());
}

/// From now on this thread holds a place.
pub fn begin() {
    ON_DUTY.set(true);
}

/// Whether this thread holds a place.
#[cfg(test)]
pub fn is_on() -> bool {
    ON_DUTY.get()
}

/// Ends a duty; false if its place was handed over meanwhile.
pub fn end() -> bool {
    ON_DUTY.replace(false)
}

/// Hands this thread's place over, if it holds one: it is going to wait, or to work for long.
pub fn step_aside() {
    if ON_DUTY.replace(false) {
        RELIEF.with_borrow(|relief| {
            if let Some(relief) = relief {
                relief();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn a_place_is_handed_over_once_a_duty_and_by_nobody_who_holds_none() {
        let handed = Rc::new(Cell::new(0));
        let count = Rc::clone(&handed);
        step_aside();
        enlist(move || count.set(count.get() + 1));
        step_aside();
        assert!(handed.get() == 0 && !end());
        begin();
        assert!(end() && handed.get() == 0);
        begin();
        step_aside();
        step_aside();
        assert!(!end() && handed.get() == 1 && Rc::strong_count(&handed) == 2);
        begin();
        discharge();
        step_aside();
        assert!(!end() && handed.get() == 1 && Rc::strong_count(&handed) == 1);
    }
}
