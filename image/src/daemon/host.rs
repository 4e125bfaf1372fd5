//! Where the daemon is: `DOCKER_HOST`, and how to speak TLS with it, as Docker's own clients are told.

use std::{
    fmt,
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};

use crate::{Error, Result, unverified::Unverified};

const DEFAULT: &str = "unix:///var/run/docker.sock";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A daemon's address.
#[derive(Clone, Debug)]
pub(super) enum Host {
    Unix(PathBuf),
    Tcp {
        /// `host:port`
        authority: String,
        tls: Option<Arc<ClientConfig>>,
    },
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { authority, .. } => write!(f, "tcp://{authority}"),
        }
    }
}

impl Host {
    /// `DOCKER_HOST`, with TLS where `DOCKER_CERT_PATH` says what to trust; the server is verified where
    /// `DOCKER_TLS_VERIFY` is set.
    ///
    /// # Errors
    /// An address of another kind; certificates that cannot be read.
    pub(super) fn from_env(env: &impl Fn(&str) -> Option<String>) -> Result<Self> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let text = set("DOCKER_HOST").unwrap_or_else(|| DEFAULT.to_owned());
        let bad = |why: &str| Error::Remote(format!("DOCKER_HOST {text:?}: {why}"));
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("it should look like unix:///path"))?;
        match scheme {
            "unix" => Ok(Self::Unix(PathBuf::from(rest))),
            "tcp" | "http" | "https" => {
                let verify = set("DOCKER_TLS_VERIFY").is_some();
                let tls = match set("DOCKER_CERT_PATH") {
                    Some(dir) => Some(Arc::new(tls(Path::new(&dir), verify)?)),
                    None if verify || scheme == "https" => {
                        return Err(bad("for TLS, DOCKER_CERT_PATH must name the directory of the certificates"));
                    }
                    None => None,
                };
                let authority = rest.split('/').next().unwrap_or_default();
                if authority.is_empty() {
                    return Err(bad("there is no host in it"));
                }
                let port = if tls.is_some() { 2376 } else { 2375 };
                let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                let authority = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
                Ok(Self::Tcp { authority, tls })
            }
            "ssh" => Err(bad("ssh is not supported; forward the daemon's socket and use unix:// instead")),
            _ => Err(bad("only unix:// and tcp:// are supported")),
        }
    }

    /// The `Host` header.
    pub(super) fn header(&self) -> &str {
        match self {
            Self::Unix(_) => "docker",
            Self::Tcp { authority, .. } => authority,
        }
    }

    /// A new connection.
    pub(super) fn dial(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
            Self::Tcp { authority, tls } => {
                let socket = dial_tcp(authority)?;
                let Some(tls) = tls else { return Ok(Stream::Tcp(socket)) };
                let name = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
                let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(name).map_err(io::Error::other)?;
                let session = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
                Ok(Stream::Tls(Box::new(StreamOwned::new(session, socket))))
            }
        }
    }
}

fn dial_tcp(authority: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::other("no address found");
    for address in std::net::ToSocketAddrs::to_socket_addrs(authority)? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                return Ok(socket);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// `ca.pem`, `cert.pem` and `key.pem` of this directory.
fn tls(dir: &Path, verify: bool) -> Result<ClientConfig> {
    let named = |name: &str, e: &dyn fmt::Display| Error::Io(format!("read {}: {e}", dir.join(name).display()));
    let provider = Arc::new(ring::default_provider());
    let failed = |e: rustls::Error| Error::Io(format!("DOCKER_CERT_PATH {}: {e}", dir.display()));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let builder = if verify {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(dir, "ca.pem")? {
            roots.add(certificate).map_err(|e| named("ca.pem", &e))?;
        }
        builder.with_root_certificates(roots)
    } else {
        // `DOCKER_TLS_VERIFY` is not set.
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    };
    let mut config = if !dir.join("cert.pem").exists() && !dir.join("key.pem").exists() {
        builder.with_no_client_auth()
    } else {
        let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).map_err(|e| named("key.pem", &e))?;
        builder.with_client_auth_cert(certificates(dir, "cert.pem")?, key).map_err(failed)?
    };
    // What stands before a daemon may be made with OpenSSL, which hands out sessions that it then refuses to resume where it
    // asks for certificates. There are but a few connections.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn certificates(dir: &Path, name: &str) -> Result<Vec<CertificateDer<'static>>> {
    let path = dir.join(name);
    let named = |e: rustls::pki_types::pem::Error| Error::Io(format!("read {}: {e}", path.display()));
    CertificateDer::pem_file_iter(&path).map_err(named)?.collect::<std::result::Result<_, _>>().map_err(named)
}

