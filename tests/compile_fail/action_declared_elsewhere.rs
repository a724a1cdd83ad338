//! expect: E0277
//! A verb that is not in the closed list.
use crate::base::id::MemoryId;

enum ReadQuietly {}

impl crate::policy::action::Action for ReadQuietly {
    type Target = MemoryId;
    const NAME: &'static str = "memory.read_quietly";
    const PHI: bool = true;
    const RESOURCE: &'static str = "memory";
    const WRITES: bool = false;
}
