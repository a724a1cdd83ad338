//! `rosemary keys`: what unlocks the data file, and rotation of the keys inside it, by the operator at the console: while the service is
//! stopped, and what needs no closed file also while it serves.
//!
//! Every change is in the audit log before its success is told.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::authn::Principal;
use crate::base::id::InstanceId;
use crate::cli::console::Line;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{anew, args, certificate, open, output, say, serve, terminal, text};
use crate::config::Config;
use crate::crypto::secret::Secret;
use crate::crypto::shamir;
use crate::crypto::unlock::{KdfCost, Kek, KekSource, SlotKind};
use crate::engine::{Change, Engine, EngineError};
use crate::store::kept;
use crate::store::rotator::Stopped;
use crate::store::vault::Vault;
use crate::store::writer::Unavailable;

/// How long a command waits for the rotator; after that the next start of the service goes on.
const ROTATION_TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// What a key that has no slot any more can still do: the master key that it opened is that of the file, until it is changed.
const FORMER: &str = "Whoever has the former key and any copy or backup of before opens this file too, as it will be: \
                      if that may be, run `rosemary keys rotate master`";

/// The command.
pub fn run(command: args::Keys, mut config: Config) -> Result<Exit, Failure> {
    serve::harden();
    if let args::Keys::Rotate(args::Rotate::Tls { cert, key }) = &command {
        return certificate::rotate(cert.as_deref().zip(key.as_deref()), config);
    }
    if let args::Keys::Rotate(args::Rotate::All(how)) = &command {
        return anew::run(how, config);
    }
    if let Some(done) = online(&command, &config)? {
        return Ok(done);
    }
    let present = match command {
        args::Keys::Recover(_) => terminal::shares(None)?,
        _ => open::kek(&config)?,
    };
    check(&command, &config, &present)?;
    let mut settings = Some(open::store_settings(&mut config));
    let store = open::store_with(&config, &mut settings, &present)?;
    let done = match command {
        args::Keys::List => list(store.vault(), &present),
        args::Keys::Shares { need, of } => shares(store.vault(), need, of, &config),
        args::Keys::Add(new) | args::Keys::Recover(new) => change(store.vault(), &new, None, &config),
        args::Keys::Remove { slot } => remove(store.vault(), slot, &config),
        args::Keys::Rotate(args::Rotate::Kek(new)) => change(store.vault(), &new, Some(present), &config),
        args::Keys::Rotate(args::Rotate::Master) => master(store.vault(), present, &config),
        args::Keys::Rotate(args::Rotate::Tls { .. } | args::Rotate::All(_)) => unreachable!("done before the data file is opened"),
        args::Keys::Rotate(args::Rotate::Audit) => {
            rotate_audit(store.vault(), &config.db_path, &|| false, &mut say).map(|done| told_audit(&done))
        }
        args::Keys::Rotate(args::Rotate::Epoch) => epoch(store.vault(), &config),
        args::Keys::Rotate(args::Rotate::Deks) => {
            rotate_deks(store.vault(), &config.db_path, &|| false, &mut say).map(|epoch| told_deks(epoch.into()))
        }
    };
    store.stop();
    done
}

/// Says what is wrong with the command before the data file is opened for writing.
fn check(command: &args::Keys, config: &Config, present: &Kek) -> Result<(), Failure> {
    let path = &config.db_path;
    match command {
        args::Keys::Shares { need, of } => {
            text::heard()?;
            shamir::check(*need, *of).map_err(|error| Failure::new(Exit::Usage, error))
        }
        args::Keys::Add(new) | args::Keys::Recover(new) | args::Keys::Rotate(args::Rotate::Kek(new)) => {
            match (&new.key_file, kept::in_clear(path)) {
                (Some(path), _) if new.make => output::vacant(path),
                (_, Some((_, instance))) => new_kek(instance, new).map(drop),
                _ => Ok(()),
            }
        }
        args::Keys::Remove { slot: number } => {
            let engine = Engine::inspect(path, &open::options(config), present).map_err(|error| open::engine_failure(path, error))?;
            match engine.slots(present).iter().find(|slot| slot.number == *number) {
                Some(slot) if slot.opened => Err(Failure::new(
                    Exit::Usage,
                    format_args!(
                        "slot {number} is that of the key presented now; present another key ({}), then remove this one",
                        config.kek.source()
                    ),
                )),
                Some(_) => Ok(()),
                None => Err(Failure::new(Exit::Usage, format_args!("slot {number} holds no key; see `rosemary keys list`"))),
            }
        }
        _ => Ok(()),
    }
}

