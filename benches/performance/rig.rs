//! The product as its own process: made, filled, started, killed, measured from outside.

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rosemary::base::id::MemoryId;
use rosemary::base::time::Clock;
use rosemary::crypto::unlock::{KdfCost, Kek, KekSource};
use rosemary::engine::{Engine, Options, Read as _, Table};
use rosemary::http::client::{LoadClient, trust};
use rosemary::memories;
use rosemary::policy::action::{CreateMemory, Scope};
use rosemary::store::Store;
use rosemary::store::gate::{Admission, Call};
use rosemary::store::index::measure::{Seeded, Vocabulary};
use rosemary::store::memories::{MemoryType, NewMemory, Text};
use rosemary::store::phi::Phi;
use rosemary::store::tables::TABLES;
use rosemary::store::vault::Settings;
use rustls::ClientConfig;

use crate::bare::Sizes;

/// The label and owner of every instance made here.
const TENANT: &str = "bench";
const OWNER: &str = "bench@hospital.example";

/// One instance's folder.
#[derive(Clone)]
pub struct Instance(pub PathBuf);

impl Instance {
    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.file("data.rosemary")
    }

    /// A new, empty instance, made by `rosemary init`.
    pub fn init(folder: &Path) -> Self {
        let instance = Self(folder.to_owned());
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).expect("the bench folder can be written");
        let made = instance.command("init", 0).stdout(Stdio::piped()).stderr(Stdio::null()).output().expect("rosemary starts");
        assert!(made.status.success(), "rosemary init: {}", made.status);
        let key = String::from_utf8(made.stdout).expect("a key is text");
        fs::write(instance.file("owner.key"), key.trim()).expect("the bench folder can be written");
        instance
    }

    /// An instance with `memories` invented memories; made once and kept in `dir`.
    pub fn filled(dir: &Path, memories: usize) -> Self {
        let folder = dir.join(format!("base-{memories}"));
        let instance = Self(folder.clone());
        if !instance.file("ids").exists() {
            eprintln!("filling {memories} memories ...");
            let made = Self::init(&folder);
            let ids: Vec<String> = made.fill(memories).iter().map(ToString::to_string).collect();
            fs::write(made.file("ids"), ids.join("\n")).expect("the bench folder can be written");
        }
        instance
    }

    /// A copy to be spoilt.
    pub fn copy(&self, dir: &Path, name: &str) -> Self {
        let folder = dir.join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("the bench folder can be written");
        for entry in fs::read_dir(&self.0).expect("the base is there").flatten() {
            fs::copy(entry.path(), folder.join(entry.file_name())).expect("the base can be copied");
        }
        rustix::fs::sync();
        Self(folder)
    }

    /// The ids of the memories it was filled with.
    pub fn ids(&self) -> Vec<String> {
        fs::read_to_string(self.file("ids")).expect("the instance was filled").lines().map(str::to_owned).collect()
    }

    pub fn key(&self) -> String {
        fs::read_to_string(self.file("owner.key")).expect("init gave a key")
    }

    pub fn tls(&self) -> Arc<ClientConfig> {
        trust(&fs::read(self.file("cert.pem")).expect("init made a certificate")).expect("a certificate")
    }

    fn command(&self, command: &str, port: u16) -> Command {
        let mut rosemary = Command::new(program());
        rosemary.arg(command).env_clear().stdin(Stdio::null());
        let path = |name: &str| self.file(name).into_os_string();
        rosemary.env("RM_DB_PATH", self.data()).env("RM_KEK_FILE", path("kek")).env("RM_TENANT_ID", TENANT).env("RM_OWNER_EMAIL", OWNER);
        rosemary.env("RM_PORT", port.to_string()).env("RM_INDEX_MIB", "1024").env("RM_LOG", "warn");
        rosemary.env("RM_MAX_CONNECTIONS_PER_ADDRESS", "1024");
        for limit in ["RM_RATE_LIMIT_PER_MINUTE", "RM_CREDENTIAL_RATE_LIMIT_PER_MINUTE", "RM_ADMIN_RATE_LIMIT_PER_MINUTE"] {
            rosemary.env(limit, "0");
        }
        rosemary
    }

    /// Starts `rosemary serve` and waits for its first answer.
    pub fn serve(&self) -> Server {
        let (port, tls) = (free_port(), self.tls());
        let since = Instant::now();
        let child = self.command("serve", port).spawn().expect("rosemary starts");
        let server = Server { child, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), up: Duration::ZERO };
        server.until_up(&tls, since)
    }

    /// Fills through the gate, in one process and in large batches. Gives the new ids.
    fn fill(&self, count: usize) -> Vec<MemoryId> {
        const CHUNK: usize = 100;
        let store = self.open();
        let vault = store.vault();
        let Ok(Admission::Principal(owner, ..)) = vault.admit(&self.key()) else { panic!("the owner's key is not accepted") };
        let scope = Scope { tenant: vault.tenant(), owner: vault.owner() };
        let (next, vocabulary) = (AtomicUsize::new(0), Vocabulary::new(30_000));
        let ids = std::thread::scope(|threads| {
            let work = || {
                let mut ids = Vec::new();
                loop {
                    let first = next.fetch_add(CHUNK, Ordering::Relaxed);
                    if first >= count {
                        return ids;
                    }
                    let chunk: Vec<NewMemory> = (first..count.min(first + CHUNK)).map(|i| new_memory(&vocabulary, i, count)).collect();
                    let made = vault.write::<CreateMemory, _, memories::Refusal>(&owner, scope, &Call::internal(), move |access| {
                        chunk.into_iter().map(|new| memories::create(access, new).map(|memory| memory.id)).collect::<Result<Vec<_>, _>>()
                    });
                    match made {
                        Ok(made) => ids.extend(made.into_parts().0),
                        Err(why) => panic!("a chunk was not written: {why:?}"),
                    }
                }
            };
            let threads: Vec<_> = (0..8).map(|_| threads.spawn(work)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("filling does not panic")).collect()
        });
        store.stop();
        ids
    }

    fn engine(&self) -> Engine {
        let kek = Kek::read(&KekSource::KeyFile(self.file("kek"))).expect("init made a key file");
        let options = Options { cache_bytes: 64 << 20, stride: 4608, tables: TABLES, kdf: KdfCost::DEFAULT };
        Engine::open(&self.data(), &options, &kek).expect("the data file opens")
    }

    fn open(&self) -> Store {
        let settings = Settings {
            label: TENANT.to_owned(),
            owner_email: OWNER.to_owned(),
            static_keys: Vec::new(),
            sign_in: Default::default(),
            index_bytes: 0,
            memories_max: None,
            anchor: None,
            model: None,
            clock: Clock::system(),
            fatal: Box::new(|| panic!("the store cannot be recovered")),
        };
        Store::open(self.engine(), settings).expect("the store opens")
    }

    /// Mean key and value bytes of the last rows of each table: what "equal-sized" means for the bare engine.
    pub fn row_sizes(&self) -> Vec<(&'static str, usize, usize)> {
        let engine = self.engine();
        let snapshot = engine.snapshot().expect("a snapshot");
        let mean = |index: u8| {
            let rows: Vec<_> = snapshot
                .range(Table(index), std::ops::Bound::Unbounded, std::ops::Bound::Unbounded)
                .expect("a table")
                .rev()
                .take(200)
                .map(|row| row.expect("a row"))
                .collect();
            let sum = |of: fn(&(Vec<u8>, Vec<u8>)) -> usize| rows.iter().map(of).sum::<usize>() / rows.len().max(1);
            (sum(|row| row.0.len()), sum(|row| row.1.len()))
        };
        (0..).zip(TABLES).map(|(index, name)| (*name, mean(index).0, mean(index).1)).collect()
    }
}

