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

/// The media types of layers that both families have, OCI's and Docker's.
const LAYER_TYPES: [[&str; 2]; 3] = [
    ["application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip"],
    ["application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"],
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
];

/// The type of the same layer in that family; `None` where the family has none (Docker's knows no zstd).
fn layer_type_of(media_type: &str, docker: bool) -> Option<&str> {
    let both = LAYER_TYPES.iter().find(|both| both.contains(&media_type));
    match (both, docker) {
        (Some([_, of_docker]), true) => Some(of_docker),
        (Some([of_oci, _]), false) => Some(of_oci),
        (None, true) => media_type.starts_with("application/vnd.docker.").then_some(media_type),
        (None, false) => Some(media_type),
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
    pub(crate) manifest_type: &'static str,
    pub(crate) manifest_digest: Digest,
}

impl Documents {
    /// Of an image all of whose layers have blobs. Layers may come from images of the other family (that of a previous run
    /// image): all are of this one here, for clients that know both refuse a manifest that mixes them. A layer that Docker
    /// has no type for makes the manifest OCI's.
    ///
    /// # Errors
    /// Naming a layer that has no blob.
    pub(crate) fn of(image: &Image) -> Result<Self> {
        let config = image.config.to_json();
        let config_digest = Digest::of(&config);
        let none = Fields::new();
        let blobs = image.layers.iter().filter_map(|layer| layer.blob.as_ref());
        let docker = image.docker && blobs.into_iter().all(|blob| layer_type_of(&blob.media_type, true).is_some());
        let layers = image.layers.iter().map(|layer| match &layer.blob {
            Some(blob) => {
                let further = image.descriptors.get(&blob.digest).unwrap_or(&none);
                let media_type = layer_type_of(&blob.media_type, docker).unwrap_or(&blob.media_type);
                Ok(descriptor(media_type, blob.size, &blob.digest, further))
            }
            None => Err(Error::NotFound(format!("layer {} has no blob", layer.diff_id))),
        });
        let layers = layers.collect::<Result<Vec<_>>>()?.join(",");
        let mut out = json::Object::default();
        out.field("schemaVersion", &2);
        out.field("mediaType", manifest_type(docker));
        out.raw("config", &descriptor(config_type(docker), config.len() as u64, &config_digest, &none));
        out.raw("layers", &format!("[{layers}]"));
        out.field_if(!image.annotations.is_empty(), "annotations", &image.annotations);
        let manifest = out.end().into_bytes();
        let manifest_digest = Digest::of(&manifest);
        Ok(Self { config, manifest, manifest_type: manifest_type(docker), manifest_digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Blob, BlobSource, History, Layer};

    /// As the image's family, and the types of its layers, before and after.
    #[test]
    fn layers_of_other_images_become_the_manifest_s_family() {
        let [[oci, docker], [oci_tar, docker_tar], _] = LAYER_TYPES;
        let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
        let own = "application/vnd.acme.layer";
        for (docker_before, before, docker_after, after) in [
            (true, vec![docker, oci], true, vec![docker, docker]),
            (false, vec![docker, oci], false, vec![oci, oci]),
            (true, vec![docker, oci_tar], true, vec![docker, docker_tar]),
            (false, vec![zstd, docker], false, vec![zstd, oci]),
            (true, vec![docker, zstd], false, vec![oci, zstd]),
            (false, vec![own, docker], false, vec![own, oci]),
        ] {
            let mut image = Image { docker: docker_before, ..Image::default() };
            for media_type in &before {
                let digest = Digest::of(media_type.as_bytes());
                let source = BlobSource::Layout("/nowhere".into());
                let blob = Blob { digest: digest.clone(), size: 1, media_type: (*media_type).to_owned(), source };
                image.push(Layer { diff_id: digest, blob: Some(blob), recipe: None }, History::default());
            }
            let documents = Documents::of(&image).unwrap();
            let manifest: Value = serde_json::from_slice(&documents.manifest).unwrap();
            let types: Vec<_> = manifest["layers"].as_array().unwrap().iter().map(|l| &l["mediaType"]).collect();
            assert_eq!(types, after, "{before:?}");
            assert_eq!(manifest["mediaType"], manifest_type(docker_after));
            assert_eq!(manifest["config"]["mediaType"], config_type(docker_after));
            assert_eq!(documents.manifest_type, manifest_type(docker_after));
        }
    }
}
