//! Texts made from the declaration in `args`: manual page, completions, version. No settings are read.

use std::io::{self, Write};
use std::path::Path;

use clap_complete::aot;
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, makedev};

use crate::cli::args::{self, Shell};
use crate::cli::exit::{Exit, Failure};

/// `rosemary man`: the whole manual as one page; commands, settings and exit codes as help prints them.
pub fn man() -> Result<Exit, Failure> {
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(args::command());
    (man.render_title(&mut page))
        .and_then(|()| man.render_name_section(&mut page))
        .and_then(|()| man.render_synopsis_section(&mut page))
        .and_then(|()| man.render_description_section(&mut page))
        .and_then(|()| man.render_options_section(&mut page))
        .map_err(|error| Failure::new(Exit::Internal, error))?;
    for (name, text) in chapters() {
        page.extend(format!(".SH {}\n.nf\n", name.to_uppercase()).bytes());
        for line in text.lines() {
            // a line that begins with a control character of roff would vanish; a bare hyphen would be typeset
            let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
            page.extend(format!("{guard}{}\n", line.replace('\\', "\\e").replace('-', "\\-")).bytes());
        }
        page.extend(b".fi\n");
    }
    print(&page)
}

/// Heading and text of each command, then examples and exit codes. `serve` brings the settings.
fn chapters() -> Vec<(String, String)> {
    let mut root = args::command();
    root.build();
    let after = root.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let mut chapters = Vec::new();
    for command in root.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        let nested: Vec<(String, String)> =
            (command.get_subcommands_mut().filter(|nested| nested.get_name() != "help")).map(chapter).collect();
        chapters.push(chapter(command));
        chapters.extend(nested);
    }
    chapters.push(("examples and exit codes".into(), after));
    chapters
}

/// `rosemary <command>` and its long help.
fn chapter(command: &mut clap::Command) -> (String, String) {
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    (name, command.render_long_help().to_string())
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
    match write(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::io(Path::new("standard output"), &error)),
        _ => Ok(Exit::Ok),
    }
}

/// Writes what is shown once to standard output.
///
/// Errors: `Io`, whoever may have stopped reading.
pub fn show(text: &[u8]) -> Result<Exit, Failure> {
    write(text).map(|()| Exit::Ok).map_err(|error| Failure::new(Exit::Io, format_args!("standard output: {error}")))
}

fn write(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text).and_then(|()| out.flush())
}

/// Whether somebody may read standard output: asked before a secret is made or an export written.
///
/// A closed one (`>&-`) is /dev/null, open for reading and writing, before the program's first line runs. That is told from `>/dev/null`, which
/// is open for writing alone, but not from a parent that opened it so: either way nobody would see what is written.
///
/// Errors: `Io`.
pub fn heard() -> Result<(), Failure> {
    let out = io::stdout();
    let null = fstat(&out)
        .is_ok_and(|about| FileType::from_raw_mode(about.st_mode) == FileType::CharacterDevice && about.st_rdev == makedev(1, 3));
    match null && fcntl_getfl(&out).is_ok_and(|flags| flags.contains(OFlags::RDWR)) {
        true => Err(Failure::new(
            Exit::Io,
            "standard output is closed or /dev/null, and nobody would see what is written; nothing was done. Open it, or name a file",
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_of_commands_is_current() {
        let mut text = String::from("# Commands\n<!-- Written from src/cli/args.rs; a test keeps it current. -->\n");
        for (name, help) in chapters() {
            let help: Vec<&str> = help.lines().map(str::trim_end).collect();
            text.push_str(&format!("\n## {name}\n```\n{}\n```\n", help.join("\n").trim_end()));
        }
        crate::config::document::assert_current("docs/commands.md", &text);
    }

    #[test]
    fn every_command_has_a_chapter_and_help_of_its_own() {
        let chapters = chapters();
        for command in args::command().get_subcommands() {
            assert!(chapters.iter().any(|(name, _)| name.ends_with(command.get_name())), "{}", command.get_name());
            assert!(command.get_about().is_some());
        }
    }
}
