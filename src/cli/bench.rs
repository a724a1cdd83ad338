//! `rosemary bench`: what this disk and this machine give, beside what the store makes of it.
//!
//! The store is driven in process through its gate: sealed, audited and durable as in service, without TLS and HTTP. The measure of the
//! hardware is the rate at which one small write can be made durable, in the same folder and the same run.
//!
//! Invariants
//! - Works in a folder of its own (mode 0700) that is removed at the end, also after a failure; no `RM_*` setting is read.
//! - Every answer counted was given after its audit entry was durable.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::authn::Principal;
use crate::base::id::MemoryId;
use crate::base::{hex, rng};
use crate::cli::exit::{Exit, Failure};
use crate::cli::progress::Progress;
use crate::cli::{args, init, open, recall, text};
use crate::config::Config;
use crate::memories::{self, Question, Refusal};
use crate::policy::action::{CreateMemory, ReadMemory, Scope, SearchMemories};
use crate::store::gate::{Admission, Call};
use crate::store::memories::{MemoryType, NewMemory, Text};
use crate::store::phi::Phi;
use crate::store::vault::{Store, Vault};

/// Memories written in one commit while filling.
const CHUNK: usize = 100;
/// Threads that fill.
const FILLERS: usize = 8;

/// One line of the report.
#[derive(Serialize)]
struct Line {
    what: &'static str,
    at_once: u16,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// For each time the bare disk makes one write durable.
    per_sync: f64,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    memories: u32,
    seconds: u16,
    lines: Vec<Line>,
    unlock_ms: f64,
    file_mib: f64,
}

/// The command.
pub fn run(command: &args::Bench) -> Result<Exit, Failure> {
    if let Some(args::BenchOf::Recall(recall)) = &command.what {
        return recall::run(recall);
    }
    let folder = Folder::new(&command.dir)?;
    let time = Duration::from_secs(command.seconds.into());
    let syncs = syncs(&folder.0.join("syncs"), time)?;
    let (base, mut lines) = (syncs.per_second, vec![syncs]);
    let mut config = folder.settings()?;
    let key = init::init(&mut config)?.key;
    let store = open::store(&mut folder.settings()?)?;
    let measured = measure(command, time, base, store.vault(), key.expose(), &mut lines);
    store.stop();
    measured?;
    let since = Instant::now();
    let opened: Store = open::store(&mut folder.settings()?)?;
    let unlock_ms = since.elapsed().as_secs_f64() * 1e3;
    opened.stop();
    let bytes = config.db_path.metadata().map_err(|error| Failure::io(&config.db_path, &error))?.len();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        memories: command.memories,
        seconds: command.seconds,
        lines,
        unlock_ms,
        file_mib: f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX)) / 1024.0,
    };
    let shown = match command.json {
        true => serde_json::to_string_pretty(&report).expect("a report is JSON") + "\n",
        false => report.table(),
    };
    text::print(shown.as_bytes())
}

impl Report {
    fn table(&self) -> String {
        let mut out = format!("{:<8} {:>8} {:>12} {:>9} {:>9} {:>9}\n", "what", "at once", "per second", "p50 ms", "p99 ms", "per sync");
        for line in &self.lines {
            let Line { what, at_once, per_second, p50_ms, p99_ms, per_sync } = line;
            out += &format!("{what:<8} {at_once:>8} {per_second:>12.0} {p50_ms:>9.2} {p99_ms:>9.2} {per_sync:>9.2}\n");
        }
        out + &format!(
            "\nunlock   {:.0} ms after a clean stop, with a key file\nfile     {:.1} MiB\n\n\
             sync: one 4 KiB write made durable, again and again: what the disk gives alone. write, get, search: through the store, each\n\
             durable in the audit log before it counts, over {} memories at the start; {} s a line. per sync: how many of them go for one sync.\n",
            self.unlock_ms, self.file_mib, self.memories, self.seconds
        )
    }
}

