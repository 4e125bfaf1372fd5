//! The cache of one build for the next: a directory (volume) or an image. Both hold layers by diff ID and the
//! metadata that says whose they are.
//!
//! Layers are not trusted: whoever reads one compares what it read with the diff ID, or with checksums that were made
//! when the diff ID was (see [`crate::restore`]).

mod cache_image;
mod launch;
mod lock;
mod volume;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::File,
    io::Read,
    path::PathBuf,
    sync::Arc,
};

use image::{Blob, BlockSums, Destination, Digest, KnownLayers};
use platform_api::CacheMetadata;

pub use cache_image::ImageCache;
pub use launch::LaunchCache;
pub use lock::Lock;
pub use volume::VolumeCache;

/// Where layers are kept from one build to the next.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a build has one cache")]
pub enum Cache {
    Volume(VolumeCache),
    Image(ImageCache),
}

/// Why a cached layer cannot be had. The text is for the user; the build goes on without the layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerUnavailable(pub String);

impl fmt::Display for LayerUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for LayerUnavailable {}

impl LayerUnavailable {
    pub(crate) fn missing(diff_id: &Digest) -> Self {
        Self(format!("failed to find cache layer with SHA '{diff_id}'"))
    }
    pub(crate) fn corrupt(diff_id: &Digest, found: &Digest) -> Self {
        Self(format!("expected layer contents to have SHA '{diff_id}'; found '{found}'"))
    }
}

/// A cached layer, uncompressed.
pub type LayerReader = Box<dyn Read + Send>;

/// A layer of the new cache.
#[derive(Clone, Debug)]
pub struct CachedLayer {
    pub diff_id: Digest,
    /// What was made for a cache image; `None` where the cache has the layer already, or is a volume.
    pub blob: Option<Blob>,
}

/// Where the export pipeline writes what a new cache needs.
#[derive(Debug)]
pub enum Staging {
    /// Tars go into the first directory, unless the second has them, where these layers are known.
    Volume { staging: PathBuf, committed: PathBuf, known: Arc<KnownLayers>, lock: Option<Lock> },
    /// Blobs go there, unless they are of these layers.
    Image { to: Destination, has: BTreeSet<Digest> },
}

impl Cache {
    /// Whether there is a cache from an earlier build.
    pub fn exists(&self) -> bool {
        match self {
            Self::Volume(_) => true,
            Self::Image(c) => c.exists(),
        }
    }

    /// Whose layers the cache holds; empty where it cannot be understood.
    ///
    /// # Errors
    /// A volume's file that cannot be read.
    pub fn metadata(&self) -> anyhow::Result<CacheMetadata> {
        match self {
            Self::Volume(c) => c.metadata(),
            Self::Image(c) => Ok(c.metadata()),
        }
    }

    /// Keeps others from replacing the cache while it is read. Cheap, and shared with other readers.
    pub fn lock_for_reading(&self) -> Option<Lock> {
        match self {
            Self::Volume(c) => c.lock_for_reading(),
            Self::Image(_) => None,
        }
    }

    /// A layer, not verified.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub fn layer(&self, diff_id: &Digest) -> Result<LayerReader, LayerUnavailable> {
        match self {
            Self::Volume(c) => c.layer(diff_id),
            Self::Image(c) => c.layer(diff_id),
        }
    }

    /// A layer that has checksums of its blocks, neither of them verified. `None`: it has to be read by
    /// [`Cache::layer`].
    pub fn layer_with_sums(&self, diff_id: &Digest) -> Option<(File, BlockSums)> {
        match self {
            Self::Volume(c) => c.layer_with_sums(diff_id),
            Self::Image(_) => None,
        }
    }

    /// Whether checksums of a layer's blocks are of use.
    pub fn wants_sums(&self) -> bool {
        matches!(self, Self::Volume(_))
    }

    /// Keeps checksums of a layer that was read, and is what it should be, for the next time.
    pub fn keep_sums(&self, diff_id: &Digest, sums: &BlockSums) {
        match self {
            Self::Volume(c) => c.keep_sums(diff_id, sums),
            Self::Image(_) => {}
        }
    }

    /// Makes room for a new cache beside the one in force.
    ///
    /// # Errors
    /// A directory that cannot be made.
    pub fn stage(&self) -> anyhow::Result<Staging> {
        match self {
            Self::Volume(c) => c.stage(),
            Self::Image(c) => Ok(c.stage()),
        }
    }

    /// Of these layers (with the sizes of their tars), which were written by none but are in the cache, those that
    /// cannot be reused, and why. They are taken out of the cache, so that they are made again.
    pub fn drop_corrupt(&self, reused: &[(Digest, u64)]) -> Vec<(Digest, LayerUnavailable)> {
        match self {
            Self::Volume(c) => c.drop_corrupt(reused),
            // The blobs were there when the cache was opened, which is soon enough.
            Self::Image(_) => Vec::new(),
        }
    }

    /// Tells that a layer that was read is not what it should be.
    pub fn distrust(&self, diff_id: &Digest) {
        match self {
            Self::Volume(c) => c.distrust(diff_id),
            // A registry's blob has a digest of its own.
            Self::Image(_) => {}
        }
    }

    /// Puts the new cache in force, in place of the old one: all of it or, on an error, nothing. `sums` are those of all
    /// layers that were made, cached or not, by which the next export knows them.
    ///
    /// # Errors
    /// Files that cannot be written; an image that cannot be saved.
    pub fn commit(
        self,
        staging: Staging,
        metadata: &CacheMetadata,
        layers: &[CachedLayer],
        sums: &BTreeMap<Digest, BlockSums>,
    ) -> anyhow::Result<()> {
        match (self, staging) {
            (Self::Volume(c), Staging::Volume { known, lock, .. }) => c.commit(metadata, layers, (sums, &known), lock),
            (Self::Image(c), _) => c.commit(metadata, layers),
            (Self::Volume(_), Staging::Image { .. }) => anyhow::bail!("the staging area is another cache's"),
        }
    }
}
