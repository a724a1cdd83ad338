//! The relay's HTTPS: one request to addresses that were checked, or a handshake and nothing else.
//!
//! Invariants
//! - The connection goes to the addresses given and to no others; the certificate is checked for the destination's own name.
//! - TLS 1.2 or 1.3, against the system's certificates or the operator's; there is no way to turn the check off.
//! - No redirect is followed, no proxy used, no cookie kept, nothing read from the environment.
//! - Time, head and body of an answer are bounded.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::base::limits;
use crate::config::relay::Destination;
use crate::crypto::secret::Secret;
use crate::egress::frame::{End, Outcome};

/// Where systems keep the certificates that they trust.
const SYSTEM_CERTIFICATES: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// What every request shares.
pub struct Client {
    provider: Arc<CryptoProvider>,
    roots: Arc<Vec<Certificate<'static>>>,
    handshake: Arc<ClientConfig>,
    time: Duration,
}

/// One request.
pub struct Post<'a> {
    /// Where to.
    pub to: &'a Destination,
    /// Path, beginning with `/`.
    pub path: &'a str,
    /// The bearer token.
    pub key: Option<&'a Secret<String>>,
    /// JSON.
    pub body: &'a str,
}

impl Client {
    /// Reads the certificates in `ca`, or those of the system.
    ///
    /// Errors: there are none; the text names the file and the remedy.
    pub fn new(ca: Option<&Path>, time: Duration) -> Result<Self, String> {
        let path = match ca {
            Some(path) => path,
            None => (SYSTEM_CERTIFICATES.iter().map(Path::new).find(|path| path.exists()))
                .ok_or("no certificates of the system are here; install ca-certificates, or name a file in RM_EGRESS_CA")?,
        };
        let pem = std::fs::read(path).map_err(|error| format!("{}: {error}; check the path", path.display()))?;
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
        let mut store = RootCertStore::empty();
        let (usable, _) = store.add_parsable_certificates(certificates.iter().cloned());
        if usable == 0 {
            return Err(format!("{}: holds no usable PEM certificate", path.display()));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let handshake = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_root_certificates(store)
            .with_no_client_auth();
        let roots = certificates.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
        Ok(Self { provider, roots: Arc::new(roots), handshake: Arc::new(handshake), time })
    }

    /// Posts, to one of `addresses`, and gives what came of it.
    pub fn post(&self, post: &Post<'_>, addresses: &[IpAddr]) -> End {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::Specific(Arc::clone(&self.roots)))
            .unversioned_rustls_crypto_provider(Arc::clone(&self.provider))
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .max_response_header_size(limits::EGRESS_HEAD_BYTES_MAX)
            .max_idle_connections(0)
            .user_agent("rosemary-relay")
            .accept("application/json")
            .timeout_global(Some(self.time))
            .timeout_connect(Some(limits::EGRESS_CONNECT_TIME_MAX.min(self.time)))
            .build();
        let pinned = Pinned(addresses.iter().map(|address| SocketAddr::new(*address, post.to.port)).collect());
        let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), pinned);
        let mut request = agent.post(format!("https://{}{}", post.to, post.path)).content_type("application/json");
        if let Some(key) = post.key {
            request = request.header("authorization", format!("Bearer {}", key.expose()));
        }
        let mut answer = match request.send(post.body) {
            Ok(answer) => answer,
            Err(error) => return End::without(outcome_of(&error)),
        };
        let status = answer.status().as_u16();
        if answer.status().is_redirection() {
            return End::with_status(Outcome::Redirected, status);
        }
        let most = u64::try_from(limits::EGRESS_ANSWER_BYTES_MAX).expect("a small constant");
        match answer.body_mut().with_config().limit(most).read_to_vec() {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(body) => End { outcome: Outcome::Answered, status, body },
                Err(_) => End::with_status(Outcome::BadAnswer, status),
            },
            Err(error) => End::with_status(outcome_of(&error), status),
        }
    }

    /// Connects to one of `addresses` and finishes a handshake.
    #[allow(clippy::disallowed_methods, reason = "the relay's own process, to a listed destination whose addresses were checked")]
    pub fn handshake(&self, to: &Destination, addresses: &[IpAddr]) -> Outcome {
        let end = Instant::now() + limits::EGRESS_CONNECT_TIME_MAX.min(self.time);
        let left = || end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let connected = addresses.iter().find_map(|address| TcpStream::connect_timeout(&SocketAddr::new(*address, to.port), left()).ok());
        let Some(mut socket) = connected else {
            return if Instant::now() >= end { Outcome::TimedOut } else { Outcome::Unreachable };
        };
        let name = to.host.trim_matches(['[', ']']).to_owned();
        let Ok(name) = ServerName::try_from(name) else { return Outcome::TlsFailed };
        let Ok(mut tls) = ClientConnection::new(Arc::clone(&self.handshake), name) else { return Outcome::TlsFailed };
        while tls.is_handshaking() {
            if Instant::now() >= end {
                return Outcome::TimedOut;
            }
            let bounded = socket.set_read_timeout(Some(left())).and_then(|()| socket.set_write_timeout(Some(left())));
            // One step at a time, so that slow bytes do not extend it.
            let stepped = bounded.and_then(|()| match tls.wants_write() {
                true => tls.write_tls(&mut socket).map(drop),
                false => match tls.read_tls(&mut socket)? {
                    0 => Err(io::ErrorKind::UnexpectedEof.into()),
                    _ => tls.process_new_packets().map(drop).map_err(io::Error::other),
                },
            });
            if let Err(error) = stepped {
                // What TLS has to say about it is said.
                let _ = tls.write_tls(&mut socket);
                return outcome_of_io(&error);
            }
        }
        tls.send_close_notify();
        let _ = tls.write_tls(&mut socket);
        Outcome::Answered
    }
}

/// A resolver that knows what was checked.
#[derive(Debug)]
struct Pinned(Vec<SocketAddr>);

impl Resolver for Pinned {
    fn resolve(&self, _: &ureq::http::Uri, _: &ureq::config::Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        for address in self.0.iter().take(limits::NAME_ADDRESSES_MAX) {
            addresses.push(*address);
        }
        if addresses.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}

fn outcome_of(error: &ureq::Error) -> Outcome {
    match error {
        ureq::Error::Timeout(_) => Outcome::TimedOut,
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => Outcome::TlsFailed,
        ureq::Error::BodyExceedsLimit(_) | ureq::Error::LargeResponseHeader(..) => Outcome::TooLarge,
        ureq::Error::RedirectFailed | ureq::Error::TooManyRedirects => Outcome::Redirected,
        ureq::Error::HostNotFound => Outcome::NameUnknown,
        ureq::Error::ConnectionFailed => Outcome::Unreachable,
        ureq::Error::Io(error) => outcome_of_io(error),
        _ => Outcome::BadAnswer,
    }
}

fn outcome_of_io(error: &io::Error) -> Outcome {
    if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
        return Outcome::TlsFailed;
    }
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Outcome::TimedOut,
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::PermissionDenied => Outcome::Unreachable,
        _ => Outcome::BrokenOff,
    }
}
