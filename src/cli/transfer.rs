//! `rosemary import` and `rosemary export`: memories as NDJSON, one record of the contract's shape a line.
//!
//! Invariants
//! - An export that is imported gives equal records, replies and trash included; ids are drawn anew, and nothing is united with what is there.
//! - Lines are stored in chunks of bounded size, each one commit with one audit entry. The first faulty line stops the import: everything
//!   before it is stored, nothing of it or after it, and the failure names it without repeating it.
//! - A line is written after the audit entry of its chunk is durable.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use serde_json::Value;
use zeroize::Zeroizing;

use crate::api::schema::Part;
use crate::api::{body, inputs, reply};
use crate::authn::Principal;
use crate::base::id::MemoryId;
use crate::base::limits;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{Output, Sink};
use crate::cli::progress::Progress;
use crate::cli::{args, open, say, serve};
use crate::config::Config;
use crate::memories::{self, Refusal};
use crate::policy::action::{ExportMemories, ImportMemories, Scope};
use crate::store::gate::Call;
use crate::store::memories::{ExportPlace, Imported, MemoryType, NewMemory, Text};
use crate::store::phi::Phi;
use crate::store::vault::Vault;

/// How gzip's files begin (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// UTF-8's, which some programs write at the very beginning of a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// `rosemary import`.
pub fn import(command: &args::Import, mut config: Config) -> Result<Exit, Failure> {
    serve::harden();
    let (name, mut source, bytes): (_, Box<dyn BufRead>, _) = if command.file == Path::new("-") {
        ("standard input".to_owned(), Box::new(io::stdin().lock()), 0)
    } else {
        let failure = |error| Failure::io(&command.file, &error);
        let file = File::open(&command.file).map_err(failure)?;
        let about = file.metadata().map_err(failure)?;
        if about.is_dir() {
            return Err(failure(io::ErrorKind::IsADirectory.into()));
        }
        let bytes = about.len();
        (command.file.display().to_string(), Box::new(BufReader::new(file)), bytes)
    };
    if source.fill_buf().map_err(|error| Failure::io(&command.file, &error))?.starts_with(&GZIP) {
        return Err(Failure::new(
            Exit::BadInput,
            format_args!("{name}: is compressed (gzip); unpack it: gzip -dc FILE | rosemary import -"),
        ));
    }
    let store = open::store(&mut config)?;
    let stored = load(store.vault(), &mut source, &name, &mut Progress::new("importing", bytes));
    store.stop();
    say(&format!("{} memories stored", stored?));
    Ok(Exit::Ok)
}

/// `rosemary export`.
pub fn export(command: &args::Export, mut config: Config) -> Result<Exit, Failure> {
    serve::harden();
    let output = Output::seen_at(&command.file)?;
    let store = open::store(&mut config)?;
    let written = output.write(|sink| dump(store.vault(), sink));
    store.stop();
    say(&format!("{} memories written, in clear: guard the copy", written?));
    Ok(Exit::Ok)
}

/// The operator at the console, acting for the owner, and the owner's memories.
fn console(vault: &Vault) -> (Principal, Scope) {
    (Principal::system(vault.tenant(), vault.owner(), "console"), Scope { tenant: vault.tenant(), owner: vault.owner() })
}

/// Writes every memory of the owner as a line.
fn dump(vault: &Vault, sink: &mut Sink<'_>) -> Result<u64, Failure> {
    let (who, scope) = console(vault);
    let mut progress = None;
    let (mut written, mut at) = (0, Some(ExportPlace::START));
    while let Some(place) = at {
        let chunk = vault.read::<ExportMemories, _, Refusal>(&who, scope, &Call::internal(), |access| {
            Ok((memories::count(access)?, memories::export(access, place)?))
        });
        let ((total, (memories, next)), receipt) = chunk.map_err(|refused| open::refused("exporting", &refused))?.into_parts();
        for memory in &memories {
            sink.line(&Zeroizing::new(reply::json(&reply::record(memory, &receipt))))?;
            written += 1;
        }
        progress.get_or_insert_with(|| Progress::new("exporting", total)).at(written);
        at = next;
    }
    Ok(written)
}