/// The memory number `i` of `count`: 40 to 120 words up to 100,000 memories, 8 to 24 beyond, ten a run, five minutes apart.
fn new_memory(vocabulary: &Vocabulary, i: usize, count: usize) -> NewMemory {
    let mut seeded = Seeded(u64::try_from(i).expect("usize fits u64") + 1);
    let words = if count <= 100_000 { 40 + seeded.below(80) } else { 8 + seeded.below(16) };
    let title = format!("{} {i}", vocabulary.text(&mut seeded, 4));
    let mut new = NewMemory {
        text: Text {
            title: Phi::new(title),
            content: Phi::new(vocabulary.text(&mut seeded, words)),
            tags: vec![Phi::new(format!("ward-{}", i % 40))],
            metadata: None,
            speaker: None,
            run_id: Some(Phi::new(format!("run-{}", i / 10))),
            subject: None,
        },
        origin: "api".to_owned(),
        allowed_vendors: vec!["*".to_owned()],
        kind: MemoryType::Semantic,
        occurred_at: None,
        created_at: None,
        prepared: None,
    };
    new.prepare();
    new
}

/// The body of a write like the memories above, number `i`.
pub fn body(vocabulary: &Vocabulary, i: usize) -> Vec<u8> {
    let mut seeded = Seeded(u64::try_from(i).expect("usize fits u64") + 1_000_000_007);
    let words = 40 + seeded.below(80);
    let title = vocabulary.text(&mut seeded, 4);
    let content = vocabulary.text(&mut seeded, words);
    format!(
        r#"{{"title":"{title}n{i}","content":"{content}","tags":["ward-{}"],"allowed_vendors":["*"],"run_id":"run-{}"}}"#,
        i % 40,
        i / 10
    )
    .into_bytes()
}

