//! Reading images as an outsider would: OCI layouts, their manifests and configs as JSON, their layers as tar entries.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The one image of an OCI layout.
#[derive(Clone, Debug)]
pub struct LayoutImage {
    /// The layout's directory.
    pub dir: PathBuf,
    pub manifest: Value,
    pub config: Value,
}

/// One entry of a layer's tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarEntry {
    /// As written, without a trailing slash.
    pub path: String,
    /// tar's type flag: `0` file, `1` hard link, `2` symbolic link, `5` directory.
    pub kind: char,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub user: String,
    pub group: String,
    /// Seconds since 1970.
    pub mtime: u64,
    /// The target of a link.
    pub link: Option<String>,
    /// What is in a file.
    pub content: Vec<u8>,
}

impl LayoutImage {
    /// Reads the layout in `dir`.
    /// # Panics
    /// Where it is not one, or does not hold exactly one image.
    pub fn open(dir: &Path) -> Self {
        let layout = json(&fs::read(dir.join("oci-layout")).expect("oci-layout"));
        assert_eq!(layout["imageLayoutVersion"], "1.0.0", "{}", dir.display());
        let index = json(&fs::read(dir.join("index.json")).expect("index.json"));
        let manifests = index["manifests"].as_array().expect("manifests of index.json");
        assert_eq!(manifests.len(), 1, "{}: {index}", dir.display());
        let manifest = json(&blob(dir, &manifests[0]));
        let config = json(&blob(dir, &manifest["config"]));
        Self { dir: dir.to_path_buf(), manifest, config }
    }

    /// The manifest's digest.
    /// # Panics
    /// Where index.json has gone since.
    pub fn digest(&self) -> String {
        let index = json(&fs::read(self.dir.join("index.json")).expect("index.json"));
        text(&index["manifests"][0]["digest"])
    }

    /// The value of a label, parsed as JSON.
    /// # Panics
    /// Where it is there and no JSON.
    pub fn label_json(&self, key: &str) -> Option<Value> {
        self.label(key).map(|label| json(label.as_bytes()))
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<String> {
        self.config["config"]["Labels"][key].as_str().map(str::to_owned)
    }

    /// The value of a variable of the image's environment.
    pub fn env(&self, name: &str) -> Option<String> {
        let env = self.config["config"]["Env"].as_array()?;
        env.iter()
            .filter_map(Value::as_str)
            .filter_map(|e| e.split_once('='))
            .find(|(k, _)| *k == name)
            .map(|(_, v)| v.to_owned())
    }

    /// The diff IDs, bottom layer first.
    /// # Panics
    /// Where the config has none.
    pub fn diff_ids(&self) -> Vec<String> {
        self.config["rootfs"]["diff_ids"].as_array().expect("diff_ids").iter().map(text).collect()
    }

    /// The entries of layer `number`, bottom layer first.
    /// # Panics
    /// Where the layer is not in the layout (a sparse one), or is no tar.
    pub fn layer(&self, number: usize) -> Vec<TarEntry> {
        let descriptor = &self.manifest["layers"][number];
        tar_entries(&self.dir.join(blob_path(descriptor)))
    }

    /// Checks what every reader of the image relies on: as many diff IDs as layers, digests and sizes of all blobs as
    /// the manifest says, diff IDs those of the uncompressed layers, one history entry per layer (where there is
    /// history). Layers that a sparse layout leaves out are not looked at.
    /// # Panics
    /// Where something is wrong, saying what.
    pub fn validate(&self) {
        let layers = self.manifest["layers"].as_array().expect("layers of the manifest");
        let diff_ids = self.diff_ids();
        assert_eq!(layers.len(), diff_ids.len(), "layers and diff IDs");
        blob(&self.dir, &self.manifest["config"]);
        for (descriptor, diff_id) in layers.iter().zip(&diff_ids) {
            let path = self.dir.join(blob_path(descriptor));
            if path.exists() {
                blob(&self.dir, descriptor);
                let mut hash = Sha256::new();
                io::copy(&mut uncompressed(&path), &mut hash).expect("read the layer");
                assert_eq!(&format!("sha256:{:x}", hash.finalize()), diff_id, "diff ID of {}", path.display());
            }
        }
        if let Some(history) = self.config["history"].as_array() {
            let of_layers = history.iter().filter(|h| h["empty_layer"] != true).count();
            assert!(history.is_empty() || of_layers == layers.len(), "history of {} layers: {history:?}", layers.len());
        }
    }
}

/// The entries of a tar, gzipped or not, in its order.
/// # Panics
/// Where it is none.
pub fn tar_entries(path: &Path) -> Vec<TarEntry> {
    let read = || -> io::Result<Vec<TarEntry>> {
        let mut entries = Vec::new();
        for entry in tar::Archive::new(uncompressed(path)).entries()? {
            let mut entry = entry?;
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            let header = entry.header();
            let lossy = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
            entries.push(TarEntry {
                path: String::from_utf8_lossy(&entry.path_bytes()).trim_end_matches('/').to_owned(),
                kind: char::from(header.entry_type().as_byte()),
                mode: header.mode()?,
                uid: header.uid()?,
                gid: header.gid()?,
                user: lossy(header.username_bytes()),
                group: lossy(header.groupname_bytes()),
                mtime: header.mtime()?,
                link: entry.link_name_bytes().map(|link| String::from_utf8_lossy(&link).into_owned()),
                content,
            });
        }
        Ok(entries)
    };
    read().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn uncompressed(path: &Path) -> Box<dyn Read> {
    let open = || File::open(path).unwrap_or_else(|e| panic!("open {}: {e}", path.display()));
    let mut magic = [0; 2];
    if open().read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b] {
        Box::new(flate2::read::MultiGzDecoder::new(open()))
    } else {
        Box::new(BufReader::new(open()))
    }
}

fn blob_path(descriptor: &Value) -> PathBuf {
    Path::new("blobs").join(text(&descriptor["digest"]).replace(':', "/"))
}

/// A blob, checked against its descriptor.
fn blob(dir: &Path, descriptor: &Value) -> Vec<u8> {
    let path = dir.join(blob_path(descriptor));
    let bytes = fs::read(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    assert_eq!(descriptor["size"].as_u64(), Some(bytes.len() as u64), "size of {}", path.display());
    assert_eq!(format!("sha256:{:x}", Sha256::digest(&bytes)), text(&descriptor["digest"]), "{}", path.display());
    bytes
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(bytes)))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}")).to_owned()
}
