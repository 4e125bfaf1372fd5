//! analyze: what is there already. The previous image with its metadata and SBOM, and the run image.
//!
//! Spec: platform.md "Analyzer".

use std::thread;

use anyhow::{Context as _, bail};
use image::{Digest, Image, Images, Layer, Reference, Registry};
use platform_api::{Analyzed, LayersMetadata, RunImage, TargetData, inputs::AnalyzerInputs};

use crate::{labels, parallel, restore, target};

/// Which layers of the previous image must be there now, that it counts as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// All of them.
    All,
    /// Those that nothing can make again. The others are for [`look_for_layers`], while buildpacks run.
    Irreplaceable,
}

/// What was found, and what is not done with it yet.
#[derive(Debug)]
pub struct Found {
    /// analyzed.toml, as far as it is known.
    pub analyzed: Analyzed,
    /// The previous image, and the diff ID of the SBOM layer that is to be restored from it.
    sbom: Option<(Image, Digest)>,
}

/// Looks for the previous image and `run_image` (see [`crate::run_image::resolve`]). `registry` is where a cache image
/// would be, wherever app images are. `on_base` is called with the target of the run image as soon as that is known: it is
/// all that detection needs. It is not called where there is no run image to look at, or analyze will fail for it.
///
/// # Errors
/// A registry that does not let us read or write what the build will. An image that is not there is no error.
pub fn analyze(
    i: &AnalyzerInputs,
    images: &Images,
    registry: &Registry,
    run_image: &str,
    needed: Needed,
    on_base: &(dyn Fn(Option<TargetData>) + Sync),
) -> anyhow::Result<Found> {
    let on_run_image = |seen: &Seen| {
        let base = seen.as_ref().ok().and_then(|found| base_of(i, found.as_ref().map(|(image, _)| image)).ok());
        base.into_iter().for_each(on_base);
    };
    let mut looked = look(i, images, registry, run_image, needed, &on_run_image)?;
    let previous = previous(i, looked.take(&i.previous_image), registry)?;
    let run_image = described(i, looked.take(run_image), run_image)?;
    let mut found = Found { analyzed: Analyzed { run_image: Some(run_image), ..Analyzed::default() }, sbom: None };
    if let Some((image, metadata)) = previous {
        found.analyzed.previous_image = image.id.as_ref().map(ToString::to_string);
        found.sbom = sbom_layer(i, &metadata, needed)?.map(|diff_id| (image, diff_id));
        found.analyzed.metadata = metadata;
    }
    Ok(found)
}

impl Found {
    /// Restores the SBOM layer of the previous image to `<layers>/sbom`: buildpacks will find in it what they said of the
    /// layers that are reused. Without that layer the previous image is none.
    ///
    /// # Errors
    /// A layer that is there and cannot be read or written; one that is compressed in an unknown way is taken for none.
    pub fn restore_sbom(self, i: &AnalyzerInputs, images: &Images) -> anyhow::Result<Analyzed> {
        let Some((image, diff_id)) = &self.sbom else { return Ok(self.analyzed) };
        let name = &i.previous_image;
        let failed = || format!("retrieving launch SBOM layer {diff_id} of image {name}");
        let mut layer = match images.read_layer(image, diff_id) {
            Err(image::Error::NotFound(cause)) if matches!(images, Images::Registry(_)) => {
                ignore_corrupt(name, &cause);
                return Ok(self.without_previous());
            }
            // Someone compressed it in a way of their own: better to make all layers again than to lose SBOMs.
            Err(image::Error::Corrupt(cause)) => {
                tracing::warn!("Ignoring image \"{name}\": {cause}");
                return Ok(self.without_previous());
            }
            layer => layer.with_context(failed)?,
        };
        match restore::unpack_sbom_of_previous_image(&mut layer, &i.layers) {
            // Built with another layers directory: its files have no place here.
            Err(e @ image::Error::Corrupt(_)) => tracing::warn!("Skipping restore for SBOM of previous image: {e}"),
            other => other.with_context(failed)?,
        }
        Ok(self.analyzed)
    }

