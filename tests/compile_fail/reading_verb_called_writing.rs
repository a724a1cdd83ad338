//! expect: E0277
//! A verb that reads, declared to be one that writes.
use crate::policy::{Writes, action};

impl Writes for action::ReadMemory {}
