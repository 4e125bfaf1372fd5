//! OCI layout directories, full and sparse: `oci-layout`, `index.json`, `blobs/sha256/*`. A sparse layout lacks blobs
//! that its base image has; that is no error until such a blob is read.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::{
    Blob, BlobSource, Config, Digest, Error, Image, ImageId, Layer, Reference, Result, json,
    manifest::{DOCKER_LIST, Documents, Fields, OCI_INDEX, descriptor, manifest_type},
    temp::TempFile,
};

/// A directory of layouts, `<dir>/<registry>/<repository>/<tag>` each.
#[derive(Clone, Debug)]
pub struct Layout {
    pub dir: PathBuf,
}

/// An image's documents as they were found, byte for byte.
#[derive(Clone, Debug)]
pub struct RawImage {
    /// The manifest's.
    pub media_type: &'static str,
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
}

/// An index or a manifest, as far as it is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Document {
    media_type: Option<String>,
    manifests: Option<Vec<Entry>>,
    config: Option<Entry>,
    layers: Option<Vec<Entry>>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    #[serde(default)]
    size: u64,
    platform: Option<Platform>,
    #[serde(flatten)]
    further: Fields,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Platform {
    architecture: String,
    os: String,
}

const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Indexes within indexes: no real layout has more.
const MAX_DEPTH: usize = 8;
/// No manifest, index or config is longer.
const MAX_DOCUMENT: u64 = 16 << 20;

impl Layout {
    /// Where the image of this name is; a name that already starts with `dir` is a path.
    ///
    /// # Errors
    /// [`Error::Reference`] where it is neither.
    pub fn path_of(&self, name: &str) -> Result<PathBuf> {
        if Path::new(name).starts_with(&self.dir) {
            return Ok(PathBuf::from(name));
        }
        Ok(Self::path_of_reference(&self.dir, &Reference::parse(name)?))
    }

    /// The layout directory of a parsed name: `<registry>/<repository>/<tag>` or `…/sha256/<hex>`.
    pub fn path_of_reference(dir: &Path, reference: &Reference) -> PathBuf {
        let repository = dir.join(&reference.registry).join(&reference.repository);
        match &reference.digest {
            Some(digest) => repository.join("sha256").join(digest.hex()),
            None => repository.join(reference.identifier()),
        }
    }

    /// The image of this name, for linux and this machine's architecture where there are several.
    ///
    /// # Errors
    /// Naming the layout, where it is there but not whole.
    pub fn find(&self, name: &str) -> Result<Option<Image>> {
        Self::open(&self.path_of(name)?)
    }

    /// The image in a layout directory; `None` where there is no layout, or no image in it for this platform.
    /// A path `<dir>@<digest>`, as image IDs are printed, is understood too.
    ///
    /// # Errors
    /// Naming the layout, where it is there but not whole.
    pub fn open(path: &Path) -> Result<Option<Image>> {
        let text = path.to_string_lossy();
        let (dir, wanted) = match text.rsplit_once('@').map(|(dir, digest)| (dir, Digest::parse(digest))) {
            Some((dir, Ok(digest))) => (Path::new(dir).to_owned(), Some(digest)),
            _ => (path.to_owned(), None),
        };
        let index = match fs::read(dir.join("index.json")) {
            Ok(index) => index,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => return Err(Error::Io(format!("read layout {}: {e}", dir.display()))),
        };
        let index = parse(&dir, "index.json", &index)?;
        match choose(&dir, index, wanted.as_ref(), 0)? {
            Some(entry) => read_image(&dir, &entry).map(Some),
            None => Ok(None),
        }
    }

    /// Writes the image into a layout directory: its blobs as far as they can be had, config, manifest, and the index
    /// last. What the directory held before is replaced; its blobs stay.
    ///
    /// # Errors
    /// Naming the file that could not be written.
    pub fn put(image: &Image, dir: &Path, ref_name: Option<&str>) -> Result<(Digest, u64)> {
        let documents = Documents::of(image)?;
        for blob in image.layers.iter().filter_map(|layer| layer.blob.as_ref()) {
            copy_blob(blob, dir)?;
        }
        let size = documents.manifest.len() as u64;
        put_documents(dir, documents.manifest_type, &documents.manifest, &documents.config, ref_name)?;
        Ok((documents.manifest_digest, size))
    }

