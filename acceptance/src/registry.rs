//! A real registry (Debian's `docker-registry`, that is CNCF distribution) on a free port of this machine, for as long
//! as the value lives.
//!
//! ```no_run
//! use acceptance::registry::{Options, RegistryServer};
//!
//! let registry = RegistryServer::start(&Options { users: &[("user", "secret")], ..Options::default() });
//! println!("{}/app:latest", registry.host());
//! ```

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// How the registry is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Names and passwords; with any, every request needs basic authentication.
    pub users: &'a [(&'a str, &'a str)],
    /// Speaks TLS, with a certificate of a private authority for `127.0.0.1`, `localhost` and `*.corp.example`.
    pub tls: bool,
}

/// The running registry. It is stopped, and its content removed, on drop.
#[derive(Debug)]
pub struct RegistryServer {
    port: u16,
    process: Child,
    dir: TempDir,
}

impl RegistryServer {
    /// Starts it, and returns when it listens.
    pub fn start(options: &Options<'_>) -> Self {
        let dir = tempfile::tempdir().expect("make a directory for the registry");
        if options.tls {
            make_certificates(dir.path());
        }
        // Between choosing a free port and listening on it somebody else may take it.
        for _ in 0..5 {
            let port = free_port();
            let config = dir.path().join("config.yml");
            fs::write(&config, config_of(options, dir.path(), port)).expect("write the registry's config");
            if let Some(process) = spawn(&config) {
                return Self { port, process, dir };
            }
        }
        panic!("docker-registry does not start (Debian package docker-registry)");
    }

    /// Without authentication, over plain HTTP.
    pub fn plain() -> Self {
        Self::start(&Options::default())
    }

    /// Host and port, as image names have them.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The certificate of the private authority, with TLS.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Where it keeps its content.
    pub fn storage(&self) -> PathBuf {
        self.dir.path().join("storage")
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("find a free port").port()
}

fn config_of(options: &Options<'_>, dir: &Path, port: u16) -> String {
    let at = dir.display();
    let mut config = format!(
        "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {at}/storage}}\n  delete: \
         {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:{port}\n"
    );
    if options.tls {
        let _ = writeln!(config, "  tls: {{certificate: {at}/server.pem, key: {at}/server.key}}");
    }
    if !options.users.is_empty() {
        let lines: Vec<String> = options.users.iter().map(|(n, p)| format!("{n}:{}", bcrypt(p))).collect();
        fs::write(dir.join("htpasswd"), lines.join("\n")).expect("write the users' file");
        let _ = writeln!(config, "auth:\n  htpasswd: {{realm: test, path: {at}/htpasswd}}");
    }
    config
}

/// Starts the registry and waits until it says that it listens; `None` where it ends instead.
fn spawn(config: &Path) -> Option<Child> {
    let mut process = Command::new("docker-registry")
        .arg("serve")
        .arg(config)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run docker-registry (Debian package docker-registry)");
    let mut log = BufReader::new(process.stderr.take().expect("the registry's log"));
    let mut line = String::new();
    while log.read_line(&mut line).is_ok_and(|n| n > 0) {
        if line.contains("listening on") {
            // A full pipe would stop it.
            std::thread::spawn(move || {
                let mut rest = [0; 4096];
                while log.read(&mut rest).is_ok_and(|n| n > 0) {}
            });
            return Some(process);
        }
        line.clear();
    }
    let _ = process.kill();
    let _ = process.wait();
    None
}

/// The only hash that the registry takes. Perl is part of every Debian, `htpasswd` is not.
fn bcrypt(password: &str) -> String {
    let program = r"print crypt($ARGV[0], '$2y$04$abcdefghijklmnopqrstuu')";
    let output = Command::new("perl").args(["-e", program, password]).output().expect("run perl");
    String::from_utf8(output.stdout).expect("a hash")
}

/// `ca.pem`, and `server.pem` with `server.key` signed by it.
fn make_certificates(dir: &Path) {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(dir)
            .output()
            .expect("run openssl (Debian package openssl)");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    fs::write(dir.join("server.ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:*.corp.example\n")
        .expect("write server.ext");
    openssl(&format!("req -x509 {new_key} -days 2 -subj /CN=test-authority -keyout ca.key -out ca.pem"));
    openssl(&format!("req {new_key} -subj /CN=test-registry -keyout server.key -out server.csr"));
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.pem",
    );
}