/// How often a small write can be made durable.
fn syncs(path: &Path, time: Duration) -> Result<Line, Failure> {
    let failure = |error| Failure::io(path, &error);
    let mut file = File::create_new(path).map_err(failure)?;
    file.set_len(64 << 20).and_then(|()| file.sync_all()).map_err(failure)?;
    let times = timed(1, time, |_| {
        let mut file = &file;
        file.write_all(&[7; 4096]).and_then(|()| file.sync_data()).map_err(failure)
    })?;
    file.flush().map_err(failure)?;
    Ok(Line::of("sync", 1, times, time, None))
}

/// Fills the store, then writes, reads and searches at each number of connections.
fn measure(command: &args::Bench, time: Duration, base: f64, vault: &Vault, key: &str, lines: &mut Vec<Line>) -> Result<(), Failure> {
    let Ok(Admission::Principal(who, ..)) = vault.admit(key) else {
        return Err(Failure::new(Exit::Internal, "the new owner's key is not accepted"));
    };
    let scope = Scope { tenant: vault.tenant(), owner: vault.owner() };
    let ids = fill(vault, &who, scope, usize::try_from(command.memories).unwrap_or(usize::MAX))?;
    let search = |n: usize| {
        let question =
            Question { query: words(n, 1 + n % 8), limit: 10, tags: Vec::new(), subject: None, since: None, until: None, explain: false };
        vault.read::<SearchMemories, _, Refusal>(&who, scope, &Call::internal(), |access| memories::rank(access, &question))
    };
    warm(search)?;
    let written = AtomicUsize::new(ids.len());
    for &at_once in &command.connections {
        let mut run = |what, work: &(dyn Fn(usize) -> Result<(), Failure> + Sync)| -> Result<(), Failure> {
            lines.push(Line::of(what, at_once, timed(at_once, time, work)?, time, Some(base)));
            Ok(())
        };
        run("write", &|_| {
            let new = invented(written.fetch_add(1, Ordering::Relaxed));
            let made = vault.write::<CreateMemory, _, Refusal>(&who, scope, &Call::internal(), move |access| memories::create(access, new));
            made.map(drop).map_err(|refused| open::refused("writing", &refused))
        })?;
        run("get", &|n| {
            let id = ids[n.wrapping_mul(7919) % ids.len()];
            let got = vault.read::<ReadMemory, _, Refusal>(&who, id, &Call::internal(), memories::read);
            got.map(drop).map_err(|refused| open::refused("reading", &refused))
        })?;
        run("search", &|n| search(n).map(drop).map_err(|refused| open::refused("searching", &refused)))?;
    }
    Ok(())
}

/// Writes `count` invented memories; gives their ids.
fn fill(vault: &Vault, who: &Principal, scope: Scope, count: usize) -> Result<Vec<MemoryId>, Failure> {
    let (next, progress) = (AtomicUsize::new(0), std::sync::Mutex::new(Progress::new("filling", u64::try_from(count).unwrap_or(0))));
    let work = || {
        let mut ids = Vec::new();
        loop {
            let first = next.fetch_add(CHUNK, Ordering::Relaxed);
            if first >= count {
                return Ok(ids);
            }
            let chunk: Vec<NewMemory> = (first..count.min(first + CHUNK)).map(invented).collect();
            let made = vault.write::<CreateMemory, _, Refusal>(who, scope, &Call::internal(), move |access| {
                chunk.into_iter().map(|new| memories::create(access, new).map(|memory| memory.id)).collect::<Result<Vec<_>, _>>()
            });
            ids.extend(made.map_err(|refused| open::refused("filling", &refused))?.into_parts().0);
            progress.lock().expect("no code panics while it holds this lock").at(u64::try_from(first).unwrap_or(0));
        }
    };
    std::thread::scope(|threads| {
        let fillers: Vec<_> = (0..FILLERS).map(|_| threads.spawn(work)).collect();
        let filled = fillers.into_iter().map(|filler| filler.join().expect("filling does not panic"));
        filled.collect::<Result<Vec<_>, Failure>>().map(|ids| ids.concat())
    })
}