    /// Writes manifest and config as they are, so that the image keeps its digest, and no layer at all.
    ///
    /// # Errors
    /// Naming the file that could not be written.
    pub fn put_sparse(image: &RawImage, dir: &Path) -> Result<()> {
        put_documents(dir, image.media_type, &image.manifest, &image.config, None)
    }

    /// The digest the image has where it is saved as it is now.
    ///
    /// # Errors
    /// Naming a layer that has no blob.
    pub fn digest_of(image: &Image) -> Result<Digest> {
        Documents::of(image).map(|documents| documents.manifest_digest)
    }
}

fn put_documents(dir: &Path, media_type: &str, manifest: &[u8], config: &[u8], ref_name: Option<&str>) -> Result<()> {
    let mut further = Fields::new();
    if let Some(name) = ref_name {
        further.insert("annotations".to_owned(), serde_json::json!({ REF_NAME: name }));
    }
    let digest = Digest::of(manifest);
    let entry = descriptor(media_type, manifest.len() as u64, &digest, &further);
    let mut index = json::Object::default();
    index.field("schemaVersion", &2);
    index.field("mediaType", OCI_INDEX);
    index.raw("manifests", &format!("[{entry}]"));
    for (path, content) in [
        (blob_path(dir, &Digest::of(config)), config),
        (blob_path(dir, &digest), manifest),
        (dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#),
        (dir.join("index.json"), index.end().as_bytes()),
    ] {
        TempFile::put(&path, content).map_err(|e| Error::Io(e.to_string()))?;
    }
    Ok(())
}

/// Where a layout keeps its blobs.
pub(crate) fn blobs(dir: &Path) -> PathBuf {
    dir.join("blobs").join("sha256")
}

/// A blob's file.
pub(crate) fn blob_path(dir: &Path, digest: &Digest) -> PathBuf {
    blobs(dir).join(digest.hex())
}

/// Links or copies a blob of another layout; whether it is in `dir` now. A blob of a registry, or one its layout lacks,
/// stays absent.
pub(crate) fn copy_blob(blob: &Blob, dir: &Path) -> Result<bool> {
    let to = blob_path(dir, &blob.digest);
    if to.exists() {
        return Ok(true);
    }
    let BlobSource::Layout(source) = &blob.source else { return Ok(false) };
    let from = blob_path(source, &blob.digest);
    if !from.exists() {
        return Ok(false);
    }
    let failed = |e: io::Error| Error::Io(format!("copy blob {} to {}: {e}", blob.digest, dir.display()));
    fs::create_dir_all(blobs(dir)).map_err(failed)?;
    if fs::hard_link(&from, &to).is_err() {
        put_blob(dir, blob, &mut File::open(&from).map_err(failed)?)?;
    }
    Ok(true)
}

/// Writes a blob, checking its digest.
pub(crate) fn put_blob(dir: &Path, blob: &Blob, content: &mut dyn Read) -> Result<()> {
    let failed = |e: io::Error| Error::Io(format!("copy blob {} to {}: {e}", blob.digest, dir.display()));
    let mut file = TempFile::new(&blobs(dir)).map_err(failed)?;
    let mut checked = Checked { content, hasher: Sha256::new() };
    io::copy(&mut checked, &mut file).map_err(failed)?;
    if Digest::from_hasher(checked.hasher) != blob.digest {
        return Err(Error::Corrupt(format!("blob {}: its content is another's", blob.digest)));
    }
    file.persist(&blob_path(dir, &blob.digest)).map_err(failed)
}

struct Checked<'a> {
    content: &'a mut dyn Read,
    hasher: Sha256,
}

impl Read for Checked<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.content.read(out)?;
        self.hasher.update(&out[..n]);
        Ok(n)
    }
}

