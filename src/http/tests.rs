//! Whole connections over real TLS on loopback.

mod crowd;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::base::time::Clock;
use crate::base::{duty, fault};
use crate::http::client::{LoadClient, trust};
use crate::http::{
    Chunk, Deadlines, Handler, Method, Reason, Refusal, Reply, Request, Server, Settings, Source, TlsFiles, TlsIdentity, Turn, bind,
    self_signed,
};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Answers with the request's shape; notes refusals and failed handshakes.
#[derive(Default)]
struct Mirror {
    refused: Mutex<Vec<Reason>>,
    clients: Mutex<Vec<IpAddr>>,
    tls_failures: AtomicUsize,
    handled: AtomicUsize,
    /// Streams that have not ended.
    streaming: Arc<AtomicUsize>,
    /// While set, `/wait` does not answer.
    hold: AtomicBool,
}

/// Says something `left` times; then it has nothing to say (from 0), or ends.
struct Ticks {
    left: usize,
    open: Arc<AtomicUsize>,
}

impl Source for Ticks {
    fn next(&mut self, _: Duration) -> Chunk {
        match self.left {
            0 => {
                thread::sleep(Duration::from_millis(10));
                Chunk::Nothing
            }
            1 => Chunk::End,
            usize::MAX => Chunk::Bytes(vec![b'x'; 100_000].into()),
            left => {
                self.left = left - 1;
                Chunk::Bytes(format!("{left};").into_bytes().into())
            }
        }
    }
}

/// Answers from a thread of its own, with another field, a moment later.
fn later(answer: impl FnOnce() -> Reply + Send + 'static) -> Reply {
    let ask = move |turn: Turn| {
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            let _ = fault::catch(move || turn.answer(answer().header("x-own", "1")));
        });
    };
    Reply::later(ask).header("x-promised", "1")
}

impl Drop for Ticks {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Handler for Mirror {
    fn body_limit(&self, _: Method, path: &str) -> usize {
        if path == "/large" || path == "/duty" { 1 << 20 } else { 1000 }
    }

    fn refuse(&self, refusal: &Refusal) -> Reply {
        self.refused.lock().unwrap().push(refusal.reason);
        refusal.reply()
    }

    fn handle(&self, request: Request) -> Reply {
        self.handled.fetch_add(1, Ordering::SeqCst);
        self.clients.lock().unwrap().push(request.client);
        match request.path.as_str() {
            "/certificate" => return Reply::bytes(200, "text/plain", request.client_certificate.to_string().into_bytes()),
            "/duty" => return Reply::bytes(200, "text/plain", duty::is_on().to_string().into_bytes()),
            "/panic" => panic!("a bug in the handler"),
            "/wait" => {
                while self.hold.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(5));
                }
            }
            "/later" => return later(|| Reply::bytes(200, "text/plain", b"later".to_vec())),
            "/later-big" => return later(|| Reply::bytes(200, "text/plain", vec![b'x'; 30_000_000])),
            "/never" => return later(|| panic!("a bug in what was to answer")),
            "/not-asked" => return Reply::later(|_| panic!("a bug in what was to ask")),
            "/big" => return Reply::bytes(200, "text/plain", vec![b'x'; 3_000_000]),
            "/stream" => {
                self.streaming.fetch_add(1, Ordering::SeqCst);
                return Reply::stream("text/event-stream", Box::new(Ticks { left: 3, open: Arc::clone(&self.streaming) }));
            }
            "/flood" => {
                self.streaming.fetch_add(1, Ordering::SeqCst);
                return Reply::stream("text/plain", Box::new(Ticks { left: usize::MAX, open: Arc::clone(&self.streaming) }));
            }
            "/endless" => {
                self.streaming.fetch_add(1, Ordering::SeqCst);
                return Reply::stream("text/event-stream", Box::new(Ticks { left: 0, open: Arc::clone(&self.streaming) }));
            }
            "/close" => {
                let mut reply = Reply::empty(204);
                reply.close = true;
                return reply;
            }
            _ => {}
        }
        let text = format!("{} {} {}", request.method.name(), request.path, request.body.len());
        Reply::bytes(200, "text/plain", text.into_bytes())
    }

    fn tls_failed(&self, _: IpAddr) {
        self.tls_failures.fetch_add(1, Ordering::SeqCst);
    }
}

struct World {
    server: Option<Server>,
    mirror: Arc<Mirror>,
    ca: Vec<u8>,
    address: SocketAddr,
    folder: std::path::PathBuf,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn folder() -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("rosemary-http-{}", crate::base::hex::encode(&crate::base::rng::array::<8>())));
    fs::create_dir(&path).unwrap();
    path
}

