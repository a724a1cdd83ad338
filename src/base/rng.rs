//! The only source of randomness: the operating system's generator, drawn in blocks.
//!
//! Promise: bytes are fit for keys and nonces; none is given out twice, and what was given out is not kept. A machine without randomness
//! cannot run Rosemary, so failure stops the process. (The program never forks, so no two processes share a block.)

use std::cell::RefCell;

use zeroize::{Zeroize, Zeroizing};

/// Drawn from the system at once: a system call costs more than the bytes.
const BLOCK_BYTES: usize = 1024;

struct Block {
    bytes: Zeroizing<[u8; BLOCK_BYTES]>,
    used: usize,
}

thread_local! {
    static BLOCK: RefCell<Block> = RefCell::new(Block { bytes: Zeroizing::new([0; BLOCK_BYTES]), used: BLOCK_BYTES });
}

/// The system call itself, getrandom(2): a library's detour over `dlsym` or `/dev/urandom` fails in a static program that the kernel has locked in.
#[allow(clippy::disallowed_methods)] // The one place that may ask the system.
fn ask(mut out: &mut [u8]) {
    const WHY: &str = "the operating system has randomness; without it no key may be made";
    while !out.is_empty() {
        let filled = rustix::io::retry_on_intr(|| rustix::rand::getrandom(&mut *out, rustix::rand::GetRandomFlags::empty())).expect(WHY);
        out = &mut out[filled..];
    }
}

/// Fills `out` with randomness of the operating system.
pub fn fill(out: &mut [u8]) {
    if out.len() > BLOCK_BYTES {
        return ask(out);
    }
    BLOCK.with_borrow_mut(|block| {
        if BLOCK_BYTES - block.used < out.len() {
            ask(&mut *block.bytes);
            block.used = 0;
        }
        let given = &mut block.bytes[block.used..block.used + out.len()];
        out.copy_from_slice(given);
        given.zeroize();
        block.used += out.len();
    });
}

/// `N` random bytes.
pub fn array<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    fill(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn no_bytes_are_given_out_twice_across_blocks_and_threads() {
        let draw = || (0..1000).map(|_| super::array::<24>()).collect::<Vec<_>>();
        let other = std::thread::spawn(draw);
        let mut seen: HashSet<[u8; 24]> = draw().into_iter().collect();
        seen.extend(other.join().unwrap());
        assert_eq!(seen.len(), 2000);
        assert!(!seen.contains(&[0; 24]));
    }

    #[test]
    fn more_than_a_block_is_filled_to_its_end() {
        let mut out = vec![0; 5000];
        super::fill(&mut out);
        assert!(out[4900..].iter().any(|byte| *byte != 0));
    }
}
