//! The files in which the registry (CNCF distribution) keeps images: read and written directly.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use acceptance::image::LayoutImage;
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

fn blob_dir(storage: &Path, digest: &str) -> PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    storage.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex)
}

/// The file of a blob.
pub(crate) fn blob(storage: &Path, digest: &str) -> PathBuf {
    blob_dir(storage, digest).join("data")
}

fn repository(storage: &Path, name: &str) -> PathBuf {
    storage.join("docker/registry/v2/repositories").join(name)
}

fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("make a directory of the registry");
    fs::write(path, bytes).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}

fn put_blob(storage: &Path, repo: &Path, bytes: &[u8]) -> String {
    let digest = sha256(bytes);
    put(&blob(storage, &digest), bytes);
    put(&repo.join("_layers/sha256").join(&digest[7..]).join("link"), digest.as_bytes());
    digest
}

/// A gzipped tar of these files, and its diff ID.
pub(crate) fn layer_of(files: &[(&str, &str)]) -> (Vec<u8>, String) {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, path, text.as_bytes()).expect("a tar entry");
    }
    let bytes = tar.into_inner().expect("a tar");
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut gzip, &bytes).expect("compress");
    (gzip.finish().expect("compress"), sha256(&bytes))
}

/// Puts an image there and returns its digest. `config` gets its rootfs here.
pub(crate) fn push(storage: &Path, name: &str, config: &Value, layers: &[&[(&str, &str)]]) -> String {
    let layers: Vec<_> = layers.iter().map(|files| layer_of(files)).collect();
    push_layers(storage, name, config, &layers)
}

/// The same, of gzipped tars with their diff IDs.
pub(crate) fn push_layers(storage: &Path, name: &str, config: &Value, layers: &[(Vec<u8>, String)]) -> String {
    let (repo_name, _) = name.rsplit_once(':').expect("<repository>:<tag>");
    let repo = repository(storage, repo_name);
    let (mut diff_ids, mut descriptors) = (Vec::new(), Vec::new());
    for (bytes, diff_id) in layers {
        let digest = put_blob(storage, &repo, bytes);
        diff_ids.push(diff_id);
        descriptors.push(json!({"mediaType": LAYER, "size": bytes.len(), "digest": digest}));
    }
    let mut config = config.clone();
    config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
    let bytes = config.to_string().into_bytes();
    let digest = put_blob(storage, &repo, &bytes);
    let descriptor = json!({"mediaType": CONFIG, "size": bytes.len(), "digest": digest});
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor, "layers": descriptors});
    put_manifest(storage, name, &manifest)
}

/// Stores the layers of a tag's image anew, as whoever copied it might: compressed by zstd.
pub(crate) fn to_zstd(storage: &Path, name: &str) {
    let (repo, _) = name.rsplit_once(':').expect("<repository>:<tag>");
    let mut manifest = parsed(storage, &digest(storage, name).expect("the tag"));
    for layer in manifest["layers"].as_array_mut().expect("layers of the manifest") {
        let file = fs::File::open(blob(storage, layer["digest"].as_str().expect("a digest"))).expect("the blob");
        let mut tar = Vec::new();
        MultiGzDecoder::new(file).read_to_end(&mut tar).expect("a gzipped layer");
        let bytes = zstd(&tar);
        let digest = put_blob(storage, &repository(storage, repo), &bytes);
        let kind = "application/vnd.oci.image.layer.v1.tar+zstd";
        *layer = json!({"mediaType": kind, "size": bytes.len(), "digest": digest});
    }
    put_manifest(storage, name, &manifest);
}

