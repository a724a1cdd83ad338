//! Migrations of the tables, numbered. Each brings the tables from one version to the next in one commit, and has its test.
//!
//! Invariant: a file of any released version opens with this program, or says which program it needs; it is never guessed at.

use crate::engine::{Engine, EngineError};

/// The version of the tables that this program writes.
pub const SCHEMA: u32 = 1;

/// A step from the version of its index + 1 to the next.
type Step = fn(&Engine) -> Result<(), EngineError>;

/// All steps: none yet, version 1 is the first.
const STEPS: &[Step] = &[];

const _: () = assert!(STEPS.len() + 1 == SCHEMA as usize);

/// Runs the steps that a file of version `from` lacks.
pub fn run(engine: &Engine, from: u32) -> Result<(), EngineError> {
    let done = usize::try_from(from).unwrap_or(usize::MAX).saturating_sub(1);
    STEPS.iter().skip(done).try_for_each(|step| step(engine))
}