/// The program under test; `ROSEMARY_PROGRAM` names another build of it.
pub fn program() -> PathBuf {
    std::env::var_os("ROSEMARY_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_rosemary").into(), PathBuf::from)
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// A process that serves.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// From the start of the process to its first answer.
    pub up: Duration,
}

impl Server {
    /// This program as the echo server, with the certificate of `instance`, answering `bytes` bytes.
    pub fn echo(instance: &Instance, bytes: usize) -> Self {
        Self::own(instance, "--echo", &[bytes.to_string()])
    }

    /// The same, each answer after a bare group commit of rows of these sizes.
    pub fn floor(instance: &Instance, bytes: usize, sizes: Sizes) -> Self {
        Self::own(instance, "--floor", &[bytes.to_string(), sizes.word()])
    }

    fn own(instance: &Instance, what: &str, sizes: &[String]) -> Self {
        let (port, since) = (free_port(), Instant::now());
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command.arg(what).arg(&instance.0).arg(&sizes[0]).arg(port.to_string()).args(&sizes[1..]);
        let child = command.spawn().expect("this program starts");
        let server = Self { child, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), up: Duration::ZERO };
        server.until_up(&instance.tls(), since)
    }

    fn until_up(mut self, tls: &Arc<ClientConfig>, since: Instant) -> Self {
        loop {
            let answer =
                LoadClient::connect_with(self.address, Arc::clone(tls)).and_then(|mut client| client.request("GET", "/health", &[], b""));
            match answer {
                Ok((200, _)) => break,
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
            assert!(self.child.try_wait().is_ok_and(|ended| ended.is_none()), "the server ended at once");
            assert!(since.elapsed() < Duration::from_secs(120), "the server does not answer");
        }
        self.up = since.elapsed();
        self
    }

    /// Processor time so far, user and system.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the server runs");
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<u32>().expect("a number of ticks");
        Duration::from_secs(1) * (ticks(11) + ticks(12)) / 100
    }

    /// Resident memory in bytes: now, and at most.
    pub fn rss(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the server runs");
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
        };
        (kib("VmRSS:"), kib("VmHWM:"))
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the server runs");
    }

    /// Kills at once (`kill -9`).
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops cleanly.
    pub fn stop(mut self) {
        self.signal(rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets the system forget what it has cached of a file.
pub fn forget_cached(path: &Path) -> io::Result<()> {
    let file = fs::File::open(path)?;
    file.sync_all()?;
    Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// Says what is under way.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