pub fn console(vault: &Vault) -> Principal {
    Principal::system(vault.tenant(), vault.owner(), "console")
}

/// Has the running service do what it can do while it serves; `None`: no service runs, or the file must be closed for it.
fn online(command: &args::Keys, config: &Config) -> Result<Option<Exit>, Failure> {
    let args::Keys::Rotate(rotate) = command else { return Ok(None) };
    let (ask, told): (_, fn(&Value) -> Exit) = match rotate {
        args::Rotate::Epoch => ("keys.rotate_epoch", |done| told_epoch(done["epoch"].as_u64().unwrap_or(0))),
        args::Rotate::Deks => ("keys.rotate_deks", |done| told_deks(done["epoch"].as_u64().unwrap_or(0))),
        args::Rotate::Audit => ("keys.rotate_audit", told_audit),
        args::Rotate::Kek(_) | args::Rotate::Master | args::Rotate::Tls { .. } | args::Rotate::All(_) => return Ok(None),
    };
    let Some(line) = Line::dial(config)? else { return Ok(None) };
    let done = line.ask(ask, Value::Null, &mut say)?;
    Ok(Some(told(&done)))
}

/// Why a change of keys was not made, under the code that fits it.
pub fn stopped(path: &Path, doing: &str, why: Stopped) -> Failure {
    match why {
        Stopped::Engine(error @ EngineError::Keys(_)) => Failure::new(Exit::Config, format_args!("{doing}: {error}")),
        Stopped::Engine(error) => open::engine_failure(path, error),
        Stopped::Unavailable(Unavailable::NoSpace) => Failure::new(Exit::DiskFull, format_args!("{doing}: {why}")),
        Stopped::Unavailable(Unavailable::Unknown(_)) => Failure::new(Exit::OutcomeUnknown, format_args!("{doing}: {why}")),
        Stopped::Unavailable(_) | Stopped::Stopping => Failure::new(Exit::Temporary, format_args!("{doing}: {why}")),
        Stopped::Ledger(_) => Failure::new(Exit::FolderUnwritable, format_args!("{doing}: {why}")),
        Stopped::Store(_) | Stopped::Refused(_) => Failure::new(Exit::DataDamaged, format_args!("{doing}: {why}; run verify")),
        Stopped::Fault => Failure::new(Exit::Internal, format_args!("{doing}: {why}")),
    }
}

fn list(vault: &Vault, present: &Kek) -> Result<Exit, Failure> {
    let mut out = String::from("slot  opened by           present key\n");
    for slot in vault.slots(present) {
        out += &format!("{:>4}  {:<18}  {}\n", slot.number, slot.kind.name(), if slot.opened { "opens it" } else { "-" });
    }
    text::print(out.as_bytes())
}

