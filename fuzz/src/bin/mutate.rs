//! The seeded mutator: runs a target on altered seeds for some seconds. Used where libFuzzer cannot be built, and to seed its corpus.
//!
//! `mutate TARGET SECONDS [SEED]`; `mutate list`; `mutate seeds TARGET FOLDER`; `mutate replay TARGET FILE`. A finding is kept in
//! `artifacts/` and ends the run with code 1. The same seed gives the same inputs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs};

use rosemary_fuzz::{TARGETS, Target, target};

/// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators".
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).expect("31 bits fit") % bound.max(1)
    }
}

const WORDS: &[&[u8]] = &[b"\r\n", b"\r\n\r\n", b": ", b",", b"\"", b"\\u0000", b"{", b"}", b"[", b"null", b"-1", b"18446744073709551616", b"%00", b"\xf0\x9f\x8c\xbf", b"\xff", b"\0", b"Content-Length: 5", b"chunked", b"=", b"\n"];
const INPUT_BYTES_MAX: usize = 32 * 1024;

fn mutate(chance: &mut Chance, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = seeds[chance.below(seeds.len())].clone();
    for _ in 0..1 + chance.below(6) {
        let at = chance.below(input.len() + 1);
        let byte = u8::try_from(chance.below(256)).expect("below 256");
        match chance.below(8) {
            0 if !input.is_empty() => {
                let at = at.min(input.len() - 1);
                input[at] ^= 1 << chance.below(8);
            }
            1 if !input.is_empty() => {
                let at = at.min(input.len() - 1);
                input[at] = byte;
            }
            2 => input.insert(at, byte),
            3 => drop(input.drain(at..(at + chance.below(16)).min(input.len()))),
            4 => drop(input.splice(at..at, WORDS[chance.below(WORDS.len())].iter().copied())),
            5 => {
                let other = &seeds[chance.below(seeds.len())];
                let from = chance.below(other.len() + 1);
                let to = (from + chance.below(64)).min(other.len());
                drop(input.splice(at..at, other[from..to].iter().copied()));
            }
            6 => {
                let copy = input[at..(at + chance.below(64)).min(input.len())].to_vec();
                drop(input.splice(at..at, copy));
            }
            _ => input.truncate(at),
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn survives(target: &Target, input: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_ok()
}

fn campaign(target: &Target, seconds: u64, seed: u64) -> ExitCode {
    let (mut seeds, mut chance, mut runs) = ((target.seeds)(), Chance(seed | 1), 0u64);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let input = mutate(&mut chance, &seeds);
        runs += 1;
        if !survives(target, &input) {
            let _ = fs::create_dir_all("artifacts");
            let path = format!("artifacts/{}-{seed}-{runs}", target.name);
            let _ = fs::write(&path, &input);
            println!("{}: FINDING after {runs} runs, seed {seed}: {path}", target.name);
            return ExitCode::FAILURE;
        }
        // A few altered inputs become seeds themselves, so that changes add up.
        if chance.below(500) == 0 && seeds.len() < 4096 {
            seeds.push(input);
        }
    }
    println!("{}: {runs} runs in {seconds} s, seed {seed}, no finding", target.name);
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let named = |name: &str| target(name).unwrap_or_else(|| panic!("no target is named {name}; see mutate list"));
    match words[..] {
        ["list"] => TARGETS.iter().for_each(|target| println!("{}", target.name)),
        ["seeds", name, folder] => {
            for (n, seed) in (named(name).seeds)().iter().enumerate() {
                fs::write(format!("{folder}/seed-{n}"), seed).expect("the folder can be written");
            }
        }
        ["replay", name, path] => (named(name).run)(&fs::read(path).expect("the file can be read")),
        [name, seconds] => return campaign(named(name), seconds.parse().expect("seconds"), 1),
        [name, seconds, seed] => return campaign(named(name), seconds.parse().expect("seconds"), seed.parse().expect("a seed")),
        _ => {
            eprintln!("mutate TARGET SECONDS [SEED] | list | seeds TARGET FOLDER | replay TARGET FILE");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
