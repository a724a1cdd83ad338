//! The program from outside: arguments, settings and exit codes. What speaks HTTPS is in `tests/contract`.
#![allow(clippy::disallowed_methods, reason = "a test starts the program")]

mod cli;
mod operator;
