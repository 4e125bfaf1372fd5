//! Layers of earlier runs, found again by what they were made from: one OCI layout per instruction,
//! `<dir>/cached:<key>`, with one layer, or none where the instruction changed no file.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use image::{BlobSource, Config, Digest, Image, Layer, Layout};
use sha2::{Digest as _, Sha256};

use crate::{Error, Result, Work, time};

/// A directory of cached layers.
#[derive(Clone, Debug)]
pub struct Cache {
    pub dir: PathBuf,
    /// Older ones are not used.
    pub ttl: Duration,
}

/// What an instruction came to: a layer, or none where it changed no file.
#[derive(Clone, Debug)]
pub(crate) struct Cached(pub(crate) Option<Layer>);

impl Cache {
    fn path(&self, key: &Digest) -> PathBuf {
        self.dir.join(format!("cached:{}", key.hex()))
    }

    /// `None`: there is none that can be used. What is found gets a second name in `work`, where there can be one, so
    /// that it stays whatever others do.
    pub(crate) fn find(&self, key: &Digest, work: &Path) -> Option<Cached> {
        let path = self.path(key);
        match self.read(&path, Some(work)) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!("Not using cached layer {}: {error}", path.display());
                None
            }
        }
    }

    fn read(&self, path: &Path, work: Option<&Path>) -> Result<Option<Cached>> {
        let Some(mut image) = Layout::open(path)? else { return Ok(None) };
        let made = image.config.created.as_deref().and_then(time::from_rfc3339);
        let made = made.ok_or_else(|| Error::new("it does not say when it was made"))?;
        // One from the future (another machine's clock) is a fresh one.
        if made.elapsed().unwrap_or_default() > self.ttl {
            return Ok(None);
        }
        let Some(layer) = image.layers.pop() else { return Ok(Some(Cached(None))) };
        let layer = work.and_then(|work| hold(&layer, work).ok()).unwrap_or(layer);
        let file = layer_path(&layer)?;
        let mut hash = Sha256::new();
        File::open(&file).and_then(|mut f| io::copy(&mut f, &mut hash)).map_err(|e| Error::at("read", &file, &e))?;
        if Digest::from_hasher(hash) != layer.diff_id {
            return Err(Error::new("its content is another's"));
        }
        Ok(Some(Cached(Some(layer))))
    }

    /// Keeps a layer. One that is there already is replaced only if it is of no use.
    pub(crate) fn put(&self, key: &Digest, layer: Option<&Layer>) -> Result<()> {
        self.keep(key, layer, SystemTime::now())
    }

    fn keep(&self, key: &Digest, layer: Option<&Layer>, made: SystemTime) -> Result<()> {
        let config = Config {
            os: "linux".to_owned(),
            // Files have times, too, but not the same ones after a cache was carried from one machine to another.
            created: Some(time::to_rfc3339(made)),
            diff_ids: layer.iter().map(|l| l.diff_id.clone()).collect(),
            ..Config::default()
        };
        let image = Image { config, layers: layer.cloned().into_iter().collect(), ..Image::default() };
        let own = Work::new(&self.dir, ".new-")?;
        let (new, old) = (own.path().join("new"), own.path().join("old"));
        Layout::put(&image, &new, None)?;
        self.give_name(key, &new, &old)
    }

    /// Whole or not at all. Where another process was quicker, what it made is as good, and may be in use.
    fn give_name(&self, key: &Digest, new: &Path, old: &Path) -> Result<()> {
        let path = self.path(key);
        let failed = |e: io::Error| Error::at("create", &path, &e);
        let Err(error) = fs::rename(new, &path) else { return Ok(()) };
        if path.symlink_metadata().is_err() {
            return Err(failed(error));
        }
        if matches!(self.read(&path, None), Ok(Some(_))) {
            return Ok(());
        }
        match fs::rename(&path, old) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        match fs::rename(new, &path) {
            Err(_) if path.symlink_metadata().is_ok() => Ok(()),
            renamed => renamed.map_err(failed),
        }
    }
}

/// The layer in another layout, as the same file.
fn hold(layer: &Layer, work: &Path) -> Result<Layer> {
    let mut held = layer.clone();
    if let Some(blob) = &mut held.blob {
        blob.source = BlobSource::Layout(work.to_owned());
    }
    let (from, to) = (layer_path(layer)?, layer_path(&held)?);
    let failed = |e: io::Error| Error::at("link", &to, &e);
    fs::create_dir_all(to.parent().unwrap_or(work)).map_err(failed)?;
    match fs::hard_link(&from, &to) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(failed(e)),
        _ => Ok(held),
    }
}

