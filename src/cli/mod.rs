//! The command line: arguments in, exit code out.
//!
//! - A failure is one line on standard error that names the thing and the remedy, and a code of `exit`'s table.
//! - Results go to standard output, everything else to standard error.

mod anchor;
mod anew;
mod args;
mod audit;
mod backup;
mod bench;
mod certificate;
mod console;
mod demo;
mod desk;
mod doctor;
mod egress;
mod erase;
pub mod exit;
mod incident;
mod init;
mod key;
mod keys;
mod open;
mod output;
mod progress;
mod recall;
mod restore;
mod serve;
mod status;
mod terminal;
mod text;
mod transfer;
mod unlock;
mod verify;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};
use exit::{Exit, Failure};

use crate::base::fault;
use crate::config::Config;

/// Runs the program with its arguments (the first is its name).
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    fault::install(|| exit::now(Exit::OutcomeUnknown));
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let shown = error.print();
            return match shown {
                _ if error.use_stderr() => Exit::Usage,
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Exit::Io,
                _ => Exit::Ok,
            }
            .into();
        }
    };
    match dispatch(cli.command) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            complain(&failure);
            failure.exit.into()
        }
    }
}

/// One arm a command; each is a function in the file of its name.
fn dispatch(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Demo(demo) => demo::run(&demo),
        Command::Incident(incident) => incident::run(&incident, settings()?),
        Command::Init(init) => init::run(&init, settings()?),
        Command::Serve => serve::run(settings()?),
        Command::Unlock(unlock) => unlock::run(&unlock, &settings()?),
        Command::Verify(verify) => verify::run(&verify, settings),
        Command::Status(status) => status::run(&status, &settings()?),
        Command::Doctor(doctor) => doctor::run(&doctor),
        Command::Backup(backup) => backup::run(&backup, settings()?),
        Command::Restore(restore) => restore::run(&restore, settings()?),
        Command::Key(key) => key::run(key, settings()?),
        Command::Keys(keys) => keys::run(keys, settings()?),
        Command::Relay => egress::relay(),
        Command::Egress(command) => egress::run(&command),
        Command::Erase(erase) => erase::run(&erase, settings),
        Command::Import(import) => transfer::import(&import, settings()?),
        Command::Export(export) => transfer::export(&export, settings()?),
        Command::Audit(audit) => audit::run(&audit, settings()?),
        Command::Anchor(anchor) => anchor::run(&anchor, settings()?),
        Command::Bench(bench) => bench::run(&bench),
        Command::Completions { shell } => text::completions(shell),
        Command::Man => text::man(),
        Command::Version => text::version(),
    }
}

/// The settings from the environment; warnings are printed. Sets the level of the log.
fn settings() -> Result<Config, Failure> {
    let (config, warnings) = Config::from_env(std::env::vars_os())?;
    for warning in &warnings {
        say(&format!("warning: {warning}"));
    }
    crate::base::log::set_level(config.log);
    Ok(config)
}

/// Prints a failure, a line each for several.
fn complain(failure: &Failure) {
    failure.message.lines().for_each(say);
}

/// One line on standard error. A closed one is not a reason to stop.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "rosemary: {}", line.replace(char::is_control, "\u{fffd}"));
}
