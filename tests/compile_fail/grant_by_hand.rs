//! expect: E0451
//! A permission that no decision made.
use crate::base::id::MemoryId;
use crate::policy::Grant;
use crate::policy::action::ReadMemory;

fn attempt(target: MemoryId) -> Grant<ReadMemory> {
    Grant { target, seal: std::marker::PhantomData }
}