    fn without_previous(self) -> Analyzed {
        Analyzed { previous_image: None, metadata: LayersMetadata::default(), ..self.analyzed }
    }
}

/// What is there under a name, and which of its blobs is missing.
type Seen = image::Result<Option<(Image, image::Result<Option<Digest>>)>>;

/// What was found under the names that were looked at.
struct Looked<'a>(Vec<(&'a str, Seen)>);

impl Looked<'_> {
    fn take(&mut self, name: &str) -> Seen {
        let index = self.0.iter().position(|(of, _)| *of == name);
        index.map_or(Ok(None), |index| self.0.swap_remove(index).1)
    }
}

/// Looks at all images at once; those that the build will write must let us. Better to fail now than after the build.
/// Cache images are in a registry even where app images are not.
fn look<'a>(
    i: &'a AnalyzerInputs,
    images: &Images,
    registry: &Registry,
    run_image: &'a str,
    needed: Needed,
    on_run_image: &(dyn Fn(&Seen) + Sync),
) -> anyhow::Result<Looked<'a>> {
    let caches = Images::Registry(registry.clone());
    let mut reads: Vec<&str> = vec![&i.previous_image, run_image];
    let mut writes: Vec<(&Images, &str)> = i.cache.image.iter().map(|name| (&caches, name.as_str())).collect();
    if matches!(images, Images::Registry(_)) {
        writes.push((images, &i.output_image));
        writes.extend(i.tags.iter().map(|tag| (images, tag.as_str())));
    }
    reads.retain(|name| !name.is_empty());
    let read = |name: &&str| {
        let found = find(images, name, needed == Needed::All && *name == i.previous_image);
        if *name == run_image {
            found.iter().for_each(on_run_image);
        }
        found
    };
    let write = |(images, name): &(&Images, &str)| {
        // Else it is read already.
        if !reads.contains(name) {
            images.ensure_readable(name)?;
        }
        images.ensure_writable(name)
    };
    let (found, written) = thread::scope(|scope| {
        let written = scope.spawn(|| {
            let written = parallel::map(&writes, write);
            if needed == Needed::All {
                // Nobody waits for it: registries take their time, and drop forgotten uploads themselves.
                let registry = registry.clone();
                thread::spawn(move || registry.cancel_uploads());
            }
            written
        });
        (parallel::map(&reads, read), written.join())
    });
    let mut looked = Looked(Vec::new());
    for (name, result) in reads.iter().zip(found) {
        let found = result
            .with_context(|| format!("failed to ensure registry read access to {name}"))
            .context("validating registry read access")?;
        looked.0.push((name, found));
    }
    let Ok(written) = written else { bail!("looking for images: a thread panicked") };
    for ((_, name), result) in writes.iter().zip(written) {
        result
            .with_context(|| format!("failed to ensure registry read/write access to {name}"))
            .context("validating registry write access")?;
    }
    Ok(looked)
}

/// An image that we must be able to read: where it is refused is the outer error. Its blobs are looked for if it is to
/// be `whole`.
fn find(images: &Images, name: &str, whole: bool) -> image::Result<Seen> {
    let Images::Registry(registry) = images else {
        return Ok(images.find(name).map(|found| found.map(|image| (image, Ok(None)))));
    };
    let reference = Reference::parse(name)?;
    registry.ensure_readable(&reference)?;
    if whole {
        // A layer that its buildpack leaves out, trusting the image to have it, must be there in the end.
        return Ok(registry.find_checked(&reference));
    }
    Ok(registry.find(&reference).map(|found| found.map(|image| (image, Ok(None)))))
}

