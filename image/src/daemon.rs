//! Images in a Docker daemon, by its Engine API: dockerd with its own or containerd's image store, and podman's
//! service.
//!
//! An image is loaded as a tar whose layers are streamed from their recipes, uncompressed, as fast as the daemon takes
//! them. dockerd's own store knows chains of layers: what an image there begins with need not be sent. Layers that
//! nobody here can make again come from a directory of tars, or from the daemon, which only gives whole images.

mod api;
mod archive;
mod chunks;
mod connections;
mod host;
mod http;
mod inspected;
mod stored;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read, Seek as _, Write},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use self::{
    api::{MAX_ANSWER, check, check_stream, encode, encode_path, in_image, parse_version},
    archive::Content,
    connections::Connections,
    host::Host,
    http::Request,
    inspected::{Inspected, Step, image_of},
    stored::Stored,
};
use crate::{Digest, Error, Image, ImageId, Layer, Reference, Result, SaveResult, Saved, image::host_architecture};

/// The newest Engine API this was written for, and the one that engines which do not tell theirs are spoken to in.
const NEWEST: (u32, u32) = (1, 51);
const OLDEST: (u32, u32) = (1, 24);
/// Where images can be of several platforms, and one can be asked for.
const WITH_PLATFORMS: (u32, u32) = (1, 49);

/// A daemon, and the connections to it.
#[derive(Debug)]
pub struct Daemon {
    connections: Arc<Connections>,
    /// Of the Engine API, as spoken.
    version: String,
    /// An image can be asked for by its platform.
    platforms: bool,
    /// Podman says so; it wants every layer.
    podman: bool,
    /// Whether images are kept by containerd, once asked.
    containerd: OnceLock<bool>,
    /// Holds layers as `<diff ID>.tar`.
    layers: Option<PathBuf>,
    /// The layers of the images found so far, by ID: what is saved is made of them.
    found: Mutex<BTreeMap<String, Vec<Digest>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Info {
    driver_status: Option<Vec<Vec<String>>>,
}

impl Daemon {
    /// The daemon that `DOCKER_HOST` names, or the one at `/var/run/docker.sock`; `DOCKER_TLS_VERIFY`,
    /// `DOCKER_CERT_PATH` and `DOCKER_API_VERSION` count as they do for Docker's client. Call it while privileged: the
    /// connections opened here serve for all that follows.
    ///
    /// # Errors
    /// Naming the daemon, where it cannot be reached.
    pub fn open(env: &impl Fn(&str) -> Option<String>) -> Result<Self> {
        let connections = Connections::open(Host::from_env(env)?)?;
        let request = Request { method: "GET", target: "/_ping", host: connections.host.header(), patient: false };
        let (theirs, podman) = connections.call(&request, &mut |answer| {
            let podman = answer.header("libpod-api-version").is_some();
            Ok((answer.header("api-version").and_then(parse_version), podman))
        })?;
        let wanted = env("DOCKER_API_VERSION").filter(|version| !version.is_empty());
        let version = match &wanted {
            Some(version) => parse_version(version)
                .ok_or_else(|| Error::Remote(format!("DOCKER_API_VERSION {version:?} is no version")))?,
            None => theirs.unwrap_or(OLDEST).min(NEWEST),
        };
        Ok(Self {
            version: format!("{}.{}", version.0, version.1),
            platforms: version >= WITH_PLATFORMS && !podman,
            connections,
            podman,
            containerd: OnceLock::new(),
            layers: None,
            found: Mutex::default(),
        })
    }

    /// Looks for layers in this directory, as `<diff ID>.tar`, before it asks the daemon for a whole image.
    #[must_use]
    pub fn with_layers(self, dir: PathBuf) -> Self {
        Self { layers: Some(dir), ..self }
    }

    /// The image of this name or ID, for this machine's platform where there are several.
    ///
    /// # Errors
    /// Naming the image.
    pub fn find(&self, name: &str) -> Result<Option<Image>> {
        let Some(mut inspected) = self.inspect(name, "")? else { return Ok(None) };
        let id = hex(&inspected.id).to_owned();
        let mut query = String::new();
        if self.platforms && self.by_containerd() {
            let platform = format!("platform={}", encode(&platform()));
            // The image may be for other platforms only; that is for others to judge.
            if let Some(of_platform) = self.inspect(name, &platform)? {
                inspected = of_platform;
                query = platform;
            }
        }
        let steps: Vec<Step> = self.get_json(&format!("/images/{}/history?{query}", encode_path(name)), name)?;
        let image = image_of(inspected, steps, id.clone()).map_err(|e| in_image(name, &e))?;
        self.found().insert(id, image.config.diff_ids.clone());
        Ok(Some(image))
    }