/// Reads the new key, made first if asked for.
pub fn new_kek(instance: InstanceId, new: &args::NewKek) -> Result<Kek, Failure> {
    let source = match (&new.key_file, &new.passphrase_file, &new.credential_file) {
        (Some(path), _, _) if new.make => {
            return Kek::write_key_file(path, instance).map_err(|error| Failure::io(path, &error));
        }
        (Some(path), _, _) => KekSource::KeyFile(path.clone()),
        (_, Some(path), _) => KekSource::PassphraseFile(path.clone()),
        (_, _, Some(path)) => KekSource::Credential(path.clone()),
        _ => return Err(Failure::new(Exit::Usage, "name the new key with --key-file, --passphrase-file or --credential-file")),
    };
    let kek = Kek::read(&source).map_err(|error| Failure::new(Exit::KekMissing, error))?;
    match kek.instance() {
        Some(named) if named != instance => {
            Err(Failure::new(Exit::KekWrong, format_args!("the new key was made for instance {named}; make one for this one with --make")))
        }
        _ => Ok(kek),
    }
}

/// Adds a slot for the new key, or puts it in the place of `old`.
fn change(vault: &Vault, new: &args::NewKek, old: Option<Kek>, config: &Config) -> Result<Exit, Failure> {
    let kek = new_kek(vault.instance(), new)?;
    if vault.slots(&kek).iter().any(|slot| slot.opened) {
        return Err(Failure::new(Exit::Usage, "this key unlocks the data file already; see `rosemary keys list`"));
    }
    let rotates = old.is_some();
    let (change, word) = match old {
        Some(old) => (Change::ReplaceSlot(kek, KdfCost::DEFAULT, old), "rotate"),
        None => (Change::AddSlot(kek, KdfCost::DEFAULT), "add"),
    };
    let receipt = vault
        .change_slots(&console(vault), &change, word)
        .map_err(|why| stopped(&config.db_path, "the key slots were not changed", why))?;
    match rotates {
        true => say(&format!(
            "the new key unlocks the data file, and the old one does not; entry {} of the audit log says so. Point {} to the new key before \
             the next start, keep a copy of it away from the data, and keep the old key as long as backups that need it. {FORMER}",
            receipt.index(),
            config.kek.source(),
        )),
        false => say(&format!("the key unlocks the data file from now on; entry {} of the audit log says so", receipt.index())),
    }
    Ok(Exit::Ok)
}

fn shares(vault: &Vault, need: u8, of: u8, config: &Config) -> Result<Exit, Failure> {
    let (secret, shares) = shamir::draw(vault.instance(), need, of).map_err(|error| Failure::new(Exit::Usage, error))?;
    let kek = Kek::presented(SlotKind::Shares, Secret::new(secret.expose().to_vec()), None);
    let change = Change::AddSlot(kek, KdfCost::NONE);
    let receipt =
        vault.change_slots(&console(vault), &change, "shares").map_err(|why| stopped(&config.db_path, "no shares were made", why))?;
    let short = &vault.instance().to_string()[..8];
    let mut out = Zeroizing::new(String::new());
    for share in &shares {
        let (number, need, of) = share.place();
        *out += &format!("rosemary {short} share {number} of {of}, {need} are needed: ");
        *out += &share.text();
        *out += "\n";
    }
    text::show(out.as_bytes()).inspect_err(|_| say("the shares were not shown; take their slot away: rosemary keys list, keys remove"))?;
    say(&format!(
        "shown this once: print each on a paper of its own, for as many people; entry {} of the audit log says so",
        receipt.index()
    ));
    Ok(Exit::Ok)
}

fn master(vault: &Vault, present: Kek, config: &Config) -> Result<Exit, Failure> {
    let gone: Vec<_> = vault.slots(&present).into_iter().filter(|slot| !slot.opened).collect();
    let change = Change::NewMaster(present, KdfCost::DEFAULT);
    let failed = |why| stopped(&config.db_path, "the master key was not changed", why);
    let receipt = vault.change_slots(&console(vault), &change, "master").map_err(failed)?;
    say(&format!("a new master key, for the present key alone; entry {} of the audit log says so", receipt.index()));
    for slot in gone {
        say(&format!("slot {} ({}) is gone: enrol its key again (keys add, keys shares)", slot.number, slot.kind.name()));
    }
    rotate_deks(vault, &config.db_path, &|| false, &mut say).map(|epoch| told_deks(epoch.into()))
}

