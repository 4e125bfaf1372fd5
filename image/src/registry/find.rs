//! Images on their way in: manifests, indexes and configs, each read once.

use std::{io::Read, sync::Arc, time::Duration};

use ureq::http::{Method, StatusCode, header};

use super::{
    Registry, blobs,
    download::BlobReader,
    failure::{Attempt, Failure, content_error},
    http::Patience,
    lock,
    manifest::{self, Descriptor, Document},
    repository::{Call, Repository},
    retry,
};
use crate::{Blob, BlobSource, Digest, Error, Image, Reference, Result, image::host_architecture};

/// Bytes of the largest manifest or index that is read (what registries take at most).
const MAX_MANIFEST: u64 = 4 << 20;
/// Bytes of the largest config that is read.
const MAX_CONFIG: u64 = 16 << 20;
/// Indexes in indexes.
const MAX_NESTING: usize = 4;
/// What opening an image patiently waits for, as the reference does.
const OPENING_DELAYS: [u64; 5] = [100, 200, 500, 1000, 2000];

impl Registry {
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

    /// Like `find`, for an image that must be there: other failures than 400, 401, 403, 405, 429 and content that is not
    /// what it should be are given more time, unless they have had it already; an absent image too. `on_retry` gets the
    /// number of the attempt that failed, how many there are, why, and the pause that follows. The number is that of
    /// attempts that failed.
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
                    let lasting = failure.retried
                        || matches!(status, 400 | 401 | 403 | 405 | 429)
                        || matches!(failure.error, Error::Corrupt(_));
                    (!lasting).then(|| failure.error.to_string())
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

    /// Like `find`, and whether its layer blobs are there, too: what [`Registry::missing_blob`] says. They are looked for
    /// while the config is read, if the manifest was read before ([`Registry::ensure_readable`]).
    pub fn find_checked(&self, name: &Reference) -> Result<Option<(Image, Result<Option<Digest>>)>> {
        let key = (name.context(), name.identifier().to_string());
        let document = lock(&self.shared.documents).get(&key).cloned().flatten();
        // What may be wrong with it, `find` says.
        let manifest = document.and_then(|document| document.parse(&key.0).ok());
        let layers = manifest.and_then(|manifest| manifest.layers).unwrap_or_default();
        let blobs: Vec<_> = layers.iter().filter(|d| !d.is_foreign()).map(|d| (name, &d.digest)).collect();
        std::thread::scope(|scope| {
            let missing = scope.spawn(|| self.first_missing(&blobs));
            let found = self.find(name)?;
            let missing = missing.join().unwrap_or_else(blobs::panicked);
            Ok(found.map(|image| {
                // An index's image has its own manifest.
                let missing = if blobs.is_empty() { self.missing_blob(&image.layers) } else { missing };
                (image, missing)
            }))
        })
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
            repository.remember_named(manifest.blobs());
            return manifest.into_image(document, name, &config).map(Some).map_err(Failure::lasting);
        }
        if depth == MAX_NESTING {
            return Ok(None);
        }
        for candidate in manifest.candidates(host_architecture()) {
            let digest = &candidate.digest;
            let Some(child) = self.document(repository, digest.as_str(), Some(digest))? else { continue };
            if let Some(image) = self.image(repository, name, &child, depth + 1)? {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    /// A manifest or an index, from memory if it was read before.
    pub(super) fn document(
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
            repository.remember_named([document.digest.clone()]);
            documents.insert((key.0.clone(), document.digest.to_string()), Some(document.clone()));
        }
        documents.insert(key, document.clone());
        Ok(document)
    }

    pub(super) fn config(&self, repository: &Repository, descriptor: &Descriptor) -> Attempt<Arc<[u8]>> {
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
            source: BlobSource::Layout(std::path::PathBuf::new()),
        };
        let mut bytes = Vec::new();
        BlobReader::open(repository, &blob)?.read_to_end(&mut bytes).map_err(|e| Failure::lasting(content_error(e)))?;
        let bytes: Arc<[u8]> = bytes.into();
        lock(&self.shared.configs).insert(descriptor.digest.clone(), bytes.clone());
        Ok(bytes)
    }
}
