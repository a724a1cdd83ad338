//! (to be written)
pub mod index;
