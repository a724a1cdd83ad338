//! Few threads, many connections: what no peer may do to the others.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};

use super::*;
use crate::base::limits;
use crate::http::admission::Admission;
use crate::http::pool::Pool;
use crate::http::wire::{Gone, Turnstile, Wire};

fn places() -> usize {
    thread::available_parallelism().map_or(1, usize::from) * limits::PLACES_PER_CORE
}

impl World {
    fn threads(&self) -> usize {
        self.pool().threads()
    }

    fn pool(&self) -> &Pool {
        self.server.as_ref().unwrap().pool()
    }
}

#[test]
fn threads_grow_with_those_who_are_slow_and_not_with_those_who_are_many() {
    let world = world(|_| {});
    let mut clients: Vec<_> = (0..40).map(|_| world.connect()).collect();
    for _ in 0..3 {
        for client in &mut clients {
            assert_eq!(client.request("GET", "/a", &[], &[]).unwrap().0, 200);
        }
    }
    // A handshake waits for its peer, and there was one at a time.
    assert!(world.threads() <= places() + 3, "{}", world.threads());
    let slow = places() + 5;
    for client in &mut clients[..slow] {
        client.send(b"GET /a HTTP/1.1\r\nHost: ").unwrap();
    }
    eventually("who is slow has a thread", || world.threads() >= places() + slow);
    for client in &mut clients[slow..] {
        assert_eq!(client.request("GET", "/a", &[], &[]).unwrap().0, 200);
    }
    for client in &mut clients[..slow] {
        client.send(b"localhost\r\n\r\n").unwrap();
        assert_eq!(client.answer(false).unwrap().0, 200);
    }
}

#[test]
fn places_that_no_thread_could_be_found_for_are_filled_as_soon_as_there_is_one() {
    let world = world(|_| {});
    let mut clients: Vec<_> = (0..40).map(|_| world.connect()).collect();
    let mut asker = served(&world);
    world.pool().barren.store(true, Ordering::SeqCst);
    // Those who rest are called first.
    for client in &mut clients[..world.threads()] {
        client.send(b"GET /a HTTP/1.1\r\n").unwrap();
    }
    eventually("nobody is on duty", || world.pool().vacant() == places());
    asker.send(b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    world.pool().barren.store(false, Ordering::SeqCst);
    assert_eq!(asker.answer(false).unwrap().0, 200);
    eventually("every place is filled", || world.pool().vacant() == 0);
}

#[test]
fn a_server_that_was_stopped_holds_nothing_of_what_it_served() {
    let world = world(|_| {});
    let mut clients: Vec<_> = (0..10).map(|_| world.connect()).collect();
    assert_eq!(clients[0].request("GET", "/a", &[], &[]).unwrap().0, 200);
    clients[1].send(b"GET /a HTTP/1.1\r\n").unwrap();
    let mirror = Arc::clone(&world.mirror);
    world.stop();
    assert_eq!(Arc::strong_count(&mirror), 1);
}

/// A client whose handshake is over, and with it the waits of the thread that shook hands.
fn served(world: &World) -> LoadClient {
    let mut client = world.connect();
    assert_eq!(client.request("GET", "/a", &[], &[]).unwrap().0, 200);
    client
}

#[test]
fn who_sends_ahead_of_its_answers_keeps_no_place() {
    let world = world(|_| {});
    let mut client = served(&world);
    client.send(&b"GET /duty HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3)).unwrap();
    let on_duty: Vec<_> = (0..3).map(|_| String::from_utf8(client.answer(false).unwrap().2).unwrap()).collect();
    assert_eq!(on_duty, ["true", "false", "false"]);
    assert_eq!(client.request("GET", "/duty", &[], &[]).unwrap().1, b"true");
}

#[test]
fn a_long_body_is_answered_by_a_thread_that_is_not_on_duty() {
    let world = world(|_| {});
    let mut client = served(&world);
    assert_eq!(client.request("POST", "/duty", &[], &[b'x'; 1000]).unwrap().1, b"true");
    assert_eq!(client.request("POST", "/duty", &[], &[b'x'; limits::PROMPT_BODY_BYTES_MAX + 1]).unwrap().1, b"false");
}

/// Whatever length.
struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

/// The client's side of TLS 1.3 (RFC 8446) under AES-128-GCM, by hand: it sends what no client's library would.
struct ByHand {
    secret: Vec<u8>,
    key: LessSafeKey,
    iv: Vec<u8>,
    sent: u64,
}

impl ByHand {
    fn new(secret: Vec<u8>) -> Self {
        let key = UnboundKey::new(&AES_128_GCM, &expand(&secret, "key", 16)).unwrap();
        let iv = expand(&secret, "iv", 12);
        Self { secret, key: LessSafeKey::new(key), iv, sent: 0 }
    }

    /// One record (section 5.2) of `kind`.
    fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut inner = [content, &[kind]].concat();
        let head = [&[23, 3, 3][..], &u16::try_from(inner.len() + 16).unwrap().to_be_bytes()].concat();
        let mut nonce: [u8; 12] = self.iv.clone().try_into().unwrap();
        nonce[4..].iter_mut().zip(self.sent.to_be_bytes()).for_each(|(byte, other)| *byte ^= other);
        self.sent += 1;
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&head), &mut inner).unwrap();
        [head, inner].concat()
    }

    /// New keys (section 7.2), and the message that says so (section 4.6.3).
    fn new_keys(&mut self) -> Vec<u8> {
        let said = self.record(22, &[24, 0, 0, 1, 0]);
        *self = Self::new(expand(&self.secret, "traffic upd", 32));
        said
    }
}

