//! Saving an image under its names.

use std::thread;

use crate::{Error, Image, ImageId, Layout, Reference, Registry, Result, SaveResult, Saved, manifest::Documents};

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
            let put = || registry.put_manifest(&reference, documents.manifest_type, &documents.manifest);
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
    thread::scope(|scope| {
        let layers = scope.spawn(|| registry.ensure_layers(to, image));
        let config = registry.upload_config(to, &documents.config);
        let panicked = |_| Err(Error::Remote("filling a repository: a thread panicked".to_string()));
        layers.join().unwrap_or_else(panicked).and(config.map(drop))
    })
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
