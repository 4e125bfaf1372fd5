//! A cache in a directory, as the reference keeps it: `committed/` holds `<diff ID>.tar` files and the metadata,
//! `staging/` becomes the next `committed/`, `committed-backup/` is the last one while they change places.
//!
//! A kill at any instant leaves the old cache or the new one. The only moment without a `committed/` lies between two
//! renames, when the backup is whole: who opens the cache then takes the backup back.
//!
//! `<diff ID>.tar.sums` holds checksums of the tar's blocks, which the reference does not know. The restorer checks the tar
//! by them; where they are missing or do not fit, the tar's digest is what counts. Layers of the app image that are not
//! cached have them too: by them the next export knows a layer that is as it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use anyhow::Context as _;
use image::{BlockSums, Digest, KnownLayers};
use platform_api::CacheMetadata;

use super::{
    CachedLayer, LayerReader, LayerUnavailable, Staging,
    lock::{Lock, Mode},
};
use crate::{hashing::digest_of, labels};

/// Held while the directories change places, and (shared) while layers are read.
const LOCK: &str = ".lock";
/// Held by the build that fills `staging/`.
const STAGING_LOCK: &str = ".staging.lock";

/// A cache in a directory.
#[derive(Debug)]
pub struct VolumeCache {
    dir: PathBuf,
}

