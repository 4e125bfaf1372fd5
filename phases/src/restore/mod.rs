//! restore: what earlier builds left for the buildpacks of this one. The metadata of layers comes from the previous
//! image and the cache, the contents of cached layers from the cache; a layer is restored with both or not at all.
//!
//! Spec: platform.md "Restorer" and buildpack.md "Layer Types".

mod images;
mod plan;
mod sboms;

use std::{collections::BTreeMap, fs, io, path::Path};

use anyhow::Context as _;
use buildpack_api::{BuildpackId, LayerToml};
use image::{Digest, Event, extract};
use platform_api::{CacheMetadata, Group, LayerData, LayersMetadata, file, inputs::RestorerInputs};

pub use images::resolve_images;

use self::plan::{Source, Step};
use crate::{
    cache::{Cache, LayerUnavailable},
    hashing::Hashing,
    parallel,
};

/// Restores store.toml and, unless `-skip-layers`, layers of the group's buildpacks. `on_event` hears how far the layers
/// are, from several threads.
///
/// # Errors
/// Files that cannot be written. A layer that cannot be had from the cache is none.
pub fn restore(
    i: &RestorerInputs,
    group: &Group,
    metadata: &LayersMetadata,
    cache: Option<&Cache>,
    on_event: &(dyn Fn(Event<'_>) + Sync),
) -> anyhow::Result<()> {
    let _lock = cache.and_then(Cache::lock_for_reading);
    let cached = cache_metadata(cache)?;
    restore_stores(&i.layers, group, metadata)?;
    if i.skip_layers {
        tracing::info!("Skipping buildpack layer analysis");
        return Ok(());
    }
    tracing::debug!("Restoring Layer Metadata");
    let mut contents = Vec::new();
    for buildpack in &group.buildpacks {
        contents.extend(restore_metadata(i, &buildpack.id, metadata, &cached)?);
    }
    let sbom = sboms::to_restore(&i.layers, &cached, i.api);
    restore_contents(contents, sbom, cache, on_event).context("restoring data")?;
    if i.api.sbom_layers() {
        sboms::restore_to_layers(&i.layers, group).context("restoring data")?;
    }
    Ok(())
}

fn cache_metadata(cache: Option<&Cache>) -> anyhow::Result<CacheMetadata> {
    let Some(cache) = cache else {
        tracing::debug!("Usable cache not provided, using empty cache metadata");
        return Ok(CacheMetadata::default());
    };
    if !cache.exists() {
        tracing::info!("Layer cache not found");
    }
    cache.metadata().context("retrieving cache metadata")
}

/// What the buildpacks of this build stored in the previous one. Also where layers are not restored.
fn restore_stores(layers: &Path, group: &Group, metadata: &LayersMetadata) -> anyhow::Result<()> {
    for buildpack in &group.buildpacks {
        let previous = metadata.buildpacks.iter().find(|b| b.key == buildpack.id.as_str());
        if let Some(store) = previous.and_then(|b| b.store.as_ref()) {
            file::write(&layers.join(buildpack.id.escaped()).join("store.toml"), &store.to_toml())?;
        }
    }
    Ok(())
}

/// A layer, or the SBOM layer, whose contents are in the cache.
#[derive(Debug)]
struct Contents {
    /// For messages.
    identifier: String,
    diff_id: Digest,
    /// Nothing is written outside of it.
    dir: std::path::PathBuf,
}

/// Writes the `<layer>.toml` files of one buildpack; the layers whose contents are to follow.
fn restore_metadata(
    i: &RestorerInputs,
    id: &BuildpackId,
    app: &LayersMetadata,
    cached: &CacheMetadata,
) -> anyhow::Result<Vec<Contents>> {
    let none = BTreeMap::new();
    let of = |all: &'_ [platform_api::BuildpackLayers]| all.iter().position(|b| b.key == id.as_str());
    let app = of(&app.buildpacks).and_then(|n| app.buildpacks.get(n)).map_or(&none, |b| &b.layers);
    let cached = of(&cached.buildpacks).and_then(|n| cached.buildpacks.get(n)).map_or(&none, |b| &b.layers);
    let dir = i.layers.join(id.escaped());
    let mut contents = Vec::new();
    for (name, step) in plan::plan(app, cached, i.api) {
        if !is_file_name(name) {
            tracing::warn!("Skipping restore for layer {id}:{name}: not a name a layer can have");
            continue;
        }
        let identifier = format!("{id}:{name}");
        let layer = dir.join(name);
        match step {
            Step::Skip(reason) => {
                tracing::debug!("Not restoring metadata for \"{identifier}\", {reason}");
                if cached.get(name).is_some_and(|l| l.cache) {
                    remove_stale(&layer, &identifier)?;
                }
            }
            Step::Stale => {
                tracing::info!("Removing \"{identifier}\", wrong sha");
                remove(&layer)?;
            }
            Step::Restore { source, data, contents: wanted } => {
                let from = match source {
                    Source::App => "app image",
                    Source::Cache => "cache",
                };
                tracing::info!("Restoring metadata for \"{identifier}\" from {from}");
                write_toml(&layer, data)?;
                contents.extend(wanted.map(|diff_id| Contents { identifier, diff_id, dir: layer }));
            }
        }
    }
    Ok(contents)
}

/// Names come from a label or a cache: none may lead out of the buildpack's directory.
fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

fn write_toml(layer: &Path, data: &LayerData) -> anyhow::Result<()> {
    let toml = LayerToml { metadata: data.data.as_ref().map(|d| d.0.clone()), ..LayerToml::default() };
    Ok(file::write(&with_suffix(layer, ".toml"), &toml.restored_toml())?)
}

fn with_suffix(layer: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = layer.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A layer that was there before us, of which the cache has other contents.
fn remove_stale(layer: &Path, identifier: &str) -> anyhow::Result<()> {
    if fs::symlink_metadata(layer).is_ok() || fs::symlink_metadata(with_suffix(layer, ".toml")).is_ok() {
        tracing::info!("Removing \"{identifier}\", wrong sha");
        remove(layer)?;
    }
    Ok(())
}

/// Removes a layer's directory and its description.
fn remove(layer: &Path) -> anyhow::Result<()> {
    let gone = |result: io::Result<()>, path: &Path| match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).with_context(|| format!("removing {}", path.display())),
        _ => Ok(()),
    };
    // A link or a file in the place of the directory goes itself, not what it leads to.
    match fs::symlink_metadata(layer) {
        Ok(meta) if meta.is_dir() => gone(fs::remove_dir_all(layer), layer)?,
        _ => gone(fs::remove_file(layer), layer)?,
    }
    for suffix in [".toml", ".sha"] {
        let path = with_suffix(layer, suffix);
        gone(fs::remove_file(&path), &path)?;
    }
    Ok(())
}

/// Unpacks layers side by side. One that is missing, corrupt or not ours is taken back: its buildpack must not find
/// a description without contents.
fn restore_contents(
    layers: Vec<Contents>,
    sbom: Option<Contents>,
    cache: Option<&Cache>,
    on_event: &(dyn Fn(Event<'_>) + Sync),
) -> anyhow::Result<()> {
    let Some(cache) = cache else { return Ok(()) };
    for layer in &layers {
        tracing::info!("Restoring data for \"{}\" from cache", layer.identifier);
    }
    if sbom.is_some() {
        tracing::info!("Restoring data for SBOM from cache");
    }
    let all: Vec<Contents> = layers.into_iter().chain(sbom).collect();
    let results = parallel::map(&all, |layer| {
        // Contents that were there before would be mixed with the restored ones.
        remove_contents(&layer.dir)?;
        let unpacked = unpack(cache, layer, on_event);
        on_event(Event::Done { layer: &layer.identifier });
        unpacked
    });
    let mut failed = None;
    for (layer, result) in all.iter().zip(results) {
        let Err(error) = result else { continue };
        let is_soft = error.downcast_ref::<LayerUnavailable>().is_some();
        remove(&layer.dir)?;
        if is_soft {
            tracing::warn!("Skipping restore for layer {}: {error}", layer.identifier);
        } else if failed.is_none() {
            failed = Some(error.context(format!("restoring layer {}", layer.identifier)));
        }
    }
    failed.map_or(Ok(()), Err)
}

fn remove_contents(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).with_context(|| format!("removing {}", dir.display())),
        _ => Ok(()),
    }
}

/// Unpacks a cached layer below `/` and checks it, reading it once. Nothing outside `dir` is touched, so what a corrupt
/// layer did ends with `dir`.
fn unpack(cache: &Cache, contents: &Contents, on_event: &(dyn Fn(Event<'_>) + Sync)) -> anyhow::Result<()> {
    let Contents { identifier, diff_id, dir } = contents;
    tracing::debug!("Retrieving data for \"{diff_id}\"");
    if let Some((tar, sums)) = cache.layer_with_sums(diff_id) {
        let on_read = |done| on_event(Event::Read { layer: identifier, done, total: sums.size() });
        match extract::extract_checked(&tar, &sums, Path::new("/"), &[dir.as_path()], &on_read) {
            Ok(()) => return Ok(()),
            // Whether it is the layer or only its checksums, and what exactly is wrong, the digest tells.
            Err(e) => tracing::debug!("Reading \"{diff_id}\" once more: {e}"),
        }
        remove_contents(dir)?;
    }
    let layer = Counted { inner: cache.layer(diff_id)?, done: 0, layer: identifier, on_event };
    let mut tar = Hashing::new(layer, cache.wants_sums());
    let extracted = extract::extract(&mut tar, Path::new("/"), &[dir.as_path()]);
    let (found, sums) =
        tar.finish().map_err(|e| LayerUnavailable(format!("failed to get cache layer with SHA '{diff_id}': {e}")))?;
    if found != *diff_id {
        cache.distrust(diff_id);
        return Err(LayerUnavailable::corrupt(diff_id, &found).into());
    }
    if let Some(sums) = sums {
        cache.keep_sums(diff_id, &sums);
    }
    match extracted {
        // The layer is what the build that made it wrote, but it is not for this place (another layers directory).
        Err(e @ image::Error::Corrupt(_)) => Err(LayerUnavailable(e.to_string()).into()),
        other => other.map_err(Into::into),
    }
}

/// Tells how much of a layer was read.
struct Counted<'a, R> {
    inner: R,
    done: u64,
    layer: &'a str,
    on_event: &'a (dyn Fn(Event<'_>) + Sync),
}

impl<R: io::Read> io::Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.done += read as u64;
        (self.on_event)(Event::Read { layer: self.layer, done: self.done, total: 0 });
        Ok(read)
    }
}

/// Restores the SBOM layer of the previous image, for analyze.
pub(crate) fn unpack_sbom_of_previous_image(layer: &mut dyn io::Read, layers: &Path) -> image::Result<()> {
    extract::extract(layer, Path::new("/"), &[&layers.join("sbom")])
}