fn identity(folder: &std::path::Path) -> (TlsFiles, Vec<u8>) {
    use std::os::unix::fs::PermissionsExt;
    let made = self_signed(Some("memory.example"), &[LOOPBACK], Clock::system().now()).unwrap();
    let files = TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem"), client_ca: None, only_tls13: false };
    fs::write(&files.certificate, &made.certificate_pem).unwrap();
    fs::write(&files.key, made.key_pem.as_bytes()).unwrap();
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
    (files, made.certificate_pem.into_bytes())
}

fn world(change: impl FnOnce(&mut Settings)) -> World {
    let folder = folder();
    let (files, ca) = identity(&folder);
    let mut settings = Settings::default();
    change(&mut settings);
    let mirror = Arc::new(Mirror::default());
    let tls = Arc::new(TlsIdentity::load(&files).unwrap());
    let server = Server::start(bind(&[LOOPBACK], 0).unwrap(), settings, tls, Arc::clone(&mirror) as Arc<dyn Handler>).unwrap();
    let address = server.addresses()[0];
    World { server: Some(server), mirror, ca, address, folder }
}

impl World {
    /// A new connection's answer to `bytes`: status and head.
    fn answer_to(&self, bytes: &[u8]) -> (u16, String) {
        let mut client = self.connect();
        client.send(bytes).unwrap();
        let (status, head, _) = client.answer(false).unwrap();
        (status, head)
    }

    fn connections(&self) -> usize {
        self.server.as_ref().unwrap().connections()
    }

    fn stop(mut self) {
        self.server.take().unwrap().stop();
    }

    fn refusals(&self) -> Vec<Reason> {
        std::mem::take(&mut self.mirror.refused.lock().unwrap())
    }

    fn connect(&self) -> LoadClient {
        let client = LoadClient::connect(self.address, &self.ca).unwrap();
        client.socket().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client
    }
}

