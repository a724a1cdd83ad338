//! `rosemary init`: key file if it is missing, data file, certificate, anchor, and the owner's first key, shown once.
//!
//! Invariant: nothing that exists is replaced. A run that failed midway can be run again once what it names is mended.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::base::durable;
use crate::base::id::InstanceId;
use crate::base::time::Clock;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{args, key, open, output, say, text};
use crate::config::{Config, KekChoice};
use crate::crypto::secret::Secret;
use crate::crypto::unlock::Kek;
use crate::engine::Engine;
use crate::http::{TlsFiles, TlsIdentity, self_signed};
use crate::store::anchor;
use crate::store::vault;

/// What `init` made, beside files.
pub struct Made {
    /// The owner's key, to be shown once.
    pub key: Secret<String>,
    /// The public key of the audit log.
    pub log_key: String,
}

/// Makes what the settings name.
pub fn init(config: &mut Config) -> Result<Made, Failure> {
    if config.db_path.exists() {
        return Err(Failure::new(
            Exit::Exists,
            format_args!(
                "{}: exists already; it was not touched. Use `rosemary serve`, or set another RM_DB_PATH",
                config.db_path.display()
            ),
        ));
    }
    let anchor = config.anchor_file.clone();
    if let Some(path) = anchor.as_deref().filter(|path| path.exists()) {
        return Err(Failure::new(
            Exit::Exists,
            format_args!("RM_ANCHOR_FILE: {}: exists already and may guard another data file; move it away", path.display()),
        ));
    }
    let folder = config.db_path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    writable(folder)?;
    let kek = kek(config)?;
    apart(config);
    let made = certificate(config).and_then(|()| {
        let engine =
            Engine::create(&config.db_path, &open::options(config), &kek).map_err(|error| open::engine_failure(&config.db_path, error))?;
        let mut anchored = false;
        let made = first_rows(config, engine, &kek, &mut anchored);
        if made.is_err() {
            // Nobody was told of these files yet; a second run starts afresh.
            let _ = std::fs::remove_file(&config.db_path);
            if let Some(path) = anchor.filter(|_| anchored) {
                let _ = std::fs::remove_file(path);
            }
        }
        made
    });
    made.map_err(|Failure { exit, message }| {
        Failure::new(
            exit,
            format_args!("{message}. Then run `rosemary init` again: a key file and certificate that were made stay, and it takes them"),
        )
    })
}

/// `anchored` tells whether the anchor is of this run.
fn first_rows(config: &mut Config, engine: Engine, kek: &Kek, anchored: &mut bool) -> Result<Made, Failure> {
    let clock = Clock::system();
    let head = vault::initialise(&engine, &config.tenant_label, &config.owner_email, &clock)
        .map_err(|error| open::store_failure(&config.db_path, error))?;
    if let Some(path) = &config.anchor_file {
        let snapshot = engine.snapshot().map_err(|error| open::engine_failure(&config.db_path, error))?;
        // There was none: what lies there from here on is of this run, also where writing it failed half way.
        *anchored = true;
        anchor::write(path, &engine, &snapshot, head, 0).map_err(|error| Failure::io(path, &error))?;
    }
    drop(engine);
    let mut settings = Some(open::store_settings(config));
    let store = open::store_with(config, &mut settings, kek)?;
    let made = key::make(store.vault(), store.vault().owner(), "first key");
    let log_key = store.vault().log_key().to_string();
    store.stop();
    made.map(|made| Made { key: made.0, log_key })
}

/// Warns where one disk holds both: a disk that is stolen with its key is a breach that nothing here mitigates.
fn apart(config: &Config) {
    let folder = config.db_path.parent().unwrap_or(Path::new("."));
    let device = |path: &Path| std::fs::metadata(path).map(|about| about.dev()).ok();
    if device(folder).is_some_and(|data| config.kek.path().and_then(device) == Some(data)) {
        say("warning: key and data are on one disk, so whoever takes the disk can read the data: no safe harbour after a theft");
        say("         keep the key on another device, or seal it to this machine (systemd-creds encrypt --with-key=tpm2)");
    }
}

