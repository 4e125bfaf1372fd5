//! export: the app image. Its layers are recipes; one run of the pipeline hashes, compresses and uploads all of them,
//! those of the cache included, side by side. What the previous image has already is taken over from it.
//!
//! Spec: platform.md "Exporter".

mod cached;
mod config;
mod extended;
mod layers;
mod lifecycle_sboms;
pub(crate) mod save;
mod slices;
mod sources;

use std::{fs, io, thread};

use anyhow::{Context as _, bail};
use buildpack_api::BuildToml;
use image::{Digest, Event, History, Image, Images, Layer, LayerJob, LayerResult, Pipeline};
use platform_api::{
    Analyzed, BuildMetadata, BuildReport, Failure, Group, LauncherInfo, LayersMetadata, ProjectMetadata, Report,
    RunImageForLabel, RunImageLabel, RunImages, StackLabel, inputs::ExporterInputs,
};

pub(crate) use save::DEFAULT_CREATED;
pub use save::rfc3339;

use self::{
    cached::CacheExport,
    extended::Extended,
    layers::{Content, Kind, Planned},
    sources::Sources,
};
use crate::{
    cache::{Cache, LaunchCache},
    layers_dir::LayersDir,
    run_image,
};

/// Makes the app image and saves it under all its names, then the cache. `metadata` is what build left, `run` what the
/// platform says of run images, `lifecycle` goes into the build label. `open_cache` is called while registries answer for
/// the images. `on_event` hears how far the layers are, from several threads.
///
/// # Errors
/// Layers that cannot be made; an image that could not be saved under every name; what `open_cache` comes to. A cache that
/// cannot be saved is a warning only.
#[allow(clippy::too_many_arguments, reason = "each is another file of the contract")]
pub fn export(
    i: &ExporterInputs,
    group: &Group,
    analyzed: &Analyzed,
    metadata: &BuildMetadata,
    run: &RunImages,
    project: &ProjectMetadata,
    images: &Images,
    open_cache: impl FnOnce() -> anyhow::Result<Option<Cache>> + Send,
    lifecycle: &LauncherInfo,
    on_event: &(dyn Fn(Event<'_>) + Sync),
) -> anyhow::Result<Report> {
    let run_reference = run_reference(analyzed)?;
    let entrypoint = config::entrypoint(i.process_type.as_deref(), metadata)?;
    if i.api.lifecycle_sboms() {
        lifecycle_sboms::copy(&i.layers, &i.launcher_sbom).context("failed to copy buildpacksio SBOMs")?;
    }
    let dir = LayersDir::read(&i.layers, group)?;
    let wants_extended = analyzed.run_image.as_ref().is_some_and(|r| r.extend) && i.api.run_image_extension();
    let read_extended = || extended_run_image(i, wants_extended && !matches!(images, Images::Layout(_)));
    let plan = || {
        let mut planned = read_extended()?.map(|mut e| e.take_layers()).unwrap_or_default();
        planned.extend(layers::plan(i, &dir, &analyzed.metadata, metadata)?);
        Ok(planned)
    };
    let (cache, sources, planned) = thread::scope(|scope| {
        let (opening, planning) = (scope.spawn(open_cache), scope.spawn(plan));
        let sources = Sources::open(i, analyzed, images, run_reference);
        (opening.join(), sources, planning.join())
    });
    let (cache, sources, planned) = (joined(cache)?, sources?, joined(planned)?);
    let taking_base = sources.take_base();
    let cache = cache.and_then(|cache| CacheExport::prepare(i, &dir, cache));
    let launch_cache = i.launch_cache.as_deref().and_then(LaunchCache::open);
    let (made, cache, launch_cache) = make_layers(planned, &plan, &sources, cache, launch_cache, on_event)
        .map_err(|error| naming_images(error, &i.output_images))?;
    let layers_made: Vec<Digest> = made.iter().map(|layer| layer.layer.diff_id.clone()).collect();

    let of_run_image = run_image::for_label(i.api, run, analyzed, metadata);
    let label = layers_metadata(i, &dir, &made, &sources.base, of_run_image);
    let mut image = assemble(i, &sources, read_extended()?, made)?;
    config::set_labels(&mut image, i, &label, metadata, project, lifecycle)?;
    config::set_runtime(&mut image, i, &entrypoint);
    save::set_created(&mut image, i.source_date_epoch.filter(|_| i.api.source_date_epoch()));
    if let Some(thread) = taking_base {
        let _ = thread.join();
    }
    let on_first = || launch_cache.into_iter().for_each(|cache| cache.commit(&layers_made));
    let report =
        Report { image: save::save(&image, &i.output_images, images, on_first)?, build: build_report(i, group)? };
    if let Some(cache) = cache {
        cache.finish();
    }
    Ok(report)
}

/// The run image that analyze or an extension chose.
fn run_reference(analyzed: &Analyzed) -> Result<&str, Failure> {
    let reference = analyzed.run_image.as_ref().map(|image| image.reference.as_str()).filter(|text| !text.is_empty());
    let missing = || Failure::invalid_args("failed to resolve inputs: run image not found in analyzed metadata");
    reference.ok_or_else(missing)
}

/// A layer of the image to be.
struct Made {
    planned: Planned,
    layer: Layer,
    reused: bool,
}

/// Where layouts are extended the reference does nothing, and so do we.
fn extended_run_image(i: &ExporterInputs, wanted: bool) -> anyhow::Result<Option<Extended>> {
    wanted.then(|| Extended::read(&i.extended.join("run"))).transpose()
}

/// What a registry refuses is said with the names that are without an image now.
fn naming_images(error: anyhow::Error, names: &[String]) -> anyhow::Error {
    match error.downcast_ref() {
        Some(image::Error::Remote(_) | image::Error::Unauthorized(_)) => {
            error.context(format!("failed to write image to the following tags: {}", names.join(", ")))
        }
        _ => error,
    }
}

/// What a thread came to.
fn joined<T>(result: thread::Result<anyhow::Result<T>>) -> anyhow::Result<T> {
    result.unwrap_or_else(|_| bail!("a thread ended before its work"))
}

/// Runs the pipeline. Where the cache is what fails, the app image is made without it, from a new plan.
fn make_layers(
    mut planned: Vec<Planned>,
    plan: &dyn Fn() -> anyhow::Result<Vec<Planned>>,
    sources: &Sources,
    mut cache: Option<CacheExport>,
    mut launch_cache: Option<LaunchCache>,
    on_event: &(dyn Fn(Event<'_>) + Sync),
) -> anyhow::Result<(Vec<Made>, Option<CacheExport>, Option<LaunchCache>)> {
    let mut jobs = app_jobs(&mut planned, sources);
    let of_app = jobs.len();
    if let Some(launch_cache) = &launch_cache {
        launch_cache.direct(&mut jobs);
    }
    if let Some(cache) = &mut cache {
        cache.add_jobs(&mut jobs);
    }
    if let Some(launch_cache) = &mut launch_cache {
        launch_cache.note_others(&jobs);
    }
    let with_cache = jobs.len() > of_app || cache.as_ref().is_some_and(CacheExport::has_jobs) || launch_cache.is_some();
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let on_event = |event: Event<'_>| {
        if matches!(event, Event::Sent { .. }) {
            sources.begin_config();
        }
        on_event(event);
    };
    let run = |jobs| Pipeline { workers, docker: sources.base.docker, on_event: &on_event }.run(jobs);
    let results = match run(jobs) {
        Err(error) if with_cache => {
            planned = plan()?;
            let results = run(app_jobs(&mut planned, sources))?;
            tracing::warn!("Failed to export cache: {error}");
            cache = None;
            launch_cache = None;
            results
        }
        other => other?,
    };
    if let Some(cache) = &mut cache {
        cache.take_results(&results);
    }
    let made = place(planned, results.into_iter().take(of_app), sources)?;
    log_layers(&made);
    Ok((made, cache, launch_cache))
}

/// One job per layer that is made; the layers keep their recipes only where somebody streams them later.
fn app_jobs(planned: &mut [Planned], sources: &Sources) -> Vec<LayerJob> {
    let mut jobs = Vec::new();
    for layer in planned {
        let Content::Recipe { recipe, previous } = &mut layer.content else { continue };
        let recipe = if sources.destination.is_none() { recipe.clone() } else { std::mem::take(recipe) };
        let reusable = previous.iter().filter_map(|sha| sources.previous_layer(sha)).map(|l| l.diff_id.clone());
        jobs.push(LayerJob {
            name: layer.identifier.clone(),
            recipe,
            reusable: reusable.collect(),
            to: sources.destination.clone(),
            cache_to: None,
            tar_to: None,
            known: None,
        });
    }
    jobs
}

/// Gives each layer its place: what was made, or what the previous image has.
fn place(
    planned: Vec<Planned>,
    mut results: impl Iterator<Item = LayerResult>,
    sources: &Sources,
) -> anyhow::Result<Vec<Made>> {
    let mut made = Vec::with_capacity(planned.len());
    for mut planned in planned {
        let (layer, reused) = match &mut planned.content {
            Content::Previous(sha) => {
                let layer = sources.previous_layer(sha).with_context(|| {
                    let id = &planned.identifier;
                    format!("reusing layer: '{id}': the previous image has no layer with SHA '{sha}'")
                })?;
                (layer.clone(), true)
            }
            Content::Recipe { recipe, .. } => {
                let result = results.next().context("a layer was not made")?;
                let previous = sources.previous_layer(result.diff_id.as_str()).filter(|_| result.reused);
                // A daemon may need a layer again that it has, above another one.
                let recipe = sources.destination.is_none().then(|| std::mem::take(recipe));
                match previous {
                    Some(layer) => (Layer { recipe, ..layer.clone() }, true),
                    None => (Layer { diff_id: result.diff_id, blob: result.blob, recipe }, false),
                }
            }
        };
        made.push(Made { planned, layer, reused });
    }
    Ok(made)
}

fn log_layers(made: &[Made]) {
    let app = |layer: &&Made| matches!(layer.planned.kind, Kind::App);
    let (count, reused) = (made.iter().filter(app).count(), made.iter().filter(app).filter(|l| l.reused).count());
    let mut app_logged = 0;
    for layer in made {
        let id = &layer.planned.identifier;
        if !app(&layer) {
            tracing::info!("{} layer '{id}'", if layer.reused { "Reusing" } else { "Adding" });
        }
        tracing::debug!("Layer '{id}' SHA: {}", layer.layer.diff_id);
        if app(&layer) {
            app_logged += 1;
            if app_logged == count {
                log_app_layers(count, reused);
            }
        }
    }
}

fn log_app_layers(count: usize, reused: usize) {
    if reused > 0 {
        tracing::info!("Reused {reused}/{count} app layer(s)");
    }
    if count > reused {
        tracing::info!("Added {}/{count} app layer(s)", count - reused);
    }
}

/// The value of the lifecycle label; `run_image` are the names of the run image.
fn layers_metadata(
    i: &ExporterInputs,
    dir: &LayersDir,
    made: &[Made],
    base: &Image,
    run_image: RunImageForLabel,
) -> LayersMetadata {
    let mut label = LayersMetadata {
        buildpacks: layers::buildpacks_of(dir),
        run_image: RunImageLabel {
            top_layer: base.config.diff_ids.last().map(ToString::to_string).unwrap_or_default(),
            reference: base.id.as_ref().map(ToString::to_string).unwrap_or_default(),
            ..RunImageLabel::default()
        },
        exec_env: Some(i.exec_env.clone()).filter(|env| i.api.exec_env() && !env.is_empty()),
        ..LayersMetadata::default()
    };
    if i.api.run_image_in_label() {
        label.run_image.image.clone_from(&run_image.image);
        label.run_image.mirrors.clone_from(&run_image.mirrors);
    }
    label.stack = Some(StackLabel { run_image });
    for layer in made {
        let sha = layer.layer.diff_id.to_string();
        let layer_sha = platform_api::LayerSha { sha: sha.clone() };
        match &layer.planned.kind {
            Kind::Buildpack { index, layer } => {
                let of_buildpack = label.buildpacks.get_mut(*index).map(|b| &mut b.layers);
                if let Some(data) = of_buildpack.and_then(|layers| layers.get_mut(layer)) {
                    data.sha = sha;
                }
            }
            Kind::Extension => {}
            Kind::Sbom => label.sbom = Some(layer_sha),
            Kind::App => label.app.push(layer_sha),
            Kind::Launcher => label.launcher = layer_sha,
            Kind::Config => label.config = layer_sha,
            Kind::ProcessTypes => label.process_types = layer_sha,
        }
    }
    label
}

/// Base image, extensions' layers, then ours.
fn assemble(
    i: &ExporterInputs,
    sources: &Sources,
    extended: Option<Extended>,
    made: Vec<Made>,
) -> anyhow::Result<Image> {
    let mut image = sources.base.clone();
    if image.config.diff_ids.is_empty() {
        bail!("get run image top layer SHA: the run image has no layers");
    }
    image.id = None;
    if i.api.history() {
        image.normalise_history();
    } else {
        image.config.history = vec![History::default(); image.layers.len()];
    }
    if let Some(extended) = extended {
        extended.configure(&mut image);
    }
    for layer in made {
        let created_by = Some(layer.planned.created_by).filter(|_| i.api.history());
        image.push(layer.layer, History { created_by, ..History::default() });
    }
    Ok(image)
}

/// The legacy bill of materials of the build, before Platform API 0.9.
fn build_report(i: &ExporterInputs, group: &Group) -> anyhow::Result<Option<BuildReport>> {
    if i.api.bom_out_of_metadata() {
        return Ok(None);
    }
    let mut report = BuildReport::default();
    for buildpack in &group.buildpacks {
        let path = i.layers.join(buildpack.id.escaped()).join("build.toml");
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other.with_context(|| format!("read {}", path.display()))?,
        };
        let parsed = BuildToml::parse(&text).with_context(|| path.display().to_string())?;
        let of = (buildpack.id.to_string(), buildpack.version.clone());
        report.bom.extend(parsed.bom.into_iter().map(|entry| (entry, of.clone())));
    }
    Ok(Some(report))
}
