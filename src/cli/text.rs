//! Texts made from the declaration in `args`: manual page, completions, version. No settings are read.

use std::io::{self, Write};
use std::path::Path;

use clap_complete::aot;

use crate::cli::args::{self, Shell};
use crate::cli::exit::{Exit, Failure};

/// `rosemary man`.
pub fn man() -> Result<Exit, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(args::command()).render(&mut page).map_err(|error| Failure::new(Exit::Internal, error))?;
    print(&page)
}

/// `rosemary completions SHELL`.
pub fn completions(shell: Shell) -> Result<Exit, Failure> {
    let shell = match shell {
        Shell::Bash => aot::Shell::Bash,
        Shell::Elvish => aot::Shell::Elvish,
        Shell::Fish => aot::Shell::Fish,
        Shell::Powershell => aot::Shell::PowerShell,
        Shell::Zsh => aot::Shell::Zsh,
    };
    let mut script = Vec::new();
    aot::generate(shell, &mut args::command(), "rosemary", &mut script);
    print(&script)
}

/// `rosemary version`.
pub fn version() -> Result<Exit, Failure> {
    print(concat!("rosemary ", env!("CARGO_PKG_VERSION"), "\n").as_bytes())
}

/// Writes `text` to standard output. A reader that has seen enough (`| head`) is no failure.
pub fn print(text: &[u8]) -> Result<Exit, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::io(Path::new("standard output"), &error)),
        _ => Ok(Exit::Ok),
    }
}