fn writable(folder: &Path) -> Result<(), Failure> {
    let probe = folder.join(format!(".rosemary-{}", std::process::id()));
    let made = durable::create(&probe, b"", 0o600);
    let _ = std::fs::remove_file(&probe);
    made.map_err(|error| {
        let failure = Failure::io(folder, &error);
        match failure.exit {
            Exit::DiskFull => failure,
            _ => Failure::new(
                Exit::FolderUnwritable,
                format_args!("{}: cannot be written to ({error}); mend its owner or mode", folder.display()),
            ),
        }
    })
}

/// The KEK; a key file that is missing is made.
fn kek(config: &Config) -> Result<Kek, Failure> {
    match &config.kek {
        KekChoice::KeyFile(path) if !path.exists() => {
            output::vacant(path)?;
            let kek = Kek::write_key_file(path, InstanceId::draw()).map_err(|error| Failure::io(path, &error))?;
            say(&format!("made the key file {}: keep a copy of it away from the data, without it the data is lost", path.display()));
            Ok(kek)
        }
        KekChoice::Console => crate::cli::terminal::new_passphrase("new passphrase of the data file: ").map(Kek::passphrase),
        _ => open::kek(config),
    }
}

/// The certificate: the operator's own, or a self-signed one if there is none.
pub fn certificate(config: &Config) -> Result<(), Failure> {
    if config.tls.own || config.tls.cert.exists() || config.tls.key.exists() {
        return open::tls(config).map(|_| ());
    }
    let host = config.public_url.as_ref().map(|url| url.host.as_str());
    let made = self_signed(host, &config.listen, Clock::system().now()).map_err(open::tls_failure)?;
    durable::create(&config.tls.key, made.key_pem.as_bytes(), 0o600).map_err(|error| Failure::io(&config.tls.key, &error))?;
    durable::create(&config.tls.cert, made.certificate_pem.as_bytes(), 0o644).map_err(|error| Failure::io(&config.tls.cert, &error))?;
    let request = config.tls.cert.with_extension("csr");
    durable::create(&request, made.request_pem.as_bytes(), 0o644).map_err(|error| Failure::io(&request, &error))?;
    say(&format!("made a self-signed certificate: clients trust it with {} as their CA file", config.tls.cert.display()));
    say(&format!(
        "for a certificate of your own CA let it sign {}, put its answer in that file's place and send SIGHUP",
        request.display()
    ));
    Ok(())
}

/// Takes a certificate over: checked first, then copied to where the settings' own would be.
///
/// Errors: it cannot be read or used; there is one already; the settings name another.
fn import(command: &args::Init, config: &Config) -> Result<(), Failure> {
    let (Some(cert), Some(key)) = (&command.cert, &command.key) else { return Ok(()) };
    if config.tls.own {
        let name = crate::config::settings::TLS_CERT.row.name;
        return Err(Failure::new(Exit::Usage, format_args!("--cert: {name} names a certificate already; leave one of the two out")));
    }
    for path in [&config.tls.cert, &config.tls.key] {
        if path.exists() {
            return Err(Failure::new(Exit::Exists, format_args!("{}: is there already; it was not touched. Move it away", path.display())));
        }
    }
    let given = TlsFiles { certificate: cert.clone(), key: key.clone(), ..open::tls_files(config) };
    TlsIdentity::load(&given).map_err(open::tls_failure)?;
    for (from, to, mode) in [(key, &config.tls.key, 0o600), (cert, &config.tls.cert, 0o644)] {
        let body = std::fs::read(from).map(Zeroizing::new).map_err(|error| Failure::io(from, &error))?;
        durable::create(to, &body, mode).map_err(|error| Failure::io(to, &error))?;
    }
    say(&format!("took over the certificate {}", cert.display()));
    Ok(())
}

/// The command.
pub fn run(command: &args::Init, mut config: Config) -> Result<Exit, Failure> {
    if !config.db_path.exists() {
        import(command, &config)?;
    }
    let made = init(&mut config)?;
    if config.anchor_file.is_none() {
        say(
            "no anchor: an older copy put in the data file's place would not be noticed; RM_ANCHOR_FILE names a file for it, on another disk",
        );
    }
    say("the owner's key, shown this once; keep it safe:");
    text::show(format!("{}\n", made.key.expose()).as_bytes())
        .inspect_err(|_| say("the key was not shown: make another (rosemary key make), and revoke the first (key list, key revoke)"))?;
    say(&format!("the audit log's public key, by which auditors check exports; keep it on paper too: {}", made.log_key));
    say("next: rosemary doctor && rosemary serve");
    Ok(Exit::Ok)
}
