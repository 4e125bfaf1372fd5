//! The client of the distribution protocol (OCI distribution-spec): one state per registry and run, so that a registry
//! is pinged at most once, a token is asked for once, and no manifest is read twice.

use std::{
    collections::{HashMap, HashSet},
    io::Read,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ureq::http::Method;

use crate::{Blob, Digest, Error, Keychain, Reference, Result};

mod absolute;
mod auth;
mod blobs;
mod certificate;
mod challenge;
mod connect;
mod download;
mod failure;
mod find;
mod http;
mod manifest;
mod proxy;
mod raw;
mod repository;
mod sessions;
mod settings;
mod target;
mod tls;
mod token;
mod trust;
mod upload;
mod url;
mod web;

use auth::Host;
use download::BlobReader;
use http::{Http, Patience};
use manifest::Document;
pub use proxy::Proxies;
use repository::{Call, Repository};
use sessions::{Begun, BeingBegun};
pub use settings::Settings;
use settings::retry;
pub use web::{Downloaded, download};

/// Registries, one client each per run: one ping at most, one token, no manifest fetched twice. A clone shares them.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("insecure", &self.shared.insecure).finish_non_exhaustive()
    }
}

/// What all clones have in common.
struct Shared {
    keychain: Keychain,
    insecure: Vec<String>,
    settings: Settings,
    http: Http,
    hosts: Mutex<HashMap<(String, bool), Arc<Host>>>,
    /// Manifests by repository and tag or digest; `None`: there is none.
    documents: Mutex<HashMap<(String, String), Option<Document>>>,
    configs: Mutex<HashMap<Digest, Arc<[u8]>>>,
    /// Blobs that repositories were seen to have.
    blobs: Mutex<HashSet<(String, Digest)>>,
    /// What repositories should have: manifests that were read, and the blobs that they name.
    named: Mutex<HashSet<(String, Digest)>>,
    /// Repositories that lack something they should have.
    distrusted: Mutex<HashSet<String>>,
    /// Repositories that took an upload.
    writable: Mutex<HashSet<String>>,
    begun: Mutex<Vec<Begun>>,
    configs_begun: Mutex<Vec<BeingBegun>>,
}

impl Shared {
    /// Whether the user listed a prefix of this name. A prefix without a path ends where a host or its port ends:
    /// `host:50` says nothing about `host:5000`.
    fn is_insecure(&self, reference: &Reference) -> bool {
        let context = reference.context();
        let names = [reference.original.as_str(), context.as_str()];
        self.insecure.iter().any(|prefix| {
            names
                .iter()
                .filter_map(|name| name.strip_prefix(prefix.as_str()))
                .any(|rest| prefix.contains('/') || rest.is_empty() || rest.starts_with(['/', ':', '@']))
        })
    }
}

/// What a panic in another thread left is still good: every value is put in whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A blob while it is being made.
pub trait StreamedBlob: Read + Send {
    /// After the end: digest and size of what was read.
    fn finish(&mut self) -> Result<(Digest, u64)>;
}

impl Registry {
    /// `insecure`: prefixes of image names that may be reached over plain HTTP or unverified TLS (platform.md
    /// `-insecure-registry`). Proxies come from the environment.
    pub fn new(keychain: Keychain, insecure: Vec<String>) -> Self {
        Self::with_settings(keychain, insecure, Settings::default())
    }

