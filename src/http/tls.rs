//! Who we are in TLS: certificate and key, and which versions and clients we accept.
//!
//! Invariants
//! - TLS 1.2 and 1.3 only, ECDHE with AEAD only (what the provider offers); X25519MLKEM768 is preferred. No ALPN: HTTP/1.1 is all we speak.
//! - With a client CA no connection is admitted without a certificate that it signed.
//! - Tickets are sealed by keys that live in memory only, and each configuration draws its own: after a swap, no ticket of an older one
//!   (perhaps of a client that a new CA would refuse) resumes anything.
//! - A private key is never copied into an error.

use std::fs;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use crate::base::file::open_regular;
use crate::base::limits;
use crate::base::time::Timestamp;

/// Why there is no TLS. Each message names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: not readable ({error}); let the service's user read it, for example chmod 640 and chgrp rosemary", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// Everybody on this machine can read the key.
    #[error("{path}: readable by every user of this machine; chmod 640 it", path = .0.display())]
    ExposedKey(PathBuf),
    /// No certificate in it, or not in PEM.
    #[error("{path}: holds no usable PEM certificate; give the whole chain, leaf first (for client CAs, the CAs)", path = .0.display())]
    NoCertificate(PathBuf),
    /// No key in it, or not in PEM, or of a kind that is not served.
    #[error("{path}: holds no usable PEM private key; give an unencrypted PKCS#8, SEC1 or PKCS#1 key (ECDSA, Ed25519 or RSA)", path = .0.display())]
    NoKey(PathBuf),
    /// They are not a pair.
    #[error("{key}: does not belong to the certificate in {certificate}; give the key it was issued for",
        key = key.display(), certificate = certificate.display())]
    Mismatch {
        /// The key file.
        key: PathBuf,
        /// The certificate file.
        certificate: PathBuf,
    },
    /// A host cannot stand in a certificate.
    #[error("the host of the public URL cannot stand in a certificate; give RM_TLS_CERT and RM_TLS_KEY, or another host")]
    Host,
    /// The TLS library refused; never a matter of file contents.
    #[error("TLS cannot be set up: {0}")]
    Library(String),
}

/// Where certificate and key lie, and whom they are shown to.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// PEM chain, leaf first.
    pub certificate: PathBuf,
    /// PEM private key of the leaf.
    pub key: PathBuf,
    /// PEM certificates of the CAs that sign clients; then every client needs one.
    pub client_ca: Option<PathBuf>,
    /// Refuse TLS 1.2.
    pub only_tls13: bool,
}

/// The identity in use. A renewed certificate takes its place without a restart; connections under way keep the old one.
pub struct TlsIdentity {
    current: RwLock<(Arc<ServerConfig>, Option<Timestamp>)>,
}

impl TlsIdentity {
    /// Reads `files`.
    ///
    /// Errors: [`TlsError`], each with its remedy.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self { current: RwLock::new(read(files)?) })
    }

    /// Reads `files` anew; on error the identity in use stays.
    pub fn reload(&self, files: &TlsFiles) -> Result<(), TlsError> {
        let fresh = read(files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// When the certificate's time ends; `None` if it does not say so legibly. An ended one is still served: clients refuse it, the
    /// operator must hear of it.
    pub fn not_after(&self) -> Option<Timestamp> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).1
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).0)
    }
}

fn read(files: &TlsFiles) -> Result<(Arc<ServerConfig>, Option<Timestamp>), TlsError> {
    let library = |error: rustls::Error| TlsError::Library(error.to_string());
    let chain = certificates(&files.certificate)?;
    let key = private_key(&files.key)?;
    let not_after = not_after(&chain[0]);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: &[_] = if files.only_tls13 { &[&rustls::version::TLS13] } else { rustls::ALL_VERSIONS };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).map_err(library)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|_| TlsError::NoCertificate(path.clone()))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch { key: files.key.clone(), certificate: files.certificate.clone() },
        rustls::Error::InvalidCertificate(_) => TlsError::NoCertificate(files.certificate.clone()),
        _ => TlsError::NoKey(files.key.clone()),
    })?;
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(library)?;
    config.send_tls13_tickets = 1;
    Ok((Arc::new(config), not_after))
}

