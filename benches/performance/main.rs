//! Measures the product against the limit of the machine, both in one run: `docs/performance.md` has results and how to repeat them.
//!
//! ```text
//! cargo bench --features bench-internals -- [load] [search] [unlock] [empty] [--dir D] [--rounds N] [--seconds S] [--sizes N,...] [--connections N,...]
//!     [--kinds "echo,floor,get,browse,search,bare,write floor,write"] [--writes N]
//! ```
//! The server is a process of its own (`rosemary serve`), and so is the TLS echo; their processor time and memory are read from /proc.
//! What is compared is measured in turns within one round, and the median of the rounds' ratios is what counts: machines are noisy.

// A bench plays clients and starts processes, which the product never does.
#![allow(clippy::disallowed_methods)]

mod bare;
mod load;
mod rig;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bare::{Bare, Sizes};
use load::{Run, Until, connect, percentile, request};
use rig::{Instance, Server, forget_cached, say};
use rosemary::http::echo::Echo;
use rosemary::http::{self, Handler, Method, Refusal, Reply, Request, TlsFiles, TlsIdentity, Turn};
use rosemary::store::index::measure::{Seeded, Vocabulary};

/// 1,000 queries of 1 to 8 words, written by `--queries` from seed 77.
const QUERIES: &str = include_str!("queries.txt");
/// Literal terms, from those that everything holds to one that nothing does.
const TERMS: [&str; 9] = ["e", "th", "the", "patient", "hypertension", "mg", "neph", "patient with", "zzyzx"];

struct Args {
    sections: Vec<String>,
    dir: PathBuf,
    rounds: usize,
    seconds: f64,
    sizes: Vec<usize>,
    connections: Vec<usize>,
    /// Which kinds of requests `load` makes; all of them if empty.
    kinds: Vec<String>,
    /// Writes at each number of connections, at most.
    writes: usize,
    unlock: usize,
}

impl Args {
    fn wants(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|asked| asked == kind)
    }
}

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let mut args = Args {
        sections: Vec::new(),
        dir: Path::new(env!("CARGO_MANIFEST_DIR")).join("target/performance"),
        rounds: 3,
        seconds: 2.0,
        sizes: vec![1_000, 10_000, 100_000],
        connections: vec![1, 16, 64, 256],
        kinds: Vec::new(),
        writes: 3_000,
        unlock: 1_000_000,
    };
    let list = |text: String| text.split(',').map(|n| n.parse().expect("a number")).collect();
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("the option has a value");
        match word.as_str() {
            "--echo" => return echo(&value(), &value(), &value()),
            "--floor" => return floor(&value(), &value(), &value(), &value()),
            "--queries" => return Vocabulary::new(30_000).queries(1000).iter().for_each(|query| println!("{}", query.trim())),
            "--dir" => args.dir = value().into(),
            "--rounds" => args.rounds = value().parse().expect("a number"),
            "--seconds" => args.seconds = value().parse().expect("a number"),
            "--sizes" => args.sizes = list(value()),
            "--connections" => args.connections = list(value()),
            "--kinds" => args.kinds = value().split(',').map(str::to_owned).collect(),
            "--writes" => args.writes = value().parse().expect("a number"),
            "--unlock" => args.unlock = value().parse().expect("a number"),
            section => args.sections.push(section.to_owned()),
        }
    }
    std::fs::create_dir_all(&args.dir).expect("the bench folder can be made");
    args.dir = args.dir.canonicalize().expect("the bench folder is there");
    for (name, section) in [("load", loads as fn(&Args)), ("search", searches), ("unlock", unlocks), ("empty", empty)] {
        if args.sections.is_empty() || args.sections.iter().any(|asked| asked == name) {
            section(&args);
        }
    }
}

/// The echo as a process: nothing but our HTTP and TLS.
fn echo(folder: &str, bytes: &str, port: &str) {
    answer(folder, port, Arc::new(Echo::new(bytes.parse().expect("a size"))));
}

/// The least that an answer costs which waits for what it is about to be durable: the echo, after a bare group commit of rows of these sizes. No
/// sealing, policy, record or search.
fn floor(folder: &str, bytes: &str, port: &str, sizes: &str) {
    let sizes = Sizes::parse(sizes);
    let bare = Bare::new(&Path::new(folder).join(format!("floor-{port}.redb")), 1000, sizes);
    answer(folder, port, Arc::new(Floor { echo: Echo::new(bytes.parse().expect("a size")), bare: Arc::new(bare) }));
}

