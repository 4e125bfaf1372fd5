//! TLS as registries have it. Many a registry of a company has one certificate that is its own authority, as Docker's
//! documentation makes it (`openssl req -x509`), and users trust that very certificate. Go takes it; rustls does not, as
//! an authority's certificate is no server's, nor is a server's an authority's. ureq's own connector takes no verifier, so
//! this one stands in for it.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme, StreamOwned,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
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

use super::{
    certificate::{is_for_servers, issuer, may_sign},
    connect::Tcp,
    url::bare_host,
};
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
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Anyone => Arc::new(Unverified(provider)),
        Trust::These(trusted) => Arc::new(Verifier::new(trusted, provider.signature_verification_algorithms)),
    };
    Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

/// What rustls verifies, and where there is no way from the certificate to an authority, whether it is trusted itself.
#[derive(Debug)]
struct Verifier {
    authorities: RootCertStore,
    trusted: Arc<Vec<Certificate<'static>>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(trusted: Arc<Vec<Certificate<'static>>>, algorithms: WebPkiSupportedAlgorithms) -> Self {
        let mut authorities = RootCertStore::empty();
        // rustls asks none of them whether it is one: by a server's certificate, that server could speak for all others.
        let signing = trusted.iter().map(Certificate::der).filter(|certificate| may_sign(certificate) == Some(true));
        authorities.add_parsable_certificates(signing.map(CertificateDer::from));
        Self { authorities, trusted, algorithms }
    }

    fn trusts(&self, server: &CertificateDer<'_>) -> bool {
        self.trusted.iter().any(|trusted| trusted.der() == server.as_ref()) && is_for_servers(server) == Some(true)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(server)?;
        let algorithms = self.algorithms.all;
        let signed = verify_server_cert_signed_by_trust_anchor(&certificate, &self.authorities, chain, now, algorithms);
        // What is about signing comes after the check of the dates.
        if let Err(error) = signed {
            if !is_about_signing(&error) || !self.trusts(server) {
                return Err(explained(error, chain.last().unwrap_or(server), name));
            }
        }
        verify_server_name(&certificate, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether nothing is wrong but who signed the certificate, or that it may sign others.
fn is_about_signing(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.to_string() == AUTHORITY,
        _ => false,
    }
}

/// What rustls says of a server's certificate that may sign others.
const AUTHORITY: &str = "CaUsedAsEndEntity";

/// The error with what rustls does not say, and whoever has to mount the right certificate wants to know: who signed the
/// `last` of the server's certificates, and what to do.
fn explained(error: rustls::Error, last: &[u8], name: &ServerName<'_>) -> rustls::Error {
    let rustls::Error::InvalidCertificate(error) = error else { return error };
    let host = name.to_str();
    let text = match &error {
        CertificateError::Other(other) if other.to_string() == AUTHORITY => format!(
            "{AUTHORITY}: the certificate of {host} is that of an authority; to trust it, give that certificate itself by \
             SSL_CERT_FILE or SSL_CERT_DIR"
        ),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            let signed = issuer(last).map_or_else(|| "an unknown authority".to_string(), |name| format!("'{name}'"));
            let renewed = matches!(error, CertificateError::BadSignature);
            let but = if renewed { "; the trusted authority of this name has another key" } else { "" };
            format!(
                "{error}: the certificate of {host} is signed by {signed}, which is not trusted{but}; give the authority's \
                 certificate by SSL_CERT_FILE or SSL_CERT_DIR"
            )
        }
        _ => return rustls::Error::InvalidCertificate(error),
    };
    CertificateError::Other(OtherError(Arc::new(Untrusted(text)))).into()
}

/// Why a certificate is not trusted.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Untrusted(String);

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
        let name = ServerName::try_from(bare_host(details.uri)).map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(self.0.clone(), name).map_err(io::Error::other)?;
        let mut stream = TransportAdapter::new(inner.boxed(), details.current_time.clone());
        stream.set_timeout(rest(details));
        connection.complete_io(&mut stream).map_err(readable)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Encrypted { buffers, stream: StreamOwned::new(connection, stream) })))
    }
}

