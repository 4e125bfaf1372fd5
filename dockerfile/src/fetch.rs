//! Files that `ADD` takes from the web.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use image::{Digest, registry};
use sha2::{Digest as _, Sha256};

use crate::{Error, Result, time};

/// A file from elsewhere; gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) url: String,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Empty where the URL has none.
    pub(crate) name: String,
    pub(crate) modified: SystemTime,
    /// Of its content.
    pub(crate) digest: Digest,
}

impl Drop for Fetched {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether a source of `ADD` is elsewhere.
///
/// # Errors
/// It is, and cannot be had from there.
pub(crate) fn is_remote(source: &str) -> Result<bool> {
    let is_git = |rest: &str| rest.split(['#', '?']).next().unwrap_or_default().strip_suffix(".git").is_some();
    match source.split_once("://") {
        Some(("http" | "https", rest)) if !is_git(rest) => Ok(true),
        None if !source.starts_with("git@") => Ok(false),
        _ => Err(Error::new(format!("{source}: only files can be added, by http or https; fetch others with RUN"))),
    }
}

/// Fetches it into a file of `dir`.
pub(crate) fn fetch(url: &str, dir: &Path) -> Result<Fetched> {
    std::fs::create_dir_all(dir).map_err(|e| Error::at("create", dir, &e))?;
    let path = dir.join(format!("fetched-{}", Digest::of(url.as_bytes()).hex()));
    tracing::debug!("Fetching {url}");
    let from = registry::download(url, &path, &registry::Settings::default())?;
    let mut hash = Sha256::new();
    File::open(&path).and_then(|mut file| io::copy(&mut file, &mut hash)).map_err(|e| Error::at("read", &path, &e))?;
    let modified = from.modified.as_deref().and_then(time::from_http_date).unwrap_or(UNIX_EPOCH);
    Ok(Fetched { url: url.to_owned(), path, name: from.name, modified, digest: Digest::from_hasher(hash) })
}