struct Floor {
    echo: Echo,
    bare: Arc<Bare>,
}

impl Handler for Floor {
    fn body_limit(&self, method: Method, path: &str) -> usize {
        self.echo.body_limit(method, path)
    }

    fn refuse(&self, refusal: &Refusal) -> Reply {
        self.echo.refuse(refusal)
    }

    fn handle(&self, request: Request) -> Reply {
        let reply = self.echo.handle(request);
        let (bare, told) = (Arc::clone(&self.bare), |turn: Turn| move || turn.answer(reply));
        Reply::later(move |turn| bare.then(told(turn)))
    }

    fn tls_failed(&self, _: IpAddr) {}
}

/// Serves until it is killed.
fn answer(folder: &str, port: &str, handler: Arc<dyn Handler>) {
    let file = |name: &str| Path::new(folder).join(name);
    let files = TlsFiles { certificate: file("cert.pem"), key: file("key.pem"), client_ca: None, only_tls13: false };
    let tls = Arc::new(TlsIdentity::load(&files).expect("a certificate"));
    let listeners = http::bind(&[IpAddr::V4(Ipv4Addr::LOCALHOST)], port.parse().expect("a port")).expect("the port is free");
    let settings = http::Settings { max_per_address: 1024, ..http::Settings::default() };
    let _server = http::Server::start(listeners, settings, tls, handler).expect("it starts");
    loop {
        std::thread::park();
    }
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
    (at(values.len() / 2) + at(values.len().saturating_sub(1) / 2)) / 2.0
}

