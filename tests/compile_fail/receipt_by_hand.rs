//! expect: E0451
//! Proof of a durable entry, made without the writer.
use crate::store::gate::Receipt;

fn attempt(other: Receipt) -> Receipt {
    Receipt { ..other }
}
