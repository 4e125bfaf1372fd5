//! Image manifests, written in the field order of Go's structs.

use serde_json::{Map, Value};

use crate::{Digest, Error, Image, Result, json};

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The media type of a manifest.
pub(crate) fn manifest_type(docker: bool) -> &'static str {
    if docker {
        "application/vnd.docker.distribution.manifest.v2+json"
    } else {
        "application/vnd.oci.image.manifest.v1+json"
    }
}

fn config_type(docker: bool) -> &'static str {
    if docker { "application/vnd.docker.container.image.v1+json" } else { "application/vnd.oci.image.config.v1+json" }
}

/// The media type of a new layer: that of its manifest's family.
pub(crate) fn layer_type(docker: bool) -> &'static str {
    if docker {
        "application/vnd.docker.image.rootfs.diff.tar.gzip"
    } else {
        "application/vnd.oci.image.layer.v1.tar+gzip"
    }
}

/// Further fields of a descriptor.
pub(crate) type Fields = Map<String, Value>;

const ORDER: [&str; 5] = ["data", "urls", "annotations", "platform", "artifactType"];

/// The descriptor of content kept elsewhere.
pub(crate) fn descriptor(media_type: &str, size: u64, digest: &Digest, further: &Fields) -> String {
    let mut out = json::Object::default();
    out.field("mediaType", media_type);
    out.field("size", &size);
    out.field("digest", digest);
    for key in ORDER {
        if let Some(value) = further.get(key).filter(|value| !json::is_empty(value)) {
            out.field(key, value);
        }
    }
    for (key, value) in further.iter().filter(|(key, _)| !ORDER.contains(&key.as_str())) {
        out.field(key, value);
    }
    out.end()
}

/// A manifest and the config it names, ready to be stored.
#[derive(Debug)]
pub(crate) struct Documents {
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) manifest_digest: Digest,
}

impl Documents {
    /// Of an image all of whose layers have blobs.
    ///
    /// # Errors
    /// Naming a layer that has no blob.
    pub(crate) fn of(image: &Image) -> Result<Self> {
        let config = image.config.to_json();
        let config_digest = Digest::of(&config);
        let none = Fields::new();
        let layers = image.layers.iter().map(|layer| match &layer.blob {
            Some(blob) => {
                let further = image.descriptors.get(&blob.digest).unwrap_or(&none);
                Ok(descriptor(&blob.media_type, blob.size, &blob.digest, further))
            }
            None => Err(Error::NotFound(format!("layer {} has no blob", layer.diff_id))),
        });
        let layers = layers.collect::<Result<Vec<_>>>()?.join(",");
        let mut out = json::Object::default();
        out.field("schemaVersion", &2);
        out.field("mediaType", manifest_type(image.docker));
        out.raw("config", &descriptor(config_type(image.docker), config.len() as u64, &config_digest, &none));
        out.raw("layers", &format!("[{layers}]"));
        out.field_if(!image.annotations.is_empty(), "annotations", &image.annotations);
        let manifest = out.end().into_bytes();
        let manifest_digest = Digest::of(&manifest);
        Ok(Self { config, manifest, manifest_digest })
    }
}
