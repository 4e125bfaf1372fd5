//! Who signed a certificate that is not trusted: rustls does not say, and whoever has to mount the right authority
//! wants to know. The server is asked once more, for its certificates alone; nothing is sent over that connection.

use std::{
    io,
    sync::{Arc, Mutex},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use ureq::{
    Agent, Error,
    config::Config,
    http::Uri,
    unversioned::{
        resolver::DefaultResolver,
        transport::{ConnectProxyConnector, ConnectionDetails, Connector, Transport},
    },
};

use super::{connect::Tcp, lock, tls::handshake};

/// The name of the authority that the server's certificate, or the last of its chain, is signed by. `None` where the
/// server cannot be asked. `config` is that of the connection that failed.
pub(super) fn of_server(config: Config, url: &Uri) -> Option<String> {
    let found = Found::default();
    let connector = ConnectProxyConnector::default().chain(Tcp).chain(AskForCertificates(found.clone()));
    // It always fails: the connector makes no connection.
    let _ = Agent::with_parts(config, connector, DefaultResolver::default()).get(url).call();
    lock(&found.0).take()
}

/// What the handshake came upon.
#[derive(Clone, Debug, Default)]
struct Found(Arc<Mutex<Option<String>>>);

#[derive(Debug)]
struct AskForCertificates(Found);

impl<In: Transport> Connector<In> for AskForCertificates {
    type Out = In;

    fn connect(&self, details: &ConnectionDetails<'_>, inner: Option<In>) -> Result<Option<In>, Error> {
        // A proxy that is asked for a tunnel is connected to by the same connectors.
        if !details.needs_tls() {
            return Ok(inner);
        }
        let Some(inner) = inner else { return Ok(None) };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.0.clone()))
            .with_no_client_auth();
        handshake(Arc::new(config), inner, details, details.timeout).map(|_| None)
    }
}

/// Notes the issuer, and refuses every certificate.
impl ServerCertVerifier for Found {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *lock(&self.0) = issuer(chain.last().unwrap_or(server));
        Err(rustls::Error::General("asked for its certificates only".into()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("never trusted".into()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("never trusted".into()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

/// The issuer of a certificate (RFC 5280, section 4.1), such as `O=Acme, CN=Acme Root`.
fn issuer(certificate: &[u8]) -> Option<String> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut rest, _) = element(certificate)?;
    // version (may be absent), serialNumber, signature, issuer
    loop {
        let (tag, content, after) = element(rest)?;
        rest = after;
        if tag == INTEGER {
            break;
        }
        // The version is an integer within another element.
        element(content)?;
    }
    let (_, _, rest) = element(rest)?;
    let (tag, mut names, _) = element(rest)?;
    let mut parts = Vec::new();
    while let Some((_, set, after)) = element(names) {
        names = after;
        let (_, pair, _) = element(set)?;
        let (_, key, value) = element(pair)?;
        let (_, value, _) = element(value)?;
        if let Some(label) = label(key) {
            let text: String = String::from_utf8_lossy(value).chars().filter(|c| !c.is_control()).collect();
            parts.push(format!("{label}={text}"));
        }
    }
    (tag == SEQUENCE && !parts.is_empty()).then(|| parts.join(", "))
}

/// What the attribute types of a name are called.
fn label(key: &[u8]) -> Option<&'static str> {
    match key {
        [0x55, 0x04, 3] => Some("CN"),
        [0x55, 0x04, 6] => Some("C"),
        [0x55, 0x04, 10] => Some("O"),
        [0x55, 0x04, 11] => Some("OU"),
        _ => None,
    }
}

/// Tag and content of the DER element at the beginning, and what follows it.
pub(super) fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        (digits.iter().try_fold(0_usize, |n, byte| n.checked_mul(256)?.checked_add(usize::from(*byte)))?, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        [&[tag, 0x81, u8::try_from(content.len()).unwrap()], &content[..]].concat()
    }

    fn name(key: &[u8], text: &str) -> Vec<u8> {
        der(0x31, &[&der(SEQUENCE, &[&der(6, &[key]), &der(12, &[text.as_bytes()])])])
    }

    #[test]
    fn the_issuer_of_a_certificate() {
        let names = der(
            SEQUENCE,
            &[&name(&[0x55, 4, 10], "Acme"), &name(&[0x55, 4, 99], "left out"), &name(&[0x55, 4, 3], "Acme\n Root")],
        );
        let version = der(0xa0, &[&der(INTEGER, &[&[2]])]);
        let body = [der(INTEGER, &[&[1, 2]]), der(SEQUENCE, &[]), names].concat();
        for head in [version, Vec::new()] {
            let certificate = der(SEQUENCE, &[&der(SEQUENCE, &[&head, &body])]);
            assert_eq!(issuer(&certificate).as_deref(), Some("O=Acme, CN=Acme Root"));
            // Cut anywhere, it is no certificate.
            assert!((0..certificate.len()).all(|end| issuer(&certificate[..end]).is_none()));
        }
        assert_eq!(issuer(&[0x30, 0xff]), None);
    }
}
