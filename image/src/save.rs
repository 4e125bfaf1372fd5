//! Saving an image under its names.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    Blob, Error, Image, ImageId, Layout, Reference, Registry, Result, SaveResult, Saved,
    manifest::{Documents, manifest_type},
};

/// Blobs looked for, mounted or copied at once.
const BLOBS_AT_ONCE: usize = 4;

/// Blobs, config, manifest; for further tags of one repository the manifest only.
pub(crate) fn to_registry(registry: &Registry, image: &Image, names: &[String]) -> Result<Saved> {
    let documents = Documents::of(image)?;
    let mut saved = Saved { names: Vec::new(), id: None, manifest_size: None };
    let mut filled: Vec<Reference> = Vec::new();
    for name in names {
        let put = || -> Result<Reference> {
            let reference = Reference::parse(name)?;
            if !filled.iter().any(|other| other.same_repository(&reference)) {
                fill(registry, image, &documents, &reference)?;
            }
            let put = || registry.put_manifest(&reference, manifest_type(image.docker), &documents.manifest);
            if let Err(error) = put() {
                // A registry may have lost a blob since it was looked for.
                if !error.to_string().contains("BLOB_UNKNOWN") {
                    return Err(error);
                }
                fill(registry, image, &documents, &reference)?;
                put()?;
            }
            Ok(reference)
        };
        let error = match put() {
            Ok(reference) => {
                let manifest_size = documents.manifest.len() as u64;
                saved.manifest_size = Some(manifest_size);
                let id = reference.with_digest(&documents.manifest_digest);
                saved.id.get_or_insert(ImageId::Registry { reference: id, manifest_size });
                filled.push(reference);
                None
            }
            Err(error) => Some(error),
        };
        saved.names.push(SaveResult { name: name.clone(), error });
    }
    Ok(saved)
}

/// Makes the repository have everything the manifest names.
fn fill(registry: &Registry, image: &Image, documents: &Documents, to: &Reference) -> Result<()> {
    let blobs: Vec<&Blob> = image.layers.iter().filter_map(|layer| layer.blob.as_ref()).collect();
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let first_failure = |error| {
        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    };
    thread::scope(|scope| {
        for _ in 0..BLOBS_AT_ONCE.min(blobs.len()) {
            scope.spawn(|| {
                while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = registry.ensure_blob(to, blob) {
                        first_failure(error);
                        next.store(blobs.len(), Ordering::Relaxed);
                    }
                }
            });
        }
        if let Err(error) = registry.upload_bytes(to, &documents.config) {
            first_failure(error);
        }
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// One layout directory per name.
pub(crate) fn to_layouts(layout: &Layout, image: &Image, names: &[String]) -> Saved {
    let mut saved = Saved { names: Vec::new(), id: None, manifest_size: None };
    for name in names {
        let put = || -> Result<_> {
            let path = layout.path_of(name)?;
            let tag = Reference::parse(name).ok().map(|reference| reference.identifier().to_owned());
            let (digest, size) = Layout::put(image, &path, tag.as_deref())?;
            Ok((ImageId::Layout { path, digest }, size))
        };
        let error = match put() {
            Ok((id, size)) => {
                saved.id.get_or_insert(id);
                saved.manifest_size = Some(size);
                None
            }
            Err(error) => Some(error),
        };
        saved.names.push(SaveResult { name: name.clone(), error });
    }
    saved
}
