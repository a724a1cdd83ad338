//! Closed loops of TLS clients, each on a connection of its own, handshakes apart. A thread a processor serves them all, each as its answer comes,
//! so that little of the machine goes to those who ask.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use rosemary::http::client::LoadClient;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustls::ClientConfig;

use crate::rig::Server;

/// What a run found.
#[derive(Clone, Copy, Default)]
pub struct Run {
    /// Requests a second.
    pub rate: f64,
    /// Latency in microseconds.
    pub p50: f64,
    pub p99: f64,
    /// Processor time of the server for a request, microseconds.
    pub cpu: f64,
}

/// How long a run lasts: until one of them is reached.
#[derive(Clone, Copy)]
pub struct Until {
    pub time: Duration,
    pub requests: usize,
}

/// A request as bytes.
pub fn request(method: &str, path: &str, key: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n").into_bytes();
    if !body.is_empty() {
        bytes.extend(format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()).bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// Runs `connections` clients against `server`; `make` gives the bytes of request number n. Any status but 200 and 201 is a failure.
pub fn run(server: &Server, tls: &Arc<ClientConfig>, connections: usize, until: Until, make: impl Fn(usize) -> Vec<u8> + Sync) -> Run {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(connections);
    let (next, gate) = (AtomicUsize::new(0), Barrier::new(threads + 1));
    let share = |thread| connections / threads + usize::from(thread < connections % threads);
    let work = |thread| {
        let mut clients = Clients::connect(server.address, tls, share(thread));
        gate.wait();
        let since = Instant::now();
        clients.run(|| {
            let n = if since.elapsed() < until.time { next.fetch_add(1, Ordering::Relaxed) } else { until.requests };
            (n < until.requests).then(|| make(n))
        })
    };
    let (times, took, cpu) = std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        gate.wait();
        let (since, cpu) = (Instant::now(), server.cpu());
        let times: Vec<Duration> = running.into_iter().flat_map(|thread| thread.join().expect("a client does not panic")).collect();
        (times, since.elapsed(), server.cpu().saturating_sub(cpu))
    });
    summary(times, took, cpu)
}

/// The clients of one thread.
struct Clients {
    clients: Vec<(LoadClient, Instant)>,
    ready: OwnedFd,
}

impl Clients {
    fn connect(address: SocketAddr, tls: &Arc<ClientConfig>, count: usize) -> Self {
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
        let clients: Vec<_> = (0..count).map(|_| (connect(address, tls), Instant::now())).collect();
        for (n, (client, _)) in (0..).zip(&clients) {
            epoll::add(&ready, client.socket(), epoll::EventData::new_u64(n), epoll::EventFlags::IN).expect("a socket");
        }
        Self { clients, ready }
    }

    /// Each client asks what `make` gives and waits for its answer, until that gives none. Gives how long each answer took.
    fn run(&mut self, make: impl Fn() -> Option<Vec<u8>>) -> Vec<Duration> {
        let (mut times, mut waiting) = (Vec::new(), 0);
        let ask = |(client, since): &mut (LoadClient, Instant)| match make() {
            Some(bytes) => {
                *since = Instant::now();
                client.send(&bytes).expect("the server reads");
                true
            }
            None => false,
        };
        waiting += self.clients.iter_mut().map(ask).filter(|asked| *asked).count();
        let mut events = Vec::with_capacity(self.clients.len());
        while waiting > 0 {
            events.clear();
            epoll::wait(&self.ready, spare_capacity(&mut events), None).expect("events");
            for event in &events {
                let client = &mut self.clients[usize::try_from(event.data.u64()).expect("a client's number")];
                // An answer leaves in one piece: what is not here yet comes at once.
                let (status, _, body) = client.0.answer(false).expect("the server answers");
                times.push(client.1.elapsed());
                assert!(matches!(status, 200 | 201), "{status}: {}", String::from_utf8_lossy(&body));
                waiting -= usize::from(!ask(client));
            }
        }
        times
    }
}

/// Rate, latencies and processor time of requests that took `times`.
pub fn summary(mut times: Vec<Duration>, took: Duration, cpu: Duration) -> Run {
    times.sort_unstable();
    let count = f64::from(u32::try_from(times.len().max(1)).expect("a run is short"));
    Run { rate: count / took.as_secs_f64(), p50: percentile(&times, 50), p99: percentile(&times, 99), cpu: cpu.as_secs_f64() * 1e6 / count }
}

/// What `percent` of the sorted `times` did not exceed, in microseconds.
pub fn percentile(times: &[Duration], percent: usize) -> f64 {
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

pub fn connect(address: SocketAddr, tls: &Arc<ClientConfig>) -> LoadClient {
    let since = Instant::now();
    loop {
        match LoadClient::connect_with(address, Arc::clone(tls)) {
            Ok(client) => return client,
            Err(error) => assert!(since.elapsed() < Duration::from_secs(20), "no connection: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
