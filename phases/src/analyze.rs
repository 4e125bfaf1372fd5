//! analyze: what is there already. The previous image with its metadata and SBOM, and the run image.
//!
//! Spec: platform.md "Analyzer".

use anyhow::{Context as _, bail};
use image::{Digest, Image, Images, Registry};
use platform_api::{Analyzed, LayersMetadata, RunImage, inputs::AnalyzerInputs};

use crate::{labels, parallel, restore, target};

/// Looks for the previous image and `run_image` (see [`crate::run_image::resolve`]), and restores the SBOM layer of
/// the previous image to `<layers>/sbom`. `registry` is where a cache image would be, wherever app images are.
///
/// # Errors
/// A registry that does not let us read or write what the build will. An image that is not there is no error.
pub fn analyze(i: &AnalyzerInputs, images: &Images, registry: &Registry, run_image: &str) -> anyhow::Result<Analyzed> {
    ensure_access(i, images, registry, run_image)?;
    let previous = find_previous(i, images)?;
    if let Some((image, metadata)) = &previous {
        restore_sbom(i, images, image, metadata)?;
    }
    let run_image = find_run_image(i, images, run_image)?;
    let (previous_image, metadata) = match previous {
        Some((image, metadata)) => (image.id.map(|id| id.to_string()), metadata),
        None => (None, LayersMetadata::default()),
    };
    Ok(Analyzed { previous_image, metadata, run_image: Some(run_image), build_image: None })
}

/// Better to fail now than after the build. Cache images are in a registry even where app images are not.
fn ensure_access(i: &AnalyzerInputs, images: &Images, registry: &Registry, run_image: &str) -> anyhow::Result<()> {
    let caches = Images::Registry(registry.clone());
    let mut reads: Vec<&str> = Vec::new();
    let mut writes: Vec<(&Images, &str)> = i.cache.image.iter().map(|name| (&caches, name.as_str())).collect();
    if matches!(images, Images::Registry(_)) {
        reads = vec![&i.previous_image, run_image];
        writes.push((images, &i.output_image));
        writes.extend(i.tags.iter().map(|tag| (images, tag.as_str())));
    }
    reads.retain(|name| !name.is_empty());
    reads.dedup();
    for (name, result) in reads.iter().zip(parallel::map(&reads, |name| images.ensure_readable(name))) {
        result
            .with_context(|| format!("failed to ensure registry read access to {name}"))
            .context("validating registry read access")?;
    }
    let access = |(images, name): &(&Images, &str)| {
        images.ensure_readable(name)?;
        images.ensure_writable(name)
    };
    for ((_, name), result) in writes.iter().zip(parallel::map(&writes, access)) {
        result
            .with_context(|| format!("failed to ensure registry read/write access to {name}"))
            .context("validating registry write access")?;
    }
    Ok(())
}

/// The previous image, if it is there and whole, with its metadata.
fn find_previous(i: &AnalyzerInputs, images: &Images) -> anyhow::Result<Option<(Image, LayersMetadata)>> {
    let name = &i.previous_image;
    if name.is_empty() {
        return Ok(None);
    }
    let found = match images.find(name) {
        Err(image::Error::Corrupt(cause)) => {
            ignore_corrupt(name, &cause);
            return Ok(None);
        }
        other => other.context("getting previous image")?,
    };
    let Some(image) = logged(found, name) else { return Ok(None) };
    if let Images::Registry(registry) = images {
        // A layer that its buildpack leaves out, trusting the image to have it, must be there in the end.
        match registry.missing_blob(&image) {
            Ok(None) => {}
            Ok(Some(digest)) => {
                ignore_corrupt(name, &format!("blob {digest} is missing"));
                return Ok(None);
            }
            Err(e) => {
                ignore_corrupt(name, &e.to_string());
                return Ok(None);
            }
        }
    }
    match labels::layers_metadata(&image.config) {
        Ok(metadata) => Ok(Some((image, metadata))),
        Err(e) => {
            tracing::warn!("Ignoring the metadata of image \"{name}\": {e:#}");
            Ok(None)
        }
    }
}

fn ignore_corrupt(name: &str, cause: &str) {
    tracing::info!("Ignoring image \"{name}\" because it was corrupt");
    tracing::debug!("Image \"{name}\": {cause}");
}

fn logged(found: Option<Image>, name: &str) -> Option<Image> {
    if let Some(id) = found.as_ref().and_then(|image| image.id.as_ref()) {
        tracing::debug!("Found image with identifier \"{id}\"");
    } else {
        tracing::info!("Image with name \"{name}\" not found");
    }
    found
}

/// The buildpacks will find in it what they said of the layers that are reused.
fn restore_sbom(i: &AnalyzerInputs, images: &Images, image: &Image, metadata: &LayersMetadata) -> anyhow::Result<()> {
    let sha = metadata.sbom.as_ref().map(|layer| layer.sha.as_str()).unwrap_or_default();
    if sha.is_empty() || i.skip_layers || !i.api.sbom_layers() {
        return Ok(());
    }
    tracing::info!("Restoring data for SBOM from previous image");
    let name = &i.previous_image;
    let failed = || format!("retrieving launch SBOM layer {sha} of image {name}");
    let mut layer = images.read_layer(image, &Digest::parse(sha).with_context(failed)?).with_context(failed)?;
    match restore::unpack_sbom_of_previous_image(&mut layer, &i.layers) {
        // Built with another layers directory: its files have no place here.
        Err(e @ image::Error::Corrupt(_)) => tracing::warn!("Skipping restore for SBOM of previous image: {e}"),
        other => other.with_context(failed)?,
    }
    Ok(())
}

fn find_run_image(i: &AnalyzerInputs, images: &Images, name: &str) -> anyhow::Result<RunImage> {
    if name.is_empty() {
        return Ok(RunImage::default());
    }
    let Some(found) = logged(images.find(name).context("getting run image")?, name) else {
        return Ok(RunImage { image: i.api.target_data().then(|| name.to_owned()), ..RunImage::default() });
    };
    let mut run_image =
        RunImage { reference: found.id.as_ref().map(ToString::to_string).unwrap_or_default(), ..RunImage::default() };
    if i.api.target_data() {
        if found.config.os.is_empty() {
            bail!("failed to find OS in run image config");
        }
        run_image.image = Some(name.to_owned());
        run_image.target = Some(target::of_image(&found));
    }
    Ok(run_image)
}