/// Searches until the index of the new scope is there.
pub(super) fn warm<T, E: std::fmt::Display>(search: impl Fn(usize) -> Result<T, crate::store::gate::Refused<E>>) -> Result<(), Failure> {
    const WAIT_MAX: Duration = Duration::from_secs(600);
    let since = Instant::now();
    loop {
        match search(0) {
            Ok(_) => return Ok(()),
            Err(refused) if since.elapsed() > WAIT_MAX => return Err(open::refused("waiting for the search index", &refused)),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Runs `work` on `at_once` threads, each with numbers of its own, until `time` is over. Gives how long each took.
fn timed(at_once: u16, time: Duration, work: impl Fn(usize) -> Result<(), Failure> + Sync) -> Result<Vec<Duration>, Failure> {
    let next = AtomicUsize::new(0);
    let one = || {
        let (since, mut times) = (Instant::now(), Vec::new());
        while since.elapsed() < time {
            let start = Instant::now();
            work(next.fetch_add(1, Ordering::Relaxed))?;
            times.push(start.elapsed());
        }
        Ok(times)
    };
    std::thread::scope(|threads| {
        let runners: Vec<_> = (0..at_once).map(|_| threads.spawn(one)).collect();
        let times = runners.into_iter().map(|runner| runner.join().expect("measuring does not panic"));
        times.collect::<Result<Vec<_>, Failure>>().map(|times| times.concat())
    })
}

impl Line {
    /// Of sorted or unsorted `times` within `time`; `base` is the disk's own rate, none for itself.
    fn of(what: &'static str, at_once: u16, mut times: Vec<Duration>, time: Duration, base: Option<f64>) -> Self {
        times.sort_unstable();
        let ms = |percent: usize| times.get(times.len().saturating_sub(1) * percent / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3);
        let per_second = f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX)) / time.as_secs_f64();
        let per_sync = base.map_or(1.0, |base| per_second / base.max(f64::MIN_POSITIVE));
        Self { what, at_once, per_second, p50_ms: ms(50), p99_ms: ms(99), per_sync }
    }
}

/// Words that notes are made of; the lower a word's place, the more often it comes.
const WORDS: &str = "patient daily pain reports given blood pressure normal stable dose history review chest left right acute chronic denies fever \
    cough glucose creatinine metformin insulin aspirin lisinopril oxygen allergy penicillin surgery wound infection nausea headache \
    family weight asthma renal heart discharge admission follow-up started continue increased smoker diabetes hypertension";

/// `count` words, always the same for one `n`.
fn words(n: usize, count: usize) -> String {
    let mut state = u64::try_from(n).unwrap_or(0).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap_or(0) % bound
    };
    let all: Vec<&str> = WORDS.split(' ').collect();
    let words: Vec<&str> = (0..count).map(|_| all[below(all.len()).min(below(all.len()))]).collect();
    words.join(" ")
}

/// An invented memory, made ready for the store: 40 to 120 words.
fn invented(n: usize) -> NewMemory {
    let mut new = NewMemory {
        text: Text {
            title: Phi::new(format!("{} {n}", words(n, 4))),
            content: Phi::new(words(n, 40 + n % 81)),
            tags: vec![Phi::new(format!("ward-{}", n % 40))],
            metadata: None,
            speaker: None,
            run_id: Some(Phi::new(format!("run-{}", n / 10))),
            subject: None,
        },
        origin: "bench".to_owned(),
        allowed_vendors: vec!["*".to_owned()],
        kind: MemoryType::Semantic,
        occurred_at: None,
        created_at: None,
        prepared: None,
    };
    new.prepare();
    new
}

/// The bench's folder; removed when dropped.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new(within: &Path) -> Result<Self, Failure> {
        let path = within.join(format!("rosemary-bench-{}", hex::encode(&rng::array::<6>())));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| Failure::io(&path, &error))?;
        Ok(Self(path))
    }

    pub(super) fn settings(&self) -> Result<Config, Failure> {
        let path = |name: &str| self.0.join(name).into_os_string();
        let vars: [(&str, OsString); 6] = [
            ("RM_DB_PATH", path("memory.db")),
            ("RM_TENANT_ID", "bench".into()),
            ("RM_OWNER_EMAIL", "owner@bench.example".into()),
            ("RM_KEK_FILE", path("kek")),
            ("RM_INDEX_MIB", "4096".into()),
            ("RM_LOG", "warn".into()),
        ];
        let (config, _) = Config::from_env(vars.into_iter().map(|(name, value)| (name.into(), value)))?;
        crate::base::log::set_level(config.log);
        Ok(config)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
