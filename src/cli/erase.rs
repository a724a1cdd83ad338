//! `rosemary erase`: erasure of a person or a subject by the operator at the console while the service is stopped, and its receipts.
//!
//! Invariants
//! - Nobody is erased without a yes: on the command line, or typed.
//! - A receipt that is written was checked before, by the very check that its reader makes.

use std::io::{BufRead as _, Read as _, Write as _};
use std::path::Path;

use serde_json::{Value, json};

use crate::api::ops::erasures;
use crate::audit::note::Vkey;
use crate::audit::receipt::{self, ErasureReceipt};
use crate::authn::Principal;
use crate::base::id::{format_uuid, parse_uuid};
use crate::base::limits;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::{args, keys, open, say, serve, text};
use crate::config::Config;
use crate::policy::action::{AskErasure, Instance, ReadErasures};
use crate::store::erasure::{self, Refusal, Whom};
use crate::store::gate::{Call, Refused};
use crate::store::phi::Phi;
use crate::store::vault::Vault;

/// The command.
pub fn run(command: &args::Erase, settings: impl FnOnce() -> Result<Config, Failure>) -> Result<Exit, Failure> {
    serve::harden();
    if let args::Erase::VerifyReceipt { file, key, json } = command {
        return verify(file, key, *json);
    }
    let mut config = settings()?;
    // What is wrong with the arguments alone is said before the data file is opened.
    let output = match command {
        args::Erase::User { how, .. } | args::Erase::Subject { how, .. } => Some(Output::at(&how.receipt)?),
        args::Erase::Receipt { id, file } => known(id).and_then(|_| Output::at(file)).map(Some)?,
        _ => None,
    };
    let output = || output.expect("what writes a receipt has an output");
    let store = open::store(&mut config).map_err(|failure| match failure.exit {
        Exit::FileLocked => {
            let message = format!("{}; while the service runs, erasures are asked for and read at /api/v1/erasures", failure.message);
            Failure::new(Exit::FileLocked, message)
        }
        _ => failure,
    })?;
    // A receipt names what lies in the folder of backups now.
    if let (Some(folder), false) = (&config.backup_dir, matches!(command, args::Erase::List { .. })) {
        store.vault().settle_backups(folder).map_err(|error| crate::cli::backup::failure(&error))?;
    }
    let done = match command {
        args::Erase::User { email, how } => erase(
            store.vault(),
            Whom::User(Phi::new(email.clone())),
            "this person, with their keys and every memory of theirs",
            how.yes,
            output(),
        ),
        args::Erase::Subject { name, how } => {
            erase(store.vault(), Whom::Subject(Phi::new(name.clone())), "this subject, with every memory about them", how.yes, output())
        }
        args::Erase::List { json } => list(store.vault(), *json),
        args::Erase::Receipt { id, .. } => again(store.vault(), id, output()),
        args::Erase::VerifyReceipt { .. } => unreachable!("answered above, without settings"),
    };
    store.stop();
    done
}

fn console(vault: &Vault) -> Principal {
    Principal::system(vault.tenant(), vault.owner(), "console")
}

fn erase(vault: &Vault, whom: Whom, what: &str, yes: bool, output: Output<'_>) -> Result<Exit, Failure> {
    if !yes {
        confirm(what)?;
    }
    let asked =
        vault.write::<AskErasure, _, Refusal>(&console(vault), Instance, &Call::internal(), move |access| erasure::ask(access, &whom));
    let asked = asked.map_err(|refused| failure(&refused))?.into_parts().0;
    say(&format!("erasure {} is begun; if it is interrupted: rosemary erase receipt {0}", format_uuid(&asked.id)));
    keys::finish(vault, &|| false, &mut say)?;
    write(vault, asked.id, output)
}

/// Asks on standard error, and takes nothing but a yes from standard input.
fn confirm(what: &str) -> Result<(), Failure> {
    let _ = write!(std::io::stderr().lock(), "rosemary: {what}, is erased for good; nothing brings it back. Type yes to go on: ");
    let mut line = String::new();
    let read = std::io::stdin().lock().take(16).read_line(&mut line);
    match read {
        Ok(_) if line.trim() == "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Usage, "nothing was erased; type yes, or say --yes")),
    }
}

/// A refusal under the code that fits it.
fn failure(refused: &Refused<Refusal>) -> Failure {
    match refused {
        Refused::Work(Refusal::Unknown, _) => {
            Failure::new(Exit::Usage, format_args!("{}; who is erased already: rosemary erase list", Refusal::Unknown))
        }
        Refused::Work(refusal @ (Refusal::Owner | Refusal::Ambiguous), _) => Failure::new(Exit::Usage, refusal),
        other => open::refused("the erasure", other),
    }
}

fn read(vault: &Vault, id: [u8; 16]) -> Result<Option<(ErasureReceipt, String)>, Failure> {
    let read = vault.read::<ReadErasures, _, Refusal>(&console(vault), Instance, &Call::internal(), |access| erasure::read(access, id));
    Ok(read.map_err(|refused| failure(&refused))?.into_parts().0.1)
}

