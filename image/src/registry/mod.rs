//! The client of the distribution protocol (OCI distribution-spec): one state per registry and run, so that a registry
//! is pinged once, a token is asked for once, and no manifest is read twice.

use std::{
    collections::{HashMap, HashSet},
    io::Read,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ureq::http::{Method, StatusCode, header};

use crate::{Blob, Digest, Error, Image, Keychain, Reference, Result};

mod auth;
mod download;
mod http;
mod manifest;
mod proxy;
mod repository;
mod trust;
mod upload;

use auth::Host;
use download::BlobReader;
use http::{Attempt, Failure, Http, Patience};
use manifest::{Descriptor, Document};
pub use proxy::Proxies;
use repository::{Call, Repository};

/// Bytes of the largest manifest or index that is read (what registries take at most).
const MAX_MANIFEST: u64 = 4 << 20;
/// Bytes of the largest config that is read.
const MAX_CONFIG: u64 = 16 << 20;
/// Indexes in indexes.
const MAX_NESTING: usize = 4;
/// HEADs that run side by side.
const PARALLEL_HEADS: usize = 4;
/// What opening an image patiently waits for, as the reference does.
const OPENING_DELAYS: [u64; 5] = [100, 200, 500, 1000, 2000];

/// Registries, one client each per run: one ping, one token, no manifest fetched twice. A clone shares them.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("insecure", &self.shared.insecure).finish_non_exhaustive()
    }
}

/// Time limits, retries and proxies.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For a connection, TLS included.
    pub connect_timeout: Duration,
    /// For one read or write: a stalled connection fails after it.
    pub idle_timeout: Duration,
    /// For the answer at the end of an upload: a registry may check and move a whole blob before it gives one.
    pub commit_timeout: Duration,
    /// For finding out whether a registry in a private network speaks TLS.
    pub probe_timeout: Duration,
    /// Pauses between attempts, each made up to a quarter longer by chance; one attempt more than there are pauses.
    pub delays: Vec<Duration>,
    /// No new attempt is begun when an operation has taken this long.
    pub budget: Duration,
    pub proxies: Proxies,
    pub user_agent: String,
}

impl Default for Settings {
    /// Proxies come from the environment.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            commit_timeout: Duration::from_secs(600),
            probe_timeout: Duration::from_secs(5),
            delays: [500, 1000, 3000, 6000].map(Duration::from_millis).to_vec(),
            budget: Duration::from_secs(300),
            proxies: Proxies::new(|name| std::env::var(name).ok()),
            user_agent: concat!("cnb-lifecycle/", env!("CARGO_PKG_VERSION")).to_string(),
        }
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
    /// Repositories that took an upload.
    writable: Mutex<HashSet<String>>,
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

/// Repeats what failed for a passing reason.
fn retry<T>(settings: &Settings, mut attempt: impl FnMut() -> Attempt<T>) -> Attempt<T> {
    let begin = Instant::now();
    let mut delays = settings.delays.iter();
    let mut attempts = 1;
    loop {
        let mut failure = match attempt() {
            Ok(value) => return Ok(value),
            Err(failure) if !failure.temporary => return Err(failure),
            Err(failure) => failure,
        };
        let pause = delays.next().map(|d| jittered(*d).max(failure.retry_after.unwrap_or_default()));
        let Some(pause) = pause.filter(|pause| begin.elapsed() + *pause <= settings.budget) else {
            // What was repeated here is not repeated again by a caller.
            failure.temporary = false;
            if attempts > 1 {
                failure.error = annotate(failure.error, attempts);
            }
            return Err(failure);
        };
        tracing::debug!("{}; trying again in {pause:?}", failure.error);
        std::thread::sleep(pause);
        attempts += 1;
    }
}

fn annotate(error: Error, attempts: u32) -> Error {
    let more = |text: String| format!("{text} (after {attempts} attempts)");
    match error {
        Error::Remote(text) => Error::Remote(more(text)),
        other => other,
    }
}