fn remove(vault: &Vault, number: usize, config: &Config) -> Result<Exit, Failure> {
    let receipt = vault
        .change_slots(&console(vault), &Change::RemoveSlot(number), "remove")
        .map_err(|why| stopped(&config.db_path, "the slot was not removed", why))?;
    say(&format!("slot {number} is empty; entry {} of the audit log says so. {FORMER}", receipt.index()));
    Ok(Exit::Ok)
}

fn epoch(vault: &Vault, config: &Config) -> Result<Exit, Failure> {
    Ok(told_epoch(rotate_epoch(vault, &config.db_path, &|| false, &mut say)?.into()))
}

fn told_epoch(epoch: u64) -> Exit {
    say(&format!("every holder's key is wrapped under epoch {epoch}; the key of the epoch before is destroyed"));
    Exit::Ok
}

fn told_deks(epoch: u64) -> Exit {
    say(&format!("every holder has a new key, all text is sealed under it, and the old keys died with the epoch before {epoch}"));
    Exit::Ok
}

fn told_audit(done: &Value) -> Exit {
    let key = |name: &str| done[name].as_str().unwrap_or_default().to_owned();
    say(&format!(
        "the audit log is signed by a new key; the entry and the checkpoint of {} entries that introduce it are signed by both",
        done["size"]
    ));
    say(&format!("the key before: {}", key("old")));
    say(&format!("the key now:    {}", key("new")));
    say(
        "give it to whoever checks the log; bundles exported from now on lead from either key to it, receipts need the one they were made under",
    );
    Exit::Ok
}

/// Hands the log over to a new signing key. Gives both keys and the size at which that was.
pub fn rotate_audit(vault: &Vault, path: &Path, stop: &dyn Fn() -> bool, say: &mut dyn FnMut(&str)) -> Result<Value, Failure> {
    let old = vault.log_key();
    vault.rotate_audit_key(&console(vault)).map_err(|why| stopped(path, "the log's key was not changed", why))?;
    finish(vault, stop, say)?;
    let size = vault.handed_over_at().map_err(|why| stopped(path, "the log's key", why))?;
    Ok(json!({ "old": old.to_string(), "new": vault.log_key().to_string(), "size": size }))
}

/// Renews every holder's DEK, and waits until the old ones are destroyed. Gives the epoch after it.
pub fn rotate_deks(vault: &Vault, path: &Path, stop: &dyn Fn() -> bool, say: &mut dyn FnMut(&str)) -> Result<u32, Failure> {
    let ask = || vault.rotate_deks(&console(vault)).map_err(|why| stopped(path, "holders' keys were not renewed", why));
    // One that was under way drew its keys before this was asked for: it is ended first.
    while !ask()? {
        finish(vault, stop, say)?;
    }
    finish(vault, stop, say)?;
    Ok(vault.epoch())
}

/// Leaves the epoch, and waits until it is left. Gives the new one.
pub fn rotate_epoch(vault: &Vault, path: &Path, stop: &dyn Fn() -> bool, say: &mut dyn FnMut(&str)) -> Result<u32, Failure> {
    let epoch = vault.rotate_epoch(&console(vault)).map_err(|why| stopped(path, "the epoch was not left", why))?;
    finish(vault, stop, say)?;
    Ok(epoch)
}

/// Waits for the rotator, telling now and then how far it is.
pub fn finish(vault: &Vault, stop: &dyn Fn() -> bool, say: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    let mut told = 0;
    let done = vault.rotation_done(ROTATION_TIME_MAX, |progress| {
        if progress.done >= told + 20_000 {
            told = progress.done;
            say(&format!("{}: {told} so far", progress.doing.text()));
        }
        !stop()
    });
    if done { Ok(()) } else { Err(Failure::new(Exit::Temporary, "not done yet; the service goes on with it, and so does its next start")) }
}
