//! Several blobs at once.

use std::{
    any::Any,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{Registry, lock, manifest};
use crate::{Blob, BlobSource, Digest, Error, Image, Layer, Reference, Result};

/// Blobs looked for, mounted or copied at once.
const BLOBS_AT_ONCE: usize = 4;

impl Registry {
    /// Makes the repository have the blobs of the image's layers, as [`Registry::ensure_blob`] does.
    pub fn ensure_layers(&self, to: &Reference, image: &Image) -> Result<()> {
        let repository = self.repository(to);
        let blobs: Vec<&Blob> = image.layers.iter().filter_map(|layer| layer.blob.as_ref()).collect();
        let blobs: Vec<&Blob> = blobs.into_iter().filter(|blob| !repository.must_have(&blob.digest)).collect();
        first(&blobs, |blob| self.ensure_blob(to, blob).err()).map_or(Ok(()), Err)
    }

    /// The first blob of a found image's layers that its registry does not have (any more).
    pub fn missing_blob<'a>(&self, layers: impl IntoIterator<Item = &'a Layer>) -> Result<Option<Digest>> {
        let blobs: Vec<_> = layers.into_iter().filter_map(in_registry).collect();
        self.first_missing(&blobs)
    }

    /// The blobs of a found image's layers that its registry does not have (any more), as far as they are not taken for
    /// granted.
    pub fn lost_blobs(&self, image: &Image) -> Result<Vec<Digest>> {
        let mut blobs: Vec<_> = image.layers.iter().filter_map(in_registry).collect();
        blobs.retain(|(reference, digest)| !self.repository(reference).must_have(digest));
        let mut lost = Vec::new();
        while let Some(digest) = self.first_missing(&blobs)? {
            blobs.retain(|(_, other)| **other != digest);
            lost.push(digest);
        }
        Ok(lost)
    }

    /// Where one is missing, or nobody knows, nothing of its repository is taken for granted from now on.
    pub(super) fn first_missing(&self, blobs: &[(&Reference, &Digest)]) -> Result<Option<Digest>> {
        let missing = |(reference, digest): &(&Reference, &Digest)| {
            let missing = match self.has_blob(reference, digest) {
                Ok(true) => return None,
                Ok(false) => Ok((*digest).clone()),
                Err(error) => Err(error),
            };
            self.repository(reference).distrust();
            Some(missing)
        };
        first(blobs, missing).transpose()
    }
}

/// The repository and the digest of a layer's blob.
fn in_registry(layer: &Layer) -> Option<(&Reference, &Digest)> {
    let blob = layer.blob.as_ref().filter(|blob| !manifest::is_foreign(&blob.media_type))?;
    match &blob.source {
        BlobSource::Registry(reference) => Some((reference, &blob.digest)),
        BlobSource::Layout(_) => None,
    }
}

/// What is found at the first of the items where something is found; those after it may be left.
fn first<T: Sync, F: Send>(items: &[T], find: impl Fn(&T) -> Option<F> + Sync) -> Option<F> {
    let next = AtomicUsize::new(0);
    let first: Mutex<Option<(usize, F)>> = Mutex::new(None);
    let look = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return };
            let Some(found) = find(item) else { continue };
            next.store(items.len(), Ordering::Relaxed);
            let mut first = lock(&first);
            if first.as_ref().is_none_or(|(before, _)| index < *before) {
                *first = Some((index, found));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..BLOBS_AT_ONCE.min(items.len()) {
            scope.spawn(look);
        }
        look();
    });
    first.into_inner().unwrap_or_else(PoisonError::into_inner).map(|(_, found)| found)
}

/// What a thread that panicked comes to.
pub(super) fn panicked<T>(_: Box<dyn Any + Send>) -> Result<T> {
    Err(Error::Remote("looking for blobs: a thread panicked".to_string()))
}