    fn found(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Digest>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inspect(&self, name: &str, query: &str) -> Result<Option<Inspected>> {
        match self.get_json(&format!("/images/{}/json?{query}", encode_path(name)), name) {
            Err(Error::NotFound(_)) => Ok(None),
            other => other.map(Some),
        }
    }

    fn by_containerd(&self) -> bool {
        *self.containerd.get_or_init(|| {
            let info: Info = self.get_json("/info", "info").unwrap_or_default();
            let is_containerd = |pair: &Vec<String>| {
                matches!(pair.as_slice(), [key, value] if key == "driver-type" && value.starts_with("io.containerd."))
            };
            info.driver_status.unwrap_or_default().iter().any(is_containerd)
        })
    }

    /// The uncompressed layer of an image by its ID.
    pub(crate) fn read_layer(&self, id: &str, diff_id: &Digest) -> Result<Box<dyn Read + Send>> {
        if let Some(file) = self.kept_layer(diff_id) {
            return Ok(Box::new(file));
        }
        let wanted = BTreeSet::from([diff_id.clone()]);
        let stored = self.download(id, &wanted)?.remove(diff_id);
        let stored = stored.ok_or_else(|| Error::NotFound(format!("image {id} has no layer {diff_id}")))?;
        let mut magic = [0; 4];
        let known = stored.reader().read(&mut magic).unwrap_or_default();
        let content: Box<dyn Read + Send> = match stored {
            Stored::Bytes(bytes) => Box::new(io::Cursor::new(bytes)),
            Stored::File(mut file) => {
                file.rewind().map_err(|e| Error::Io(format!("layer {diff_id}: {e}")))?;
                Box::new(file)
            }
        };
        match magic.get(..known) {
            Some([0x1f, 0x8b, ..]) => Ok(Box::new(MultiGzDecoder::new(content))),
            Some([0x28, 0xb5, 0x2f, 0xfd]) => {
                Err(Error::Corrupt(format!("layer {diff_id} of image {id}: zstd is not supported")))
            }
            _ => Ok(content),
        }
    }

    /// A layer that is in the directory, and is what its name says.
    fn kept_layer(&self, diff_id: &Digest) -> Option<File> {
        let path = self.layers.as_ref()?.join(format!("{diff_id}.tar"));
        let mut file = File::open(&path).ok()?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => hasher.update(buffer.get(..n).unwrap_or_default()),
                Err(e) => {
                    tracing::debug!("read {}: {e}", path.display());
                    return None;
                }
            }
        }
        if Digest::from_hasher(hasher) != *diff_id {
            tracing::debug!("{} is not what its name says", path.display());
            return None;
        }
        file.rewind().ok()?;
        Some(file)
    }

    /// Loads the image under the first name, then gives it all of them.
    ///
    /// # Errors
    /// Where the first name is none.
    pub(crate) fn save(&self, image: &Image, names: &[String]) -> Result<Saved> {
        let parsed: Vec<Result<Reference>> = names.iter().map(|name| tag_of(name)).collect();
        let primary = match parsed.first() {
            Some(Ok(primary)) => format!("{}:{}", repository(primary), primary.identifier()),
            Some(Err(e)) => return Err(Error::Reference(e.to_string())),
            None => return Err(Error::Reference("there is no name to save the image under".to_owned())),
        };
        let loaded = self.load(image, &primary);
        let results = parsed.into_iter().zip(names).map(|(reference, name)| {
            let error = match &loaded {
                Ok(id) => reference.and_then(|reference| self.tag(id, &reference)).err(),
                Err(e) => Some(Error::Remote(e.to_string())),
            };
            SaveResult { name: name.clone(), error }
        });
        let names = results.collect();
        Ok(Saved { names, id: loaded.ok().map(ImageId::Daemon), manifest_size: None })
    }

    fn tag(&self, id: &str, name: &Reference) -> Result<()> {
        let (repository, tag) = (encode(&repository(name)), encode(name.identifier()));
        let target = self.target(&format!("/images/sha256:{id}/tag?repo={repository}&tag={tag}"));
        let request = Request { method: "POST", target: &target, host: self.connections.host.header(), patient: true };
        self.connections.call(&request, &mut |answer| check(answer)).map_err(|e| in_image(&name.to_string(), &e))
    }

    /// The ID of the image the daemon has made.
    fn load(&self, image: &Image, name: &str) -> Result<String> {
        let failed = |e: &Error| Error::Remote(format!("loading image {name:?}. first error: {e}"));
        let mut downloaded = BTreeMap::new();
        let present = if self.podman || self.by_containerd() { 0 } else { self.present(image) };
        let mut loaded = self.try_load(image, name, present, &mut downloaded);
        if let (Err(Error::Remote(e) | Error::Corrupt(e) | Error::NotFound(e)), true) = (&loaded, present > 0) {
            tracing::debug!("Loading image {name:?} with the {present} layers the daemon should have, too: {e}");
            loaded = self.try_load(image, name, 0, &mut downloaded);
        }
        loaded.map_err(|e| failed(&e))?;
        let inspected = self.inspect(name, "")?;
        let inspected =
            inspected.ok_or_else(|| Error::Remote(format!("saving image {name:?}: it is not there after loading")))?;
        Ok(hex(&inspected.id).to_owned())
    }

    /// How many layers, from the bottom, are those of an image in the daemon.
    fn present(&self, image: &Image) -> usize {
        let same =
            |layers: &Vec<Digest>| image.layers.iter().zip(layers).take_while(|(l, id)| l.diff_id == **id).count();
        self.found().values().map(same).max().unwrap_or_default()
    }