#[test]
fn requests_are_answered_on_one_connection_with_the_security_headers() {
    let world = world(|_| {});
    let mut client = world.connect();
    for i in 0..3 {
        assert_eq!(client.request("POST", "/a", &[], &vec![0; i]).unwrap(), (200, format!("POST /a {i}").into_bytes()));
    }
    client.send(b"GET /b HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let (status, head, _) = client.answer(false).unwrap();
    assert_eq!(status, 200);
    for field in [
        "Strict-Transport-Security: max-age=63072000; includeSubDomains; preload",
        "X-Content-Type-Options: nosniff",
        "X-Frame-Options: DENY",
        "Referrer-Policy: strict-origin-when-cross-origin",
        "Vary: Origin",
        "Cache-Control: no-store",
    ] {
        assert!(head.contains(field), "{head}");
    }
    assert_eq!(world.connections(), 1);
}

/// Short enough to wait for, long enough for a busy machine.
const SHORT: Duration = Duration::from_millis(700);
/// What a phase of `SHORT` may take at most here; far below what a peer gains by sending a byte now and then.
const SOON: Duration = Duration::from_secs(8);

fn short(settings: &mut Settings) {
    settings.deadlines = Deadlines { head: SHORT, body: SHORT, write: SHORT, idle: SHORT, drain: SHORT, ..Deadlines::default() };
}

/// Sends `byte` every 50 ms on its own thread until the socket fails.
fn dribble(mut socket: TcpStream, byte: u8) {
    thread::spawn(move || {
        while socket.write_all(&[byte]).is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
}

/// Reads to the end; how long that took.
fn until_closed(socket: &TcpStream) -> Duration {
    let (start, mut socket) = (Instant::now(), socket);
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut scrap = [0; 4096];
    while matches!(socket.read(&mut scrap), Ok(1..)) {}
    start.elapsed()
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_handshake_that_dribbles_or_stays_silent_is_cut_off_and_noted() {
    let world = world(|settings| settings.deadlines.handshake = SHORT);
    let silent = TcpStream::connect(world.address).unwrap();
    let slow = TcpStream::connect(world.address).unwrap();
    dribble(slow.try_clone().unwrap(), 0x16);
    let plain = TcpStream::connect(world.address).unwrap();
    (&plain).write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    for socket in [&silent, &slow, &plain] {
        assert!(until_closed(socket) < SOON);
    }
    eventually("three failed handshakes", || world.mirror.tls_failures.load(Ordering::SeqCst) == 3);
    // A probe that connects and leaves is none.
    drop(TcpStream::connect(world.address).unwrap());
    eventually("all gone", || world.connections() == 0);
    assert_eq!(world.mirror.tls_failures.load(Ordering::SeqCst), 3);
}

#[test]
fn a_head_or_body_that_dribbles_is_answered_408_in_time() {
    for (start, reason) in [
        (&b"GET / HTTP/1.1\r\nX: "[..], Reason::HeadTimeout),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n", Reason::BodyTimeout),
    ] {
        let world = world(short);
        let mut client = world.connect();
        let begun = Instant::now();
        client.send(start).unwrap();
        let stopped = loop {
            match client.send(b"a") {
                Ok(()) if begun.elapsed() < SHORT * 2 => thread::sleep(Duration::from_millis(50)),
                outcome => break outcome,
            }
        };
        let _ = stopped;
        let (status, head, _) = client.answer(false).unwrap();
        assert_eq!((status, world.refusals()), (408, vec![reason]));
        assert!(head.contains("Connection: close") && begun.elapsed() < SOON);
        eventually("closed", || world.connections() == 0);
    }
}

#[test]
fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let world = world(|settings| {
        short(settings);
        settings.deadlines.idle = Duration::from_secs(20);
    });
    let mut client = world.connect();
    // More than the socket buffers of both sides hold.
    for _ in 0..8 {
        client.send(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    }
    eventually("cut off", || world.connections() == 0);
    assert!(world.mirror.handled.load(Ordering::SeqCst) < 8);
}

#[test]
fn a_large_answer_arrives_whole() {
    let world = world(|_| {});
    let (status, body) = world.connect().request("GET", "/big", &[], &[]).unwrap();
    assert_eq!((status, body.len()), (200, 3_000_000));
}

#[test]
fn an_idle_connection_is_closed_without_an_answer() {
    let world = world(short);
    let mut client = world.connect();
    assert_eq!(client.request("GET", "/", &[], &[]).unwrap().0, 200);
    assert_eq!(client.answer(false).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(world.refusals(), []);
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read_and_the_answer_arrives() {
    let world = world(|_| {});
    let huge = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000000000\r\n\r\n";
    assert_eq!(world.answer_to(huge).0, 413);
    assert_eq!(world.answer_to(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n").0, 413);
    // The client sends everything before it reads: the answer must outlive that.
    let mut whole = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n".to_vec();
    whole.resize(4_000_000, b'x');
    assert_eq!(world.answer_to(&whole).0, 413);
    assert_eq!(world.answer_to(format!("GET /{} HTTP/1.1\r\n", "a".repeat(17_000)).as_bytes()).0, 414);
    assert_eq!(world.answer_to(format!("GET / HTTP/1.1\r\nA: {}\r\n", "a".repeat(17_000)).as_bytes()).0, 431);
    use Reason::*;
    assert_eq!(world.refusals(), [BodyTooLarge, BodyTooLarge, BodyTooLarge, TargetTooLong, HeadTooLarge]);
    assert_eq!(world.mirror.handled.load(Ordering::SeqCst), 0);
    // Both sides of the limit.
    let (status, _) = world.connect().request("POST", "/", &[], &[b'x'; 1000]).unwrap();
    assert_eq!(status, 200);
    assert_eq!(world.connect().request("POST", "/large", &[], &vec![b'x'; 1 << 20]).unwrap().1, b"POST /large 1048576");
}

#[test]
fn a_refused_request_takes_what_follows_it_down() {
    let world = world(|_| {});
    for (first, status) in [
        ("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nContent-Length: 0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: localhost\nContent-Length: 0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\nHost: localhost\r\n\r\n", 505),
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        ("GET https://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 421),
        ("OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n", 403),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n\r\n", 403),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nExpect: magic\r\n\r\n", 417),
    ] {
        let mut client = world.connect();
        client.send(format!("{first}GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        let (found, head, body) = client.answer(false).unwrap();
        assert_eq!(found, status, "{first}");
        assert!(head.contains("Connection: close") && body.starts_with(b"{\"error\":"), "{head}");
        assert!(client.answer(false).is_err(), "{first}");
    }
    assert_eq!(world.mirror.handled.load(Ordering::SeqCst), 0);
}

#[test]
fn own_origins_and_hosts_pass() {
    let world = world(|settings| settings.public = crate::http::Authority::parse("memory.example:9443"));
    let port = world.address.port();
    for (host, origin) in [
        ("memory.example", "https://memory.example:9443".to_owned()),
        ("127.0.0.1", "https://127.0.0.1".to_owned()),
        (&*format!("localhost:{port}"), format!("https://localhost:{port}")),
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\r\n");
        assert_eq!(world.answer_to(text.as_bytes()).0, 200, "{text}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let world = world(|_| {});
    let mut client = world.connect();
    let mut all = Vec::new();
    for i in 0..50 {
        let body = "b".repeat(i);
        all.extend_from_slice(format!("PUT /{i} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {i}\r\n\r\n{body}\r\n").as_bytes());
    }
    client.send(&all).unwrap();
    for i in 0..50 {
        assert_eq!(client.answer(false).unwrap().2, format!("PUT /{i} {i}").into_bytes());
    }
}

#[test]
fn a_request_sent_byte_by_byte_is_read_as_if_sent_at_once() {
    let world = world(|_| {});
    let mut client = world.connect();
    for byte in b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello" {
        client.send(&[*byte]).unwrap();
    }
    assert_eq!(client.answer(false).unwrap().2, b"POST /x 5");
}

#[test]
fn head_has_the_length_and_no_body_and_the_connection_goes_on() {
    let world = world(|_| {});
    let mut client = world.connect();
    client.send(b"HEAD /abc HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let (status, head, body) = client.answer(true).unwrap();
    assert!(status == 200 && head.contains("Content-Length: 11\r\n") && body.is_empty(), "{head}");
    assert_eq!(client.request("GET", "/", &[], &[]).unwrap().1, b"GET / 0");
}

#[test]
fn a_client_that_waits_to_be_asked_for_its_body_is_asked_unless_it_is_too_large() {
    let world = world(|_| {});
    let mut client = world.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert_eq!(client.answer(true).unwrap().0, 100);
    client.send(b"abc").unwrap();
    assert_eq!(client.answer(false).unwrap().2, b"POST / 3");
    client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert_eq!(client.answer(false).unwrap().0, 413);
}

#[test]
fn http_1_0_and_connection_close_are_answered_and_closed() {
    let world = world(|_| {});
    for text in ["GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"] {
        let mut client = world.connect();
        client.send(text.as_bytes()).unwrap();
        let (status, head, _) = client.answer(false).unwrap();
        assert!(status == 200 && head.contains("Connection: close"));
        assert_eq!(client.answer(false).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
    let mut client = world.connect();
    assert_eq!(client.request("GET", "/close", &[], &[]).unwrap(), (204, Vec::new()));
    assert!(client.request("GET", "/", &[], &[]).is_err());
}

#[test]
fn a_panic_answers_500_and_ends_one_connection_alone() {
    let world = world(|_| {});
    let (mut other, mut client) = (world.connect(), world.connect());
    assert_eq!(client.request("GET", "/panic", &[], &[]).unwrap(), (500, br#"{"error":"Internal server error"}"#.to_vec()));
    assert!(client.request("GET", "/", &[], &[]).is_err());
    assert_eq!(other.request("GET", "/", &[], &[]).unwrap().0, 200);
    eventually("one left", || world.connections() == 1);
}

#[test]
fn one_address_has_its_share_and_no_more_and_a_place_is_given_back() {
    let world = world(|settings| settings.max_per_address = 3);
    let mut kept: Vec<_> = (0..3).map(|_| world.connect()).collect();
    assert!(LoadClient::connect(world.address, &world.ca).is_err());
    assert_eq!(world.connections(), 3);
    kept.pop();
    eventually("a place", || world.connections() == 2);
    assert_eq!(world.connect().request("GET", "/", &[], &[]).unwrap().0, 200);
}

#[test]
fn the_whole_has_its_bound_for_trusted_proxies_too() {
    let world = world(|settings| {
        (settings.max_per_address, settings.max_connections) = (1, 3);
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let mut kept: Vec<_> = (0..3).map(|_| world.connect()).collect();
    assert!(LoadClient::connect(world.address, &world.ca).is_err());
    let asks = [
        ("10.1.1.1", "10.1.1.1"),
        ("9.9.9.9, 10.1.1.1 ,127.0.0.9", "10.1.1.1"),
        ("9.9.9.9, junk, 127.0.0.9", "127.0.0.9"),
        ("", "127.0.0.1"),
    ];
    for (forwarded, client) in asks {
        kept[0].request("GET", "/", &[("X-Forwarded-For", forwarded)], &[]).unwrap();
        assert_eq!(world.mirror.clients.lock().unwrap().pop(), Some(client.parse().unwrap()), "{forwarded}");
    }
}

#[test]
fn when_full_the_longest_idle_connection_yields_and_a_busy_one_never_does() {
    let world = world(|settings| settings.max_connections = 2);
    let (mut busy, mut idle) = (world.connect(), world.connect());
    world.mirror.hold.store(true, Ordering::SeqCst);
    busy.send(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(idle.request("GET", "/", &[], &[]).unwrap().0, 200);
    thread::sleep(crate::base::limits::YIELD_AFTER + SHORT);
    let mut fresh = world.connect();
    // The fresh one has not waited long enough to lose its place in turn.
    assert_eq!(fresh.request("GET", "/", &[], &[]).unwrap().0, 200);
    assert!(LoadClient::connect(world.address, &world.ca).is_err());
    // At most a request that came at that very moment is answered.
    let _ = idle.request("GET", "/", &[], &[]);
    assert!(idle.request("GET", "/", &[], &[]).is_err());
    world.mirror.hold.store(false, Ordering::SeqCst);
    assert_eq!(busy.answer(false).unwrap().0, 200);
    assert_eq!((fresh.request("GET", "/", &[], &[]).unwrap().0, world.connections()), (200, 2));
}

#[test]
fn an_untrusted_peer_cannot_name_its_own_address() {
    let world = world(|_| {});
    world.connect().request("GET", "/", &[("X-Forwarded-For", "10.1.1.1")], &[]).unwrap();
    assert_eq!(world.mirror.clients.lock().unwrap().pop(), Some(LOOPBACK));
}

#[test]
fn a_stop_lets_the_answer_under_way_leave_and_closes_the_rest() {
    let world = world(|_| {});
    let (mut idle, mut busy) = (world.connect(), world.connect());
    world.mirror.hold.store(true, Ordering::SeqCst);
    busy.send(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    eventually("under way", || world.mirror.handled.load(Ordering::SeqCst) == 1);
    let mirror = Arc::clone(&world.mirror);
    thread::spawn(move || {
        thread::sleep(SHORT);
        mirror.hold.store(false, Ordering::SeqCst);
    });
    let (begun, address, shared) = (Instant::now(), world.address, Arc::clone(&world.mirror));
    let stopper = thread::spawn(move || world.stop());
    let (status, head, _) = busy.answer(false).unwrap();
    assert!(status == 200 && head.contains("Connection: close"), "{head}");
    assert!(idle.answer(false).is_err());
    drop((idle, busy));
    stopper.join().unwrap();
    assert!(begun.elapsed() >= SHORT && begun.elapsed() < SOON);
    assert!(TcpStream::connect(address).is_err());
    assert_eq!(Arc::strong_count(&shared), 1);
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let world = world(short);
    let mut client = world.connect();
    world.mirror.hold.store(true, Ordering::SeqCst);
    client.send(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    eventually("under way", || world.mirror.handled.load(Ordering::SeqCst) == 1);
    let (begun, mirror) = (Instant::now(), Arc::clone(&world.mirror));
    world.stop();
    assert!(begun.elapsed() < SOON);
    mirror.hold.store(false, Ordering::SeqCst);
}

#[test]
fn the_self_made_certificate_is_verified_and_a_renewed_one_takes_over_without_a_restart() {
    let folder = folder();
    let (files, old) = identity(&folder);
    let tls = Arc::new(TlsIdentity::load(&files).unwrap());
    let days = (tls.not_after().unwrap().ms() - Clock::system().now().ms()) / 86_400_000;
    assert!((823..=825).contains(&days), "{days}");
    let handler = Arc::new(Mirror::default());
    let server = Server::start(bind(&[LOOPBACK], 0).unwrap(), Settings::default(), Arc::clone(&tls), handler).unwrap();
    let address = server.addresses()[0];
    let mut before = LoadClient::connect(address, &old).unwrap();
    let (_, new) = identity(&folder);
    tls.reload(&files).unwrap();
    assert!(LoadClient::connect(address, &old).is_err());
    assert_eq!(LoadClient::connect(address, &new).unwrap().request("GET", "/", &[], &[]).unwrap().0, 200);
    assert_eq!(before.request("GET", "/", &[], &[]).unwrap().0, 200);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_handshake_is_post_quantum_and_resumes() {
    let world = world(|_| {});
    let config = trust(&world.ca).unwrap();
    let mut first = LoadClient::connect_with(world.address, Arc::clone(&config)).unwrap();
    assert_eq!(first.negotiated(), (rustls::ProtocolVersion::TLSv1_3, Some(rustls::NamedGroup::X25519MLKEM768), false));
    first.request("GET", "/", &[], &[]).unwrap();
    let second = LoadClient::connect_with(world.address, config).unwrap();
    assert!(second.negotiated().2);
}

#[test]
fn garbage_on_many_connections_leaves_others_served() {
    let world = world(|settings| settings.max_per_address = 1000);
    let stop = Arc::new(AtomicBool::new(false));
    let attackers: Vec<_> = (0..16u8)
        .map(|seed| {
            let (stop, address) = (Arc::clone(&stop), world.address);
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    if let Ok(mut socket) = TcpStream::connect(address) {
                        let _ = socket.write_all(&[seed.wrapping_mul(37); 3000]);
                        let _ = socket.shutdown(Shutdown::Write);
                        until_closed(&socket);
                    }
                }
            })
        })
        .collect();
    let mut client = world.connect();
    for _ in 0..200 {
        assert_eq!(client.request("GET", "/", &[], &[]).unwrap().0, 200);
    }
    stop.store(true, Ordering::SeqCst);
    attackers.into_iter().for_each(|attacker| attacker.join().unwrap());
    eventually("the client alone is left", || world.connections() == 1);
}

/// A client that presents `own` (certificate and key) if it has one, and speaks only `version` if one is given.
fn config(
    ca: &[u8],
    own: Option<(&rcgen::Certificate, &rcgen::KeyPair)>,
    version: Option<&'static rustls::SupportedProtocolVersion>,
) -> Arc<rustls::ClientConfig> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = version.map_or(rustls::ALL_VERSIONS.to_vec(), |version| vec![version]);
    let builder =
        rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions).unwrap().with_root_certificates(roots);
    Arc::new(match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
        }
    })
}

#[test]
fn tls_1_2_is_spoken_unless_it_is_turned_off() {
    for only_tls13 in [false, true] {
        let folder = folder();
        let (files, ca) = identity(&folder);
        let tls = Arc::new(TlsIdentity::load(&TlsFiles { only_tls13, ..files }).unwrap());
        let server = Server::start(bind(&[LOOPBACK], 0).unwrap(), Settings::default(), tls, Arc::new(Mirror::default())).unwrap();
        let client = LoadClient::connect_with(server.addresses()[0], config(&ca, None, Some(&rustls::version::TLS12)));
        assert_eq!(client.is_err(), only_tls13);
        if let Ok(mut client) = client {
            assert_eq!(client.request("GET", "/", &[], &[]).unwrap().0, 200);
        }
        fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn with_a_client_ca_only_clients_it_signed_come_in() {
    let folder = folder();
    let (files, ca) = identity(&folder);
    let authority = |name: &str| {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (certificate, rcgen::Issuer::new(params, key))
    };
    let (root, issuer) = authority("ours");
    let (_, foreign) = authority("theirs");
    let path = folder.join("clients.pem");
    fs::write(&path, root.pem()).unwrap();
    let tls = Arc::new(TlsIdentity::load(&TlsFiles { client_ca: Some(path), ..files }).unwrap());
    let mirror = Arc::new(Mirror::default());
    let server = Server::start(bind(&[LOOPBACK], 0).unwrap(), Settings::default(), tls, Arc::clone(&mirror) as Arc<dyn Handler>).unwrap();
    let ask = |signer: Option<&rcgen::Issuer<'_, rcgen::KeyPair>>, version| {
        let own = signer.map(|signer| {
            let mut params = rcgen::CertificateParams::new(vec!["agent".to_owned()]).unwrap();
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            let key = rcgen::KeyPair::generate().unwrap();
            (params.signed_by(&key, signer).unwrap(), key)
        });
        let own = own.as_ref().map(|(certificate, key)| (certificate, key));
        let mut client = LoadClient::connect_with(server.addresses()[0], config(&ca, own, version))?;
        client.request("GET", "/certificate", &[], &[])
    };
    for version in [None, Some(&rustls::version::TLS12)] {
        assert_eq!(ask(Some(&issuer), version).unwrap().1, b"true");
        assert!(ask(Some(&foreign), version).is_err());
        assert!(ask(None, version).is_err());
    }
    eventually("noted", || mirror.tls_failures.load(Ordering::SeqCst) == 4);
    fs::remove_dir_all(folder).unwrap();
}

/// Waits until no stream is open.
fn all_streams_end(world: &World) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.mirror.streaming.load(Ordering::SeqCst) > 0 {
        assert!(Instant::now() < deadline, "a stream is still open");
        thread::sleep(Duration::from_millis(5));
    }
}

fn ask(world: &World, path: &str, method: &str) -> LoadClient {
    let mut client = world.connect();
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    client
}

#[test]
fn a_stream_has_no_length_and_ends_with_its_connection() {
    let world = world(|_| {});
    let mut client = ask(&world, "/stream", "GET");
    let (status, head, _) = client.answer(false).unwrap();
    assert!(status == 200 && head.contains("Content-Type: text/event-stream") && head.contains("Connection: close"), "{head}");
    assert!(!head.contains("Content-Length") && head.contains("X-Content-Type-Options: nosniff"));
    assert_eq!(client.rest().unwrap(), b"3;2;");
    all_streams_end(&world);
    // HEAD has the head alone.
    let mut client = ask(&world, "/endless", "HEAD");
    assert!(client.answer(true).unwrap().1.contains("Content-Type: text/event-stream"));
    assert_eq!(client.rest().unwrap(), b"");
    all_streams_end(&world);
}

#[test]
fn a_stream_ends_when_its_peer_leaves_speaks_or_does_not_read() {
    let world = world(short);
    drop(ask(&world, "/endless", "GET"));
    all_streams_end(&world);
    let mut speaks = ask(&world, "/endless", "GET");
    speaks.answer(false).unwrap();
    speaks.send(b"GET /b HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(speaks.rest().unwrap(), b"");
    all_streams_end(&world);
    let reads_nothing = ask(&world, "/flood", "GET");
    all_streams_end(&world);
    drop(reads_nothing);
}

#[test]
fn a_stream_takes_no_place_from_requests_and_ends_at_a_stop() {
    let world = world(|settings| (settings.max_connections, settings.max_per_address) = (2, 1));
    let mut streams: Vec<_> =
        (0..3).map(|_| ask(&world, "/endless", "GET")).map(|mut client| client.answer(false).map(|_| client).unwrap()).collect();
    let mut client = world.connect();
    assert_eq!(client.request("GET", "/a", &[], &[]).unwrap().0, 200);
    assert_eq!(world.connections(), 4);
    drop(client);
    let mirror = Arc::clone(&world.mirror);
    world.stop();
    assert_eq!(mirror.streaming.load(Ordering::SeqCst), 0);
    assert!(streams.iter_mut().all(|client| client.rest().unwrap() == b""));
}

#[test]
fn an_answer_may_come_later_and_the_connection_goes_on_in_order() {
    let world = world(|_| {});
    let mut client = world.connect();
    for _ in 0..3 {
        client.send(b"GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let (status, head, body) = client.answer(false).unwrap();
        assert_eq!((status, body.as_slice()), (200, &b"later"[..]));
        assert!(head.contains("x-promised: 1") && head.contains("x-own: 1") && !head.contains("Connection"), "{head}");
    }
    // Those that come before it has left wait for it, whether they came with it, in two records, or after a while.
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
    client.send(&[get("/later"), get("/a"), get("/later")].concat()).unwrap();
    client.send(&get("/b")).unwrap();
    thread::sleep(Duration::from_millis(10));
    client.send(&get("/later")).unwrap();
    client.send(&[get("/c"), vec![b' '; 0]].concat()).unwrap();
    let answers: Vec<String> = (0..6).map(|_| String::from_utf8(client.answer(false).unwrap().2).unwrap()).collect();
    assert_eq!(answers, ["later", "GET /a 0", "later", "GET /b 0", "later", "GET /c 0"]);
    client.send(b"HEAD /later HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let (status, head, body) = client.answer(true).unwrap();
    assert!(status == 200 && body.is_empty() && head.contains("Content-Length: 5"), "{head}");
    client.send(b"GET /later HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    assert!(client.answer(false).unwrap().1.contains("Connection: close"));
    assert!(client.rest().unwrap().is_empty());
}

#[test]
fn a_promise_that_is_broken_answers_500_and_ends_one_connection_alone() {
    let world = world(|_| {});
    for path in ["/never", "/not-asked"] {
        let mut client = world.connect();
        assert_eq!(client.request("GET", path, &[], b"").unwrap().0, 500, "{path}");
        assert!(client.rest().unwrap().is_empty());
    }
    assert_eq!(world.connect().request("GET", "/a", &[], b"").unwrap().0, 200);
}

#[test]
fn who_is_still_sending_when_a_later_answer_ends_the_connection_gets_that_answer() {
    // The listening thread was woken by shutting its side of the socket; what came afterwards was answered with a TCP reset.
    let world = world(|_| {});
    for pause_ms in [0, 60] {
        let mut client = world.connect();
        client.send(b"GET /never HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        thread::sleep(Duration::from_millis(pause_ms));
        client.send(b"POST /large HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n").unwrap();
        for _ in 0..20 {
            client.send(&[b'x'; 10_000]).unwrap();
            thread::sleep(Duration::from_millis(10));
        }
        let (status, head, _) = client.answer(false).unwrap();
        assert!(status == 500 && head.contains("Connection: close"), "{head}");
        assert!(client.rest().unwrap().is_empty());
        drop(client);
        eventually("the connection ends", || world.connections() == 0);
    }
    assert_eq!(world.mirror.handled.load(Ordering::SeqCst), 2);
}

#[test]
fn a_peer_that_stays_when_a_later_answer_ends_the_connection_is_not_waited_for_longer_than_another() {
    let world = world(short);
    let mut client = world.connect();
    client.send(b"GET /never HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(client.answer(false).unwrap().0, 500);
    let start = Instant::now();
    eventually("the connection is cut off", || world.connections() == 0);
    assert!(start.elapsed() < SOON);
}

#[test]
fn a_client_that_does_not_read_a_later_answer_holds_up_nobody_and_is_cut_off() {
    let world = world(short);
    let mut client = world.connect();
    client.send(b"GET /later-big HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let start = Instant::now();
    eventually("the connection is cut off", || world.connections() == 0);
    assert!(start.elapsed() < SOON);
    drop(client);
    let mut client = world.connect();
    let (status, body) = client.request("GET", "/later-big", &[], b"").unwrap();
    assert_eq!((status, body.len()), (200, 30_000_000));
    assert_eq!(client.request("GET", "/later", &[], b"").unwrap(), (200, b"later".to_vec()));
}

#[test]
fn a_stop_lets_a_later_answer_leave_and_a_peer_that_left_is_not_waited_for() {
    let world = world(|_| {});
    let mut gone = world.connect();
    gone.send(b"GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    drop(gone);
    eventually("its connection ends", || world.connections() == 0);
    let mut client = world.connect();
    client.send(b"GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    eventually("it is asked", || world.mirror.handled.load(Ordering::SeqCst) == 2);
    world.stop();
    let (status, head, body) = client.answer(false).unwrap();
    assert_eq!((status, body.as_slice()), (200, &b"later"[..]));
    assert!(head.contains("Connection: close"), "{head}");
    assert!(client.rest().unwrap().is_empty());
}

#[test]
fn the_time_between_two_requests_begins_when_a_later_answer_has_left() {
    let world = world(|settings| settings.deadlines.idle = Duration::from_millis(20));
    let mut client = world.connect();
    client.send(b"GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(client.answer(false).unwrap().2, b"later");
    assert!(client.rest().unwrap().is_empty());
}

/// What TLS has to send, which is then sent by hand.
fn sealed(tls: &mut rustls::ClientConnection, texts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in texts {
        tls.writer().write_all(text).unwrap();
        while tls.wants_write() {
            tls.write_tls(&mut bytes).unwrap();
        }
    }
    bytes
}

/// A request as long as a record may be.
fn whole_record() -> Vec<u8> {
    let head = b"POST /large HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16320\r\n\r\n";
    [&head[..], &vec![b'x'; 16320]].concat()
}

#[test]
fn what_is_heard_while_an_answer_is_to_come_may_be_more_than_tls_takes_at_once_or_follow_its_end() {
    for ends in [true, false] {
        let world = world(|_| {});
        let mut socket = TcpStream::connect(world.address).unwrap();
        let mut tls = rustls::ClientConnection::new(trust(&world.ca).unwrap(), "localhost".try_into().unwrap()).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).unwrap();
        }
        world.mirror.hold.store(true, Ordering::SeqCst);
        socket.write_all(&sealed(&mut tls, &[b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n"])).unwrap();
        eventually("it is asked", || world.mirror.handled.load(Ordering::SeqCst) == 1);
        // So long that TLS holds nearly a whole record of the next request when the answer is promised: it takes less than is heard then.
        let (large, later) = (whole_record(), format!("GET /later HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "x".repeat(2040)));
        assert_eq!(large.len(), 16384);
        let mut bytes = sealed(&mut tls, &[&large, later.as_bytes(), &large]);
        let mut tail = bytes.split_off(bytes.len() - 90);
        if ends {
            tls.send_close_notify();
            tail.extend(sealed(&mut tls, &[b""]));
            tls.write_tls(&mut tail).unwrap();
            tail.extend([0; 3000]);
        } else {
            tail.extend(sealed(&mut tls, &[&b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"[..]; 60]));
        }
        assert!(tail.len() < 4096);
        socket.write_all(&bytes).unwrap();
        world.mirror.hold.store(false, Ordering::SeqCst);
        eventually("a later answer is promised", || world.mirror.handled.load(Ordering::SeqCst) == 3);
        socket.write_all(&tail).unwrap();
        let requests = if ends { 4 } else { 64 };
        if !ends {
            eventually("all are answered", || world.mirror.handled.load(Ordering::SeqCst) == requests);
            drop(socket);
        }
        eventually("the connection ends", || world.connections() == 0);
        assert_eq!(world.mirror.handled.load(Ordering::SeqCst), requests);
    }
}
