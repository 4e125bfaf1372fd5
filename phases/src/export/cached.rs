//! The cache's side of an export: which layers are cached, what the pipeline must do for it, and the commit. Nothing
//! that goes wrong here fails the export.

use std::{collections::BTreeMap, sync::Arc};

use image::{BlockSums, Digest, LayerJob, LayerResult, Owner, Pipeline, Recipe};
use platform_api::{BuildpackLayers, CacheMetadata, LayerSha, inputs::ExporterInputs};

use super::layers;
use crate::{
    cache::{Cache, CachedLayer, LayerUnavailable, Staging},
    layers_dir::{BuildpackDir, LayersDir},
    sbom::SbomDir,
};

const SBOM: &str = "buildpacksio/lifecycle:cache.sbom";

/// A cache on its way to be committed.
pub(super) struct CacheExport {
    cache: Cache,
    staging: Staging,
    metadata: CacheMetadata,
    layers: Vec<Entry>,
    /// Checksums of all layers, those of the app image included, for the next export.
    sums: BTreeMap<Digest, BlockSums>,
    /// Warnings, kept until it is the cache's turn.
    warnings: Vec<String>,
    reporting: Vec<String>,
}

/// A layer that is cached.
struct Entry {
    identifier: String,
    place: Place,
    /// Kept until a job is made of it, and again for a second one.
    dir: std::path::PathBuf,
    owner: Owner,
    /// What the cache has for this layer; empty for nothing.
    previous: String,
    /// The index of its job.
    job: Option<usize>,
    result: Option<LayerResult>,
}

/// Where a layer is recorded in the cache's metadata.
enum Place {
    Sbom,
    Buildpack { index: usize, layer: String },
}

impl CacheExport {
    /// What there is to cache. `None` (and a warning) where the cache cannot take anything.
    pub(super) fn prepare(i: &ExporterInputs, dir: &LayersDir, cache: Cache) -> Option<Self> {
        let open = || -> anyhow::Result<(Staging, CacheMetadata)> {
            let staging = cache.stage()?;
            let old = cache.metadata()?;
            Ok((staging, old))
        };
        let (staging, old) = match open() {
            Ok(opened) => opened,
            Err(e) => {
                tracing::warn!("Failed to export cache: {e:#}");
                return None;
            }
        };
        let mut export = Self {
            cache,
            staging,
            metadata: CacheMetadata::default(),
            layers: Vec::new(),
            sums: BTreeMap::new(),
            warnings: Vec::new(),
            reporting: Vec::new(),
        };
        let owner = Owner { uid: i.user.uid.into(), gid: i.user.gid.into() };
        for (index, buildpack) in dir.buildpacks.iter().enumerate() {
            export.add_buildpack(index, buildpack, &old, owner);
        }
        let sbom = SbomDir::Cache.path(&i.layers);
        if i.api.sbom_layers() && sbom.is_dir() {
            export.layers.push(Entry {
                identifier: SBOM.to_owned(),
                place: Place::Sbom,
                dir: sbom,
                owner,
                previous: old.sbom.sha.clone(),
                job: None,
                result: None,
            });
        }
        Some(export)
    }

    fn add_buildpack(&mut self, index: usize, buildpack: &BuildpackDir, old: &CacheMetadata, owner: Owner) {
        let id = &buildpack.id;
        let none = BTreeMap::new();
        let old = old.buildpacks.iter().find(|b| b.key == id.as_str()).map_or(&none, |b| &b.layers);
        let mut of_buildpack =
            BuildpackLayers { key: id.to_string(), version: buildpack.version.clone(), ..BuildpackLayers::default() };
        let mut cached: Vec<_> =
            buildpack.layers.iter().filter(|l| matches!(&l.toml, Ok(t) if t.types.cache)).collect();
        cached.sort_by(|a, b| a.name.cmp(&b.name));
        for layer in cached {
            let identifier = format!("{id}:{}", layer.name);
            if !layer.has_contents {
                self.warnings.push(format!("Failed to cache layer '{identifier}' because it has no contents"));
                continue;
            }
            of_buildpack.layers.insert(layer.name.clone(), layers::data_of(layer));
            self.layers.push(Entry {
                identifier,
                place: Place::Buildpack { index, layer: layer.name.clone() },
                dir: layer.path.clone(),
                owner,
                previous: old.get(&layer.name).map(|data| data.sha.clone()).unwrap_or_default(),
                job: None,
                result: None,
            });
        }
        self.metadata.buildpacks.push(of_buildpack);
    }

    pub(super) fn has_jobs(&self) -> bool {
        !self.layers.is_empty()
    }

    /// Adds what the cache needs to the jobs of the app image: a layer that is in both is read and compressed once.
    pub(super) fn add_jobs(&mut self, jobs: &mut Vec<LayerJob>) {
        if let Staging::Volume { known, .. } = &self.staging {
            for job in jobs.iter_mut() {
                job.known = Some(Arc::clone(known));
            }
        }
        let by_name: BTreeMap<String, usize> = jobs.iter().enumerate().map(|(n, job)| (job.name.clone(), n)).collect();
        let mut layers = std::mem::take(&mut self.layers);
        layers.retain_mut(|entry| {
            let index = match by_name.get(&entry.identifier) {
                Some(index) => *index,
                None => match Self::job_for(entry) {
                    Ok(job) => {
                        jobs.push(job);
                        jobs.len() - 1
                    }
                    Err(e) => {
                        self.skip(entry, &e);
                        return false;
                    }
                },
            };
            if let Some(job) = jobs.get_mut(index) {
                direct(&self.staging, job);
            }
            entry.job = Some(index);
            true
        });
        self.layers = layers;
        if self.layers.is_empty() {
            if let Staging::Image { .. } = self.staging {
                self.add_empty_layer(jobs);
            }
        }
    }

