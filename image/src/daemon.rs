//! Images in a Docker daemon, by its Engine API: dockerd with its own or containerd's image store, and podman's
//! service.
//!
//! An image is loaded as a tar whose layers are streamed from their recipes, uncompressed, as fast as the daemon takes
//! them. dockerd's own store knows chains of layers: what an image there begins with need not be sent. Layers that
//! nobody here can make again come from a directory of tars, or from the daemon, which only gives whole images.

mod archive;
mod connections;
mod host;
mod http;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read, Seek as _, Write},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use self::{
    archive::{Content, Stored},
    connections::Connections,
    host::Host,
    http::{Answer, Request},
};
use crate::{
    Config, Digest, Error, History, Image, ImageId, Layer, Reference, Result, SaveResult, Saved,
    image::host_architecture,
};

/// No answer but a saved image is longer.
const MAX_ANSWER: u64 = 64 << 20;
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
struct Inspected {
    id: String,
    created: Option<String>,
    author: Option<String>,
    architecture: String,
    variant: Option<String>,
    os: String,
    os_version: Option<String>,
    config: Option<Map<String, Value>>,
    #[serde(rename = "RootFS")]
    root_fs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RootFs {
    layers: Option<Vec<Digest>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Step {
    created_by: String,
    comment: String,
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

fn image_of(inspected: Inspected, mut steps: Vec<Step>, id: String) -> Result<Image> {
    let diff_ids = inspected.root_fs.layers.unwrap_or_default();
    let text = json!({
        "architecture": inspected.architecture, "author": inspected.author, "created": inspected.created,
        "os": inspected.os, "os.version": inspected.os_version, "variant": inspected.variant,
        "config": inspected.config, "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let mut config = Config::parse(text.to_string().as_bytes())?;
    // The daemon tells the newest first.
    steps.reverse();
    let filled = |text: String| Some(text).filter(|text| !text.is_empty());
    let step = |step: Step| History {
        created_by: filled(step.created_by),
        comment: filled(step.comment),
        ..History::default()
    };
    config.history = steps.into_iter().map(step).collect();
    let layer = |diff_id| Layer { diff_id, blob: None, recipe: None };
    let layers = diff_ids.into_iter().map(layer).collect();
    let mut image = Image { config, layers, docker: true, id: Some(ImageId::Daemon(id)), ..Image::default() };
    // Steps that made no layer are not told from others.
    image.normalise_history();
    Ok(image)
}

fn hex(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

fn platform() -> String {
    json!({ "os": "linux", "architecture": host_architecture() }).to_string()
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim_start_matches('v').split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
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

fn in_image(name: &str, error: &Error) -> Error {
    let text = format!("image {name}: {error}");
    match error {
        Error::NotFound(_) => Error::NotFound(text),
        Error::Unauthorized(_) => Error::Unauthorized(text),
        Error::Corrupt(_) => Error::Corrupt(text),
        _ => Error::Remote(text),
    }
}

/// An error where the status says so, in the daemon's words.
fn check(answer: &mut Answer<'_>) -> Result<()> {
    #[derive(Deserialize)]
    struct Failed {
        message: String,
    }
    if answer.status < 400 {
        return Ok(());
    }
    let body = answer.read_all(MAX_ANSWER).unwrap_or_default();
    let message = serde_json::from_slice(&body).map(|failed: Failed| failed.message);
    let message = message.unwrap_or_else(|_| String::from_utf8_lossy(&body).trim().to_owned());
    let text = format!("the daemon answers {}: {message}", answer.status);
    Err(match answer.status {
        401 | 403 => Error::Unauthorized(text),
        404 => Error::NotFound(text),
        _ => Error::Remote(text),
    })
}

/// What came of loading an image is a stream of messages; one of them may be an error.
fn check_stream(answer: &mut Answer<'_>) -> Result<()> {
    for message in serde_json::Deserializer::from_reader(io::BufReader::new(answer)).into_iter::<Value>() {
        let message = message.map_err(|e| Error::Remote(format!("parsing daemon response: {e}")))?;
        let text = message.pointer("/errorDetail/message").or(message.get("error")).and_then(Value::as_str);
        if let Some(text) = text {
            return Err(Error::Remote(format!("embedded daemon response: {text}")));
        }
    }
    Ok(())
}

/// For a query.
fn encode(text: &str) -> String {
    encode_but(text, b"")
}

/// For a path: names of images keep their shape.
fn encode_path(text: &str) -> String {
    encode_but(text, b"/:@")
}

fn encode_but(text: &str, kept: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            let digit = |n: u8| char::from_digit(n.into(), 16).unwrap_or_default().to_ascii_uppercase();
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_requests() {
        assert_eq!(encode_path("a.io:5/b/c:d@sha256:0 ?#\r\né"), "a.io:5/b/c:d@sha256:0%20%3F%23%0D%0A%C3%A9");
        assert_eq!(encode("docker.io/a b"), "docker.io%2Fa%20b");
        assert_eq!(
            [parse_version("1.41"), parse_version("v1.9"), parse_version("1")],
            [Some((1, 41)), Some((1, 9)), None]
        );
        for (name, tag) in [("ab", "docker.io/library/ab:latest"), ("x.io/ab:1", "x.io/ab:1")] {
            let reference = tag_of(name).unwrap();
            assert_eq!(format!("{}:{}", repository(&reference), reference.identifier()), tag);
        }
        assert!(tag_of(&format!("ab@{}", Digest::of(b""))).is_err());
    }

    #[test]
    fn an_inspected_image() {
        let base = Digest::of(b"base");
        let text = json!({
            "Id": "sha256:0123", "Created": "2020-01-01T00:00:00Z", "Os": "linux", "Architecture": "arm64",
            "Variant": "v8", "Author": "", "OsVersion": "",
            "Config": {
                "Hostname": "", "Env": ["A=b"], "Cmd": null, "Labels": {"l": "v"}, "User": "1000", "Volumes": null,
                "Healthcheck": {"Test": ["CMD", "true"]}, "Unknown": 1,
            },
            "RootFS": {"Type": "layers", "Layers": [base]},
        });
        let inspected: Inspected = serde_json::from_value(text).unwrap();
        let step = |text: &str| Step { created_by: text.to_owned(), comment: String::new() };
        let image = image_of(inspected, vec![step("first")], "0123".to_owned()).unwrap();
        assert_eq!(image.id.unwrap().to_string(), "0123");
        assert_eq!(image.layers.len(), 1);
        assert!(image.docker);
        let json: Value = serde_json::from_slice(&image.config.to_json()).unwrap();
        assert_eq!(
            json,
            json!({
                "architecture": "arm64", "variant": "v8", "os": "linux", "created": "2020-01-01T00:00:00Z",
                "history": [{"created_by": "first"}], "rootfs": {"type": "layers", "diff_ids": [base]},
                "config": {
                    "Env": ["A=b"], "Labels": {"l": "v"}, "User": "1000", "Healthcheck": {"Test": ["CMD", "true"]},
                    "Unknown": 1,
                },
            })
        );
        let steps = vec![step("an ENV"), step("the layer")];
        let inspected = Inspected { root_fs: RootFs { layers: Some(vec![base]) }, ..Inspected::default() };
        let image = image_of(inspected, steps, String::new()).unwrap();
        assert_eq!(image.config.history, [History::default()], "which step made the layer is not known");
    }
}
