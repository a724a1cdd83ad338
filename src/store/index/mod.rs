//! Search: an index in memory of one owner's live memories, derived from the records and never on disk.
//!
//! `analyse` text to terms | `prepared` a memory ready to go in | `postings` compressed lists | `scope` one scope's index | `rank` BM25 and company | `literal` substrings |
//! `tags` counted | `vectors` what texts mean | `when` times a query names | `snippet` the passage that answers | `indexes` every scope's index, bounded, built in the background and kept in step with commits.
//!
//! Pure data: no input or output, no keys, no clock. Text comes in as `&str` from callers that hold it lawfully.

pub mod analyse;
pub mod indexes;
pub mod literal;
#[cfg(any(test, feature = "bench-internals"))]
pub mod measure;
#[cfg(test)]
mod model;
mod postings;
pub mod prepared;
pub mod rank;
pub mod scope;
pub mod snippet;
pub mod tags;
mod vectors;
mod when;