    /// With time limits and proxies other than the usual ones.
    pub fn with_settings(keychain: Keychain, insecure: Vec<String>, settings: Settings) -> Self {
        let prefix = |text: String| {
            let text = text.trim();
            let text = text.strip_prefix("http://").or(text.strip_prefix("https://")).unwrap_or(text);
            text.to_string()
        };
        // An empty prefix, as an empty flag gives one, would make every registry insecure.
        let insecure = insecure.into_iter().map(prefix).filter(|p| !p.is_empty()).collect();
        let shared = Shared {
            keychain,
            insecure,
            settings,
            http: Http::new(),
            hosts: Mutex::default(),
            documents: Mutex::default(),
            configs: Mutex::default(),
            blobs: Mutex::default(),
            named: Mutex::default(),
            distrusted: Mutex::default(),
            writable: Mutex::default(),
            begun: Mutex::default(),
            configs_begun: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    fn repository(&self, reference: &Reference) -> Repository {
        Repository::new(&self.shared, reference)
    }

    /// A blob as it is stored; the last read fails where its content is not what its digest says. A connection that
    /// breaks is taken up again where it broke.
    pub fn read_blob(&self, repository: &Reference, blob: &Blob) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.open_blob(repository, blob)?))
    }

    /// A blob whose content is not compared with its digest, for who has a better way to know it.
    pub(crate) fn read_blob_unchecked(&self, from: &Reference, blob: &Blob) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.open_blob(from, blob)?.unchecked()))
    }

    fn open_blob(&self, repository: &Reference, blob: &Blob) -> Result<BlobReader> {
        let repository = self.repository(repository);
        BlobReader::open(&repository, blob).map_err(|failure| match failure.error {
            Error::NotFound(text) => {
                Error::NotFound(format!("blob {} of {}: {text}", blob.digest, repository.context()))
            }
            other => other,
        })
    }

    /// Whether the repository has the blob.
    pub fn has_blob(&self, repository: &Reference, digest: &Digest) -> Result<bool> {
        Ok(self.repository(repository).has_blob(digest)?)
    }

    /// Uploads a blob whose digest is known only when it has been read to the end (POST, streamed PATCH, PUT).
    /// `open` starts the content anew, for a retry; its `finish` is asked for the digest at the end.
    pub fn upload_stream(
        &self,
        repository: &Reference,
        open: &mut dyn FnMut() -> Result<Box<dyn StreamedBlob>>,
    ) -> Result<(Digest, u64)> {
        Ok(self.repository(repository).upload_stream(open)?)
    }

    /// Uploads content of known digest, unless it is there; that is asked only where it may save something.
    pub fn upload_bytes(&self, repository: &Reference, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        self.repository(repository).upload_bytes(&digest, bytes)?;
        Ok(digest)
    }

    /// Makes the repository have the blob, unless a manifest of it that was read names the blob: mounted from its source
    /// repository, or there (HEAD), else streamed over.
    pub fn ensure_blob(&self, repository: &Reference, blob: &Blob) -> Result<()> {
        Ok(self.repository(repository).ensure_blob(blob)?)
    }

    /// PUTs a manifest under the reference's tag or digest. Where the same one was read from the repository before, the
    /// tag may stand for it already: then it is left alone (some may not be written twice). A registry that misses a
    /// blob is given some time to find it; after that nothing of the repository is taken for granted any more, and the
    /// caller may ensure the blobs again.
    pub fn put_manifest(&self, reference: &Reference, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        let repository = self.repository(reference);
        let digest = Digest::of(bytes);
        let key = (repository.context(), reference.identifier().to_string());
        lock(&self.shared.documents).remove(&key);
        if repository.has_manifest(reference.identifier(), &digest) {
            tracing::debug!("{reference} is {digest} already");
        } else {
            self.put_document(&repository, reference, media_type, bytes)?;
        }
        let document = Document { media_type: media_type.to_string(), bytes: bytes.into(), digest: digest.clone() };
        let mut documents = lock(&self.shared.documents);
        documents.insert((key.0.clone(), digest.to_string()), Some(document.clone()));
        documents.insert(key, Some(document));
        Ok(digest)
    }

    fn put_document(
        &self,
        repository: &Repository,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<()> {
        let call = Call {
            method: Method::PUT,
            url: repository.url(&format!("manifests/{}", reference.identifier()))?,
            headers: &[("content-type", media_type)],
            scopes: &[repository.push()],
            patience: Patience::Long,
        };
        let mut missed = 0;
        let answer = retry(&self.shared.settings, || {
            repository.call_once(&call, &mut http::Body::Bytes(bytes)).map_err(|mut failure| {
                if failure.codes.iter().any(|c| c == "MANIFEST_BLOB_UNKNOWN" || c == "BLOB_UNKNOWN") {
                    repository.forget_blobs();
                    failure.temporary = missed < 2;
                    missed += 1;
                }
                failure
            })
        })?;
        answer.finish();
        Ok(())
    }

    /// DELETEs a manifest by digest (that of the tag, where there is only a tag). `NotFound` where there is none.
    pub fn delete_manifest(&self, reference: &Reference) -> Result<()> {
        let repository = self.repository(reference);
        let digest = match &reference.digest {
            Some(digest) => digest.clone(),
            None => match self.document(&repository, reference.identifier(), None)? {
                Some(document) => document.digest,
                None => return Err(Error::NotFound(format!("image {reference}: not found"))),
            },
        };
        let call = Call {
            method: Method::DELETE,
            url: repository.url(&format!("manifests/{digest}"))?,
            headers: &[],
            scopes: &[auth::Scope { delete: true, ..repository.push() }],
            patience: Patience::Long,
        };
        repository.call(&call, &[])?.finish();
        let context = repository.context();
        let gone = |d: &Option<Document>| d.as_ref().is_none_or(|d| d.digest == digest);
        lock(&self.shared.documents).retain(|(c, _), document| *c != context || !gone(document));
        Ok(())
    }

    /// Whether the image can be read: 401 and 403 are errors, 404 is not. What was read is kept for `find`.
    pub fn ensure_readable(&self, name: &Reference) -> Result<()> {
        self.document(&self.repository(name), name.identifier(), name.digest.as_ref())?;
        Ok(())
    }
}
