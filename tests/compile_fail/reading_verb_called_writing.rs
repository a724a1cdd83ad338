//! expect: E0277
//! A verb that reads, declared to be one that writes.
use crate::policy::action::{self, Writes};

impl Writes for action::ReadMemory {}