/// Runs of one kind, in order of rounds.
#[derive(Default)]
struct Rounds(Vec<(usize, usize, &'static str, Vec<Run>)>);

impl Rounds {
    fn push(&mut self, size: usize, connections: usize, kind: &'static str, run: Run) {
        say(&format!(
            "{size:>7} {connections:>4} {kind:<11} {:>8.0}/s p50 {:>7.0} p99 {:>7.0} cpu {:>6.0} us",
            run.rate, run.p50, run.p99, run.cpu
        ));
        match self.0.iter_mut().find(|(s, c, k, _)| (*s, *c, *k) == (size, connections, kind)) {
            Some((.., runs)) => runs.push(run),
            None => self.0.push((size, connections, kind, vec![run])),
        }
    }

    fn of(&self, size: usize, connections: usize, kind: &str, what: fn(&Run) -> f64) -> Vec<f64> {
        let found = self.0.iter().find(|(s, c, k, _)| (*s, *c, *k) == (size, connections, kind));
        found.map(|(.., runs)| runs.iter().map(what).collect()).unwrap_or_default()
    }

    fn print(&self) {
        println!("\n| memories | connections | what | per second | p50 us | p99 us | server CPU us each |\n|--:|--:|---|--:|--:|--:|--:|");
        for (size, connections, kind, runs) in &self.0 {
            let middle = |what: fn(&Run) -> f64| median(runs.iter().map(what).collect());
            let [rate, p50, p99, cpu] = [middle(|r| r.rate), middle(|r| r.p50), middle(|r| r.p99), middle(|r| r.cpu)];
            println!("| {size} | {connections} | {kind} | {rate:.0} | {p50:.0} | {p99:.0} | {cpu:.0} |");
        }
    }
}

/// Median of the quotients, round by round.
fn ratio(above: &[f64], below: &[f64]) -> f64 {
    median(above.iter().zip(below).map(|(a, b)| a / b).collect())
}

/// (a) to (c): echo, bare engine, and every kind of request, in turns.
fn loads(args: &Args) {
    let (vocabulary, mut rounds, mut memory) = (Vocabulary::new(30_000), Rounds::default(), Vec::new());
    let queries: Vec<&str> = QUERIES.lines().collect();
    for &size in &args.sizes {
        let base = Instance::filled(&args.dir, size);
        let (ids, key, tls) = (base.ids(), base.key(), base.tls());
        let sizes = real_sizes(args, &base, &vocabulary);
        say(&format!("rows of one write: {sizes:?}"));
        for _ in 0..args.rounds {
            let instance = base.copy(&args.dir, "run");
            let server = instance.serve();
            let get = |n: usize| {
                let id = &ids[Seeded(u64::try_from(n).expect("usize fits u64")).below(ids.len())];
                request("GET", &format!("/agent/memories/{id}"), &key, b"")
            };
            let browse = |_| request("POST", "/agent/memories/browse", &key, br#"{"filter":{"by":"all"},"limit":50}"#);
            let search = |n: usize| request("POST", "/api/v1/memories/search", &key, &question(queries[n % queries.len()]));
            warm(&server, &instance);
            let answer = answered(&server, &instance, &get(0));
            let echo = Server::echo(&instance, answer.len());
            let floor = Server::floor(&instance, answer.len(), Sizes { writes: false, ..sizes });
            let until = Until { time: Duration::from_secs_f64(args.seconds), requests: usize::MAX };
            for &connections in &args.connections {
                let mut measure = measure(args, &mut rounds, size, connections);
                measure("echo", &|| load::run(&echo, &tls, connections, until, get));
                measure("floor", &|| load::run(&floor, &tls, connections, until, get));
                measure("get", &|| load::run(&server, &tls, connections, until, get));
                measure("browse", &|| load::run(&server, &tls, connections, until, browse));
                measure("search", &|| load::run(&server, &tls, connections, until, search));
            }
            memory.push((size, "after reads", server.rss()));
            let bare = Bare::new(&args.dir.join("bare.redb"), u64::try_from(size).expect("usize fits u64"), sizes);
            let answer = answered(&server, &instance, &request("POST", "/agent/memories", &key, &rig::body(&vocabulary, 2_000_000)));
            let floor = Server::floor(&instance, answer.len(), sizes);
            let mut written = 0;
            // The growth of CPU per write is judged at 64 connections, so these come while the size is still what it is called.
            let mut order = args.connections.clone();
            order.sort_by_key(|&connections| connections != 64);
            for connections in order {
                let until = Until { requests: args.writes, ..until };
                let first = written;
                written += until.requests;
                let bodies: Vec<Vec<u8>> =
                    (first..written).map(|n| request("POST", "/agent/memories", &key, &rig::body(&vocabulary, n))).collect();
                let mut measure = measure(args, &mut rounds, size, connections);
                measure("bare", &|| bare.run(connections, until));
                measure("write floor", &|| load::run(&floor, &tls, connections, until, |n| bodies[n].clone()));
                measure("write", &|| load::run(&server, &tls, connections, until, |n| bodies[n].clone()));
            }
            memory.push((size, "after writes", server.rss()));
            server.stop();
        }
    }
    rounds.print();
    println!("\n| memories | when | RSS MiB | at most |\n|--:|---|--:|--:|");
    for (size, when, (now, most)) in memory {
        println!("| {size} | {when} | {} | {} |", now >> 20, most >> 20);
    }
    targets(args, &rounds);
}

/// Takes down what each asked-for kind of request does.
fn measure<'r>(args: &'r Args, rounds: &'r mut Rounds, size: usize, connections: usize) -> impl FnMut(&'static str, &dyn Fn() -> Run) + 'r {
    move |kind, run| {
        if args.wants(kind) {
            rounds.push(size, connections, kind, run());
        }
    }
}

fn targets(args: &Args, rounds: &Rounds) {
    println!(
        "\n| memories | write/bare at 64 | get/min(echo, bare) at 256 | CPU get/echo at 64 | CPU get/echo at 256 |\n|--:|--:|--:|--:|--:|"
    );
    for &size in &args.sizes {
        let rate = |connections, kind| rounds.of(size, connections, kind, |run| run.rate);
        let cpu = |connections, kind| rounds.of(size, connections, kind, |run| run.cpu);
        let limit: Vec<f64> = rate(256, "echo").iter().zip(rate(256, "bare")).map(|(echo, bare)| echo.min(bare)).collect();
        println!(
            "| {size} | {:.2} | {:.2} | {:.2} | {:.2} |",
            ratio(&rate(64, "write"), &rate(64, "bare")),
            ratio(&rate(256, "get"), &limit),
            ratio(&cpu(64, "get"), &cpu(64, "echo")),
            ratio(&cpu(256, "get"), &cpu(256, "echo")),
        );
    }
    if let (Some(first), Some(last)) = (args.sizes.first(), args.sizes.last()) {
        let cpu = |size: &usize| median(rounds.of(*size, 64, "write", |run| run.cpu));
        println!("\nCPU per write at 64 connections, {last} against {first} memories: {:.2}", cpu(last) / cpu(first));
    }
}

/// The rows that writes through the product leave, measured on a copy.
fn real_sizes(args: &Args, base: &Instance, vocabulary: &Vocabulary) -> Sizes {
    let instance = base.copy(&args.dir, "sample");
    let (server, key) = (instance.serve(), instance.key());
    for n in 0..200 {
        answered(&server, &instance, &request("POST", "/agent/memories", &key, &rig::body(vocabulary, n + 1_000_000)));
    }
    server.stop();
    let rows = instance.row_sizes();
    let of = |name: &str| rows.iter().find(|row| row.0 == name).map(|row| (row.1, row.2)).expect("a table");
    Sizes {
        writes: true,
        memory: of("memories"),
        order: of("memory_order"),
        count: of("memory_counts"),
        counts: 2,
        line: of("audit").1,
        note: 220,
    }
}

fn question(query: &str) -> Vec<u8> {
    format!(r#"{{"query":"{query}","limit":10}}"#).into_bytes()
}

/// The body of the answer to one request.
fn answered(server: &Server, instance: &Instance, bytes: &[u8]) -> Vec<u8> {
    let mut client = connect(server.address, &instance.tls());
    client.send(bytes).expect("the server reads");
    let (status, _, body) = client.answer(false).expect("the server answers");
    assert!(matches!(status, 200 | 201), "{status}: {}", String::from_utf8_lossy(&body));
    body
}

/// Asks until the search index is there. Gives the time it took.
fn warm(server: &Server, instance: &Instance) -> Duration {
    let (since, bytes) = (Instant::now(), request("POST", "/api/v1/memories/search", &instance.key(), &question("warm")));
    let mut client = connect(server.address, &instance.tls());
    loop {
        client.send(&bytes).expect("the server reads");
        if client.answer(false).expect("the server answers").0 == 200 {
            // Small scopes are answered by a scan meanwhile.
            std::thread::sleep(Duration::from_millis(300));
            return since.elapsed().saturating_sub(Duration::from_millis(300));
        }
        assert!(since.elapsed() < Duration::from_secs(600), "the index is not built");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Time inside the search routes, without waiting for the commit, as the server itself tells.
fn searches(args: &Args) {
    let size = args.sizes.last().copied().unwrap_or(100_000);
    let instance = Instance::filled(&args.dir, size).copy(&args.dir, "run");
    let server = instance.serve();
    let (before, key) = (server.cpu(), instance.key());
    let took = warm(&server, &instance);
    println!(
        "\nWarm-up over {size} memories: {:.1} s, {:.1} s of CPU; RSS then {} MiB",
        took.as_secs_f64(),
        (server.cpu() - before).as_secs_f64(),
        server.rss().0 >> 20
    );
    let mut client = connect(server.address, &instance.tls());
    let mut ask = |bytes: &[u8]| {
        client.send(bytes).expect("the server reads");
        let (status, head, body) = client.answer(false).expect("the server answers");
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let told = |name: &str| {
            let us = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix(name).map(|us| us.parse().expect("a number")));
            // Told of searches alone.
            Duration::from_micros(us.unwrap_or(0))
        };
        (told("x-bench-work-us: "), told("x-bench-cpu-us: "), body)
    };
    let queries: Vec<Vec<u8>> = QUERIES.lines().map(|query| request("POST", "/api/v1/memories/search", &key, &question(query))).collect();
    println!("\n| pass of 1,000 | p50 ms | p99 ms | max ms | CPU p50 ms | CPU p99 ms |\n|---|--:|--:|--:|--:|--:|");
    for (name, round) in [("first", 0), ("second", 1), ("third", 2)] {
        let (times, mut cpu): (Vec<Duration>, Vec<Duration>) =
            queries.iter().map(|query| ask(query)).map(|(work, cpu, _)| (work, cpu)).unzip();
        let by_words = |words: usize| {
            let mut of: Vec<Duration> = times.iter().skip(words - 1).step_by(8).copied().collect();
            of.sort_unstable();
            format!("{:.0}/{:.0}", percentile(&of, 50), percentile(&of, 99))
        };
        let words: Vec<String> = (1..=8).map(by_words).collect();
        let mut times = times.clone();
        times.sort_unstable();
        cpu.sort_unstable();
        let [p50, p99, most] = [50, 99, 100].map(|percent| percentile(&times, percent) / 1000.0);
        let [cpu50, cpu99] = [50, 99].map(|percent| percentile(&cpu, percent) / 1000.0);
        println!("| {name} | {p50:.2} | {p99:.2} | {most:.2} | {cpu50:.2} | {cpu99:.2} |");
        if round == 2 {
            println!("\nThird pass by number of words, 1 to 8, p50/p99 us: {}", words.join(" "));
        }
    }
    println!("\n| literal term | memories that hold it | ms inside (median of 7) | CPU ms |\n|---|--:|--:|--:|");
    let all = instance.ids().len();
    for term in TERMS {
        let found = {
            let body = format!(r#"{{"filter":{{"by":"search","term":"{term}"}},"limit":1}}"#);
            let (.., answer) = ask(&request("POST", "/agent/memories/browse", &key, body.as_bytes()));
            let text = String::from_utf8_lossy(&answer).into_owned();
            let total = text.split("\"total\":").nth(1).map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
            total.unwrap_or_else(|| format!("? of {all}"))
        };
        let body = format!(r#"{{"term":"{term}"}}"#);
        let bytes = request("POST", "/agent/memories/search", &key, body.as_bytes());
        let (times, cpu) = (0..7).map(|_| ask(&bytes)).map(|(work, cpu, _)| (work.as_secs_f64() * 1e3, cpu.as_secs_f64() * 1e3)).unzip();
        println!("| `{term}` | {found} | {:.2} | {:.2} |", median(times), median(cpu));
    }
    server.stop();
}

/// (d): from the start of the process to its first answer over TLS, with a key file.
fn unlocks(args: &Args) {
    let size = args.unlock;
    let base = Instance::filled(&args.dir, size);
    let instance = base.copy(&args.dir, "unlock");
    let (key, tls, vocabulary) = (instance.key(), instance.tls(), Vocabulary::new(30_000));
    println!(
        "\nUnlock of {size} memories ({} MiB), process start to first answer:",
        instance.data().metadata().map_or(0, |data| data.len() >> 20)
    );
    println!("\n| after | cache | ms, each round |\n|---|---|---|");
    let [mut clean, mut killed, mut cold] = [const { Vec::new() }; 3];
    let ms = |server: &Server| format!("{:.0}", server.up.as_secs_f64() * 1e3);
    instance.serve().stop();
    for round in 0..args.rounds {
        let server = instance.serve();
        clean.push(ms(&server));
        let bodies: Vec<Vec<u8>> =
            (0..20_000).map(|n| request("POST", "/agent/memories", &key, &rig::body(&vocabulary, n + 20_000 * round))).collect();
        // Killed in the middle of writes: the clients' connections break, which is not a failure here.
        std::thread::scope(|threads| {
            for client in 0..64 {
                let (bodies, tls, address) = (&bodies, &tls, server.address);
                threads.spawn(move || {
                    let mut client_connection = connect(address, tls);
                    for body in bodies.iter().skip(client).step_by(64) {
                        if client_connection.send(body).and_then(|()| client_connection.answer(false)).is_err() {
                            return;
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(1500));
            server.kill();
        });
        let server = instance.serve();
        killed.push(ms(&server));
        server.kill();
        forget_cached(&instance.data()).expect("the cache can be dropped");
        let server = instance.serve();
        cold.push(ms(&server));
        server.stop();
    }
    println!(
        "| clean stop | warm | {} |\n| kill -9 under 64 writers | warm | {} |\n| kill -9 | cold | {} |",
        clean.join(" "),
        killed.join(" "),
        cold.join(" ")
    );
}

/// Memory of an instance that holds nothing, a minute after its start.
fn empty(args: &Args) {
    let instance = Instance::init(&args.dir.join("empty"));
    let server = instance.serve();
    let (start, _) = server.rss();
    std::thread::sleep(Duration::from_secs(60));
    let (now, most) = server.rss();
    println!(
        "\nEmpty instance: RSS {:.1} MiB at its first answer, {:.1} MiB 60 s later, at most {:.1} MiB",
        mib(start),
        mib(now),
        mib(most)
    );
    println!("Program under test: {} bytes", std::fs::metadata(rig::program()).map_or(0, |file| file.len()));
    server.stop();
}

fn mib(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX)) / 1024.0
}
