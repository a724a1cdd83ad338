//! Passphrases from the terminal, without showing them. Where standard input is no terminal, its first line is the passphrase.
//!
//! Promise: the terminal shows again what is typed once a function here returns, whatever it returns.

use std::io::{IsTerminal as _, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::base::id::InstanceId;
use crate::base::limits;
use crate::cli::exit::{Exit, Failure};
use crate::crypto::secret::Secret;
use crate::crypto::shamir::{self, Share, ShareError};
use crate::crypto::unlock::{Kek, SlotKind};

/// What standard input shows while it is hushed; shown again when dropped.
struct Hushed(Termios);

impl Hushed {
    fn begin() -> Option<Self> {
        let stdin = std::io::stdin();
        let before = stdin.is_terminal().then(|| tcgetattr(&stdin).ok()).flatten()?;
        let mut hushed = before.clone();
        hushed.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &hushed).ok()?;
        Some(Self(before))
    }
}

impl Drop for Hushed {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
        let _ = writeln!(std::io::stderr().lock());
    }
}

/// The next line of standard input, read byte by byte so that nothing of it stays in a buffer.
pub fn line() -> std::io::Result<Zeroizing<Vec<u8>>> {
    let (mut line, mut byte) = (Zeroizing::new(Vec::with_capacity(limits::PASSPHRASE_BYTES_MAX)), [0]);
    let mut stdin = std::io::stdin().lock();
    while line.len() < limits::PASSPHRASE_BYTES_MAX && stdin.read(&mut byte)? == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    Ok(line)
}

/// Asks for a passphrase.
///
/// Errors: nothing was typed, or standard input ended or failed.
pub fn passphrase(prompt: &str) -> Result<Secret<Vec<u8>>, Failure> {
    if std::io::stdin().is_terminal() {
        let _ = write!(std::io::stderr().lock(), "{prompt}");
    }
    let hushed = Hushed::begin();
    let typed = line();
    drop(hushed);
    match typed {
        Ok(mut line) if !line.is_empty() => Ok(Secret::new(std::mem::take(&mut *line))),
        Ok(_) => Err(Failure::new(Exit::KekMissing, "no passphrase was given; type it, or name a key file")),
        Err(error) => Err(Failure::new(Exit::KekMissing, format_args!("standard input: {error}; type the passphrase, or name a key file"))),
    }
}

/// Asks for shares, one a line, until they are enough. At a terminal a wrong one is named and asked for again.
///
/// Errors: one that does not fit the others or the data, where nobody can be asked again; too few.
pub fn shares(instance: Option<InstanceId>) -> Result<Kek, Failure> {
    let (mut here, asked) = (Vec::new(), std::io::stdin().is_terminal());
    let failed = |error: ShareError, number: usize| Failure::new(Exit::KekWrong, format_args!("line {number}: {error}"));
    for number in 1.. {
        if asked {
            let _ = write!(std::io::stderr().lock(), "share ({} so far): ", here.len());
        }
        let hushed = Hushed::begin();
        let typed = line();
        drop(hushed);
        let typed = typed.map_err(|error| Failure::new(Exit::KekMissing, format_args!("standard input: {error}")))?;
        let text = String::from_utf8_lossy(&typed);
        if text.trim().is_empty() {
            break;
        }
        // What is printed before the share itself ends with a colon.
        let share = text.rsplit(':').next().unwrap_or_default();
        match Share::parse(share).and_then(|share| shamir::add(&mut here, share, instance)) {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) if asked => crate::cli::say(&failed(error, number).message),
            Err(error) => return Err(failed(error, number)),
        }
    }
    let secret = shamir::join(&here).map_err(|error| Failure::new(Exit::KekMissing, error))?;
    Ok(Kek::presented(SlotKind::Shares, Secret::new(secret.expose().to_vec()), None))
}

/// Asks twice for a new passphrase.
///
/// Errors: as [`passphrase`]; the two differ.
pub fn new_passphrase(prompt: &str) -> Result<Secret<Vec<u8>>, Failure> {
    let first = passphrase(prompt)?;
    if std::io::stdin().is_terminal() && !first.matches(passphrase("once more: ")?.expose()) {
        return Err(Failure::new(Exit::Usage, "the two passphrases differ; nothing was made"));
    }
    Ok(first)
}