fn write(vault: &Vault, id: [u8; 16], output: Output<'_>) -> Result<Exit, Failure> {
    let (receipt, note) = read(vault, id)?.ok_or_else(|| {
        Failure::new(Exit::Temporary, "the erasure has not come to its end; the next start of the service goes on with it")
    })?;
    let key = vault.log_key();
    let checked =
        receipt::open(&note, &key).map_err(|error| Failure::new(Exit::Internal, format_args!("the receipt does not verify: {error}")))?;
    debug_assert_eq!(checked, receipt);
    output.write(|sink| sink.line(note.trim_end_matches('\n').as_bytes()))?;
    say(&format!("erased: {} memories, and every key that opened them; erasure {}", receipt.memories, format_uuid(&receipt.holder)));
    told(&receipt).iter().for_each(|line| say(line));
    say(&format!("check the receipt anywhere: rosemary erase verify-receipt FILE --key '{key}'"));
    Ok(Exit::Ok)
}

/// What of before is not erased yet.
fn told(receipt: &ErasureReceipt) -> Vec<String> {
    let kept = receipt.backups.iter().map(|backup| match backup.expires_at {
        Some(at) => format!("backup {} of {} still holds it, until {at}", backup.id, backup.begun_at),
        None => format!("backup {} of {} still holds it, until whoever keeps it removes it", backup.id, backup.begun_at),
    });
    let mut lines: Vec<String> = kept.collect();
    if lines.is_empty() {
        lines.push("no backup that is known here holds it any more".to_owned());
    }
    lines
}

fn list(vault: &Vault, as_json: bool) -> Result<Exit, Failure> {
    let listed = vault.read::<ReadErasures, _, Refusal>(&console(vault), Instance, &Call::internal(), erasure::list);
    let found = listed.map_err(|refused| failure(&refused))?.into_parts().0;
    if as_json {
        return text::print(format!("{}\n", erasures::list_document(&found)).as_bytes());
    }
    let mut out = format!("{:<36}  {:<7}  {:<9}  {:<24}  {:<24}  {:>8}\n", "id", "whom", "stage", "asked", "done", "memories");
    for erasure in &found {
        let done = erasure.shredded_at.map_or("-".to_owned(), |at| at.to_string());
        let (id, whom) = (format_uuid(&erasure.id), erasures::holder_word(erasure));
        out +=
            &format!("{id}  {whom:<7}  {:<9}  {}  {done:<24}  {:>8}\n", erasures::stage_word(erasure), erasure.asked_at, erasure.memories);
    }
    text::print(out.as_bytes())
}

fn known(id: &str) -> Result<[u8; 16], Failure> {
    parse_uuid(id).ok_or_else(|| Failure::new(Exit::Usage, "no such erasure; see `rosemary erase list`"))
}

fn again(vault: &Vault, id: &str, output: Output<'_>) -> Result<Exit, Failure> {
    let id = known(id)?;
    keys::finish(vault, &|| false, &mut say)?;
    write(vault, id, output)
}

/// `erase verify-receipt`: exit code 1 if it is not what it says.
fn verify(file: &Path, key: &str, as_json: bool) -> Result<Exit, Failure> {
    let key = Vkey::parse(key.trim()).map_err(|_| Failure::new(Exit::Usage, "--key: not a log's public key (rosemary/…+…+…)"))?;
    let most = u64::try_from(limits::RECEIPT_BYTES_MAX).unwrap_or(u64::MAX) + 1;
    let mut note = String::new();
    let io = |error: std::io::Error| Failure::io(file, &error);
    match file == Path::new("-") {
        true => std::io::stdin().lock().take(most).read_to_string(&mut note).map_err(io)?,
        false => std::fs::File::open(file).map_err(io)?.take(most).read_to_string(&mut note).map_err(io)?,
    };
    match receipt::open(&note, &key) {
        Ok(receipt) if as_json => text::print(format!("{}\n", document(&receipt)).as_bytes()),
        Ok(receipt) => {
            let whom = if receipt.user { "user" } else { "subject" };
            let mut out = format!(
                "sound: {whom} {} of workspace {} (instance {})\n\
                 asked for {}, rows and key destroyed {}, last key of old pages gone {}\n\
                 {} memories, epoch {}, tombstone {}; as of {}:\n",
                format_uuid(&receipt.holder),
                receipt.tenant,
                receipt.instance,
                receipt.asked_at,
                receipt.destroyed_at,
                receipt.shredded_at,
                receipt.memories,
                receipt.epoch,
                receipt.tombstone,
                receipt.issued_at,
            );
            told(&receipt).iter().for_each(|line| out += &format!("{line}\n"));
            text::print(out.as_bytes())
        }
        Err(error) => {
            match as_json {
                true => text::print(format!("{}\n", json!({ "sound": false, "wrong": error.to_string() })).as_bytes())?,
                false => text::print(format!("NOT SOUND: {error}\n").as_bytes())?,
            };
            Ok(Exit::Found)
        }
    }
}

fn document(receipt: &ErasureReceipt) -> Value {
    json!({
        "sound": true,
        "id": format_uuid(&receipt.holder),
        "holder": if receipt.user { "user" } else { "subject" },
        "instance": receipt.instance.to_string(),
        "tenant": receipt.tenant.to_string(),
        "issued_at": receipt.issued_at.to_string(),
        "asked_at": receipt.asked_at.to_string(),
        "destroyed_at": receipt.destroyed_at.to_string(),
        "done_at": receipt.shredded_at.to_string(),
        "memories": receipt.memories,
        "epoch": receipt.epoch,
        "tombstone": receipt.tombstone,
        "backups": erasures::held_document(&receipt.backups),
    })
}
