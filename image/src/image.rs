//! The image as a value, and the places images are found and saved.

use std::{collections::BTreeMap, fs::File, io::Read, path::PathBuf};

use flate2::read::MultiGzDecoder;

use crate::{
    Config, Daemon, Digest, Error, History, Layout, Recipe, Reference, Registry, Result, layout, members::inflated,
    save,
};

/// An image in memory: nothing here can fail, and a clone is cheap. Layers stand bottom to top and match
/// `config.diff_ids` one to one.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub config: Config,
    pub layers: Vec<Layer>,
    /// Docker's media types instead of OCI's; new layers follow it.
    pub docker: bool,
    pub annotations: BTreeMap<String, String>,
    /// What the manifest says of its layers' blobs beside media type, size and digest (annotations, URLs): kept.
    pub descriptors: BTreeMap<Digest, serde_json::Map<String, serde_json::Value>>,
    /// Where it was found; `None` for a new one.
    pub id: Option<ImageId>,
}

/// How a found image is referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageId {
    /// Printed `<registry>/<repo>@sha256:…`.
    Registry { reference: Reference, manifest_size: u64 },
    /// Printed as hex, no `sha256:`.
    Daemon(String),
    /// Printed `<path>@<digest>`.
    Layout { path: PathBuf, digest: Digest },
}

impl std::fmt::Display for ImageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry { reference, .. } => reference.fmt(f),
            Self::Daemon(id) => f.write_str(id.strip_prefix("sha256:").unwrap_or(id)),
            Self::Layout { path, digest } => write!(f, "{}@{digest}", path.display()),
        }
    }
}

/// One layer.
#[derive(Clone, Debug)]
pub struct Layer {
    pub diff_id: Digest,
    /// `None`: the blob is not known or not needed (a daemon's layer, a sparse layout's).
    pub blob: Option<Blob>,
    /// What to stream for a daemon or where no blob was made.
    pub recipe: Option<Recipe>,
}

/// A layer's compressed form, and where it can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    pub media_type: String,
    pub source: BlobSource,
}

/// Where a blob is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobSource {
    /// In this repository.
    Registry(Reference),
    /// In this layout directory (it may be missing there: sparse).
    Layout(PathBuf),
}

impl Image {
    /// Adds a layer on top, with its history (`created` is set when saving).
    pub fn push(&mut self, layer: Layer, history: History) {
        self.config.diff_ids.push(layer.diff_id.clone());
        self.config.history.push(history);
        self.layers.push(layer);
    }

    /// The index of the layer with this diff ID.
    pub fn find_layer(&self, diff_id: &Digest) -> Option<usize> {
        self.layers.iter().position(|l| l.diff_id == *diff_id)
    }

    /// History normalised to one entry per layer: entries of empty layers dropped; blank ones where the number does
    /// not fit.
    pub fn normalise_history(&mut self) {
        let layers = self.config.diff_ids.len();
        let history = &mut self.config.history;
        history.retain(|step| !step.empty_layer);
        if history.len() != layers {
            *history = vec![History::default(); layers];
        }
    }

    /// Sets the time of the image and of every step of its history (RFC 3339).
    pub fn stamp(&mut self, created: &str) {
        self.config.stamp(created);
    }
}

/// This machine's architecture in the words of image configs.
pub(crate) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// Where images are found and saved.
#[derive(Debug)]
pub enum Images {
    Registry(Registry),
    Daemon(Daemon),
    Layout(Layout),
}

/// What saving came to, name by name.
#[derive(Debug)]
pub struct Saved {
    /// One per name, in the order given.
    pub names: Vec<SaveResult>,
    /// The image as saved (where one name at least was).
    pub id: Option<ImageId>,
    /// Bytes.
    pub manifest_size: Option<u64>,
}

/// What saving under one name came to.
#[derive(Debug)]
pub struct SaveResult {
    pub name: String,
    pub error: Option<Error>,
}

/// Blobs up to this size are inflated sooner than threads are started for it.
const SMALL: u64 = 64 << 10;

type ReadBlob = dyn Fn(&Registry, &Reference, &Blob) -> Result<Box<dyn Read + Send>>;

impl Images {
    /// Manifest and config, no layer. `None` where there is none (404, or 401 with an error body, or no fitting
    /// platform).
    ///
    /// # Errors
    /// Naming the image.
    pub fn find(&self, name: &str) -> Result<Option<Image>> {
        match self {
            Self::Registry(registry) => registry.find(&Reference::parse(name)?),
            Self::Daemon(daemon) => daemon.find(name),
            Self::Layout(layout) => layout.find(name),
        }
    }

