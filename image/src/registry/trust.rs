//! Which certificate authorities are trusted: those of the image we run in, found as Go finds them, as users mount
//! their own by either way: `SSL_CERT_FILE` stands for the bundle, `SSL_CERT_DIR` (colon-separated) for the
//! directories, and what is not set keeps its default.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use ureq::tls::Certificate;

/// Where distributions keep their bundle; the first that exists counts.
const FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const DIRS: &[&str] = &["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// All trusted authorities; what cannot be read is said at debug and left out.
pub(super) fn authorities() -> Vec<Certificate<'static>> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty());
    let file = match set("SSL_CERT_FILE") {
        Some(file) => Some(PathBuf::from(file)),
        None => FILES.iter().map(PathBuf::from).find(|f| f.is_file()),
    };
    let dirs: Vec<PathBuf> = match set("SSL_CERT_DIR") {
        Some(dirs) => std::env::split_paths(&dirs).filter(|d| !d.as_os_str().is_empty()).collect(),
        None => DIRS.iter().map(PathBuf::from).filter(|d| d.is_dir()).collect(),
    };
    let mut found = Vec::new();
    load(file.as_deref(), None, &mut found);
    for dir in &dirs {
        load(None, Some(dir), &mut found);
    }
    found.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
    found.dedup();
    found.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
}

/// The authorities Docker would trust for this one registry.
pub(super) fn authorities_of(host: &str) -> Vec<Certificate<'static>> {
    let Ok(entries) = std::fs::read_dir(Path::new("/etc/docker/certs.d").join(host)) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "crt") {
            load(Some(&path), None, &mut found);
        }
    }
    found.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
}

fn load(file: Option<&Path>, dir: Option<&Path>, found: &mut Vec<CertificateDer<'static>>) {
    let mut loaded = rustls_native_certs::load_certs_from_paths(file, dir);
    for error in &loaded.errors {
        tracing::debug!("certificate authorities: {error}");
    }
    found.append(&mut loaded.certs);
}
