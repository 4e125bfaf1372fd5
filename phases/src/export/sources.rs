//! The images an export begins with, and where it ends.

use std::{
    sync::Once,
    thread::{self, JoinHandle, ScopedJoinHandle},
};

use anyhow::Context as _;
use image::{Destination, Digest, Image, Images, Layer};
use platform_api::{Analyzed, inputs::ExporterInputs};

use super::{joined, save};

/// Where layers come from and go to.
pub(super) struct Sources {
    pub(super) base: Image,
    pub(super) previous: Option<Image>,
    /// Blobs of the previous image that its registry is known to have lost.
    lost: Vec<Digest>,
    /// `None`: there is no place for compressed blobs (a daemon).
    pub(super) destination: Option<Destination>,
    /// The previous image may have lost blobs that its manifest names, so each is looked at.
    layout: bool,
    config_begun: Once,
}

impl Sources {
    pub(super) fn open(
        i: &ExporterInputs,
        analyzed: &Analyzed,
        images: &Images,
        run_reference: &str,
    ) -> anyhow::Result<Self> {
        let previous_name = analyzed.previous_image.as_deref().filter(|name| !name.is_empty());
        let (base, found) = thread::scope(|scope| {
            let looking = previous_name.map(|name| scope.spawn(move || save::find_identified(images, name)));
            (open_base(images, run_reference), looking.map(ScopedJoinHandle::join))
        });
        let base = base?.with_context(|| format!("failed to access run image: image {run_reference} not found"))?;
        let previous = match previous_name.zip(found) {
            Some((name, found)) => open_previous(images, name, joined(found.map(Ok))?)?,
            None => None,
        };
        let lost = match (images, &previous) {
            (Images::Registry(registry), Some(previous)) => registry.lost_blobs(previous)?,
            _ => Vec::new(),
        };
        let name = i.output_images.first().context("at least one image argument is required")?;
        let destination = destination(images, name)?;
        if let Some(Destination::Layout(path)) = &destination {
            tracing::info!("Using app image: {}", path.display());
        }
        Ok(Self {
            base,
            previous,
            lost,
            destination,
            layout: matches!(images, Images::Layout(_)),
            config_begun: Once::new(),
        })
    }

    /// Begins to make the destination have the layers of the run image, while those above them are made. What fails here
    /// is tried again, and said, when the image is saved.
    pub(super) fn take_base(&self) -> Option<JoinHandle<()>> {
        let Some(Destination::Registry(registry, to)) = &self.destination else { return None };
        let (registry, to, base) = (registry.clone(), to.clone(), self.base.clone());
        Some(thread::spawn(move || {
            if let Err(error) = registry.ensure_layers(&to, &base) {
                tracing::debug!("layers of the run image: {error}");
            }
        }))
    }

    /// A layer is sent, so there will be a new config: begins to send that, too, once.
    pub(super) fn begin_config(&self) {
        if let Some(Destination::Registry(registry, to)) = &self.destination {
            self.config_begun.call_once(|| registry.begin_config(to));
        }
    }

    /// The previous image's layer with this diff ID, if its blob can be had.
    pub(super) fn previous_layer(&self, sha: &str) -> Option<&Layer> {
        let diff_id = Digest::parse(sha).ok()?;
        let previous = self.previous.as_ref()?;
        let layer = previous.layers.get(previous.find_layer(&diff_id)?)?;
        let usable = match (&layer.blob, &self.destination) {
            // In a daemon layers have no blobs, and are there.
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(blob), Some(_)) => match &blob.source {
                image::BlobSource::Layout(path) if self.layout => {
                    path.join("blobs").join("sha256").join(blob.digest.hex()).is_file()
                }
                _ => !self.lost.contains(&blob.digest),
            },
        };
        usable.then_some(layer)
    }
}

fn open_base(images: &Images, reference: &str) -> anyhow::Result<Option<Image>> {
    save::find_patiently(images, reference).with_context(|| format!("create new app image: run image {reference}"))
}

/// What is said of the previous image, and what comes of looking for it.
fn open_previous(
    images: &Images,
    reference: &str,
    found: image::Result<Option<Image>>,
) -> anyhow::Result<Option<Image>> {
    match images {
        Images::Registry(_) => tracing::info!("Reusing layers from image '{reference}'"),
        Images::Layout(_) => {
            let path = reference.rsplit_once('@').map_or(reference, |(path, _)| path);
            tracing::info!("Reusing layers from image '{path}'");
        }
        Images::Daemon(_) => tracing::debug!("Reusing layers from image with id '{reference}'"),
    }
    match found {
        // Whatever became of it since it was analyzed: its layers can be made again.
        Err(image::Error::Corrupt(cause)) => {
            tracing::warn!("Not reusing layers from image '{reference}': {cause}");
            Ok(None)
        }
        found => found.with_context(|| format!("previous image {reference}")),
    }
}

/// A daemon takes layers as they are, so there is no destination for blobs.
fn destination(images: &Images, name: &str) -> anyhow::Result<Option<Destination>> {
    Ok(match images {
        Images::Registry(registry) => Some(Destination::Registry(registry.clone(), image::Reference::parse(name)?)),
        Images::Daemon(_) => None,
        Images::Layout(layout) => Some(Destination::Layout(layout.path_of(name)?)),
    })
}