fn contents(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    // One allocation for any usual key, so that growing the buffer leaves no copies of it behind.
    let read = || {
        let mut file = open_regular(path)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(limits::SECRET_FILE_BYTES_MAX));
        file.read_to_end(&mut bytes).map(|_| bytes)
    };
    read().map_err(|error| TlsError::Unreadable { path: path.to_owned(), error })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&contents(path)?).collect();
    found.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| TlsError::NoCertificate(path.to_owned()))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = contents(path)?;
    let mode = fs::metadata(path).map_err(|error| TlsError::Unreadable { path: path.to_owned(), error })?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(TlsError::ExposedKey(path.to_owned()));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| TlsError::NoKey(path.to_owned()))
}

/// The end of a certificate's validity (RFC 5280 section 4.1): the second time in the fourth element (fifth, with a version) of its
/// first element.
fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut rest, _) = element(certificate)?;
    if rest.first() == Some(&0xa0) {
        rest = element(rest)?.2;
    }
    for _serial_algorithm_issuer in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest)?;
    let (tag, time, _) = element(element(validity)?.2)?;
    let time = std::str::from_utf8(time).ok().filter(|time| time.is_ascii())?;
    let (year, rest) = match tag {
        // UTCTime: two digits, 50 and above mean 19xx.
        0x17 => (if *time.as_bytes().first()? < b'5' { "20" } else { "19" }.to_owned() + time.get(..2)?, time.get(2..)?),
        0x18 => (time.get(..4)?.to_owned(), time.get(4..)?),
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2);
    Timestamp::parse(&format!("{year}-{}-{}T{}:{}:{}Z", two(0)?, two(2)?, two(4)?, two(6)?, two(8)?))
}

/// Splits one DER element off `bytes`: its tag, its contents, what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// A certificate of our own making, and its key, in PEM.
pub struct SelfSigned {
    /// Clients take this file as their CA.
    pub certificate_pem: String,
    /// A request for a certificate of the same key and names (PKCS#10), for the site's own CA.
    pub request_pem: String,
    /// PKCS#8. Wiped when dropped.
    pub key_pem: Zeroizing<String>,
}

/// How long a self-signed certificate lasts: the most that common clients accept.
const SELF_SIGNED_TIME: Duration = Duration::from_secs(825 * 86_400);

