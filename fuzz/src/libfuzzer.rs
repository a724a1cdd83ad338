//! The coverage-guided driver: LLVM's libFuzzer over the target that `FUZZ_TARGET` names. Started by `fuzz/run`.
#![no_main]

use std::sync::LazyLock;

static RUN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    rosemary_fuzz::target(&name).expect("FUZZ_TARGET is in the table").run
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (*RUN)(bytes));