/// An open connection to the daemon.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// Whether the daemon has not closed an idle connection meanwhile.
    pub(super) fn is_open(&mut self) -> bool {
        let mut byte = [0];
        let waiting = |e: &io::Error| e.kind() == io::ErrorKind::WouldBlock;
        let looked = match self {
            Self::Unix(socket) => {
                socket.set_nonblocking(true).map(|()| (socket.read(&mut byte), socket.set_nonblocking(false)))
            }
            Self::Tcp(socket) => {
                socket.set_nonblocking(true).map(|()| (socket.peek(&mut byte), socket.set_nonblocking(false)))
            }
            Self::Tls(session) => {
                let socket = &session.sock;
                socket.set_nonblocking(true).map(|()| (socket.peek(&mut byte), socket.set_nonblocking(false)))
            }
        };
        match looked {
            // Session tickets may lie there unread; an answer nobody asked for is one not to be trusted.
            Ok((Ok(n), Ok(()))) => n > 0 && matches!(self, Self::Tls(_)),
            Ok((Err(e), Ok(()))) => waiting(&e),
            _ => false,
        }
    }

    /// How long a read may take.
    pub(super) fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.set_read_timeout(patience),
            Self::Tcp(socket) => socket.set_read_timeout(patience),
            Self::Tls(session) => session.sock.set_read_timeout(patience),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.read(out),
            Self::Tcp(socket) => socket.read(out),
            Self::Tls(session) => session.read(out),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.write(bytes),
            Self::Tcp(socket) => socket.write(bytes),
            Self::Tls(session) => session.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.flush(),
            Self::Tcp(socket) => socket.flush(),
            Self::Tls(session) => session.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(env: &[(&str, &str)]) -> std::result::Result<String, String> {
        let get = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Host::from_env(&get).map(|host| host.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn hosts() {
        for (value, shown) in [
            ("", "unix:///var/run/docker.sock"),
            ("unix:///run/user/1000/docker.sock", "unix:///run/user/1000/docker.sock"),
            ("tcp://10.0.0.1:2375", "tcp://10.0.0.1:2375"),
            ("tcp://docker", "tcp://docker:2375"),
            ("tcp://docker:1234/", "tcp://docker:1234"),
            ("http://[::1]:99", "tcp://[::1]:99"),
            ("tcp://[::1]", "tcp://[::1]:2375"),
        ] {
            assert_eq!(host(&[("DOCKER_HOST", value)]).as_deref(), Ok(shown), "{value}");
        }
        for (value, why) in [
            ("ssh://me@there", "ssh is not supported"),
            ("npipe:////./pipe/docker_engine", "only unix:// and tcp://"),
            ("/var/run/docker.sock", "should look like"),
            ("tcp://", "no host"),
        ] {
            let error = host(&[("DOCKER_HOST", value)]).unwrap_err();
            assert!(error.contains(why) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn tls_is_never_left_out_silently() {
        let error = host(&[("DOCKER_HOST", "tcp://d:2376"), ("DOCKER_TLS_VERIFY", "1")]).unwrap_err();
        assert!(error.contains("DOCKER_CERT_PATH must name"), "{error}");
        let env = [("DOCKER_HOST", "tcp://d"), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", "/no/such/dir")];
        let error = host(&env).unwrap_err();
        assert!(error.contains("/no/such/dir/ca.pem"), "{error}");
        assert!(host(&[("DOCKER_HOST", "https://d:2376")]).is_err());
        // Unverified, and without a certificate of the client's.
        let env = [("DOCKER_HOST", "tcp://d"), ("DOCKER_CERT_PATH", "/no/such/dir")];
        assert_eq!(host(&env).as_deref(), Ok("tcp://d:2376"));
    }
}