impl VolumeCache {
    /// Opens the cache, and first finishes what a killed build left half done.
    ///
    /// # Errors
    /// The directory is not there, or nothing can be made in it.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let failed = || format!("failed to create volume cache: {}", dir.display());
        fs::metadata(dir).with_context(failed)?;
        let cache = Self { dir: dir.to_path_buf() };
        if !cache.committed().is_dir() {
            let _lock = cache.lock(LOCK, Mode::Exclusive);
            cache.recover().with_context(failed)?;
        }
        Ok(cache)
    }

    fn committed(&self) -> PathBuf {
        self.dir.join("committed")
    }
    fn staging(&self) -> PathBuf {
        self.dir.join("staging")
    }
    fn backup(&self) -> PathBuf {
        self.dir.join("committed-backup")
    }
    /// What is being deleted has another name before its first file goes, so that no backup is ever half a cache.
    fn discard(&self, dir: &Path) -> io::Result<()> {
        let discarded = self.dir.join("committed-discarded");
        remove_dir(&discarded)?;
        match fs::rename(dir, &discarded) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(()) => remove_dir(&discarded),
        }
    }
    fn tar(dir: &Path, diff_id: &Digest) -> PathBuf {
        dir.join(format!("{diff_id}.tar"))
    }
    fn lock(&self, name: &str, mode: Mode) -> Option<Lock> {
        Lock::wait(&self.dir.join(name), mode)
    }

    /// Afterwards there is a `committed/`: what it was, or the last one that was in force, or an empty one.
    fn recover(&self) -> io::Result<()> {
        let committed = self.committed();
        if committed.is_dir() {
            return Ok(());
        }
        match fs::rename(self.backup(), &committed) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => fs::create_dir_all(committed),
            other => other,
        }
    }

    pub(super) fn lock_for_reading(&self) -> Option<Lock> {
        self.lock(LOCK, Mode::Shared)
    }

    pub(super) fn metadata(&self) -> anyhow::Result<CacheMetadata> {
        let path = self.committed().join(labels::CACHE_METADATA);
        match fs::read(&path) {
            Ok(bytes) => Ok(labels::cache_metadata(&String::from_utf8_lossy(&bytes))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(CacheMetadata::default()),
            Err(e) => Err(e).with_context(|| format!("opening metadata file '{}'", path.display())),
        }
    }

    pub(super) fn layer(&self, diff_id: &Digest) -> Result<LayerReader, LayerUnavailable> {
        match File::open(Self::tar(&self.committed(), diff_id)) {
            Ok(file) => Ok(Box::new(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(LayerUnavailable::missing(diff_id)),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(LayerUnavailable(format!(
                "failed to read cache layer with SHA '{diff_id}' due to insufficient permissions"
            ))),
            Err(e) => Err(LayerUnavailable(format!("failed to get cache layer with SHA '{diff_id}': {e}"))),
        }
    }

    pub(super) fn layer_with_sums(&self, diff_id: &Digest) -> Option<(File, BlockSums)> {
        let path = Self::tar(&self.committed(), diff_id);
        let file = File::open(&path).ok()?;
        let found = file.metadata().ok().filter(fs::Metadata::is_file)?;
        Some((file, BlockSums::read(&path, found.len())?))
    }

    pub(super) fn keep_sums(&self, diff_id: &Digest, sums: &BlockSums) {
        // Who may not write to the cache has the whole tar hashed next time, too.
        let _ = sums.write(&Self::tar(&self.committed(), diff_id));
    }

    pub(super) fn stage(&self) -> anyhow::Result<Staging> {
        let lock = self.lock(STAGING_LOCK, Mode::Exclusive);
        let staging = self.staging();
        let failed = || format!("initializing staging directory '{}'", staging.display());
        remove_dir(&staging).with_context(failed)?;
        fs::create_dir_all(&staging).with_context(failed)?;
        let committed = self.committed();
        let known = Arc::new(KnownLayers::read(&committed));
        Ok(Staging::Volume { staging, committed, known, lock })
    }

    /// A tar that has the size the layer's tar has, and was not written to since the cache was committed, is taken for
    /// what it was then: restore reads it in full before anything uses it. Others are read in full here.
    pub(super) fn drop_corrupt(&self, reused: &[(Digest, u64)]) -> Vec<(Digest, LayerUnavailable)> {
        let committed_at = fs::metadata(self.committed().join(labels::CACHE_METADATA)).and_then(|m| m.modified()).ok();
        // Two writes within one tick of the clock cannot be told apart: only earlier is earlier.
        let untouched = |path: &Path, size: u64| {
            let found = fs::symlink_metadata(path).ok().filter(|m| m.is_file() && m.len() == size);
            found.and_then(|m| m.modified().ok()).zip(committed_at).is_some_and(|(tar, commit)| tar < commit)
        };
        let verify = |(diff_id, size): &(Digest, u64)| {
            let path = Self::tar(&self.committed(), diff_id);
            if untouched(&path, *size) {
                return None;
            }
            let error = match self.layer(diff_id).map(digest_of) {
                Ok(Ok(found)) if found == *diff_id => return None,
                Ok(Ok(found)) => LayerUnavailable::corrupt(diff_id, &found),
                Ok(Err(e)) => LayerUnavailable(format!("failed to get cache layer with SHA '{diff_id}': {e}")),
                Err(e) => e,
            };
            // What cannot be removed is replaced all the same: the new cache does not link to it.
            let _ = fs::remove_file(&path);
            let _ = fs::remove_file(BlockSums::path(&path));
            Some((diff_id.clone(), error))
        };
        crate::parallel::map(reused, verify).into_iter().flatten().collect()
    }

    /// Makes the next export read the layer in full, as its content turned out to be another one.
    pub(super) fn distrust(&self, diff_id: &Digest) {
        // Who may not write to the cache cannot say so either; then the layer is not restored next time either.
        let file = File::options().append(true).open(Self::tar(&self.committed(), diff_id));
        let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
    }

    pub(super) fn commit(
        &self,
        metadata: &CacheMetadata,
        layers: &[CachedLayer],
        (sums, known): (&BTreeMap<Digest, BlockSums>, &KnownLayers),
        staging_lock: Option<Lock>,
    ) -> anyhow::Result<()> {
        let text = format!("{}\n", labels::to_json(metadata).context("serializing metadata")?);
        let wanted: BTreeSet<&Digest> = layers.iter().map(|layer| &layer.diff_id).collect();
        let all_known = known.len() == sums.len() && sums.iter().all(|(diff_id, sums)| known.has(diff_id, sums));
        if all_known && self.is_in_force(&text, &wanted) {
            // What is not needed does no harm; the next build begins without it.
            let _ = remove_dir(&self.staging());
            return Ok(());
        }
        for diff_id in wanted {
            self.keep(diff_id)?;
        }
        for (diff_id, sums) in sums {
            let tar = Self::tar(&self.staging(), diff_id);
            sums.write(&tar).with_context(|| format!("write {}", BlockSums::path(&tar).display()))?;
        }
        let path = self.staging().join(labels::CACHE_METADATA);
        write_synced(&path, &text).with_context(|| format!("write {}", path.display()))?;
        let _lock = self.lock(LOCK, Mode::Exclusive);
        self.swap().context("committing cache")?;
        drop(staging_lock);
        Ok(())
    }

    /// Puts a cache in force that has these layers and no metadata.
    pub(super) fn commit_layers(&self, layers: &[Digest], staging_lock: Option<Lock>) -> anyhow::Result<()> {
        for diff_id in layers {
            self.keep(diff_id)?;
        }
        let _lock = self.lock(LOCK, Mode::Exclusive);
        self.swap().context("committing cache")?;
        drop(staging_lock);
        Ok(())
    }

    /// Whether the cache in force says the same and has these layers and no other: most builds change no cached layer.
    fn is_in_force(&self, metadata: &str, layers: &BTreeSet<&Digest>) -> bool {
        let committed = self.committed();
        let same = fs::read(committed.join(labels::CACHE_METADATA)).is_ok_and(|text| text == metadata.as_bytes());
        let kept =
            |layer: &&Digest| Self::tar(&committed, layer).is_file() && !Self::tar(&self.staging(), layer).exists();
        // What is known of layers has been compared before.
        let is_sums = |entry: &fs::DirEntry| Path::new(&entry.file_name()).extension() == Some("sums".as_ref());
        let count = |entries: fs::ReadDir| entries.filter(|entry| !entry.as_ref().is_ok_and(is_sums)).count();
        same && layers.iter().all(kept) && committed.read_dir().is_ok_and(|entries| count(entries) == layers.len() + 1)
    }

    /// Takes a layer that is not in staging over from the cache in force.
    fn keep(&self, diff_id: &Digest) -> anyhow::Result<()> {
        let (from, to) = (Self::tar(&self.committed(), diff_id), Self::tar(&self.staging(), diff_id));
        if to.exists() {
            return Ok(());
        }
        // Not every file system has hard links, and the kernel may refuse one to a file of somebody else's.
        fs::hard_link(&from, &to)
            .or_else(|_| fs::copy(&from, &to).map(drop))
            .with_context(|| format!("reusing layer ({diff_id})"))
    }

    /// Two renames, the old cache kept until the new one is in place. Layers need no sync to the disk: one that a
    /// power failure took does not have its digest, and is made again. Nor do the directories: a journal keeps the order
    /// of renames.
    fn swap(&self) -> io::Result<()> {
        let (committed, staging, backup) = (self.committed(), self.staging(), self.backup());
        self.discard(&backup)?;
        match fs::rename(&committed, &backup) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        if let Err(e) = fs::rename(&staging, &committed) {
            self.recover()?;
            return Err(e);
        }
        // The new cache is in force; what is left of the old one goes with the next commit at the latest.
        let _ = self.discard(&backup);
        Ok(())
    }
}

fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    file.sync_all()
}