    /// Registries refuse images without any layer.
    fn add_empty_layer(&mut self, jobs: &mut Vec<LayerJob>) {
        let mut job = LayerJob {
            name: "empty layer".to_owned(),
            recipe: Recipe::default(),
            reusable: Vec::new(),
            to: None,
            cache_to: None,
            tar_to: None,
            known: None,
        };
        direct(&self.staging, &mut job);
        jobs.push(job);
        self.layers.push(Entry {
            identifier: String::new(),
            place: Place::Sbom,
            dir: std::path::PathBuf::new(),
            owner: Owner { uid: 0, gid: 0 },
            previous: String::new(),
            job: Some(jobs.len() - 1),
            result: None,
        });
    }

    fn job_for(entry: &Entry) -> anyhow::Result<LayerJob> {
        Ok(LayerJob {
            name: entry.identifier.clone(),
            recipe: layers::recipe_of(&entry.dir, entry.owner)?,
            reusable: Vec::new(),
            to: None,
            cache_to: None,
            tar_to: None,
            known: None,
        })
    }

    fn skip(&mut self, entry: &Entry, cause: &anyhow::Error) {
        self.warnings.push(format!("Failed to cache layer '{}': {cause:#}", entry.identifier));
        if let Place::Buildpack { index, layer } = &entry.place {
            if let Some(buildpack) = self.metadata.buildpacks.get_mut(*index) {
                buildpack.layers.remove(layer);
            }
        }
    }

    /// Takes what the pipeline made.
    pub(super) fn take_results(&mut self, results: &[LayerResult]) {
        for entry in &mut self.layers {
            entry.result = entry.job.and_then(|job| results.get(job)).cloned();
        }
        self.sums = results.iter().filter_map(|r| Some((r.diff_id.clone(), r.sums.clone()?))).collect();
    }

    /// Puts the cache in force; what goes wrong is a warning.
    pub(super) fn finish(mut self) {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        if !self.cache.exists() {
            tracing::info!("Layer cache not found");
        }
        if let Err(e) = self.repair().and_then(|()| self.commit()) {
            tracing::warn!("Failed to export cache: {e:#}");
        }
    }

    /// Layers that were found in the cache are looked at, and made again where they are not what they should be.
    fn repair(&mut self) -> anyhow::Result<()> {
        let reused: Vec<(Digest, u64)> = self
            .layers
            .iter()
            .filter_map(|e| e.result.as_ref())
            .filter(|r| is_reused(&self.staging, r))
            .map(|r| (r.diff_id.clone(), r.size))
            .collect();
        let corrupt: BTreeMap<Digest, LayerUnavailable> = self.cache.drop_corrupt(&reused).into_iter().collect();
        if corrupt.is_empty() {
            return Ok(());
        }
        let mut jobs = Vec::new();
        let mut again = Vec::new();
        for (n, entry) in self.layers.iter().enumerate() {
            let Some(cause) = entry.result.as_ref().and_then(|r| corrupt.get(&r.diff_id)) else { continue };
            self.reporting.push(format!("Skipping reuse for layer {}: {cause}", entry.identifier));
            let mut job = Self::job_for(entry)?;
            direct(&self.staging, &mut job);
            jobs.push(job);
            again.push(n);
        }
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let results = Pipeline { workers, docker: false, on_event: &|_| {} }.run(jobs)?;
        for (n, result) in again.into_iter().zip(results) {
            if let Some(entry) = self.layers.get_mut(n) {
                self.sums.extend(result.sums.clone().map(|sums| (result.diff_id.clone(), sums)));
                entry.result = Some(result);
            }
        }
        Ok(())
    }

    fn commit(mut self) -> anyhow::Result<()> {
        for warning in &self.reporting {
            tracing::warn!("{warning}");
        }
        let mut cached = Vec::with_capacity(self.layers.len());
        for entry in &self.layers {
            let Some(result) = &entry.result else { continue };
            let sha = result.diff_id.to_string();
            if !entry.identifier.is_empty() {
                let reused = is_reused(&self.staging, result) && entry.previous == sha;
                let verb = if reused { "Reusing" } else { "Adding" };
                tracing::info!("{verb} cache layer '{}'", entry.identifier);
                tracing::debug!("Layer '{}' SHA: {sha}", entry.identifier);
                match &entry.place {
                    Place::Sbom => self.metadata.sbom = LayerSha { sha },
                    Place::Buildpack { index, layer } => {
                        let of_buildpack = self.metadata.buildpacks.get_mut(*index);
                        if let Some(data) = of_buildpack.and_then(|b| b.layers.get_mut(layer)) {
                            data.sha = sha;
                        }
                    }
                }
            }
            let blob = result.blob.clone().filter(|_| !is_reused(&self.staging, result));
            cached.push(CachedLayer { diff_id: result.diff_id.clone(), blob });
        }
        self.cache.commit(self.staging, &self.metadata, &cached, &self.sums)
    }
}

/// Whether the cache had the layer before.
fn is_reused(staging: &Staging, result: &LayerResult) -> bool {
    match staging {
        Staging::Volume { .. } => !result.tar_written,
        Staging::Image { has, .. } => has.contains(&result.diff_id),
    }
}

/// Tells a job what the cache wants of it.
fn direct(staging: &Staging, job: &mut LayerJob) {
    match staging {
        Staging::Volume { staging, committed, known, .. } => {
            job.tar_to = Some((staging.clone(), committed.clone()));
            job.known = Some(Arc::clone(known));
        }
        Staging::Image { to, has } => job.cache_to = Some((to.clone(), has.iter().cloned().collect())),
    }
}
