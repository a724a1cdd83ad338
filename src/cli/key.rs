//! `rosemary key`: keys of people, made, listed and revoked by the operator at the console while the service is stopped.
//!
//! Every step passes the gate as the system principal `console`, acting for the person concerned, and leaves its audit entry.

use crate::authn::Principal;
use crate::base::id::{CredentialId, UserId};
use crate::base::limits;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{args, open, say, serve, text};
use crate::config::Config;
use crate::crypto::secret::Secret;
use crate::identity::{self, Refusal};
use crate::policy::action::{CreateKey, CreatePerson, Instance, ListKeys, Person, RevokeKey};
use crate::store::gate::Call;
use crate::store::phi::Phi;
use crate::store::vault::Vault;
use crate::store::writer::Unavailable;

/// The command.
pub fn run(command: args::Key, mut config: Config) -> Result<Exit, Failure> {
    serve::harden();
    // What is wrong with the arguments alone is said before the data file is opened.
    match &command {
        args::Key::Make { user, label } => {
            text::heard()?;
            labelled(label)?;
            user.as_deref().map(address).transpose()?;
        }
        args::Key::Revoke { id } => drop(known(id)?),
        args::Key::List => {}
    }
    let store = open::store(&mut config).map_err(|failure| match failure.exit {
        Exit::FileLocked => Failure::new(
            Exit::FileLocked,
            format_args!("{}; while the service runs, its keys are made, listed and revoked at /api/keys", failure.message),
        ),
        _ => failure,
    })?;
    let done = match command {
        args::Key::Make { user, label } => make_and_show(store.vault(), user.as_deref(), &label),
        args::Key::List => list(store.vault()),
        args::Key::Revoke { id } => revoke(store.vault(), &id),
    };
    store.stop();
    done
}

fn console(vault: &Vault, person: UserId) -> Principal {
    Principal::system(vault.tenant(), person, "console")
}

fn unavailable(why: Unavailable) -> Failure {
    Failure::new(Exit::Temporary, why)
}

/// Makes a key of `person`: the key, to be shown once, and its id.
pub fn make(vault: &Vault, person: UserId, label: &str) -> Result<(Secret<String>, CredentialId), Failure> {
    let (drawn, label) = (identity::draw_key(vault), Phi::new(label.to_owned()));
    let made = vault.write::<CreateKey, _, Refusal>(&console(vault, person), Person(person), &Call::internal(), move |access| {
        identity::create_key(access, drawn, label)
    });
    let made = made.map_err(|refused| open::refused("the key was not made", &refused))?.into_parts().0;
    Ok((made.key, made.id))
}

fn labelled(label: &str) -> Result<(), Failure> {
    match label.trim().is_empty() || label.chars().count() > limits::LABEL_CHARS_MAX || label.contains(char::is_control) {
        true => Err(Failure::new(Exit::Usage, format_args!("--label: give 1 to {} printable characters", limits::LABEL_CHARS_MAX))),
        false => Ok(()),
    }
}

fn address(email: &str) -> Result<String, Failure> {
    crate::config::parse::email_address(email.trim()).map_err(|why| Failure::new(Exit::Usage, format_args!("--user: {why}")))
}

fn missing() -> Failure {
    Failure::new(Exit::Usage, "no such key, or it is revoked already; see `rosemary key list`")
}

fn known(id: &str) -> Result<CredentialId, Failure> {
    CredentialId::parse(id).ok_or_else(missing)
}

/// The person with this e-mail address, made known to the instance if nobody has it yet.
fn person(vault: &Vault, email: &str) -> Result<UserId, Failure> {
    let email = address(email)?;
    let made = vault.write::<CreatePerson, _, Refusal>(&console(vault, vault.owner()), Instance, &Call::internal(), move |access| {
        identity::create_person(access, &Phi::new(email))
    });
    Ok(made.map_err(|refused| open::refused("the person was not made known", &refused))?.into_parts().0)
}

fn make_and_show(vault: &Vault, email: Option<&str>, label: &str) -> Result<Exit, Failure> {
    let person = match email {
        None => vault.owner(),
        Some(email) => person(vault, email)?,
    };
    let (key, id) = make(vault, person, label)?;
    say(&format!("key {id}, shown this once; keep it safe:"));
    text::show(format!("{}\n", key.expose()).as_bytes()).or_else(|failure| {
        revoke(vault, &id.to_string())?;
        Err(Failure::new(failure.exit, format_args!("{failure}: the key was not shown")))
    })
}

fn list(vault: &Vault) -> Result<Exit, Failure> {
    let mut out = format!("{:<36}  {:<16}  {:<24}  {:<24}  {:<24}  person, label\n", "id", "begins", "made", "last used", "revoked");
    for person in vault.people().map_err(unavailable)? {
        let listed =
            vault.read::<ListKeys, _, Refusal>(&console(vault, person), Person(person), &Call::internal(), identity::holder_and_keys);
        let ((user, keys), receipt) = listed.map_err(|refused| open::refused("listing keys", &refused))?.into_parts();
        for key in keys {
            let time = |at: Option<crate::base::time::Timestamp>| at.map_or("-".to_owned(), |at| at.to_string());
            let words = format!("{}, {}", user.email.expose(&receipt), key.label.expose(&receipt)).replace(char::is_control, "\u{fffd}");
            out += &format!(
                "{}  {:<16}  {:<24}  {:<24}  {:<24}  {words}\n",
                key.id,
                key.prefix.expose(&receipt),
                key.created_at.to_string(),
                time(key.last_used_at),
                time(key.revoked_at),
            );
        }
    }
    text::print(out.as_bytes())
}

fn revoke(vault: &Vault, id: &str) -> Result<Exit, Failure> {
    let id = known(id)?;
    let person = vault.holder_of(id).map_err(unavailable)?.ok_or_else(missing)?;
    match vault.write::<RevokeKey, _, Refusal>(&console(vault, person), id, &Call::internal(), identity::revoke_key) {
        Ok(_) => {
            say(&format!("key {id} is revoked; the very next request with it is refused"));
            Ok(Exit::Ok)
        }
        Err(crate::store::gate::Refused::Denied(..) | crate::store::gate::Refused::Work(Refusal::KeyNotFound, _)) => Err(missing()),
        Err(refused) => Err(open::refused("the key was not revoked", &refused)),
    }
}
