//! Every target under libFuzzer: `ROSEMARY_FUZZ_TARGET` names the one to run.
#![no_main]

use std::sync::OnceLock;

use rosemary_fuzz::{Target, target};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static TARGET: OnceLock<&'static Target> = OnceLock::new();
    let chosen = TARGET.get_or_init(|| {
        let name = std::env::var("ROSEMARY_FUZZ_TARGET").expect("ROSEMARY_FUZZ_TARGET names a target");
        target(&name).expect("a target of that name")
    });
    (chosen.run)(bytes);
});
