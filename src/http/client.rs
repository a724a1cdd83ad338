//! A load client: one keep-alive connection, as little work per request as a client can do.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// TLS settings that trust `ca_pem` alone; make them once and share them.
///
/// Errors: `InvalidData` if there is no certificate in it.
pub fn trust(ca_pem: &[u8]) -> io::Result<Arc<ClientConfig>> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        roots.add(certificate.map_err(|_| bad())?).map_err(|_| bad())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|_| bad())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// A connection to a server on this machine.
pub struct LoadClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// Bytes of the answer under way.
    received: Vec<u8>,
}

impl LoadClient {
    /// Connects as `localhost`, trusting `ca_pem`.
    pub fn connect(address: SocketAddr, ca_pem: &[u8]) -> io::Result<Self> {
        Self::connect_with(address, trust(ca_pem)?)
    }

    /// Connects as `localhost` with shared settings.
    pub fn connect_with(address: SocketAddr, config: Arc<ClientConfig>) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").expect("a host name");
        let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(tls, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream, received: Vec::with_capacity(4096) })
    }

    /// Sends one request and reads its answer: status and body. `headers` are `(name, value)`; `Host` and `Content-Length` are added.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let mut bytes = Vec::with_capacity(256 + body.len());
        write!(bytes, "{method} {path} HTTP/1.1\r\nHost: localhost\r\n")?;
        for (name, value) in headers {
            write!(bytes, "{name}: {value}\r\n")?;
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
            write!(bytes, "Content-Length: {}\r\n", body.len())?;
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        self.send(&bytes)?;
        let (status, _, body) = self.answer(method == "HEAD")?;
        Ok((status, body))
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Reads one answer: status, head, body (none with `head_only`).
    pub fn answer(&mut self, head_only: bool) -> io::Result<(u16, String, Vec<u8>)> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.more()?;
        };
        let rest = self.received.split_off(end);
        let head = String::from_utf8(std::mem::replace(&mut self.received, rest)).map_err(|_| invalid())?;
        let status = head.get(9..12).and_then(|digits| digits.parse().ok()).ok_or_else(invalid)?;
        let length =
            head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(Ok(0), str::parse).map_err(|_| invalid())?;
        let length: usize = if head_only { 0 } else { length };
        while self.received.len() < length {
            self.more()?;
        }
        let rest = self.received.split_off(length);
        Ok((status, head, std::mem::replace(&mut self.received, rest)))
    }

    /// Reads what comes until the server ends the connection in order.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.more() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(std::mem::take(&mut self.received)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Version, key exchange group, and whether an earlier session was resumed.
    pub fn negotiated(&self) -> (rustls::ProtocolVersion, Option<rustls::NamedGroup>, bool) {
        let tls = &self.stream.conn;
        let version = tls.protocol_version().expect("the handshake is over");
        let resumed = tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        (version, tls.negotiated_key_exchange_group().map(|group| group.name()), resumed)
    }

    /// The socket, for tests that set timeouts or count bytes.
    pub fn socket(&self) -> &TcpStream {
        &self.stream.sock
    }

    fn more(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => {
                self.received.extend_from_slice(&chunk[..bytes]);
                Ok(())
            }
        }
    }
}
