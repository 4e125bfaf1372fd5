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

use crate::{Error, Result, time};

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

    /// `None`: there is none that can be used.
    pub(crate) fn find(&self, key: &Digest) -> Option<Cached> {
        let path = self.path(key);
        match self.read(&path) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!("Not using cached layer {}: {error}", path.display());
                None
            }
        }
    }

    fn read(&self, path: &Path) -> Result<Option<Cached>> {
        let Some(mut image) = Layout::open(path)? else { return Ok(None) };
        let made = image.config.created.as_deref().and_then(time::from_rfc3339);
        let made = made.ok_or_else(|| Error::new("it does not say when it was made"))?;
        // One from the future (another machine's clock) is a fresh one.
        if made.elapsed().unwrap_or_default() > self.ttl {
            return Ok(None);
        }
        let Some(layer) = image.layers.pop() else { return Ok(Some(Cached(None))) };
        let file = layer_path(&layer)?;
        let mut hash = Sha256::new();
        File::open(&file).and_then(|mut f| io::copy(&mut f, &mut hash)).map_err(|e| Error::at("read", &file, &e))?;
        if Digest::from_hasher(hash) != layer.diff_id {
            return Err(Error::new("its content is another's"));
        }
        Ok(Some(Cached(Some(layer))))
    }

    /// Keeps a layer; one that is there already was of no use, and is replaced.
    pub(crate) fn put(&self, key: &Digest, layer: Option<&Layer>) -> Result<()> {
        self.keep(key, layer, SystemTime::now())
    }

    fn keep(&self, key: &Digest, layer: Option<&Layer>, made: SystemTime) -> Result<()> {
        let path = self.path(key);
        let config = Config {
            os: "linux".to_owned(),
            // Files have times, too, but not the same ones after a cache was carried from one machine to another.
            created: Some(time::to_rfc3339(made)),
            diff_ids: layer.iter().map(|l| l.diff_id.clone()).collect(),
            ..Config::default()
        };
        let image = Image { config, layers: layer.cloned().into_iter().collect(), ..Image::default() };
        let new = self.dir.join(format!(".{}-{}", std::process::id(), key.hex()));
        let put = || -> Result<()> {
            remove(&new)?;
            Layout::put(&image, &new, None)?;
            remove(&path)?;
            fs::rename(&new, &path).map_err(|e| Error::at("create", &path, &e))
        };
        put().inspect_err(|_| drop(remove(&new)))
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|e| Error::at("remove", path, &e)),
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
        let digest = Digest::of(content);
        let work = dir.path().join("work");
        fs::create_dir_all(work.join("blobs/sha256")).unwrap();
        fs::write(work.join("blobs/sha256").join(digest.hex()), content).unwrap();
        let blob = Blob {
            digest: digest.clone(),
            size: 5,
            media_type: "application/vnd.oci.image.layer.v1.tar".into(),
            source: BlobSource::Layout(work.clone()),
        };
        let layer = Layer { diff_id: digest.clone(), blob: Some(blob), recipe: None };
        let cache = Cache { dir: dir.path().join("layers"), ttl: Duration::from_secs(3600) };
        let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
        assert!(cache.find(&one).is_none());
        cache.put(&one, Some(&layer)).unwrap();
        cache.put(&other, None).unwrap();
        fs::remove_dir_all(&work).unwrap();
        let found = cache.find(&one).unwrap().0.unwrap();
        assert_eq!(fs::read(layer_path(&found).unwrap()).unwrap(), content);
        assert!(cache.find(&other).unwrap().0.is_none());
        let aged = |ttl| Cache { ttl: Duration::from_secs(ttl), ..cache.clone() };
        cache.keep(&other, None, SystemTime::now() - Duration::from_secs(60)).unwrap();
        assert!(aged(30).find(&other).is_none() && aged(90).find(&other).is_some());
        cache.keep(&other, None, SystemTime::now() + Duration::from_secs(60)).unwrap();
        assert!(aged(0).find(&other).is_some());

        fs::write(layer_path(&found).unwrap(), "a rat").unwrap();
        assert!(cache.find(&one).is_none());
        cache.put(&one, None).unwrap();
        assert!(cache.find(&one).unwrap().0.is_none());
    }
}
