//! Image manifests, written in the field order of Go's structs.

use serde::Serialize;
use std::collections::BTreeMap;

use crate::{Blob, Digest, Error, Image, Result, json};

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

/// What is written of content kept elsewhere.
#[derive(Debug, Serialize)]
pub(crate) struct Descriptor<'a> {
    #[serde(rename = "mediaType")]
    pub(crate) media_type: &'a str,
    pub(crate) size: u64,
    pub(crate) digest: &'a Digest,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl<'a> From<&'a Blob> for Descriptor<'a> {
    fn from(blob: &'a Blob) -> Self {
        Self { media_type: &blob.media_type, size: blob.size, digest: &blob.digest, annotations: BTreeMap::new() }
    }
}

/// A manifest and the config it names, ready to be stored.
#[derive(Debug)]
pub(crate) struct Documents {
    pub(crate) config: Vec<u8>,
    pub(crate) config_digest: Digest,
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
        let layers: Vec<Descriptor<'_>> = image
            .layers
            .iter()
            .map(|layer| match &layer.blob {
                Some(blob) => Ok(Descriptor::from(blob)),
                None => Err(Error::NotFound(format!("layer {} has no blob", layer.diff_id))),
            })
            .collect::<Result<_>>()?;
        let mut out = json::Object::default();
        out.field("schemaVersion", &2);
        out.field("mediaType", manifest_type(image.docker));
        let descriptor = Descriptor {
            media_type: config_type(image.docker),
            size: config.len() as u64,
            digest: &config_digest,
            annotations: BTreeMap::new(),
        };
        out.field("config", &descriptor);
        out.field("layers", &layers);
        out.field_if(!image.annotations.is_empty(), "annotations", &image.annotations);
        let manifest = out.end().into_bytes();
        let manifest_digest = Digest::of(&manifest);
        Ok(Self { config, config_digest, manifest, manifest_digest })
    }
}
