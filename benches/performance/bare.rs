//! The limit for writes: redb alone, unsealed, without policy, log, TLS or HTTP, doing group commits of equal-sized rows with quick
//! repair, on the same queue-and-ticket pattern as the store's writer.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};

use redb::{Database, TableDefinition};
use rosemary::base::limits::{BATCH_JOBS_MAX, QUEUE_JOBS_MAX};

use crate::load::{Run, Until, summary};

/// Sizes of one write's rows, keys and values: memory, order, counts, audit line, the log's checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Whether there is a memory with its order and counts; else the audit line alone, as after a read.
    pub writes: bool,
    pub memory: (usize, usize),
    pub order: (usize, usize),
    pub count: (usize, usize),
    pub counts: usize,
    pub line: usize,
    pub note: usize,
}

impl Sizes {
    /// As a word for another process.
    pub fn word(&self) -> String {
        let Self { memory, order, count, .. } = self;
        let numbers = [usize::from(self.writes), memory.0, memory.1, order.0, order.1, count.0, count.1, self.counts, self.line, self.note];
        numbers.map(|number| number.to_string()).join(",")
    }

    /// What [`Sizes::word`] wrote.
    pub fn parse(word: &str) -> Self {
        let numbers: Vec<usize> = word.split(',').map(|number| number.parse().expect("a size")).collect();
        let [writes, m0, m1, o0, o1, c0, c1, counts, line, note] = numbers[..] else { panic!("ten sizes") };
        Self { writes: writes == 1, memory: (m0, m1), order: (o0, o1), count: (c0, c1), counts, line, note }
    }
}

