//! Rosemary: the memory that AI agents may use inside a hospital.
//!
//! One static binary, one encrypted file, no way out. Layers, bottom to top; a layer uses those above it in this list, never below
//! (`tests/tidy.rs` checks):
//! `base` → `config` → `sandbox` → `crypto` → `embed` → `authn` → `policy` → `audit` → `engine` → `store` → `memories` → `identity` → `egress` → `http` → `api` → `cli`.
//!
//! Invariants, and where each is held
//! 1. No record is read or changed without an `Access`; only `store/gate.rs` makes one, from a `Grant` only `policy/decide.rs` makes.
//! 2. A change and its audit entry commit together; an answer leaves after the commit (`store/writer.rs`).
//! 3. Plaintext lives in `Secret` and `Phi` only; each reading is spelled `expose` (`crypto/secret.rs`, `store/phi.rs`).
//! 4. Every stored byte is sealed and bound to its file and place (`engine/block.rs`).
//! 5. Only `egress/` opens an outbound socket, in the relay's process alone (`clippy.toml` disallows the methods elsewhere); in the service's the
//!    kernel refuses it (`sandbox/`).
//! 6. Every loop, queue, buffer and wait has its bound in `base/limits.rs`.
//! 7. Wall time and chance enter through `base/time.rs` and `base/rng.rs`.

// Tests and benches play clients and attackers; the product itself may call nothing that clippy.toml lists.
#![cfg_attr(any(test, feature = "bench-internals"), allow(clippy::disallowed_methods))]

/// Declares the layers: private in the product, visible to fuzz targets and benches only.
macro_rules! layers {
    ($($name:ident)*) => {$(
        #[cfg(any(fuzzing, feature = "bench-internals"))]
        pub mod $name;
        #[cfg(not(any(fuzzing, feature = "bench-internals")))]
        #[allow(dead_code, reason = "the documents that tests write and compare are made by code that the program itself does not call")]
        mod $name;
    )*};
}
layers! { base config sandbox crypto embed authn policy audit engine store memories identity egress http api cli }

/// Runs the program with its arguments (the first is its name): `main` in one call.
pub use cli::run;