    /// A layer of a found image, uncompressed.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the image has no such layer, or its blob is absent.
    pub fn read_layer(&self, image: &Image, diff_id: &Digest) -> Result<Box<dyn Read + Send>> {
        self.open_layer(image, diff_id, &Registry::read_blob)
    }

    /// A layer of a found image, for who compares all that is read with the diff ID: that the compressed bytes are those
    /// of their digest is not looked at, as it says no more.
    ///
    /// # Errors
    /// As [`Images::read_layer`].
    pub fn read_layer_unchecked(&self, image: &Image, diff_id: &Digest) -> Result<Box<dyn Read + Send>> {
        self.open_layer(image, diff_id, &Registry::read_blob_unchecked)
    }

    fn open_layer(&self, image: &Image, diff_id: &Digest, read_blob: &ReadBlob) -> Result<Box<dyn Read + Send>> {
        if let (Self::Daemon(daemon), Some(ImageId::Daemon(id))) = (self, &image.id) {
            return daemon.read_layer(id, diff_id);
        }
        let layer = image.layers.iter().find(|layer| layer.diff_id == *diff_id);
        let blob = layer.and_then(|layer| layer.blob.as_ref());
        let blob = blob.ok_or_else(|| Error::NotFound(format!("there is no layer {diff_id}")))?;
        let stored: Box<dyn Read + Send> = match (&blob.source, self) {
            (BlobSource::Layout(dir), _) => {
                let path = layout::blob_path(dir, &blob.digest);
                let file = File::open(&path);
                Box::new(file.map_err(|e| Error::NotFound(format!("read layer {}: {e}", path.display())))?)
            }
            (BlobSource::Registry(repository), Self::Registry(registry)) => read_blob(registry, repository, blob)?,
            (BlobSource::Registry(repository), _) => {
                return Err(Error::NotFound(format!("layer {diff_id} is in {}, not here", repository.context())));
            }
        };
        if blob.media_type.contains("zstd") {
            return Err(Error::Corrupt(format!("layer {diff_id}: zstd is not supported")));
        }
        Ok(match blob.media_type.ends_with("gzip") {
            false => stored,
            true if blob.size <= SMALL => Box::new(MultiGzDecoder::new(stored)),
            // What receives (and checks) the blob, what inflates it and who uses it wait for each other as little as can be.
            true => Box::new(inflated(stored)),
        })
    }

    /// Saves the image under every name: layers whose blobs are elsewhere are mounted or copied, then config, then
    /// manifest. Layers made by a [`crate::Pipeline`] for this destination are there already.
    ///
    /// # Errors
    /// What concerns all names alike; what fails for one is in its [`SaveResult`].
    pub fn save(&self, image: &Image, names: &[String]) -> Result<Saved> {
        match self {
            Self::Registry(registry) => save::to_registry(registry, image, names),
            Self::Daemon(daemon) => daemon.save(image, names),
            Self::Layout(layout) => Ok(save::to_layouts(layout, image, names)),
        }
    }

    /// Whether the image could be read: 401 and 403 are no, 404 is yes.
    ///
    /// # Errors
    /// Where it could not.
    pub fn ensure_readable(&self, name: &str) -> Result<()> {
        match self {
            Self::Registry(registry) => registry.ensure_readable(&Reference::parse(name)?),
            Self::Daemon(daemon) => daemon.find(name).map(|_| ()),
            Self::Layout(layout) => layout.find(name).map(|_| ()),
        }
    }

    /// Begins to write a new config under this name, beside what has to be done for it: see [`Registry::begin_config`].
    pub fn begin_config(&self, name: &str) {
        if let (Self::Registry(registry), Ok(name)) = (self, Reference::parse(name)) {
            registry.begin_config(&name);
        }
    }

    /// Takes back what was begun and not needed.
    pub fn cancel_uploads(&self) {
        if let Self::Registry(registry) = self {
            registry.cancel_uploads();
        }
    }

    /// Whether it could be written; in a registry an upload is begun to see that, for the next blob or
    /// [`Images::cancel_uploads`].
    ///
    /// # Errors
    /// Where it could not.
    pub fn ensure_writable(&self, name: &str) -> Result<()> {
        match self {
            Self::Registry(registry) => registry.ensure_writable(&Reference::parse(name)?),
            Self::Daemon(_) => Reference::parse(name).map(|_| ()),
            Self::Layout(layout) => layout.path_of(name).map(|_| ()),
        }
    }
}
