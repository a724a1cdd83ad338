//! `rosemary demo`: an instance of its own to try things with, filled with invented memories.
//!
//! Invariants
//! - Everything is in one folder with a marker in it; a folder without the marker that holds anything is never touched.
//! - No `RM_*` setting is read: the demo hands its own to the program, by the names that a real instance uses.
//! - The keys are printed by the run that makes them. They also lie in the folder (mode 0600), beside the key-encryption key, so that the lines
//!   of later runs work; a real instance keeps no key it gave out.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::authn::Principal;
use crate::base::{durable, hex, rng};
use crate::cli::exit::{Exit, Failure};
use crate::cli::progress::Progress;
use crate::cli::{args, init, key, open, serve, text, transfer};
use crate::config::{Config, files};
use crate::memories::{self, Refusal};
use crate::policy::action::{ExportMemories, Scope};
use crate::sandbox;
use crate::store::gate::Call;
use crate::store::vault::Vault;

/// Invented notes of six patients and a ward: the records that an import takes.
const SAMPLES: &[u8] = include_bytes!("samples.ndjson");
/// Marks a folder as the demo's.
const MARKER: &str = "made-by-rosemary-demo";
/// What the demo keeps in its folder.
const FILES: [&str; 8] = ["memory.db", "memory.db.new", "kek", "cert.pem", "cert.csr", "key.pem", "owner-key", "agent-key"];

/// The command.
pub fn run(demo: &args::Demo) -> Result<Exit, Failure> {
    serve::harden();
    let folder = Folder::take(&demo.dir, demo.reset)?;
    free(demo.port)?;
    let first = folder.keys()?;
    let mut config = folder.settings(demo.port)?;
    if !config.db_path.exists() {
        let made = init::init(&mut config)?;
        folder.keep("owner-key", made.key.expose())?;
        config = folder.settings(demo.port)?;
    }
    config.egress_lock = sandbox::is_enforceable();
    if !config.egress_lock {
        super::say(
            "warning: this kernel cannot lock the program in (Landlock, Linux 5.13 or later); without that, a real service would not start",
        );
    }
    let running = serve::start(&mut config, serve::Outside::default())?;
    let filled = fill(running.vault().expect("a demo is never sealed")).and_then(|added| {
        let new_owner_key = folder.owner_key(running.vault().expect("a demo is never sealed"))?;
        text::print(folder.welcome(running.port(), first || new_owner_key, added)?.as_bytes())
    });
    match filled {
        Ok(_) => running.until_told(&config)?,
        Err(failure) => {
            running.stop();
            return Err(failure);
        }
    }
    text::print(b"stopped; `rosemary demo` goes on where this stopped\n")
}

/// Fails early and in the demo's own words if nobody could listen.
fn free(port: u16) -> Result<(), Failure> {
    let address = std::net::Ipv4Addr::LOCALHOST;
    crate::http::bind(&[address.into()], port).map(drop).map_err(|error| {
        Failure::new(
            Exit::Unavailable,
            format_args!("{address}:{port}: {error}; choose another port: rosemary demo --port {}", port.checked_add(1).unwrap_or(8443)),
        )
    })
}

/// Stores the samples in an empty store; gives how many.
fn fill(vault: &Vault) -> Result<u64, Failure> {
    let (who, scope) =
        (Principal::system(vault.tenant(), vault.owner(), "console"), Scope { tenant: vault.tenant(), owner: vault.owner() });
    let count = vault.read::<ExportMemories, _, Refusal>(&who, scope, &Call::internal(), |access| memories::count(access));
    match count.map_err(|refused| open::refused("counting memories", &refused))?.into_parts().0 {
        0 => transfer::load(vault, &mut &*SAMPLES, "samples", &mut Progress::new("importing", 0)),
        _ => Ok(0),
    }
}

/// The demo's folder.
struct Folder(PathBuf);

