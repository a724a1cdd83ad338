//! Tamper.