type Bytes = &'static [u8];
const fn table(name: &'static str) -> TableDefinition<'static, Bytes, Bytes> {
    TableDefinition::new(name)
}
const MEMORIES: TableDefinition<'_, Bytes, Bytes> = table("memories");
const ORDER: TableDefinition<'_, Bytes, Bytes> = table("order");
const COUNTS: TableDefinition<'_, Bytes, Bytes> = table("counts");
const AUDIT: TableDefinition<'_, Bytes, Bytes> = table("audit");
const TILES: TableDefinition<'_, Bytes, Bytes> = table("tiles");
const META: TableDefinition<'_, Bytes, Bytes> = table("meta");
/// Hashes of a full tile of the log's tree.
const TILE: (u64, usize) = (256, 8192);

/// A database with as many rows as the instance it is compared with, and its writer.
pub struct Bare {
    queue: SyncSender<Told>,
    writer: Option<std::thread::JoinHandle<()>>,
}

/// What is done once a commit is durable.
type Told = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Ticket {
    done: Mutex<bool>,
    ready: Condvar,
}

impl Bare {
    /// A new database at `path` with `rows` memories.
    pub fn new(path: &Path, rows: u64, sizes: Sizes) -> Self {
        let _ = std::fs::remove_file(path);
        let db = Database::builder().set_cache_size(64 << 20).create(path).expect("a new database");
        for first in (0..rows).step_by(2000) {
            commit(&db, first..rows.min(first + 2000), sizes);
        }
        let (queue, requests) = sync_channel(QUEUE_JOBS_MAX);
        let writer = std::thread::spawn(move || write(&db, &requests, rows, sizes));
        Self { queue, writer: Some(writer) }
    }

    /// One commit, shared with whoever else waits for one.
    pub fn commit(&self) {
        let ticket = Arc::<Ticket>::default();
        let told = Arc::clone(&ticket);
        self.then(move || {
            *told.done.lock().expect("nobody panics") = true;
            told.ready.notify_one();
        });
        let done = ticket.done.lock().expect("nobody panics");
        drop(ticket.ready.wait_while(done, |done| !*done).expect("nobody panics"));
    }

    /// The same, with `told` called once it is durable.
    pub fn then(&self, told: impl FnOnce() + Send + 'static) {
        self.queue.send(Box::new(told)).expect("the writer runs");
    }

    /// Runs `threads` writers, each waiting for its commit before the next.
    pub fn run(&self, threads: usize, until: Until) -> Run {
        let (gate, cpu) = (Barrier::new(threads + 1), own_cpu());
        let each = until.requests.div_ceil(threads);
        let (times, took) = std::thread::scope(|scope| {
            let work = || {
                gate.wait();
                let (since, mut times) = (Instant::now(), Vec::new());
                while since.elapsed() < until.time && times.len() < each {
                    let start = Instant::now();
                    self.commit();
                    times.push(start.elapsed());
                }
                times
            };
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            gate.wait();
            let since = Instant::now();
            let times: Vec<Duration> = workers.into_iter().flat_map(|worker| worker.join().expect("nobody panics")).collect();
            (times, since.elapsed())
        });
        summary(times, took, own_cpu().saturating_sub(cpu))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // The writer ends with its queue.
        (self.queue, _) = sync_channel(0);
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write(db: &Database, requests: &Receiver<Told>, mut rows: u64, sizes: Sizes) {
    while let Ok(first) = requests.recv() {
        let mut told = vec![first];
        while told.len() < BATCH_JOBS_MAX
            && let Ok(next) = requests.try_recv()
        {
            told.push(next);
        }
        let end = rows + u64::try_from(told.len()).expect("a batch is small");
        commit(db, rows..end, sizes);
        rows = end;
        told.into_iter().for_each(|told| told());
    }
}

/// One batch, as the store writes it.
fn commit(db: &Database, rows: std::ops::Range<u64>, sizes: Sizes) {
    let mut transaction = db.begin_write().expect("a transaction");
    transaction.set_quick_repair(true);
    {
        let open = |definition| transaction.open_table(definition).expect("a table");
        let (mut memories, mut order, mut counts) = (open(MEMORIES), open(ORDER), open(COUNTS));
        let (mut audit, mut tiles, mut meta) = (open(AUDIT), open(TILES), open(META));
        let insert = |table: &mut redb::Table<'_, Bytes, Bytes>, key: &[u8], bytes: usize| {
            drop(table.insert(key, &*noise(key, bytes)).expect("an insert"));
        };
        for n in rows.clone() {
            if sizes.writes {
                insert(&mut memories, &numbered(n, sizes.memory.0), sizes.memory.1);
                insert(&mut order, &numbered(n, sizes.order.0), sizes.order.1);
            }
            for count in 0..if sizes.writes { sizes.counts } else { 0 } {
                let key = numbered(u64::try_from(count).expect("a few"), sizes.count.0);
                let old = redb::ReadableTable::get(&counts, &*key).expect("a look-up").map_or(0, |old| old.value().len());
                assert!(old == 0 || old == sizes.count.1);
                insert(&mut counts, &key, sizes.count.1);
            }
            insert(&mut audit, &n.to_be_bytes(), sizes.line);
            if n % TILE.0 == TILE.0 - 1 {
                insert(&mut tiles, &numbered(n / TILE.0, 9), TILE.1);
            }
        }
        insert(&mut meta, b"checkpoint", sizes.note);
    }
    transaction.commit().expect("a commit");
}

/// A key of `bytes` bytes that ends in `n`: ascending, as times and UUIDv7 are.
fn numbered(n: u64, bytes: usize) -> Vec<u8> {
    let mut key = vec![7; bytes.saturating_sub(8)];
    key.extend(n.to_be_bytes());
    key
}

/// Bytes that do not repeat.
fn noise(key: &[u8], bytes: usize) -> Vec<u8> {
    let mut state = key.iter().fold(1u64, |state, &byte| state.wrapping_mul(1_099_511_628_211) ^ u64::from(byte));
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend(state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

fn own_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("this process runs");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<u32>().expect("a number of ticks");
    Duration::from_secs(1) * (ticks(11) + ticks(12)) / 100
}
