//! restore

use image::Event;
use phases::cache::Cache;
use platform_api::{Analyzed, ExitCode, Failure, Flags, Group, LayersMetadata, RunImages, inputs::RestorerInputs};

use super::{Places, images, open, read_run_images, timed, write_analyzed};
use crate::{in_phase, progress};

/// What the platform offers as run images: the mirrors of the chosen one are looked up again when it has gone.
pub fn restorer_offer(i: &RestorerInputs) -> Result<RunImages, Failure> {
    if i.api.restorer_resolves_run_image() { read_run_images(&i.run, i.api) } else { Ok(RunImages::default()) }
}

/// Opens the places of the images a restore looks up.
pub fn restorer_images(
    i: &RestorerInputs,
    analyzed: Option<&Analyzed>,
    offered: &RunImages,
    flags: &Flags,
) -> Result<Places, Failure> {
    let cache_image = i.cache.image.as_deref().unwrap_or_default();
    let build_image = i.build_image.as_deref().unwrap_or_default();
    images::check_names(&[], &[cache_image, build_image], &i.location)?;
    let mut names = vec![cache_image, build_image];
    names.extend(images::offered_names(offered));
    if let Some(run_image) = analyzed.and_then(|a| a.run_image.as_ref()) {
        names.extend([run_image.reference.as_str(), run_image.image.as_deref().unwrap_or_default()]);
    }
    open(&i.location, &i.insecure_registries, flags, names)
}

/// Completes analyzed.toml for the phases after it. Within creator analyze and restore are one, so only the restorer
/// executable does this.
pub fn resolve_images(
    i: &RestorerInputs,
    group: &Group,
    analyzed: Analyzed,
    offered: &RunImages,
    places: &Places,
) -> Result<Analyzed, Failure> {
    let analyzed = phases::restore::resolve_images(i, group, analyzed, offered, &places.images, &places.registry)
        .map_err(|e| Failure::failed(crate::chain(&e)))?;
    write_analyzed(&i.analyzed, &analyzed)?;
    Ok(analyzed)
}

/// Restores layers, their metadata and SBOMs.
pub fn restore(
    i: &RestorerInputs,
    group: &Group,
    metadata: &LayersMetadata,
    cache: Option<&Cache>,
) -> Result<(), Failure> {
    let act = |on_event: &(dyn Fn(Event<'_>) + Sync)| phases::restore::restore(i, group, metadata, cache, on_event);
    timed("Restorer", || progress::show(act)).map_err(|e| in_phase(ExitCode::Restore, "restore", &e))
}