impl Folder {
    /// Makes the folder, or takes one that an earlier demo made; `reset` removes what that one left.
    fn take(dir: &Path, reset: bool) -> Result<Self, Failure> {
        let failure = |error: std::io::Error| Failure::io(dir, &error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failure)?;
        let folder = Self(dir.canonicalize().map_err(failure)?);
        let marker = folder.path(MARKER);
        if !marker.exists() {
            if fs::read_dir(&folder.0).map_err(failure)?.next().is_some() {
                let text = "holds other things and was not made by a demo; name a new folder with --dir";
                return Err(Failure::new(Exit::Exists, format_args!("{}: {text}", dir.display())));
            }
            let text = "This folder was made by `rosemary demo`. Its memories are invented. `rosemary demo --reset` empties it.\n";
            durable::create(&marker, text.as_bytes(), 0o644).map_err(|error| Failure::io(&marker, &error))?;
        } else if reset {
            folder.empty()?;
        }
        Ok(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn empty(&self) -> Result<(), Failure> {
        let data = self.path("memory.db");
        // Held until the files are gone, so that no demo that still runs loses its file.
        let locked = File::open(&data).ok();
        if locked.as_ref().is_some_and(|file| file.try_lock().is_err()) {
            return Err(Failure::new(Exit::FileLocked, format_args!("{}: in use; stop the demo that runs", data.display())));
        }
        for path in FILES.map(|name| self.path(name)) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Failure::io(&path, &error)),
                _ => {}
            }
        }
        Ok(())
    }

    fn keep(&self, name: &str, secret: &str) -> Result<(), Failure> {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        durable::create(&path, secret.as_bytes(), 0o600).map_err(|error| Failure::io(&path, &error))
    }

    /// Makes the agent's key, which is a setting, if there is none; true if nothing was here before.
    fn keys(&self) -> Result<bool, Failure> {
        let first = !self.path("agent-key").exists();
        if first {
            self.keep("agent-key", &format!("agent_{}", hex::encode(&rng::array::<24>())))?;
        }
        Ok(first)
    }

    /// Makes a new owner's key if the file with the first one was taken away.
    fn owner_key(&self, vault: &Vault) -> Result<bool, Failure> {
        let missing = !self.path("owner-key").exists();
        if missing {
            self.keep("owner-key", key::make(vault, vault.owner(), "demo")?.0.expose())?;
        }
        Ok(missing)
    }

    fn settings(&self, port: u16) -> Result<Config, Failure> {
        let path = |name: &str| self.path(name).into_os_string();
        let vars: [(&str, OsString); 7] = [
            ("RM_DB_PATH", path("memory.db")),
            ("RM_TENANT_ID", "demo".into()),
            ("RM_OWNER_EMAIL", "owner@demo.example".into()),
            ("RM_KEK_FILE", path("kek")),
            ("RM_PORT", port.to_string().into()),
            ("RM_AGENT_KEY_SCRIBE_FILE", path("agent-key")),
            ("RM_LOG", "warn".into()),
        ];
        let (config, _) = Config::from_env(vars.into_iter().map(|(name, value)| (name.into(), value)))?;
        crate::base::log::set_level(config.log);
        Ok(config)
    }

    /// What to try: each line works as it stands, in any folder.
    fn welcome(&self, port: u16, first: bool, added: u64) -> Result<String, Failure> {
        let secret = |name: &str| files::read_secret_text(&self.path(name)).map_err(|why| Failure::new(Exit::Permission, why));
        let (owner, agent) = (secret("owner-key")?, secret("agent-key")?);
        let header = |name: &str, key: &str| match first {
            true => format!("-H 'Authorization: Bearer {key}'"),
            false => format!("-H \"Authorization: Bearer $(cat {})\"", quoted(&self.path(name))),
        };
        let (as_owner, as_agent) = (header("owner-key", owner.expose()), header("agent-key", agent.expose()));
        let curl = format!("curl --cacert {}", quoted(&self.path("cert.pem")));
        let url = format!("https://localhost:{port}");
        let post = |path: &str, who: &str, body: &str| format!("{curl} {url}{path} {who} -H 'Content-Type: application/json' -d '{body}'");
        let keys = match first {
            true => format!("owner's key  {}\nagent's key  {}   (vendor: scribe)\nshown this once", owner.expose(), agent.expose()),
            false => "keys         as before".to_owned(),
        };
        let memories = match added {
            0 => "as you left them".to_owned(),
            added => format!("{added} invented notes were stored"),
        };
        Ok(format!(
            "Rosemary demo at {url}\n\n\
             folder       {folder}   (keys lie there in owner-key and agent-key, mode 0600)\n\
             memories     {memories}\n\
             {keys}\n\n\
             Try, in another terminal:\n\n\
             # is it up?\n{health}\n\n\
             # write a memory\n{write}\n\n\
             # ranked search, best first\n{ranked}\n\n\
             # the same as an agent, with reasons and about one patient\n{agent_ranked}\n\n\
             # an agent looks for words as they stand\n{literal}\n\n\
             # an agent browses titles, newest first\n{browse}\n\n\
             Ctrl-C stops it. Nothing leaves this machine.\n",
            folder = self.0.display(),
            health = format_args!("{curl} {url}/health"),
            write = post(
                "/memories",
                &as_owner,
                r#"{"title":"Prefers tea","content":"Ms Aldana takes her tablets with peppermint tea.","tags":["preferences"],"subject":"patient 1001"}"#
            ),
            ranked = post("/api/v1/memories/search", &as_owner, r#"{"query":"who is allergic to penicillin?","limit":3}"#),
            agent_ranked = post(
                "/api/v1/memories/search",
                &as_agent,
                r#"{"query":"when was apixaban restarted","subject":"patient 1002","explain":true,"limit":3}"#
            ),
            literal = post("/agent/memories/search", &as_agent, r#"{"term":"penicillin"}"#),
            browse = post("/agent/memories/browse", &as_agent, r#"{"filter":{"by":"tags","tags":["discharge"]},"limit":5}"#),
        ))
    }
}

/// A path as a shell takes it, as it stands where nothing in it means something to a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte)) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
