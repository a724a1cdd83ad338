//! `rosemary anchor accept`: after the anchor forbade to open the data file, and somebody found out why, takes the file as it is.
//!
//! The override is an entry of the log, durable before the new anchor is written.

use crate::authn::Principal;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{args, open, say, serve};
use crate::config::{Config, settings};
use crate::identity::Refusal;
use crate::policy::action::{AcceptAnchor, Instance};
use crate::store::gate::Call;

/// The command.
pub fn run(args::Anchor::Accept: &args::Anchor, mut config: Config) -> Result<Exit, Failure> {
    serve::harden();
    let name = settings::ANCHOR_FILE.row.name;
    let Some(path) = config.anchor_file.take() else {
        return Err(Failure::new(Exit::Config, format_args!("{name}: not set, so there is no anchor to accept the data file against")));
    };
    let store = open::store(&mut config)?;
    let vault = store.vault().clone();
    let console = Principal::system(vault.tenant(), vault.owner(), "console");
    let accepted = vault.write::<AcceptAnchor, _, Refusal>(&console, Instance, &Call::internal(), |access| {
        access.overrides("anchor");
        Ok(())
    });
    let done = match accepted {
        Ok(recorded) => {
            let index = recorded.into_parts().1.index();
            vault.anchor_at(&path).map(|()| index).map_err(|error| Failure::io(&path, &error))
        }
        Err(refused) => Err(open::refused("the anchor was not accepted", &refused)),
    };
    drop(vault);
    store.stop();
    say(&format!("{}: written anew for the data file as it is; entry {} of the audit log says so", path.display(), done?));
    Ok(Exit::Ok)
}
