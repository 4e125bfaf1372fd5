//! TLS as registries have it. Many a registry of a company has one certificate that is its own authority, as Docker's
//! documentation makes it (`openssl req -x509`), and users trust that very certificate. Go takes it; rustls does not, as
//! an authority's certificate is no server's, nor is a server's an authority's. ureq's own connector takes no verifier, so
//! this one stands in for it.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use ureq::{
    Agent, Error,
    config::Config,
    tls::Certificate,
    unversioned::{
        resolver::DefaultResolver,
        transport::{
            Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
            TransportAdapter,
            time::{Duration, Instant},
        },
    },
};

use super::{connect::Tcp, issuer::element, url::bare_host};
use crate::unverified::Unverified;

/// Who is trusted.
pub(super) enum Trust {
    /// Whoever answers: the user has said so.
    Anyone,
    /// These authorities, and servers that have one of their certificates.
    These(Arc<Vec<Certificate<'static>>>),
}

/// An agent that trusts these.
pub(super) fn agent(config: Config, trust: Trust) -> Result<Agent, rustls::Error> {
    let tls = Tls(client_config(trust)?);
    let connector = ConnectProxyConnector::default().chain(Tcp).chain(tls);
    Ok(Agent::with_parts(config, connector, DefaultResolver::default()))
}

fn client_config(trust: Trust) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let trusted = match trust {
        Trust::Anyone => {
            let config = builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)));
            return Ok(Arc::new(config.with_no_client_auth()));
        }
        Trust::These(trusted) => trusted,
    };
    let mut roots = RootCertStore::empty();
    // What is no certificate of an authority cannot sign anything, but may be the server's own.
    roots.add_parsable_certificates(trusted.iter().map(|c| CertificateDer::from(c.der())));
    let config = match WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() {
        Ok(usual) => builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier { usual, trusted })),
        // Where nobody is trusted, nothing is.
        Err(_) => builder.with_root_certificates(RootCertStore::empty()),
    };
    Ok(Arc::new(config.with_no_client_auth()))
}

/// The usual verifier, and where that has no way from the certificate to an authority, whether it is trusted itself.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    trusted: Arc<Vec<Certificate<'static>>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let error = match self.usual.verify_server_cert(server, chain, name, ocsp, now) {
            Err(error) if is_about_signing(&error) => error,
            result => return result,
        };
        let trusted = self.trusted.iter().any(|trusted| trusted.der() == server.as_ref());
        if !trusted || is_for_servers(server) != Some(true) {
            return Err(error);
        }
        // These errors come after the check of the dates.
        verify_server_name(&ParsedCertificate::try_from(server)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// Whether nothing is wrong but who signed the certificate, or that it may sign others.
fn is_about_signing(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.to_string() == "CaUsedAsEndEntity",
        _ => false,
    }
}

const BOOLEAN: u8 = 0x01;
/// The field of a certificate that has its extensions (RFC 5280, section 4.1).
const EXTENSIONS: u8 = 0xa3;
/// The extension that says what the certificate is for (section 4.2.1.12).
const PURPOSES: [u8; 3] = [0x55, 0x1d, 37];
const FOR_SERVERS: [u8; 8] = [0x2b, 6, 1, 5, 5, 7, 3, 1];
const FOR_ANYTHING: [u8; 4] = [0x55, 0x1d, 37, 0];

/// Whether a certificate is for servers, as far as it says what it is for; `None`: it cannot be read.
fn is_for_servers(certificate: &[u8]) -> Option<bool> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    let mut extensions: &[u8] = &[];
    while !fields.is_empty() {
        let (tag, content, rest) = element(fields)?;
        fields = rest;
        if tag == EXTENSIONS {
            extensions = element(content)?.1;
        }
    }
    while !extensions.is_empty() {
        let (_, extension, rest) = element(extensions)?;
        extensions = rest;
        let (_, id, value) = element(extension)?;
        if id != PURPOSES {
            continue;
        }
        let (tag, content, rest) = element(value)?;
        let content = if tag == BOOLEAN { element(rest)?.1 } else { content };
        let (_, mut purposes, _) = element(content)?;
        while !purposes.is_empty() {
            let (_, purpose, rest) = element(purposes)?;
            purposes = rest;
            if purpose == FOR_SERVERS || purpose == FOR_ANYTHING {
                return Some(true);
            }
        }
        return Some(false);
    }
    Some(true)
}

/// ureq's connector for rustls, with a verifier of our own.
struct Tls(Arc<ClientConfig>);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, Encrypted>;

    fn connect(&self, details: &ConnectionDetails<'_>, inner: Option<In>) -> Result<Option<Self::Out>, Error> {
        let Some(inner) = inner else { return Ok(None) };
        // A proxy that is asked for a tunnel is connected to by the same connectors.
        if !details.needs_tls() || inner.is_tls() {
            return Ok(Some(Either::A(inner)));
        }
        let (connection, stream) = handshake(self.0.clone(), inner, details, rest(details))?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Encrypted { buffers, stream: StreamOwned::new(connection, stream) })))
    }
}

