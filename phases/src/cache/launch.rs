//! The layers of app images that go to a daemon, kept in a directory from one build to the next: a daemon only gives
//! whole images. It has the form of a volume cache without metadata; layers are found by their diff IDs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use image::{Digest, LayerJob};

use super::{Lock, Staging, VolumeCache};

/// A launch cache on its way to be committed. Nothing that goes wrong with it fails an export.
pub struct LaunchCache {
    cache: VolumeCache,
    staging: PathBuf,
    committed: PathBuf,
    lock: Option<Lock>,
    /// Where another cache has tars of the same layers: they are read once, and written there.
    others: Vec<(PathBuf, PathBuf)>,
}

impl LaunchCache {
    /// Where layers lie as `<diff ID>.tar`.
    pub fn layers_in(dir: &Path) -> PathBuf {
        dir.join("committed")
    }

    /// `None`, with a warning, where the directory cannot take anything.
    pub(crate) fn open(dir: &Path) -> Option<Self> {
        let open = || -> anyhow::Result<Self> {
            let cache = VolumeCache::open(dir)?;
            match cache.stage()? {
                Staging::Volume { staging, committed, lock, .. } => {
                    Ok(Self { cache, staging, committed, lock, others: Vec::new() })
                }
                Staging::Image { .. } => anyhow::bail!("the staging area is another cache's"),
            }
        };
        open().inspect_err(|e| tracing::warn!("Not using launch cache: {e:#}")).ok()
    }

    /// The tars of these layers are to be written here.
    pub(crate) fn direct(&self, jobs: &mut [LayerJob]) {
        for job in jobs {
            job.tar_to = Some((self.staging.clone(), self.committed.clone()));
        }
    }

    /// Takes note of the jobs that another cache has directed since.
    pub(crate) fn note_others(&mut self, jobs: &[LayerJob]) {
        for dirs in jobs.iter().filter_map(|job| job.tar_to.as_ref()) {
            if dirs.0 != self.staging && !self.others.contains(dirs) {
                self.others.push(dirs.clone());
            }
        }
    }

    /// Keeps these layers, and no others, for the next build. To be called before other caches are committed.
    pub(crate) fn commit(mut self, layers: &[Digest]) {
        let mut commit = || -> anyhow::Result<()> {
            let mut kept = Vec::new();
            for layer in layers {
                if self.has(layer).with_context(|| format!("layer {layer}"))? {
                    kept.push(layer.clone());
                }
            }
            self.cache.commit_layers(&kept, self.lock.take())
        };
        if let Err(e) = commit() {
            tracing::warn!("Failed to export launch cache: {e:#}");
        }
    }

    /// Whether the layer is here, taken from another cache if need be.
    fn has(&self, diff_id: &Digest) -> std::io::Result<bool> {
        let name = format!("{diff_id}.tar");
        if self.staging.join(&name).exists() || self.committed.join(&name).exists() {
            return Ok(true);
        }
        let dirs = self.others.iter().flat_map(|(staging, committed)| [staging, committed]);
        let Some(other) = dirs.map(|dir| dir.join(&name)).find(|path| path.exists()) else { return Ok(false) };
        let to = self.staging.join(&name);
        // The caches are most often different volumes, and then there are no links between them.
        fs::hard_link(&other, &to).or_else(|_| fs::copy(&other, &to).map(drop))?;
        Ok(true)
    }
}