/// The entry of the image wanted: by digest, else the only one, else the one for this platform; indexes within indexes
/// are looked into.
fn choose(dir: &Path, index: Document, wanted: Option<&Digest>, depth: usize) -> Result<Option<Entry>> {
    let mut entries = index.manifests.unwrap_or_default();
    if let Some(wanted) = wanted {
        if let Some(at) = entries.iter().position(|e| e.digest == *wanted) {
            return Ok(Some(entries.swap_remove(at)));
        }
    } else if depth == 0 && entries.len() == 1 && !is_index(&entries[0]) {
        return Ok(entries.pop());
    }
    let mut nested = Vec::new();
    for entry in entries {
        if is_index(&entry) {
            nested.push(entry);
        } else if wanted.is_none() && fits(dir, &entry)? {
            return Ok(Some(entry));
        }
    }
    for entry in nested.iter().filter(|_| depth < MAX_DEPTH) {
        let inner = parse(dir, entry.digest.as_str(), &read_document(dir, &entry.digest)?)?;
        if let Some(found) = choose(dir, inner, wanted, depth + 1)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn is_index(entry: &Entry) -> bool {
    matches!(entry.media_type.as_str(), OCI_INDEX | DOCKER_LIST)
}

/// Where the index does not say which platform an image is for, its config does.
fn fits(dir: &Path, entry: &Entry) -> Result<bool> {
    let platform = if let Some(platform) = &entry.platform {
        (platform.os.clone(), platform.architecture.clone())
    } else {
        let config = read_image(dir, entry)?.config;
        (config.os, config.architecture)
    };
    Ok(platform.0 == "linux" && platform.1 == crate::image::host_architecture())
}

fn read_image(dir: &Path, entry: &Entry) -> Result<Image> {
    let bytes = read_document(dir, &entry.digest)?;
    let manifest = parse(dir, entry.digest.as_str(), &bytes)?;
    let corrupt = |why: &str| Error::Corrupt(format!("layout {}: {why}", dir.display()));
    let config = manifest.config.ok_or_else(|| corrupt("its manifest names no config"))?;
    let config = Config::parse(&read_document(dir, &config.digest)?).map_err(|e| corrupt(&e.to_string()))?;
    let blobs = manifest.layers.unwrap_or_default();
    let further = blobs.iter().filter(|blob| !blob.further.is_empty());
    let descriptors = further.map(|blob| (blob.digest.clone(), blob.further.clone())).collect();
    if blobs.len() != config.diff_ids.len() {
        return Err(corrupt("its manifest and its config have different numbers of layers"));
    }
    let layer = |(diff_id, blob): (&Digest, Entry)| Layer {
        diff_id: diff_id.clone(),
        blob: Some(Blob {
            digest: blob.digest,
            size: blob.size,
            media_type: blob.media_type,
            source: BlobSource::Layout(dir.to_owned()),
        }),
        recipe: None,
    };
    Ok(Image {
        layers: config.diff_ids.iter().zip(blobs).map(layer).collect(),
        config,
        docker: manifest.media_type.unwrap_or_else(|| entry.media_type.clone()) == manifest_type(true),
        annotations: manifest.annotations.unwrap_or_default(),
        descriptors,
        id: Some(ImageId::Layout { path: dir.to_owned(), digest: entry.digest.clone() }),
    })
}

fn read_document(dir: &Path, digest: &Digest) -> Result<Vec<u8>> {
    let failed = |e: io::Error| {
        let text = format!("read {digest} of layout {}: {e}", dir.display());
        if e.kind() == io::ErrorKind::NotFound { Error::NotFound(text) } else { Error::Io(text) }
    };
    let mut bytes = Vec::new();
    let file = File::open(blob_path(dir, digest)).map_err(failed)?;
    file.take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(failed)?;
    if Digest::of(&bytes) != *digest {
        return Err(Error::Corrupt(format!("layout {}: the content of {digest} is another's", dir.display())));
    }
    Ok(bytes)
}

fn parse(dir: &Path, name: &str, bytes: &[u8]) -> Result<Document> {
    serde_json::from_slice(bytes).map_err(|e| Error::Corrupt(format!("layout {}: {name}: {e}", dir.display())))
}