/// The previous image, if it is there and whole, with its metadata.
fn previous(i: &AnalyzerInputs, found: Seen, registry: &Registry) -> anyhow::Result<Option<(Image, LayersMetadata)>> {
    let name = &i.previous_image;
    if name.is_empty() {
        return Ok(None);
    }
    let found = match found {
        Err(image::Error::Corrupt(cause)) => {
            ignore_corrupt(name, &cause);
            return Ok(None);
        }
        other => other.context("getting previous image")?,
    };
    let (found, missing) = found.map_or((None, Ok(None)), |(image, missing)| (Some(image), missing));
    let Some(image) = logged(found, name) else { return Ok(None) };
    let metadata = labels::layers_metadata(&image.config);
    let missing = missing.and_then(|missing| match (missing, &metadata) {
        (None, Ok(metadata)) => registry.missing_blob(irreplaceable(&image, metadata)),
        (missing, _) => Ok(missing),
    });
    let cause = match missing {
        Ok(None) => None,
        Ok(Some(digest)) => Some(format!("blob {digest} is missing")),
        Err(e) => Some(e.to_string()),
    };
    if let Some(cause) = cause {
        ignore_corrupt(name, &cause);
        return Ok(None);
    }
    match metadata {
        Ok(metadata) => Ok(Some((image, metadata))),
        Err(e) => {
            tracing::warn!("Ignoring the metadata of image \"{name}\": {e:#}");
            Ok(None)
        }
    }
}

/// The layers that their buildpacks leave out, trusting the image to have them.
fn irreplaceable<'a>(image: &'a Image, metadata: &LayersMetadata) -> Vec<&'a Layer> {
    let layers = metadata.buildpacks.iter().flat_map(|buildpack| buildpack.layers.values());
    let only_launched: Vec<&str> =
        layers.filter(|layer| layer.launch && !layer.build && !layer.cache).map(|layer| &*layer.sha).collect();
    image.layers.iter().filter(|layer| only_launched.contains(&layer.diff_id.as_str())).collect()
}

/// Looks for all layers of the previous image `name`, for the export that follows in the same process: see
/// [`Needed::Irreplaceable`].
pub fn look_for_layers(registry: &Registry, name: &str) {
    let find = || {
        let image = registry.find(&Reference::parse(name)?)?;
        registry.missing_blob(image.iter().flat_map(|image| &image.layers))
    };
    match find() {
        Ok(None) => {}
        Ok(Some(digest)) => tracing::info!("Not reusing every layer of image \"{name}\": blob {digest} is missing"),
        // The export will have to do with it.
        Err(error) => tracing::debug!("{error}"),
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

/// The SBOM layer of the previous image, if it is to be restored.
fn sbom_layer(i: &AnalyzerInputs, metadata: &LayersMetadata, needed: Needed) -> anyhow::Result<Option<Digest>> {
    let sha = metadata.sbom.as_ref().map(|layer| layer.sha.as_str()).unwrap_or_default();
    // Restore keeps what is said of layers. In the same process nobody else sees the rest.
    let of_no_layer = || metadata.buildpacks.iter().all(|buildpack| buildpack.layers.is_empty());
    if sha.is_empty() || i.skip_layers || !i.api.sbom_layers() || (needed == Needed::Irreplaceable && of_no_layer()) {
        return Ok(None);
    }
    tracing::info!("Restoring data for SBOM from previous image");
    let failed = || format!("retrieving launch SBOM layer {sha} of image {}", i.previous_image);
    Digest::parse(sha).with_context(failed).map(Some)
}

/// What analyzed.toml says of the run image.
fn described(i: &AnalyzerInputs, found: Seen, name: &str) -> anyhow::Result<RunImage> {
    if name.is_empty() {
        return Ok(RunImage::default());
    }
    let found = found.context("getting run image")?.map(|(image, _)| image);
    let Some(found) = logged(found, name) else {
        return Ok(RunImage { image: i.api.target_data().then(|| name.to_owned()), ..RunImage::default() });
    };
    let mut run_image =
        RunImage { reference: found.id.as_ref().map(ToString::to_string).unwrap_or_default(), ..RunImage::default() };
    if i.api.target_data() {
        run_image.image = Some(name.to_owned());
        run_image.target = base_of(i, Some(&found))?;
    }
    Ok(run_image)
}

/// What is known of the base, for buildpacks.
fn base_of(i: &AnalyzerInputs, run_image: Option<&Image>) -> anyhow::Result<Option<TargetData>> {
    let Some(image) = run_image.filter(|_| i.api.target_data()) else { return Ok(None) };
    if image.config.os.is_empty() {
        bail!("failed to find OS in run image config");
    }
    Ok(Some(target::of_image(image)))
}
