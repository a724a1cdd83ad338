//! Panics: where they are caught, and what becomes of a second one.
//!
//! A panic is a bug of ours or of a library, or a library's answer to a damaged file. It unwinds to the nearest [`catch`], which is one of few:
//! around a request, a batch, a call of the storage library. A destructor that runs meanwhile may panic again (redb's do, on a damaged list of free
//! pages), and the language then ends the process by SIGABRT, wherever it stands. Before that can happen the hook is called, and ends the
//! process in order.
//!
//! Invariants
//! - A panic's message is printed nowhere, for it may hold anything: one line names its place.
//! - No panic ends the process by a signal: at the second one on the way to one `catch`, `last` is called, and its thread never goes on.
//! - The product catches panics by [`catch`] alone (`clippy.toml`): a frame that the hook did not know would be taken for a second panic.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};

use crate::base::log::{self, Level, Operator};

thread_local! {
    /// Panics that are on their way to the innermost `catch` of this thread.
    static UNDER_WAY: Cell<u32> = const { Cell::new(0) };
}

/// Work panicked. What it said is dropped: it may hold anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a fault of the program")]
pub struct Panicked;

/// Runs `work`. What it was lent must not be relied on after a panic; every caller says why it is not.
///
/// Errors: it panicked.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let (mut work, mut outcome) = (Some(work), None);
    catch_any(&mut || outcome = work.take().map(|work| work()))?;
    outcome.ok_or(Panicked)
}

#[allow(clippy::disallowed_methods, reason = "the one door to it")]
fn catch_any(work: &mut dyn FnMut()) -> Result<(), Panicked> {
    let outside = UNDER_WAY.replace(0);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    UNDER_WAY.set(outside);
    outcome.map_err(|_| Panicked)
}

/// From now on a panic is told in one line, and a second one before the first was caught calls `last`, which should end the process; if it does
/// not, the thread rests for ever.
pub fn install(last: impl Fn() + Send + Sync + 'static) {
    set_hook(Box::new(move |panic| {
        tell(panic);
        second(&last);
    }));
}

/// A panic's place is enough to find it.
fn tell(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map_or_else(|| "unknown".to_owned(), |at| format!("{}:{}", at.file(), at.line()));
    log::line(Level::Error, "a fault of the program", &[("at", &Operator::text(&place))]);
}

/// Counts a panic; at the second, does not come back.
fn second(last: &dyn Fn()) {
    let under_way = UNDER_WAY.get() + 1;
    UNDER_WAY.set(under_way);
    if under_way < 2 {
        return;
    }
    // Were `last` to panic as well, the process would be ended from within the hook: so it is asked once.
    if under_way == 2 {
        log::line(
            Level::Error,
            "a second fault while the first was cleaned up, as a damaged data file can cause; stop, run `rosemary verify`, and restore a backup if it finds damage",
            &[],
        );
        last();
    }
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::process::{Command, Output};

    /// What the process of [`part`] ends with at a second panic.
    pub const STOPPED: i32 = 87;
    const PART: &str = "ROSEMARY_TEST_PART";

    /// In a process made by [`apart`]: what it was told to do. The hook is then the product's.
    pub fn part() -> Option<String> {
        let part = std::env::var(PART).ok()?;
        install(|| std::process::exit(STOPPED));
        Some(part)
    }

    /// Runs one test of this program once more, in a process of its own that [`part`] tells what to do.
    pub fn apart(test: &str, part: &str) -> Output {
        let this = std::env::current_exe().unwrap();
        Command::new(this).args(["--exact", test, "--nocapture", "--test-threads=1"]).env(PART, part).output().unwrap()
    }

    struct Panics;

    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("words of a patient, in a destructor");
        }
    }

    struct Catches;

    impl Drop for Catches {
        fn drop(&mut self) {
            assert_eq!(catch(|| drop(Panics)), Err(Panicked));
        }
    }

    fn twice() {
        let _second = Panics;
        panic!("words of a patient");
    }

    fn around() {
        let _catches = Catches;
        panic!("words of a patient, around a panic that is caught");
    }

    fn around_and_then() {
        let _second = Panics;
        around();
    }

    #[test]
    fn a_second_panic_on_the_way_of_a_first_stops_the_process_in_order_and_says_nothing_of_what_they_said() {
        const THIS: &str =
            "base::fault::tests::a_second_panic_on_the_way_of_a_first_stops_the_process_in_order_and_says_nothing_of_what_they_said";
        match part().as_deref() {
            Some("once") => {
                assert_eq!(catch(|| drop(Panics)), Err(Panicked));
                assert_eq!(catch(around), Err(Panicked));
                assert_eq!(catch(|| drop(Panics)), Err(Panicked));
                assert_eq!(catch(|| 3), Ok(3));
                println!("went on");
            }
            Some("twice") => assert!(catch(twice).is_ok(), "unreachable"),
            Some("outside") => twice(),
            Some("thread") => assert!(std::thread::spawn(twice).join().is_ok(), "unreachable"),
            Some("nested") => assert!(catch(around_and_then).is_ok(), "unreachable"),
            Some(other) => panic!("{other}"),
            None => {
                let once = apart(THIS, "once");
                assert!(once.status.success() && String::from_utf8_lossy(&once.stdout).contains("went on"));
                assert_eq!(String::from_utf8_lossy(&once.stderr).lines().count(), 4, "one line a panic");
                for part in ["twice", "outside", "thread", "nested"] {
                    let ended = apart(THIS, part);
                    let said = String::from_utf8_lossy(&ended.stderr);
                    assert_eq!(ended.status.code(), Some(STOPPED), "{part}: {said}");
                    assert!(said.contains("rosemary verify") && !said.contains("words"), "{part}: {said}");
                    assert_eq!(said.lines().filter(|line| !line.starts_with("<3>")).count(), 0, "{part}: {said}");
                }
            }
        }
    }
}
