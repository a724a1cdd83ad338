//! Base: ids, time, chance, bounds, stored encoding, durable files, faults and the operator's log line.
//!
//! The lowest layer; it knows nothing of the product above it. Time and chance enter the program here and nowhere else.

pub mod codec;
pub mod durable;
pub mod duty;
pub mod fault;
pub mod file;
pub mod hex;
pub mod id;
pub mod limits;
pub mod log;
pub mod order;
pub mod rng;
pub mod time;
pub mod wipe;
