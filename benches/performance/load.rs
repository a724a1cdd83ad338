//! Closed loops of TLS clients, each on a connection and thread of its own, handshakes apart.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use rosemary::http::client::LoadClient;
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
    let (next, gate) = (AtomicUsize::new(0), Barrier::new(connections + 1));
    let (times, took, cpu) = std::thread::scope(|threads| {
        let client = || {
            let mut client = connect(server.address, tls);
            gate.wait();
            let since = Instant::now();
            let mut times = Vec::new();
            while since.elapsed() < until.time {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= until.requests {
                    break;
                }
                let bytes = make(n);
                let start = Instant::now();
                client.send(&bytes).expect("the server reads");
                let (status, _, body) = client.answer(false).expect("the server answers");
                times.push(start.elapsed());
                assert!(matches!(status, 200 | 201), "{status}: {}", String::from_utf8_lossy(&body));
            }
            times
        };
        let spawn = |_| std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(threads, client).expect("a thread");
        let clients: Vec<_> = (0..connections).map(spawn).collect();
        gate.wait();
        let (since, cpu) = (Instant::now(), server.cpu());
        let times: Vec<Duration> = clients.into_iter().flat_map(|client| client.join().expect("a client does not panic")).collect();
        (times, since.elapsed(), server.cpu().saturating_sub(cpu))
    });
    summary(times, took, cpu)
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
