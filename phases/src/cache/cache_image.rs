//! A cache in an image: always in a registry, its metadata a label, its layers in the order of the export.

use std::collections::BTreeSet;

use anyhow::{Context as _, anyhow};
use image::{Config, Destination, Digest, Error, History, Image, ImageId, Images, Layer, Reference, Registry};
use platform_api::{CacheMetadata, PlatformApi};

use super::{CachedLayer, LayerReader, LayerUnavailable, Staging};
use crate::{export::DEFAULT_CREATED, labels};

const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A cache in an image.
#[derive(Debug)]
pub struct ImageCache {
    name: String,
    reference: Reference,
    registry: Registry,
    images: Images,
    /// The cache in force.
    image: Option<Image>,
    /// The cache that was replaced stays in the registry.
    keep_old: bool,
}

impl ImageCache {
    /// Finds the cache image; there need be none.
    ///
    /// # Errors
    /// The registry refuses, or cannot be reached.
    pub fn open(name: &str, registry: &Registry, api: PlatformApi) -> anyhow::Result<Self> {
        let failed = || "failed to create image cache".to_owned();
        let reference = Reference::parse(name).with_context(failed)?;
        let images = Images::Registry(registry.clone());
        let image =
            images.find(name).with_context(|| format!("accessing cache image {name:?}")).with_context(failed)?;
        let keep_old = api.cache_image_kept();
        let mut cache = Self { name: name.to_owned(), reference, registry: registry.clone(), images, image, keep_old };
        cache.image = cache.image.take().filter(|image| cache.is_complete(image));
        Ok(cache)
    }

    /// A registry may have lost blobs; a cache with such holes would be carried on for ever.
    fn is_complete(&self, image: &Image) -> bool {
        let complete = matches!(self.registry.missing_blob(&image.layers), Ok(None));
        if !complete {
            tracing::info!("Ignoring cache image \"{}\" because it was corrupt", self.name);
        }
        complete
    }

    pub(super) fn exists(&self) -> bool {
        self.image.is_some()
    }

    pub(super) fn metadata(&self) -> CacheMetadata {
        let label = self.image.as_ref().and_then(|image| image.config.label(labels::CACHE_METADATA));
        labels::cache_metadata(label.unwrap_or_default())
    }

    pub(super) fn layer(&self, diff_id: &Digest) -> Result<LayerReader, LayerUnavailable> {
        let image = self.image.as_ref().ok_or_else(|| LayerUnavailable::missing(diff_id))?;
        if image.find_layer(diff_id).is_none() {
            return Err(LayerUnavailable::missing(diff_id));
        }
        // The diff ID is compared by who reads it.
        self.images.read_layer_unchecked(image, diff_id).map_err(|e| match e {
            Error::NotFound(_) => LayerUnavailable::missing(diff_id),
            other => LayerUnavailable(format!("failed to get cache layer with SHA '{diff_id}': {other}")),
        })
    }

    pub(super) fn stage(&self) -> Staging {
        let layers = self.image.iter().flat_map(|image| &image.layers);
        let has = layers.filter(|layer| layer.blob.is_some()).map(|layer| layer.diff_id.clone()).collect();
        Staging::Image { to: Destination::Registry(self.registry.clone(), self.reference.clone()), has }
    }

    pub(super) fn commit(self, metadata: &CacheMetadata, layers: &[CachedLayer]) -> anyhow::Result<()> {
        let created = Some(DEFAULT_CREATED.to_owned());
        let config = Config { os: std::env::consts::OS.to_owned(), created: created.clone(), ..Config::default() };
        let mut new = Image { config, ..Image::default() };
        new.config.labels.insert(labels::CACHE_METADATA.to_owned(), labels::to_json(metadata)?);
        let mut seen = BTreeSet::new();
        for layer in layers {
            // Two buildpack layers may be the same bytes; an image needs them once.
            if seen.insert(&layer.diff_id) {
                new.push(self.layer_of(layer)?, History { created: created.clone(), ..History::default() });
            }
        }
        let mut saved = self.images.save(&new, std::slice::from_ref(&self.name))?;
        if let Some(error) = saved.names.pop().and_then(|name| name.error) {
            return Err(error).with_context(|| format!("saving image '{}'", self.name));
        }
        self.delete_old(saved.id.as_ref());
        Ok(())
    }

    fn layer_of(&self, layer: &CachedLayer) -> anyhow::Result<Layer> {
        if let Some(blob) = &layer.blob {
            let mut blob = blob.clone();
            // The app image that the blob was made for may have Docker's types; a cache image has OCI's.
            OCI_LAYER.clone_into(&mut blob.media_type);
            return Ok(Layer { diff_id: layer.diff_id.clone(), blob: Some(blob), recipe: None });
        }
        let old = self.image.as_ref();
        old.and_then(|image| image.layers.get(image.find_layer(&layer.diff_id)?))
            .cloned()
            .ok_or_else(|| anyhow!("failed to reuse cache layer with SHA '{}'", layer.diff_id))
    }

    /// Before Platform API 0.13 the replaced cache is deleted; a registry that will not is no reason to fail.
    fn delete_old(&self, new: Option<&ImageId>) {
        let Some(Image { id: Some(ImageId::Registry { reference: old, .. }), .. }) = &self.image else { return };
        let same = matches!(new, Some(ImageId::Registry { reference, .. }) if reference.digest == old.digest);
        if self.keep_old || same {
            return;
        }
        if let Err(e) = self.registry.delete_manifest(old) {
            tracing::warn!("Unable to delete cache image: {e}");
        }
    }
}