/// Stores every line of `source` as a memory of the owner. `name` is the source's in messages.
pub fn load(vault: &Vault, source: &mut impl BufRead, name: &str, progress: &mut Progress) -> Result<u64, Failure> {
    let mut importer = Importer { vault, known: HashMap::new(), chunk: Vec::new(), chunk_bytes: 0, stored: 0 };
    let (mut number, mut bytes) = (0_u64, 0);
    let mut line = Zeroizing::new(Vec::new());
    loop {
        line.clear();
        number += 1;
        let most = u64::try_from(limits::IMPORT_LINE_BYTES_MAX).expect("a small constant") + 1;
        let read = source.by_ref().take(most).read_until(b'\n', &mut line);
        let text = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| number == 1).unwrap_or(&line);
        let taken = match read {
            Err(error) => Err((Exit::Io, format!("cannot be read ({error})"))),
            Ok(0) => break,
            Ok(_) if line.len() > limits::IMPORT_LINE_BYTES_MAX => {
                Err((Exit::BadInput, format!("longer than {} bytes", limits::IMPORT_LINE_BYTES_MAX)))
            }
            Ok(_) if text.iter().all(u8::is_ascii_whitespace) => continue,
            Ok(_) => importer.take(text).map_err(|why| (Exit::BadInput, why)),
        };
        let failed = match taken {
            Ok(()) if importer.is_full() => importer.flush(),
            Ok(()) => Ok(()),
            Err((exit, why)) => {
                importer.flush()?;
                Err(Failure::new(
                    exit,
                    format_args!("{name}: line {number}: {why}; the {} memories before it are stored, nothing else", importer.stored),
                ))
            }
        };
        failed?;
        bytes += u64::try_from(line.len()).expect("a length fits 64 bits");
        progress.at(bytes);
    }
    importer.flush()?;
    Ok(importer.stored)
}

struct Importer<'v> {
    vault: &'v Vault,
    /// Lines that replies may name: their `id`, the id here, how many replies there were.
    known: HashMap<String, (MemoryId, usize)>,
    chunk: Vec<Imported>,
    chunk_bytes: usize,
    stored: u64,
}

impl Importer<'_> {
    fn is_full(&self) -> bool {
        self.chunk.len() >= limits::IMPORT_CHUNK || self.chunk_bytes >= limits::IMPORT_CHUNK_BYTES
    }

    /// Takes a line up. The error says what is wrong with it, never with which words.
    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        let mut value = body::json(line).map_err(|_| {
            "not a JSON object in UTF-8, or nested too deeply, or with a repeated key or an integer beyond 64 bits".to_owned()
        })?;
        if let Value::Object(map) = &mut value {
            // The record's way to say "not".
            map.retain(|_, value| !value.is_null());
        }
        let mut fields =
            inputs::IMPORT.check(Part::Body, Some(value), false).map_err(|error| format!("{} {}", error.pointer, error.text))?;
        let now = self.vault.clock().now();
        let times = ["created_at", "updated_at", "deleted_at"].map(|name| fields.time(name));
        let latest = now.plus(limits::IMPORT_AHEAD_MAX);
        if times.iter().flatten().any(|time| *time > latest) {
            return Err("created_at, updated_at or deleted_at lies in the future".to_owned());
        }
        let [created_at, updated_at, deleted_at] = times;
        if updated_at.is_some_and(|at| at < created_at.unwrap_or(now)) {
            return Err("updated_at lies before created_at".to_owned());
        }
        let id = MemoryId::draw(now);
        let parent = match fields.text("parent_memory_id") {
            None => None,
            Some(parent) => {
                let known =
                    self.known.get_mut(&parent).ok_or("parent_memory_id is not the id of an earlier line that is no reply itself")?;
                known.1 += 1;
                if known.1 > limits::REPLIES_MAX {
                    return Err(format!("its parent has more than {} replies", limits::REPLIES_MAX));
                }
                Some(known.0)
            }
        };
        if let Some(there) = fields.text("id")
            && parent.is_none()
            && self.known.insert(there, (id, 0)).is_some()
        {
            return Err("its id is that of an earlier line".to_owned());
        }
        let new = NewMemory {
            text: Text {
                title: Phi::new(fields.text("title").unwrap_or_default()),
                content: Phi::new(fields.text("content").unwrap_or_default()),
                tags: fields.texts("tags").unwrap_or_default().into_iter().map(Phi::new).collect(),
                metadata: fields.map("metadata").map(|map| Phi::new(Value::Object(map).to_string())),
                speaker: fields.text("speaker").map(Phi::new),
                run_id: fields.text("run_id").map(Phi::new),
                subject: fields.text("subject").map(Phi::new),
            },
            origin: fields.text("origin").unwrap_or_default(),
            allowed_vendors: fields.texts("allowed_vendors").unwrap_or_default(),
            kind: fields.text("memory_type").and_then(|name| MemoryType::parse(&name)).unwrap_or_default(),
            occurred_at: fields.time("occurred_at"),
            created_at,
            prepared: None,
        };
        self.chunk.push(Imported { id, parent, new, updated_at, deleted_at });
        self.chunk_bytes += line.len();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let records = std::mem::take(&mut self.chunk);
        self.chunk_bytes = 0;
        if records.is_empty() {
            return Ok(());
        }
        let count = u64::try_from(records.len()).expect("a chunk is small");
        let (who, scope) = console(self.vault);
        let written =
            self.vault.write::<ImportMemories, _, Refusal>(&who, scope, &Call::internal(), move |access| memories::import(access, records));
        match written {
            Ok(_) => {
                self.stored += count;
                Ok(())
            }
            Err(refused) => {
                let failure = open::refused("importing", &refused);
                Err(Failure::new(failure.exit, format_args!("{}; {} memories are stored", failure.message, self.stored)))
            }
        }
    }
}
