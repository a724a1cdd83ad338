//! expect: E0451
//! An answer that claims to be recorded.
use crate::store::gate::Recorded;

fn attempt(other: Recorded<u64>) -> Recorded<u64> {
    Recorded { ..other }
}
