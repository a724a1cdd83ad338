//! `rosemary unlock`: takes a key, or a passphrase that is typed, to a service that started locked.

use crate::cli::console::Line;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{args, say, serve, terminal};
use crate::config::{Config, settings};
use crate::crypto::unlock::{Kek, KekSource};

/// The command.
pub fn run(unlock: &args::Unlock, config: &Config) -> Result<Exit, Failure> {
    serve::harden();
    let none = || {
        let name = settings::CONSOLE_SOCKET.row.name;
        Failure::new(
            Exit::Temporary,
            format_args!("{name}: {}: no service is running there; start it first", config.console_socket.display()),
        )
    };
    let state = Line::dial(config)?.ok_or_else(none)?.ask("state", serde_json::Value::Null, &mut |_| {})?;
    if state["state"] == "open" {
        return Err(Failure::new(Exit::Usage, "the service is unlocked already"));
    }
    let kek = match &unlock.key_file {
        Some(path) => Kek::read(&KekSource::KeyFile(path.clone())).map_err(|error| Failure::new(Exit::KekMissing, error))?,
        None if unlock.shares => terminal::shares(None)?,
        None => Kek::passphrase(terminal::passphrase("passphrase of the data file: ")?),
    };
    Line::dial(config)?.ok_or_else(none)?.unlock(&kek)?;
    say("the service is unlocked and answers");
    Ok(Exit::Ok)
}
