//! Whole connections over real TLS on loopback.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::base::time::Clock;
use crate::http::client::{LoadClient, trust};
use crate::http::{Deadlines, Handler, Method, Reason, Refusal, Reply, Request, Server, Settings, TlsFiles, TlsIdentity, bind, self_signed};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Answers with the request's shape; notes refusals and failed handshakes.
#[derive(Default)]
struct Mirror {
    refused: Mutex<Vec<Reason>>,
    clients: Mutex<Vec<IpAddr>>,
    tls_failures: AtomicUsize,
    handled: AtomicUsize,
    /// While set, `/wait` does not answer.
    hold: AtomicBool,
}

impl Handler for Mirror {
    fn body_limit(&self, _: Method, path: &str) -> usize {
        if path == "/large" { 1 << 20 } else { 1000 }
    }

    fn refuse(&self, refusal: &Refusal) -> Reply {
        self.refused.lock().unwrap().push(refusal.reason);
        refusal.reply()
    }

    fn handle(&self, request: Request) -> Reply {
        self.handled.fetch_add(1, Ordering::SeqCst);
        self.clients.lock().unwrap().push(request.client);
        match request.path.as_str() {
            "/panic" => panic!("a bug in the handler"),
            "/wait" => {
                while self.hold.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            "/big" => return Reply::bytes(200, "text/plain", vec![b'x'; 3_000_000]),
            "/close" => return Reply { close: true, ..Reply::empty(204) },
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
    server: Server,
    mirror: Arc<Mirror>,
    ca: Vec<u8>,
    address: SocketAddr,
    folder: std::path::PathBuf,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn folder() -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("rosemary-http-{}", crate::base::hex::encode(&crate::base::rng::array::<8>())));
    std::fs::create_dir(&path).unwrap();
    path
}

fn identity(folder: &std::path::Path) -> (TlsFiles, Vec<u8>) {
    use std::os::unix::fs::PermissionsExt;
    let made = self_signed(Some("memory.example"), &[LOOPBACK], Clock::system().now()).unwrap();
    let files = TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem"), client_ca: None, only_tls13: false };
    std::fs::write(&files.certificate, &made.certificate_pem).unwrap();
    std::fs::write(&files.key, made.key_pem.as_bytes()).unwrap();
    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o600)).unwrap();
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
    World { server, mirror, ca, address, folder }
}

impl World {
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
    assert_eq!(world.server.connections(), 1);
}