/// Up to a quarter more, so that many clients do not come back all at once.
fn jittered(delay: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish() % 256;
    delay + delay * u32::try_from(random).unwrap_or_default() / 1024
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
            writable: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    fn repository(&self, reference: &Reference) -> Repository {
        Repository::new(&self.shared, reference)
    }

    /// Manifest and config. `None`: there is none: 404, or 401 with a registry's error in its body (what registries
    /// answer for a repository that does not exist), or an index without an image for linux and this architecture.
    pub fn find(&self, name: &Reference) -> Result<Option<Image>> {
        match self.open(name) {
            Ok(found) => Ok(found),
            Err(failure) if failure.is(StatusCode::UNAUTHORIZED) && !failure.codes.is_empty() => {
                tracing::debug!("{}; taken for: there is no such image", failure.error);
                Ok(None)
            }
            Err(failure) => Err(failure.error),
        }
    }

    /// Like `find`, for an image that must be there: other failures than 400, 401, 403, 405 and 429 are given more
    /// time, an absent image too. `on_retry` gets the number of the attempt that failed, how many there are, why, and
    /// the pause that follows. The number is that of attempts that failed.
    pub fn find_patiently(
        &self,
        name: &Reference,
        on_retry: &mut dyn FnMut(usize, usize, &str, Duration),
    ) -> Result<(Option<Image>, usize)> {
        let attempts = OPENING_DELAYS.len() + 1;
        let mut failed = 0;
        loop {
            let result = self.open(name);
            let pause = OPENING_DELAYS.get(failed).copied().map(Duration::from_millis);
            let why = match (&result, pause) {
                (Ok(Some(_)), _) | (_, None) => None,
                (Ok(None), _) => Some(format!("{name}: not found")),
                (Err(failure), _) => {
                    let status = failure.status.map_or(0, |s| s.as_u16());
                    (!matches!(status, 400 | 401 | 403 | 405 | 429)).then(|| failure.error.to_string())
                }
            };
            let (Some(why), Some(pause)) = (why, pause) else {
                return Ok((result?, failed));
            };
            failed += 1;
            on_retry(failed, attempts, &why, pause);
            std::thread::sleep(pause);
            lock(&self.shared.documents).retain(|_, document| document.is_some());
        }
    }

    fn open(&self, name: &Reference) -> Attempt<Option<Image>> {
        let repository = self.repository(name);
        let Some(document) = self.document(&repository, name.identifier(), name.digest.as_ref())? else {
            return Ok(None);
        };
        self.image(&repository, name, &document, 0)
    }

    fn image(
        &self,
        repository: &Repository,
        name: &Reference,
        document: &Document,
        depth: usize,
    ) -> Attempt<Option<Image>> {
        let manifest = document.parse(&name.to_string()).map_err(Failure::lasting)?;
        if !manifest.is_index(document) {
            let Some(config) = &manifest.config else {
                let text = format!("image {name}: its manifest names no config");
                return Err(Failure::lasting(Error::Corrupt(text)));
            };
            let config = self.config(repository, config)?;
            return manifest.into_image(document, name, &config).map(Some).map_err(Failure::lasting);
        }
        if depth == MAX_NESTING {
            return Ok(None);
        }
        for candidate in manifest.candidates(manifest::host_architecture()) {
            let digest = &candidate.digest;
            let Some(child) = self.document(repository, digest.as_str(), Some(digest))? else { continue };
            if let Some(image) = self.image(repository, name, &child, depth + 1)? {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    /// A manifest or an index, from memory if it was read before.
    fn document(
        &self,
        repository: &Repository,
        identifier: &str,
        digest: Option<&Digest>,
    ) -> Attempt<Option<Document>> {
        let key = (repository.context(), identifier.to_string());
        if let Some(known) = lock(&self.shared.documents).get(&key) {
            return Ok(known.clone());
        }
        let call = Call {
            method: Method::GET,
            url: repository.url(&format!("manifests/{identifier}"))?,
            headers: &[("accept", manifest::ACCEPT)],
            scopes: &[repository.pull()],
            patience: Patience::Normal,
        };
        let read = || {
            let mut answer = repository.get_once(&call)?;
            let bytes = answer.read_all(MAX_MANIFEST, "the manifest")?;
            let content_type = answer.header(header::CONTENT_TYPE).unwrap_or_default();
            let media_type = content_type.split(';').next().unwrap_or_default().trim().to_string();
            Ok(Document { media_type, digest: Digest::of(&bytes), bytes: bytes.into() })
        };
        let document = match retry(&self.shared.settings, read) {
            Ok(document) => Some(document),
            Err(failure) if failure.is(StatusCode::NOT_FOUND) => None,
            Err(failure) => return Err(failure),
        };
        if let (Some(document), Some(digest)) = (&document, digest) {
            if document.digest != *digest {
                let text = format!("manifest {}@{digest}: its content has digest {}", key.0, document.digest);
                return Err(Failure::lasting(Error::Corrupt(text)));
            }
        }
        let mut documents = lock(&self.shared.documents);
        if let Some(document) = &document {
            documents.insert((key.0.clone(), document.digest.to_string()), Some(document.clone()));
        }
        documents.insert(key, document.clone());
        Ok(document)
    }

    fn config(&self, repository: &Repository, descriptor: &Descriptor) -> Attempt<Arc<[u8]>> {
        if let Some(config) = lock(&self.shared.configs).get(&descriptor.digest) {
            return Ok(config.clone());
        }
        let what = format!("config {} of {}", descriptor.digest, repository.context());
        if descriptor.size > MAX_CONFIG {
            let text = format!("{what}: {} bytes are more than {MAX_CONFIG}", descriptor.size);
            return Err(Failure::lasting(Error::Corrupt(text)));
        }
        let blob = Blob {
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            media_type: String::new(),
            source: crate::BlobSource::Layout(std::path::PathBuf::new()),
        };
        let mut bytes = Vec::new();
        BlobReader::open(repository, &blob)?
            .read_to_end(&mut bytes)
            .map_err(|e| Failure::lasting(http::content_error(e)))?;
        let bytes: Arc<[u8]> = bytes.into();
        lock(&self.shared.configs).insert(descriptor.digest.clone(), bytes.clone());
        Ok(bytes)
    }

    /// The first layer blob of a found image that its registry does not have (any more).
    pub fn missing_blob(&self, image: &Image) -> Result<Option<Digest>> {
        let blobs: Vec<(&Reference, &Digest)> = image
            .layers
            .iter()
            .filter_map(|layer| layer.blob.as_ref())
            // Foreign layers are elsewhere by their nature.
            .filter(|blob| !blob.media_type.contains("nondistributable") && !blob.media_type.contains("foreign"))
            .filter_map(|blob| match &blob.source {
                crate::BlobSource::Registry(reference) => Some((reference, &blob.digest)),
                crate::BlobSource::Layout(_) => None,
            })
            .collect();
        let parts = blobs.chunks(blobs.len().div_ceil(PARALLEL_HEADS).max(1));
        std::thread::scope(|scope| {
            let first_missing = |part: &[(&Reference, &Digest)]| {
                for (reference, digest) in part {
                    if !self.has_blob(reference, digest)? {
                        return Ok(Some((*digest).clone()));
                    }
                }
                Ok(None)
            };
            let threads: Vec<_> = parts.map(|part| scope.spawn(move || first_missing(part))).collect();
            let mut missing = None;
            for thread in threads {
                let panicked = |_| Err(Error::Remote("looking for blobs: a thread panicked".to_string()));
                missing = missing.or(thread.join().unwrap_or_else(panicked)?);
            }
            Ok(missing)
        })
    }

    /// A blob as it is stored; the last read fails where its content is not what its digest says. A connection that
    /// breaks is taken up again where it broke.
    pub fn read_blob(&self, repository: &Reference, blob: &Blob) -> Result<Box<dyn Read + Send>> {
        let repository = self.repository(repository);
        let reader = BlobReader::open(&repository, blob).map_err(|failure| match failure.error {
            Error::NotFound(text) => {
                Error::NotFound(format!("blob {} of {}: {text}", blob.digest, repository.context()))
            }
            other => other,
        })?;
        Ok(Box::new(reader))
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

    /// Uploads small content of known digest (a config), unless it is there.
    pub fn upload_bytes(&self, repository: &Reference, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        self.repository(repository).upload_bytes(&digest, bytes)?;
        Ok(digest)
    }

    /// Makes the repository have the blob: HEAD, else mount from its source repository, else stream it over.
    pub fn ensure_blob(&self, repository: &Reference, blob: &Blob) -> Result<()> {
        Ok(self.repository(repository).ensure_blob(blob)?)
    }

    /// PUTs a manifest under the reference's tag or digest. A registry that misses a blob is given some time to find
    /// it; after that nothing of the repository is taken for granted any more, and the caller may ensure the blobs
    /// again.
    pub fn put_manifest(&self, reference: &Reference, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        let repository = self.repository(reference);
        let digest = Digest::of(bytes);
        let call = Call {
            method: Method::PUT,
            url: repository.url(&format!("manifests/{}", reference.identifier()))?,
            headers: &[("content-type", media_type)],
            scopes: &[repository.push()],
            patience: Patience::Long,
        };
        let key = (repository.context(), reference.identifier().to_string());
        lock(&self.shared.documents).remove(&key);
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
        let document = Document { media_type: media_type.to_string(), bytes: bytes.into(), digest: digest.clone() };
        let mut documents = lock(&self.shared.documents);
        documents.insert((key.0.clone(), digest.to_string()), Some(document.clone()));
        documents.insert(key, Some(document));
        Ok(digest)
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

    /// Starts an upload and cancels it, once per repository.
    pub fn ensure_writable(&self, name: &Reference) -> Result<()> {
        let repository = self.repository(name);
        let context = repository.context();
        if lock(&self.shared.writable).contains(&context) {
            return Ok(());
        }
        repository.ensure_writable()?;
        lock(&self.shared.writable).insert(context);
        Ok(())
    }
}
