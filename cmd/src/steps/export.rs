//! export

use std::{path::Path, sync::OnceLock};

use image::Event;
use phases::cache::Cache;
use platform_api::{
    Analyzed, BuildMetadata, ExitCode, Failure, Flags, Group, LauncherInfo, ProjectMetadata, file,
    inputs::{ExporterInputs, ImageLocation},
};

use super::{Places, images, open, read_run_images, required, timed, write};
use crate::{in_phase, progress};

/// Checks the names of an export and opens the places of its images.
pub fn exporter_images(i: &ExporterInputs, analyzed: &Analyzed, flags: &Flags) -> Result<Places, Failure> {
    let run_image = analyzed.run_image.as_ref().map(|r| r.reference.as_str()).unwrap_or_default();
    if run_image.is_empty() {
        return Err(Failure::invalid_args("failed to resolve inputs: run image not found in analyzed metadata"));
    }
    let previous = analyzed.previous_image.as_deref().unwrap_or_default();
    let cache_image = i.cache.image.as_deref().unwrap_or_default();
    let outputs: Vec<&str> = i.output_images.iter().map(String::as_str).collect();
    let others = match i.location {
        ImageLocation::Registry => vec![previous, run_image, cache_image],
        // A daemon's and a layout's identifiers are no references.
        ImageLocation::Daemon | ImageLocation::Layout(_) => vec![cache_image],
    };
    images::check_names(&outputs, &others, &i.location)?;
    let names = outputs.into_iter().chain([previous, run_image, cache_image]);
    let places = open(&i.location, &i.insecure_registries, flags, names)?;
    Ok(places.with_launch_cache(i.launch_cache.as_deref()))
}

/// `<layers>/config/metadata.toml`; an error of export.
pub fn read_build_metadata(layers: &Path) -> Result<BuildMetadata, Failure> {
    required("build metadata", &layers.join("config").join("metadata.toml"), BuildMetadata::parse).map_err(|failure| {
        Failure::new(ExitCode::Export, format!("failed to export: read build metadata: {}", failure.text))
    })
}

/// Whether the run image was extended, by layers beside the app's.
pub fn is_extended(extended: &Path) -> bool {
    let entries = std::fs::read_dir(extended.join("run"));
    entries.is_ok_and(|mut entries| entries.next().is_some())
}

/// Exports image and cache, and writes report.toml. The cache is opened while registries answer for the images.
pub fn export(
    i: &ExporterInputs,
    group: &Group,
    analyzed: &Analyzed,
    metadata: &BuildMetadata,
    places: &Places,
    open_cache: impl FnOnce() -> Result<Option<Cache>, Failure> + Send,
) -> Result<(), Failure> {
    let run = read_run_images(&i.run, i.api)?;
    let project = read_project_metadata(&i.project_metadata)?;
    let lifecycle = LauncherInfo {
        version: crate::VERSION.to_owned(),
        repository: crate::REPOSITORY.to_owned(),
        commit: crate::COMMIT.to_owned(),
    };
    let images = &places.images;
    let refused = OnceLock::new();
    let act = |on_event: &(dyn Fn(Event<'_>) + Sync)| {
        let open = || {
            open_cache().map_err(|failure| {
                // Set once: it is opened once.
                let _ = refused.set(failure.clone());
                failure.into()
            })
        };
        let report =
            phases::export::export(i, group, analyzed, metadata, &run, &project, images, open, &lifecycle, on_event);
        places.registry.cancel_uploads();
        report
    };
    let exported = timed("Exporter", || progress::show(act));
    // What is wrong with the cache is not the export's failure.
    let failure = |e| refused.into_inner().unwrap_or_else(|| in_phase(ExitCode::Export, "export", &e));
    let report = exported.map_err(failure)?;
    write("report", &i.report, &report.to_toml()).map_err(|failure| Failure::new(ExitCode::Export, failure.text))
}

fn read_project_metadata(path: &Path) -> Result<ProjectMetadata, Failure> {
    let found = file::parse_if_exists(path, ProjectMetadata::parse)
        .map_err(|e| Failure::failed(format!("failed to read project metadata: {e}")))?;
    Ok(found.unwrap_or_else(|| {
        tracing::debug!("No project metadata found at path {path:?}, project metadata will not be exported");
        ProjectMetadata::default()
    }))
}
