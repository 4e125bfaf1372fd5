//! Several blobs at once.

use std::{
    any::Any,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{Registry, manifest};
use crate::{Blob, BlobSource, Digest, Error, Image, Reference, Result};

/// Blobs looked for, mounted or copied at once.
const BLOBS_AT_ONCE: usize = 4;

impl Registry {
    /// Makes the repository have the blobs of the image's layers, as [`Registry::ensure_blob`] does.
    pub fn ensure_layers(&self, to: &Reference, image: &Image) -> Result<()> {
        let repository = self.repository(to);
        let blobs: Vec<&Blob> = image.layers.iter().filter_map(|layer| layer.blob.as_ref()).collect();
        let blobs: Vec<&Blob> = blobs.into_iter().filter(|blob| !repository.must_have(&blob.digest)).collect();
        let next = AtomicUsize::new(0);
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..BLOBS_AT_ONCE.min(blobs.len()) {
                scope.spawn(|| {
                    while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = self.ensure_blob(to, blob) {
                            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                            next.store(blobs.len(), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// The first layer blob of a found image that its registry does not have (any more).
    pub fn missing_blob(&self, image: &Image) -> Result<Option<Digest>> {
        let blobs: Vec<(&Reference, &Digest)> = image
            .layers
            .iter()
            .filter_map(|layer| layer.blob.as_ref())
            .filter(|blob| !manifest::is_foreign(&blob.media_type))
            .filter_map(|blob| match &blob.source {
                BlobSource::Registry(reference) => Some((reference, &blob.digest)),
                BlobSource::Layout(_) => None,
            })
            .collect();
        let missing = self.first_missing(&blobs);
        if !matches!(missing, Ok(None)) {
            for (reference, _) in &blobs {
                self.repository(reference).forget_named();
            }
        }
        missing
    }

    pub(super) fn first_missing(&self, blobs: &[(&Reference, &Digest)]) -> Result<Option<Digest>> {
        let parts = blobs.chunks(blobs.len().div_ceil(BLOBS_AT_ONCE).max(1));
        thread::scope(|scope| {
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
                missing = missing.or(thread.join().unwrap_or_else(panicked)?);
            }
            Ok(missing)
        })
    }
}

/// What a thread that panicked comes to.
pub(super) fn panicked<T>(_: Box<dyn Any + Send>) -> Result<T> {
    Err(Error::Remote("looking for blobs: a thread panicked".to_string()))
}
