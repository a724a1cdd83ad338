//! The coverage-guided driver: LLVM's libFuzzer over the target that `FUZZ_TARGET` names, one mutation in four being ours, which knows the
//! target's words. Started by `fuzz/run`.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use rosemary_fuzz::Target;
use rosemary_fuzz::mutate::{Dice, mutated};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    rosemary_fuzz::target(&name).expect("FUZZ_TARGET is in the table")
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));

fuzz_mutator!(|bytes: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if !seed.is_multiple_of(4) {
        return fuzzer_mutate(bytes, size, max_size);
    }
    let new = mutated(&mut Dice::new(seed.into()), &[bytes[..size].to_vec()], TARGET.words, max_size);
    bytes[..new.len()].copy_from_slice(&new);
    new.len()
});
