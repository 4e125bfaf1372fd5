//! Manifests and indexes: what is read of them, and how an image comes out.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    Blob, BlobSource, Config, Digest, Error, Image, ImageId, Layer, Reference, Result,
    manifest::{DOCKER_LIST, OCI_INDEX, manifest_type},
};

/// All that is understood.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// How the media types of layers begin.
const LAYERS: [&str; 2] = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];

/// A manifest or index as it was read, its digest checked.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) media_type: String,
    pub(super) bytes: std::sync::Arc<[u8]>,
    pub(super) digest: Digest,
}

/// The parts of an index and of a manifest that matter here.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Manifest {
    media_type: Option<String>,
    pub(super) config: Option<Descriptor>,
    pub(super) layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    platform: Option<Platform>,
}

#[derive(Deserialize, Clone, Default)]
#[serde(default)]
struct Platform {
    os: String,
    architecture: String,
}

impl Document {
    /// `content_type` is the header's; the document's own word counts more.
    pub(super) fn parse(&self, name: &str) -> Result<Manifest> {
        serde_json::from_slice(&self.bytes)
            .map_err(|e| Error::Corrupt(format!("manifest {} of {name}: {e}", self.digest)))
    }
}

/// Foreign layers are elsewhere by their nature.
pub(super) fn is_foreign(media_type: &str) -> bool {
    media_type.contains("nondistributable") || media_type.contains("foreign")
}

impl Descriptor {
    pub(super) fn is_foreign(&self) -> bool {
        is_foreign(&self.media_type)
    }
}

impl Manifest {
    /// Every blob it names.
    pub(super) fn blobs(&self) -> Vec<Digest> {
        self.config.iter().chain(self.layers.iter().flatten()).map(|d| d.digest.clone()).collect()
    }

    pub(super) fn is_index(&self, document: &Document) -> bool {
        let media_type = self.media_type(document);
        media_type == OCI_INDEX
            || media_type == DOCKER_LIST
            || self.manifests.is_some() && self.config.is_none() && self.layers.is_none()
    }

    fn media_type<'a>(&'a self, document: &'a Document) -> &'a str {
        self.media_type.as_deref().unwrap_or(&document.media_type)
    }

    /// Whether it is of Docker's family, or else of OCI's; `None`: of neither. Some servers of files have no media type for
    /// manifests, which in OCI's family may have none of their own: then those of what they name tell.
    fn is_docker(&self, document: &Document) -> Option<bool> {
        let media_type = self.media_type(document);
        if media_type == manifest_type(true) {
            return Some(true);
        }
        if media_type == manifest_type(false) || ["", "application/json"].contains(&media_type) {
            return Some(false);
        }
        let config = self.config.as_ref().map_or("", |config| &config.media_type);
        let layers = self.layers.iter().flatten().all(|layer| LAYERS.iter().any(|of| layer.media_type.starts_with(of)));
        if self.media_type.is_some() || !["text/plain", "application/octet-stream"].contains(&media_type) || !layers {
            return None;
        }
        let family = |name: &str| config.starts_with(&format!("application/vnd.{name}."));
        (family("docker") || family("oci")).then(|| family("docker"))
    }

    /// The entries of an index to look into, the fitting platform's image first, then nested indexes. An entry without
    /// a platform is taken for linux/amd64.
    pub(super) fn candidates(&self, architecture: &str) -> Vec<Descriptor> {
        let entries = self.manifests.as_deref().unwrap_or_default();
        let nested = |d: &&Descriptor| d.media_type == OCI_INDEX || d.media_type == DOCKER_LIST;
        let fits = |d: &&Descriptor| match &d.platform {
            Some(p) => p.os == "linux" && p.architecture == architecture,
            None => architecture == "amd64",
        };
        let images = entries.iter().filter(|d| !nested(d) && fits(d)).take(1);
        images.chain(entries.iter().filter(nested)).cloned().collect()
    }

    /// The image this manifest and its config make.
    pub(super) fn into_image(self, document: &Document, name: &Reference, config: &[u8]) -> Result<Image> {
        let corrupt = |why: String| Error::Corrupt(format!("image {name}: {why}"));
        let docker = self.is_docker(document).ok_or_else(|| {
            corrupt(format!("manifests of media type {} are not supported", self.media_type(document)))
        })?;
        let config = Config::parse(config).map_err(|e| corrupt(format!("config: {e}")))?;
        let blobs = self.layers.unwrap_or_default();
        if blobs.len() != config.diff_ids.len() {
            let counts = format!("{} layers in the manifest, {} in the config", blobs.len(), config.diff_ids.len());
            return Err(corrupt(counts));
        }
        let layer = |(diff_id, d): (&Digest, Descriptor)| Layer {
            diff_id: diff_id.clone(),
            blob: Some(Blob {
                digest: d.digest,
                size: d.size,
                media_type: d.media_type,
                source: BlobSource::Registry(name.clone()),
            }),
            recipe: None,
        };
        let layers = config.diff_ids.iter().zip(blobs).map(layer).collect();
        let id = ImageId::Registry {
            reference: name.with_digest(&document.digest),
            manifest_size: document.bytes.len() as u64,
        };
        let annotations = self.annotations.unwrap_or_default();
        Ok(Image { config, layers, docker, annotations, id: Some(id), ..Image::default() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn families_of_manifests() {
        let (docker, oci) = (manifest_type(true), manifest_type(false));
        let files = "application/octet-stream";
        let oci_layer = "application/vnd.oci.image.layer.v1.tar+gzip";
        let docker_layer = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        let oci_config = "application/vnd.oci.image.config.v1+json";
        let docker_config = "application/vnd.docker.container.image.v1+json";
        for (own, header, config, layer, expected) in [
            (Some(oci), docker, docker_config, docker_layer, Some(false)),
            (Some(docker), files, oci_config, oci_layer, Some(true)),
            (None, docker, docker_config, docker_layer, Some(true)),
            (None, "", "", "", Some(false)),
            (None, "application/json", "", "", Some(false)),
            (None, files, oci_config, oci_layer, Some(false)),
            (None, "text/plain", oci_config, oci_layer, Some(false)),
            (None, files, docker_config, docker_layer, Some(true)),
            (None, files, oci_config, "application/vnd.acme.chart", None),
            (None, files, "application/vnd.acme.config+json", oci_layer, None),
            (None, "application/vnd.docker.distribution.manifest.v1+prettyjws", oci_config, oci_layer, None),
            (None, "text/html", oci_config, oci_layer, None),
            (Some("application/vnd.acme+json"), files, oci_config, oci_layer, None),
        ] {
            let digest = Digest::of(b"");
            let mut json = serde_json::json!({
                "config": { "mediaType": config, "digest": digest, "size": 0 },
                "layers": [{ "mediaType": layer, "digest": digest, "size": 0 }],
            });
            if let Some(own) = own {
                json["mediaType"] = own.into();
            }
            let document = Document { media_type: header.into(), bytes: json.to_string().into_bytes().into(), digest };
            let manifest = document.parse("x").unwrap();
            assert_eq!(manifest.is_docker(&document), expected, "{own:?} {header} {config} {layer}");
        }
    }
}
