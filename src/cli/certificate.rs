//! `rosemary keys rotate tls`: another key and certificate for TLS, made here or brought by the operator.
//!
//! Invariants
//! - The new pair is checked to fit together before anything is replaced, and the change is in the audit log before it is made.
//! - Each file is replaced whole. A crash between the two leaves a pair that does not fit, which the service refuses to start with; the command is run again.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use serde_json::{Value, json};

use crate::audit::{Detail, Word};
use crate::base::durable;
use crate::base::time::Clock;
use crate::cli::console::Line;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{keys, open, say};
use crate::config::{Config, settings};
use crate::http::{TlsFiles, TlsIdentity, self_signed};
use crate::identity::Refusal;
use crate::policy::action::{ChangeTls, Instance};
use crate::store::gate::Call;
use crate::store::vault::Vault;
use zeroize::Zeroizing;

/// The command: makes a pair, or takes this one.
pub fn rotate(given: Option<(&Path, &Path)>, mut config: Config) -> Result<Exit, Failure> {
    let (certificate, key, request) = match given {
        Some((certificate, key)) => {
            let files = TlsFiles { certificate: certificate.to_owned(), key: key.to_owned(), ..open::tls_files(&config) };
            TlsIdentity::load(&files).map_err(open::tls_failure)?;
            let read = |path: &Path| std::fs::read(path).map(Zeroizing::new).map_err(|error| Failure::io(path, &error));
            (read(certificate)?, read(key)?, None)
        }
        None if config.tls.own => {
            let name = settings::TLS_CERT.row.name;
            return Err(Failure::new(
                Exit::Usage,
                format_args!("{name} names a certificate of your own: bring the new pair with --cert and --key"),
            ));
        }
        None => {
            let host = config.public_url.as_ref().map(|url| url.host.as_str());
            let made = self_signed(host, &config.listen, Clock::system().now()).map_err(open::tls_failure)?;
            let bytes = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
            (bytes(&made.certificate_pem), bytes(&made.key_pem), Some(bytes(&made.request_pem)))
        }
    };
    let own = given.is_some();
    let line = Line::dial(&config)?;
    let online = line.is_some();
    match line {
        Some(line) => drop(line.ask("keys.tls", json!({ "own": own }), &mut |_| {})?),
        None => {
            let store = open::store(&mut config)?;
            let noted = note(store.vault(), own);
            store.stop();
            noted?;
        }
    }
    let csr = config.tls.cert.with_extension("csr");
    put(&config.tls.key, &key, 0o600)?;
    put(&config.tls.cert, &certificate, 0o644)?;
    if let Some(request) = &request {
        put(&csr, request, 0o644)?;
        say(&format!(
            "clients trust the new certificate with {} as their CA file; a CA of your own signs {}",
            config.tls.cert.display(),
            csr.display()
        ));
    }
    match Line::dial(&config)?.filter(|_| online) {
        Some(line) => {
            line.ask("reload", Value::Null, &mut |_| {})?;
            say("the running service takes the new pair now");
        }
        None => say("the next start of the service takes the new pair"),
    }
    Ok(Exit::Ok)
}

/// Records the change.
pub fn note(vault: &Vault, own: bool) -> Result<(), Failure> {
    let word = if own { "own" } else { "self_signed" };
    let noted = vault.write::<ChangeTls, _, Refusal>(&keys::console(vault), Instance, &Call::internal(), move |access| {
        access.detail(Detail::Setting(Word::of(word)));
        Ok(())
    });
    noted.map(drop).map_err(|refused| open::refused("the certificate was not changed", &refused))
}

/// Replaces a file; the new one belongs to whom the old one belonged.
fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let before = std::fs::metadata(path).ok();
    let failed = |error: std::io::Error| Failure::io(path, &error);
    durable::replace(path, bytes, mode).map_err(failed)?;
    match before {
        Some(before) if before.uid() != rustix::process::geteuid().as_raw() => {
            chown(path, Some(before.uid()), Some(before.gid())).map_err(failed)
        }
        _ => Ok(()),
    }
}