/// HKDF-Expand-Label (section 7.1) without a context.
fn expand(secret: &[u8], label: &str, bytes: usize) -> Vec<u8> {
    let label = format!("tls13 {label}");
    let info = [&u16::try_from(bytes).unwrap().to_be_bytes()[..], &[u8::try_from(label.len()).unwrap()], label.as_bytes(), &[0]];
    let mut out = vec![0; bytes];
    Prk::new_less_safe(HKDF_SHA256, secret).expand(&info, Bytes(bytes)).unwrap().fill(&mut out).unwrap();
    out
}

/// Keeps the secret that the client's records are sealed under.
#[derive(Debug, Default)]
struct Secret(Mutex<Vec<u8>>);

impl rustls::KeyLog for Secret {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == "CLIENT_TRAFFIC_SECRET_0" {
            *self.0.lock().unwrap() = secret.to_vec();
        }
    }
}

/// A connection after its handshake, and what speaks on it from then on.
fn by_hand(world: &World) -> (TcpStream, ByHand) {
    shake_by_hand(world.address, &world.ca)
}

fn shake_by_hand(address: SocketAddr, ca: &[u8]) -> (TcpStream, ByHand) {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(ca).unwrap()).unwrap();
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites = vec![rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    let secret = Arc::new(Secret::default());
    config.key_log = Arc::clone(&secret) as Arc<dyn rustls::KeyLog>;
    let mut socket = TcpStream::connect(address).unwrap();
    let mut tls = rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).unwrap();
    }
    let secret = secret.0.lock().unwrap().clone();
    (socket, ByHand::new(secret))
}

/// Records that TLS bears for ever and that say nothing: an empty one makes up for new keys in its counts.
fn nothing(hand: &mut ByHand, times: usize) -> Vec<u8> {
    (0..times).flat_map(|_| [hand.record(23, b""), hand.new_keys()].concat()).collect()
}

#[test]
fn what_says_nothing_and_never_ends_has_its_time() {
    // Nothing of a request, the beginning of a head, or of a body.
    let begun = [&b""[..], b"GET /a HTTP/1.1\r\nHost: ", b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"];
    let ends = |begun: &[u8]| {
        let world = world(short);
        let (mut socket, mut hand) = by_hand(&world);
        if !begun.is_empty() {
            socket.write_all(&hand.record(23, begun)).unwrap();
        }
        let since = Instant::now();
        while socket.write_all(&nothing(&mut hand, 200)).is_ok() {}
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
        assert!(begun.is_empty() == world.refusals().is_empty());
    };
    thread::scope(|threads| begun.map(|begun| threads.spawn(move || ends(begun))).map(|thread| thread.join().unwrap()));
}

#[test]
fn of_what_says_nothing_only_so_much_is_read_at_once() {
    let folder = folder();
    let (files, ca) = identity(&folder);
    let listener = bind(&[LOOPBACK], 0).unwrap().remove(0);
    let address = listener.local_addr().unwrap();
    let client = thread::spawn(move || {
        let (mut socket, mut hand) = shake_by_hand(address, &ca);
        socket.write_all(&nothing(&mut hand, 4000)).unwrap();
        socket
    });
    let (socket, peer) = listener.accept().unwrap();
    let admission = Arc::new(Admission::new(9, 9, Vec::new(), Clock::system()));
    let admitted = admission.admit(socket, peer).unwrap();
    let tls = rustls::ServerConnection::new(TlsIdentity::load(&files).unwrap().current()).unwrap();
    let mut wire = Wire::new(Arc::clone(&admitted.place), tls);
    wire.handshake(Instant::now() + SOON, &Turnstile::new(1)).1.unwrap();
    let _socket = client.join().unwrap();
    let mut waiting = [0; 1];
    let (mut text, mut rounds) = (Vec::new(), 0);
    // Each round leaves something to the next until all is read.
    while admitted.place.socket.stream().peek(&mut waiting).is_ok_and(|count| count > 0) {
        assert_eq!(wire.fill(&mut text, 1000, None), Err(Gone::TimedOut));
        rounds += 1;
        admitted.place.socket.stream().set_nonblocking(true).unwrap();
    }
    assert!(rounds > 2 && text.is_empty(), "{rounds}");
    fs::remove_dir_all(folder).unwrap();
}