/// What is wrong with a certificate in words alone, which rustls puts between the names of its types.
fn readable(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => {
            io::Error::new(error.kind(), format!("invalid peer certificate: {other}"))
        }
        _ => error,
    }
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
    /// which may sign others, are signed by `ca`, and `renewed` has its name.
    fn certificates(dir: &Path) {
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        let host = "-days 30 -subj /CN=registry.example -addext subjectAltName=DNS:registry.example";
        make(dir, &format!("req -x509 {key} {host} -keyout own.key -out own"));
        make(dir, &format!("req -x509 -key own.key {host} -set_serial 7 -out again"));
        for (name, purposes) in [("for-clients", "clientAuth"), ("for-servers", "critical,clientAuth,serverAuth")] {
            let purposes = format!("-addext extendedKeyUsage={purposes}");
            make(dir, &format!("req -x509 -key own.key {host} {purposes} -out {name}"));
        }
        for name in ["ca", "renewed"] {
            make(dir, &format!("req -x509 {key} -days 30 -subj /CN=ca -keyout {name}.key -out {name}"));
        }
        for (name, is_ca) in [("leaf", "FALSE"), ("sub", "TRUE")] {
            let text = format!("subjectAltName=DNS:registry.example\nbasicConstraints=CA:{is_ca}\n");
            std::fs::write(dir.join("extensions"), text).unwrap();
            make(dir, &format!("req {key} -subj /CN=registry.example -keyout {name}.key -out {name}.csr"));
            let by = "-CA ca -CAkey ca.key -CAcreateserial -days 30 -extfile extensions";
            make(dir, &format!("x509 -req -in {name}.csr {by} -out {name}"));
        }
        make(dir, &format!("req {key} -subj /CN=other.example -keyout other.key -out other.csr"));
        std::fs::write(dir.join("extensions"), "subjectAltName=DNS:other.example\n").unwrap();
        for by in ["ca", "own", "leaf", "sub"] {
            let by =
                format!("-CA {by} -CAkey {by}.key -CAcreateserial -days 30 -extfile extensions -out other-by-{by}");
            make(dir, &format!("x509 -req -in other.csr {by}"));
        }
    }

    #[test]
    fn a_certificate_that_is_trusted_itself_is_good_for_its_name_and_time() {
        let dir = tempfile::tempdir().unwrap();
        certificates(dir.path());
        let read = |name: &str| CertificateDer::from_pem_file(dir.path().join(name)).unwrap();
        let verify = |server: &str, trusted: &str, name: &str, days: i64| {
            let trusted = Arc::new(vec![Certificate::from_der(&read(trusted)).to_owned()]);
            let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
            let now = UnixTime::now().as_secs().checked_add_signed(days * 86400).unwrap();
            let now = UnixTime::since_unix_epoch(time::Duration::from_secs(now));
            let name = ServerName::try_from(name.to_string()).unwrap();
            Verifier::new(trusted, algorithms).verify_server_cert(&read(server), &[], &name, &[], now)
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
            ("other-by-ca", "ca", other, 1, true),
            ("other-by-ca", "ca", own, 1, false),
            ("other-by-own", "own", other, 1, true),
            ("other-by-sub", "sub", other, 1, true),
            // A server whose certificate is trusted speaks for itself alone.
            ("other-by-leaf", "leaf", other, 1, false),
        ] {
            let found = verify(server, trusted, name, days);
            assert_eq!(found.is_ok(), good, "{server} by {trusted} as {name}, in {days} days: {found:?}");
        }
        let signed = "the certificate of registry.example is signed by";
        let give = "give the authority's certificate by SSL_CERT_FILE or SSL_CERT_DIR";
        for (server, trusted, text) in [
            ("leaf", "own", format!("UnknownIssuer: {signed} 'CN=ca', which is not trusted; {give}")),
            (
                "leaf",
                "renewed",
                format!(
                    "BadSignature: {signed} 'CN=ca', which is not trusted; the trusted authority of this name has another \
                     key; {give}"
                ),
            ),
            (
                "sub",
                "ca",
                "CaUsedAsEndEntity: the certificate of registry.example is that of an authority; to trust it, give that \
                 certificate itself by SSL_CERT_FILE or SSL_CERT_DIR"
                    .to_string(),
            ),
        ] {
            let error = readable(io::Error::other(verify(server, trusted, own, 1).unwrap_err()));
            assert_eq!(error.to_string(), format!("invalid peer certificate: {text}"));
        }
    }
}