/// Makes a P-256 certificate, and a request for one that a CA signs, for localhost, both loopback addresses, `listen` and `host` (of the public URL), valid from the day before
/// `now` for 825 days.
///
/// It signs nothing but itself (`CA:FALSE`), so that whoever steals its key cannot speak for other hosts to a client that trusts it.
/// Errors: `Host` for a host that no certificate can hold.
pub fn self_signed(host: Option<&str>, listen: &[IpAddr], now: Timestamp) -> Result<SelfSigned, TlsError> {
    let library = |error: rcgen::Error| TlsError::Library(error.to_string());
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).to_vec();
    let literals = listen.iter().filter(|address| !address.is_unspecified()).map(IpAddr::to_string);
    for name in literals.chain(host.map(|host| host.trim_matches(['[', ']']).to_ascii_lowercase())) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let day = |at: Timestamp| {
        let text = at.to_string();
        let number = |range: std::ops::Range<usize>| text[range].parse::<u16>().expect("a timestamp prints digits here");
        let small = |range| u8::try_from(number(range)).expect("two digits");
        rcgen::date_time_ymd(number(0..4).into(), small(5..7), small(8..10))
    };
    let mut params = CertificateParams::new(names).map_err(|_| TlsError::Host)?;
    params.not_before = day(Timestamp::from_ms(now.ms().saturating_sub(86_400_000)));
    params.not_after = day(now.plus(SELF_SIGNED_TIME));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Rosemary");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(library)?;
    let certificate = params.self_signed(&key).map_err(library)?;
    let request_pem = params.serialize_request(&key).and_then(|request| request.pem()).map_err(library)?;
    Ok(SelfSigned { certificate_pem: certificate.pem(), request_pem, key_pem: Zeroizing::new(key.serialize_pem()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("rosemary-tls-{}", crate::base::hex::encode(&crate::base::rng::array::<8>())));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn put(&self, name: &str, text: &str, mode: u32) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn now() -> Timestamp {
        crate::base::time::Clock::system().now()
    }

    #[test]
    fn every_bad_file_is_named_with_its_remedy_and_nothing_of_the_key() {
        let folder = Folder::new();
        let (one, two) = (self_signed(None, &[], now()).unwrap(), self_signed(None, &[], now()).unwrap());
        let certificate = folder.put("cert.pem", &one.certificate_pem, 0o644);
        let key = folder.put("key.pem", &one.key_pem, 0o640);
        let wrong = folder.put("other.pem", &two.key_pem, 0o600);
        let open = folder.put("open.pem", &one.key_pem, 0o644);
        let junk = folder.put("junk.pem", "junk", 0o600);
        let cut = folder.put("cut.pem", &one.certificate_pem[..200], 0o600);
        let odd = folder.put("odd.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0o600);
        let absent = folder.0.join("absent.pem");
        let load = |certificate: &PathBuf, key: &PathBuf, client_ca: Option<&PathBuf>| {
            let (certificate, key, client_ca) = (certificate.clone(), key.clone(), client_ca.cloned());
            TlsIdentity::load(&TlsFiles { certificate, key, client_ca, only_tls13: false }).map(drop)
        };
        assert!(load(&certificate, &key, None).is_ok());
        assert!(load(&certificate, &key, Some(&certificate)).is_ok());
        for (certificate, key, client_ca, file, remedy) in [
            (&absent, &key, None, "absent.pem", "not readable"),
            (&certificate, &absent, None, "absent.pem", "chgrp rosemary"),
            (&certificate, &open, None, "open.pem", "chmod 640"),
            (&certificate, &wrong, None, "other.pem", "does not belong to the certificate in"),
            (&certificate, &junk, None, "junk.pem", "no usable PEM private key"),
            (&certificate, &certificate, None, "cert.pem", "readable by every user"),
            (&junk, &key, None, "junk.pem", "no usable PEM certificate"),
            (&cut, &key, None, "cut.pem", "no usable PEM certificate"),
            (&odd, &key, None, "odd.pem", "no usable PEM certificate"),
            (&certificate, &key, Some(&junk), "junk.pem", "no usable PEM certificate"),
            (&certificate, &key, Some(&odd), "odd.pem", "no usable PEM certificate"),
        ] {
            let message = load(certificate, key, client_ca).unwrap_err().to_string();
            assert!(message.contains(file) && message.contains(remedy), "{message}");
            assert!(!message.contains(&one.key_pem[40..60]));
        }
    }

    #[test]
    fn the_end_of_validity_is_read_and_nonsense_has_none() {
        let made = self_signed(Some("[::1]"), &["10.0.0.5".parse().unwrap()], Timestamp::parse("2040-06-15T10:00:00Z").unwrap()).unwrap();
        let certificate = CertificateDer::from_pem_slice(made.certificate_pem.as_bytes()).unwrap();
        assert_eq!(not_after(&certificate), Timestamp::parse("2042-09-18T00:00:00Z"));
        // 2050 and later are written in the other form (RFC 5280 section 4.1.2.5).
        let made = self_signed(None, &[], Timestamp::parse("2049-06-15T10:00:00Z").unwrap()).unwrap();
        let certificate = CertificateDer::from_pem_slice(made.certificate_pem.as_bytes()).unwrap();
        assert_eq!(not_after(&certificate), Timestamp::parse("2051-09-18T00:00:00Z"));
        for cut in 0..certificate.len() {
            assert_eq!(not_after(&certificate[..cut]), None);
        }
    }

    #[test]
    fn a_host_that_no_certificate_can_hold_is_an_error() {
        assert!(matches!(self_signed(Some("krankenhaus-süd.example"), &[], now()), Err(TlsError::Host)));
    }
}
