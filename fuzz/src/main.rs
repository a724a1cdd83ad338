//! The seeded mutator: `rosemary-fuzz <target> <seconds> [seed]`, or `rosemary-fuzz <target> <file>...` to run single inputs again.
//!
//! Exits 1 at the first finding, whose input is written to `artifacts/<target>/mutator-<seed>-<round>`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rosemary_fuzz::mutate::{Dice, mutated};
use rosemary_fuzz::{Target, files, target};

fn holds(target: &Target, bytes: &[u8]) -> bool {
    std::panic::catch_unwind(|| (target.run)(bytes)).is_ok()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(target) = arguments.first().and_then(|name| target(name)) else {
        let names: Vec<&str> = rosemary_fuzz::TARGETS.iter().map(|target| target.name).collect();
        println!("{}", names.join("\n"));
        return ExitCode::from(2);
    };
    let number = |at: usize| arguments.get(at).map(|text| text.parse::<u64>());
    let Some(Ok(seconds)) = number(1) else {
        let found = arguments[1..].iter().filter(|path| !std::fs::read(path).is_ok_and(|bytes| holds(target, &bytes))).count();
        println!("{}: {} inputs, {found} findings", target.name, arguments.len() - 1);
        return ExitCode::from(u8::from(found > 0));
    };
    let seed = number(2).and_then(Result::ok).unwrap_or(1);
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let seeds = files(&home.join("seeds").join(target.name));
    let (mut dice, start, mut rounds) = (Dice::new(seed), Instant::now(), 0u64);
    let mut finding = seeds.iter().find(|seed| !holds(target, seed)).cloned();
    while finding.is_none() && start.elapsed() < Duration::from_secs(seconds) {
        rounds += 1;
        let bytes = mutated(&mut dice, &seeds, target.words, target.bytes_max);
        finding = (!holds(target, &bytes)).then_some(bytes);
    }
    println!(
        "{}: {rounds} inputs from seed {seed} in {} s, {}",
        target.name,
        start.elapsed().as_secs(),
        if finding.is_some() { "a finding" } else { "no finding" }
    );
    let Some(bytes) = finding else { return ExitCode::SUCCESS };
    let path: PathBuf = home.join("artifacts").join(target.name).join(format!("mutator-{seed}-{rounds}"));
    let written = std::fs::create_dir_all(path.parent().expect("a folder")).and_then(|()| std::fs::write(&path, &bytes));
    eprintln!("{}: {written:?}\n{:?}", path.display(), String::from_utf8_lossy(&bytes));
    ExitCode::FAILURE
}