    /// Loads it, the first `present` layers left out.
    fn try_load(
        &self,
        image: &Image,
        name: &str,
        present: usize,
        downloaded: &mut BTreeMap<Digest, Stored>,
    ) -> Result<()> {
        self.fill(image.layers.get(present..).unwrap_or_default(), downloaded)?;
        let downloaded = &*downloaded;
        let mut layers: Vec<(&Digest, Content<'_>)> = Vec::with_capacity(image.layers.len());
        for (index, layer) in image.layers.iter().enumerate() {
            let id = &layer.diff_id;
            let content = match (&layer.recipe, downloaded.get(id)) {
                _ if index < present => Content::Blank,
                (Some(recipe), _) => Content::Recipe(recipe),
                (None, Some(stored)) => Content::Stored(stored),
                (None, None) => return Err(Error::NotFound(format!("layer {id} is nowhere to be had"))),
            };
            layers.push((id, content));
        }
        let config = image.config.to_json();
        let target = self.target("/images/load?quiet=1");
        let request = Request { method: "POST", target: &target, host: self.connections.host.header(), patient: true };
        let mut body = |out: &mut dyn Write| archive::write(out, &config, name, &layers);
        self.connections.send(&request, &mut body, &mut |answer| {
            check(answer)?;
            check_stream(answer)
        })
    }

    /// Gets the layers that have no recipe: from the directory, else with all others of their image.
    fn fill(&self, layers: &[Layer], downloaded: &mut BTreeMap<Digest, Stored>) -> Result<()> {
        let mut missing: BTreeMap<String, BTreeSet<Digest>> = BTreeMap::new();
        for layer in layers.iter().filter(|layer| layer.recipe.is_none()) {
            if downloaded.contains_key(&layer.diff_id) {
                continue;
            }
            if let Some(file) = self.kept_layer(&layer.diff_id) {
                downloaded.insert(layer.diff_id.clone(), Stored::File(file));
            } else if let Some((id, _)) = self.found().iter().find(|(_, layers)| layers.contains(&layer.diff_id)) {
                missing.entry(id.clone()).or_default().insert(layer.diff_id.clone());
            }
        }
        for (id, wanted) in missing {
            downloaded.append(&mut self.download(&id, &wanted)?);
        }
        Ok(())
    }

    /// These layers of an image. The daemon sends all.
    fn download(&self, id: &str, wanted: &BTreeSet<Digest>) -> Result<BTreeMap<Digest, Stored>> {
        let name = format!("sha256:{id}");
        let failed = |e: &Error| Error::Remote(format!("saving image with ID {id:?} from the daemon: {e}"));
        let all = self.found().get(id).cloned().unwrap_or_default();
        let by_platform = self.platforms && self.by_containerd();
        let query = if by_platform { format!("?platform={}", encode(&platform())) } else { String::new() };
        let target = self.target(&format!("/images/{name}/get{query}"));
        let request = Request { method: "GET", target: &target, host: self.connections.host.header(), patient: true };
        let dir = std::env::temp_dir();
        let downloaded = self.connections.call(&request, &mut |answer| {
            check(answer)?;
            archive::read(answer, &all, wanted, &dir)
        });
        downloaded.map_err(|e| failed(&e))
    }

    fn target(&self, path: &str) -> String {
        format!("/v{}{path}", self.version)
    }

    fn get_json<T: for<'de> Deserialize<'de>>(&self, path: &str, name: &str) -> Result<T> {
        let target = self.target(path.trim_end_matches('?'));
        let request = Request { method: "GET", target: &target, host: self.connections.host.header(), patient: false };
        let bytes = self.connections.call(&request, &mut |answer| {
            check(answer)?;
            answer.read_all(MAX_ANSWER).map_err(|e| Error::Remote(e.to_string()))
        });
        let bytes = bytes.map_err(|e| in_image(name, &e))?;
        serde_json::from_slice(&bytes).map_err(|e| Error::Remote(format!("{name}: parsing daemon response: {e}")))
    }
}

fn hex(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

fn platform() -> String {
    json!({ "os": "linux", "architecture": host_architecture() }).to_string()
}

fn tag_of(name: &str) -> Result<Reference> {
    let reference = Reference::parse(name)?;
    match reference.digest {
        None => Ok(reference),
        Some(_) => Err(Error::Reference(format!("cannot tag image as {name}: it is named by a digest"))),
    }
}

/// As the daemon's own tools write it.
fn repository(reference: &Reference) -> String {
    match reference.registry.as_str() {
        "index.docker.io" => format!("docker.io/{}", reference.repository),
        _ => reference.context(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_images_get() {
        for (name, tag) in [("ab", "docker.io/library/ab:latest"), ("x.io/ab:1", "x.io/ab:1")] {
            let reference = tag_of(name).unwrap();
            assert_eq!(format!("{}:{}", repository(&reference), reference.identifier()), tag);
        }
        assert!(tag_of(&format!("ab@{}", Digest::of(b""))).is_err());
    }
}