/// Agrees with the server that the URL names.
pub(super) fn handshake(
    config: Arc<ClientConfig>,
    inner: impl Transport,
    details: &ConnectionDetails<'_>,
    timeout: NextTimeout,
) -> Result<(ClientConnection, TransportAdapter), Error> {
    let name = ServerName::try_from(bare_host(details.uri)).map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
    let mut stream = TransportAdapter::new(inner.boxed(), details.current_time.clone());
    stream.set_timeout(timeout);
    connection.complete_io(&mut stream)?;
    Ok((connection, stream))
}

/// What is left of the time for a connection: the handshake is part of it.
fn rest(details: &ConnectionDetails<'_>) -> NextTimeout {
    let mut timeout = details.timeout;
    let (limit, begin, now) = (timeout.after, details.now, (details.current_time)());
    if let (Duration::Exact(limit), Instant::Exact(begin), Instant::Exact(now)) = (limit, begin, now) {
        timeout.after = Duration::Exact(limit.saturating_sub(now.saturating_duration_since(begin)));
    }
    timeout
}

/// A connection that is encrypted.
struct Encrypted {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl std::fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encrypted").field("inner", &self.stream.sock.inner()).finish_non_exhaustive()
    }
}

impl Transport for Encrypted {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        Ok(self.stream.write_all(output)?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{path::Path, process::Command, time};

    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn make(dir: &Path, arguments: &str) {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Docker's recipe makes `own`, and with the same key `again` and two that say what they are for; `leaf` and `sub`,
    /// which may sign others, are signed by `ca`.
    fn certificates(dir: &Path) {
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        let host = "-days 30 -subj /CN=registry.example -addext subjectAltName=DNS:registry.example";
        make(dir, &format!("req -x509 {key} {host} -keyout own.key -out own"));
        make(dir, &format!("req -x509 -key own.key {host} -set_serial 7 -out again"));
        for (name, purposes) in [("for-clients", "clientAuth"), ("for-servers", "critical,clientAuth,serverAuth")] {
            let purposes = format!("-addext extendedKeyUsage={purposes}");
            make(dir, &format!("req -x509 -key own.key {host} {purposes} -out {name}"));
        }
        make(dir, &format!("req -x509 {key} -days 30 -subj /CN=ca -keyout ca.key -out ca"));
        for (name, is_ca) in [("leaf", "FALSE"), ("sub", "TRUE")] {
            let text = format!("subjectAltName=DNS:registry.example\nbasicConstraints=CA:{is_ca}\n");
            std::fs::write(dir.join("extensions"), text).unwrap();
            make(dir, &format!("req {key} -subj /CN=registry.example -keyout {name}.key -out {name}.csr"));
            let by = "-CA ca -CAkey ca.key -CAcreateserial -days 30 -extfile extensions";
            make(dir, &format!("x509 -req -in {name}.csr {by} -out {name}"));
        }
    }

    #[test]
    fn a_certificate_that_is_trusted_itself_is_good_for_its_name_and_time() {
        let dir = tempfile::tempdir().unwrap();
        certificates(dir.path());
        let read = |name: &str| CertificateDer::from_pem_file(dir.path().join(name)).unwrap();
        let verify = |server: &str, trusted: &str, name: &str, days: i64| {
            let trusted = Arc::new(vec![Certificate::from_der(&read(trusted)).to_owned()]);
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(trusted.iter().map(|c| CertificateDer::from(c.der())));
            let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            let now = UnixTime::now().as_secs().checked_add_signed(days * 86400).unwrap();
            let now = UnixTime::since_unix_epoch(time::Duration::from_secs(now));
            let name = ServerName::try_from(name.to_string()).unwrap();
            Verifier { usual, trusted }.verify_server_cert(&read(server), &[], &name, &[], now).is_ok()
        };
        let (own, other) = ("registry.example", "other.example");
        for (server, trusted, name, days, good) in [
            ("own", "own", own, 1, true),
            ("own", "own", other, 1, false),
            ("own", "own", own, 60, false),
            ("own", "own", own, -60, false),
            ("own", "again", own, 1, false),
            ("own", "ca", own, 1, false),
            ("for-servers", "for-servers", own, 1, true),
            ("for-clients", "for-clients", own, 1, false),
            ("leaf", "ca", own, 1, true),
            ("leaf", "leaf", own, 1, true),
            ("leaf", "leaf", other, 1, false),
            ("leaf", "leaf", own, 60, false),
            ("leaf", "leaf", own, -60, false),
            ("leaf", "own", own, 1, false),
            ("sub", "sub", own, 1, true),
            ("sub", "sub", own, 60, false),
            ("sub", "ca", own, 1, false),
        ] {
            assert_eq!(verify(server, trusted, name, days), good, "{server} by {trusted} as {name}, in {days} days");
        }
    }
}