/// A frame of zstd whose blocks are as they were, with a window of 128 KiB. RFC 8878, 3.1.1
fn zstd(content: &[u8]) -> Vec<u8> {
    let mut frame = b"\x28\xb5\x2f\xfd\x00\x38".to_vec();
    let blocks: Vec<&[u8]> = content.chunks(128 << 10).collect();
    for (n, block) in blocks.iter().enumerate() {
        let header = u32::from(n + 1 == blocks.len()) | u32::try_from(block.len() << 3).expect("a block's size");
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}

/// Puts a manifest, or an index, there.
pub(crate) fn put_manifest(storage: &Path, name: &str, manifest: &Value) -> String {
    let (repo, tag) = name.rsplit_once(':').expect("<repository>:<tag>");
    let repo = repository(storage, repo);
    let bytes = manifest.to_string().into_bytes();
    let digest = sha256(&bytes);
    put(&blob(storage, &digest), &bytes);
    put(&repo.join("_manifests/revisions/sha256").join(&digest[7..]).join("link"), digest.as_bytes());
    let tag = repo.join("_manifests/tags").join(tag);
    put(&tag.join("current/link"), digest.as_bytes());
    put(&tag.join("index/sha256").join(&digest[7..]).join("link"), digest.as_bytes());
    digest
}

/// The digest of a tag, where there is one.
pub(crate) fn digest(storage: &Path, name: &str) -> Option<String> {
    let (repo, tag) = name.rsplit_once(':').expect("<repository>:<tag>");
    fs::read_to_string(repository(storage, repo).join("_manifests/tags").join(tag).join("current/link")).ok()
}

fn parsed(storage: &Path, digest: &str) -> Value {
    let path = blob(storage, digest);
    let bytes = fs::read(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Digests of a manifest's config and layers.
fn blobs_of(manifest: &Value) -> Vec<String> {
    let layers = manifest["layers"].as_array().expect("layers of the manifest");
    let text = |d: &Value| d["digest"].as_str().expect("a digest").to_owned();
    std::iter::once(&manifest["config"]).chain(layers).map(text).collect()
}

/// The image of a tag as an OCI layout below `dir`, its blobs being the registry's files.
pub(crate) fn as_layout(storage: &Path, name: &str, dir: &Path) -> LayoutImage {
    let digest = digest(storage, name).unwrap_or_else(|| panic!("the registry has no {name}"));
    let dir = dir.join(name.replace(['/', ':'], "_")).join(&digest[7..]);
    let manifest = parsed(storage, &digest);
    let size = fs::metadata(blob(storage, &digest)).expect("the manifest").len();
    let descriptor = json!({"mediaType": manifest["mediaType"], "size": size, "digest": digest});
    put(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#);
    put(&dir.join("index.json"), json!({"schemaVersion": 2, "manifests": [descriptor]}).to_string().as_bytes());
    for digest in blobs_of(&manifest).into_iter().chain([digest]) {
        let to = dir.join("blobs/sha256").join(&digest[7..]);
        fs::create_dir_all(to.parent().expect("a parent")).expect("make the layout");
        let _ = fs::remove_file(&to);
        let _ = std::os::unix::fs::symlink(blob(storage, &digest), to);
    }
    LayoutImage::open(&dir)
}

/// Digests of all blobs, sorted.
pub(crate) fn blobs(storage: &Path) -> Vec<String> {
    let list = |dir: &Path| -> Vec<PathBuf> {
        fs::read_dir(dir).map(|entries| entries.flatten().map(|e| e.path()).collect()).unwrap_or_default()
    };
    let mut names: Vec<String> = list(&storage.join("docker/registry/v2/blobs/sha256"))
        .iter()
        .flat_map(|dir| list(dir))
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

/// Whether each blob of a tag's image is there, and linked into its repository.
pub(crate) fn is_whole(storage: &Path, name: &str) -> bool {
    let Some(digest) = digest(storage, name) else { return false };
    let (repo, _) = name.rsplit_once(':').expect("<repository>:<tag>");
    blobs_of(&parsed(storage, &digest)).iter().all(|digest| {
        let linked = repository(storage, repo).join("_layers/sha256").join(&digest[7..]).join("link").is_file();
        let intact = fs::read(blob(storage, digest)).is_ok_and(|bytes| &sha256(&bytes) == digest);
        linked && intact
    })
}

/// How many uploads to a repository were begun, and neither finished nor cancelled.
pub(crate) fn open_uploads(storage: &Path, repo: &str) -> usize {
    let uploads = fs::read_dir(repository(storage, repo).join("_uploads"));
    uploads.map_or(0, |uploads| uploads.flatten().filter(|entry| entry.path().join("startedat").exists()).count())
}

/// Takes a blob away, as a registry that lost it.
pub(crate) fn lose(storage: &Path, digest: &str) {
    fs::remove_dir_all(blob_dir(storage, digest)).unwrap_or_else(|e| panic!("lose {digest}: {e}"));
}