/// Where a layer's tar is.
pub(crate) fn layer_path(layer: &Layer) -> Result<PathBuf> {
    match layer.blob.as_ref().map(|blob| (&blob.source, &blob.digest)) {
        Some((BlobSource::Layout(dir), digest)) => Ok(dir.join("blobs").join("sha256").join(digest.hex())),
        _ => Err(Error::new(format!("layer {} is not in a layout", layer.diff_id))),
    }
}

#[cfg(test)]
mod tests {
    use image::Blob;

    use super::*;

    #[test]
    fn what_is_put_is_found_while_it_is_whole_and_fresh() {
        let dir = tempfile::tempdir().unwrap();
        let content = b"a tar";
        let work = dir.path().join("work");
        let layer = layer_in(&work, content);
        let cache = Cache { dir: dir.path().join("layers"), ttl: Duration::from_secs(3600) };
        let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let own = dir.path().join("own");
        assert!(cache.find(&one, &own).is_none());
        cache.put(&one, Some(&layer)).unwrap();
        fs::remove_dir_all(&work).unwrap();
        let found = cache.find(&one, &own).unwrap().0.unwrap();
        let path = layer_path(&found).unwrap();
        assert!(path.starts_with(&own));
        assert_eq!(fs::read(&path).unwrap(), content);

        let aged = |ttl| Cache { ttl: Duration::from_secs(ttl), ..cache.clone() };
        let now = SystemTime::now();
        cache.keep(&other, None, now - Duration::from_secs(60)).unwrap();
        assert!(aged(30).find(&other, &own).is_none());
        assert!(aged(90).find(&other, &own).unwrap().0.is_none());
        // What is of no use any more is replaced, and nothing else is.
        aged(30).keep(&other, Some(&found), now + Duration::from_secs(60)).unwrap();
        assert!(aged(0).find(&other, &own).unwrap().0.is_some());
        cache.put(&other, None).unwrap();
        assert!(cache.find(&other, &own).unwrap().0.is_some());

        // The layer that was found stays, whatever becomes of the cache.
        fs::remove_dir_all(cache.path(&other)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
        fs::write(&path, "a rat").unwrap();
        assert!(cache.find(&one, &own).is_none());
        cache.put(&one, None).unwrap();
        assert!(cache.find(&one, &own).unwrap().0.is_none());
    }

    /// Each makes the layer of one instruction, and another one than the others'.
    #[test]
    fn many_at_once_keep_one() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache { dir: dir.path().join("layers"), ttl: Duration::from_secs(3600) };
        let (cache, dir) = (&cache, dir.path());
        for round in 0..50_u8 {
            let key = &Digest::of(&[round]);
            std::thread::scope(|scope| {
                for n in 0..4_u8 {
                    scope.spawn(move || {
                        let own = dir.join(format!("work-{n}"));
                        let layer = layer_in(&own, &[round, n]);
                        cache.put(key, Some(&layer)).unwrap();
                        let found = cache.find(key, &own).unwrap().0.unwrap();
                        let content = fs::read(layer_path(&found).unwrap()).unwrap();
                        assert_eq!(Digest::of(&content), found.diff_id);
                        // Of a slow one's layer nobody sees anything.
                        assert!(
                            matches!(cache.find(key, &own).unwrap().0, Some(again) if again.diff_id == found.diff_id)
                        );
                    });
                }
            });
        }
        let left = fs::read_dir(&cache.dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let left: Vec<String> = left.filter(|name| !name.starts_with("cached:")).collect();
        assert_eq!(left, [""; 0]);
    }

    fn layer_in(work: &Path, content: &[u8]) -> Layer {
        let digest = Digest::of(content);
        fs::create_dir_all(work.join("blobs/sha256")).unwrap();
        fs::write(work.join("blobs/sha256").join(digest.hex()), content).unwrap();
        let blob = Blob {
            digest: digest.clone(),
            size: content.len() as u64,
            media_type: "application/vnd.oci.image.layer.v1.tar".into(),
            source: BlobSource::Layout(work.to_owned()),
        };
        Layer { diff_id: digest, blob: Some(blob), recipe: None }
    }
}
