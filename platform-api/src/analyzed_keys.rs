//! The keys of analyzed.toml, and how they become values. `[metadata]` is the lifecycle label in other words: TOML's
//! key names, and `metadata` for `data`.

use std::collections::BTreeMap;

use buildpack_api::{Distro, Store, Target};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::{
    Analyzed, BuildImage, BuildpackLayers, Data, LayerData, LayerSha, LayersMetadata, RunImage, RunImageForLabel,
    RunImageLabel, StackLabel, TargetData, labels::app_layers_of,
};

/// The file, key by key.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct AnalyzedFile {
    #[serde(default)]
    image: ImageKeys,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    build_image: Option<BuildImageKeys>,
    #[serde(default)]
    metadata: MetadataKeys,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run_image: Option<RunImageKeys>,
}

#[derive(Default, Serialize, Deserialize)]
struct ImageKeys {
    #[serde(default)]
    reference: String,
}

#[derive(Serialize, Deserialize)]
struct BuildImageKeys {
    #[serde(default)]
    reference: String,
    #[serde(default, skip_serializing_if = "is_false")]
    extend: bool,
}

#[derive(Serialize, Deserialize)]
struct RunImageKeys {
    #[serde(default)]
    reference: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    image: String,
    #[serde(default, skip_serializing_if = "is_false")]
    extend: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<TargetKeys>,
}

#[derive(Serialize, Deserialize)]
struct TargetKeys {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    arch: String,
    /// The name that platforms read. The spec's is `variant`.
    #[serde(default, rename = "arch-variant", skip_serializing_if = "String::is_empty")]
    arch_variant: String,
    #[serde(default, skip_serializing)]
    variant: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    distro: Option<Distro>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MetadataKeys {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exec_env: Option<String>,
    /// Any shape is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    app: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sbom: Option<LayerSha>,
    #[serde(default)]
    config: LayerSha,
    #[serde(default)]
    launcher: LayerSha,
    #[serde(default)]
    process_types: LayerSha,
    #[serde(default)]
    run_image: RunImageLabelKeys,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stack: Option<StackKeys>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    buildpacks: Vec<BuildpackKeys>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RunImageLabelKeys {
    #[serde(default)]
    top_layer: String,
    #[serde(default)]
    reference: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    image: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mirrors: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct StackKeys {
    #[serde(default)]
    run_image: RunImageForLabel,
}

#[derive(Serialize, Deserialize)]
struct BuildpackKeys {
    key: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    layers: BTreeMap<String, LayerKeys>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    store: Option<Store>,
}

#[derive(Serialize, Deserialize)]
struct LayerKeys {
    #[serde(default)]
    sha: String,
    #[serde(default)]
    build: bool,
    #[serde(default)]
    launch: bool,
    #[serde(default)]
    cache: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_false(value: &bool) -> bool {
    !value
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl From<AnalyzedFile> for Analyzed {
    fn from(file: AnalyzedFile) -> Self {
        Self {
            previous_image: some(file.image.reference),
            metadata: file.metadata.into(),
            run_image: file.run_image.map(|keys| RunImage {
                reference: keys.reference,
                image: some(keys.image),
                extend: keys.extend,
                target: keys.target.map(TargetData::from),
            }),
            build_image: file.build_image.map(|keys| BuildImage { reference: keys.reference, extend: keys.extend }),
        }
    }
}

impl From<Analyzed> for AnalyzedFile {
    fn from(analyzed: Analyzed) -> Self {
        Self {
            image: ImageKeys { reference: analyzed.previous_image.unwrap_or_default() },
            build_image: analyzed
                .build_image
                .map(|image| BuildImageKeys { reference: image.reference, extend: image.extend }),
            metadata: analyzed.metadata.into(),
            run_image: analyzed.run_image.map(|image| RunImageKeys {
                reference: image.reference,
                image: image.image.unwrap_or_default(),
                extend: image.extend,
                target: image.target.map(TargetKeys::from),
            }),
        }
    }
}

impl From<TargetKeys> for TargetData {
    fn from(keys: TargetKeys) -> Self {
        Self {
            id: some(keys.id),
            target: Target {
                os: keys.os,
                arch: keys.arch,
                variant: if keys.arch_variant.is_empty() { keys.variant } else { keys.arch_variant },
                distros: keys.distro.into_iter().collect(),
            },
        }
    }
}

impl From<TargetData> for TargetKeys {
    fn from(data: TargetData) -> Self {
        Self {
            id: data.id.unwrap_or_default(),
            os: data.target.os,
            arch: data.target.arch,
            arch_variant: data.target.variant,
            variant: String::new(),
            distro: data.target.distros.into_iter().next(),
        }
    }
}

impl From<MetadataKeys> for LayersMetadata {
    fn from(keys: MetadataKeys) -> Self {
        Self {
            app: app_layers_of(keys.app.as_ref()),
            sbom: keys.sbom,
            buildpacks: keys.buildpacks.into_iter().map(BuildpackLayers::from).collect(),
            config: keys.config,
            launcher: keys.launcher,
            process_types: keys.process_types,
            run_image: RunImageLabel {
                top_layer: keys.run_image.top_layer,
                reference: keys.run_image.reference,
                image: keys.run_image.image,
                mirrors: keys.run_image.mirrors,
            },
            stack: keys.stack.map(|stack| StackLabel { run_image: stack.run_image }),
            exec_env: keys.exec_env,
        }
    }
}

impl From<LayersMetadata> for MetadataKeys {
    fn from(metadata: LayersMetadata) -> Self {
        let app =
            metadata.app.into_iter().map(|layer| Value::Table(Table::from_iter([("sha".into(), layer.sha.into())])));
        Self {
            exec_env: metadata.exec_env,
            app: Some(Value::Array(app.collect())),
            sbom: metadata.sbom,
            config: metadata.config,
            launcher: metadata.launcher,
            process_types: metadata.process_types,
            run_image: RunImageLabelKeys {
                top_layer: metadata.run_image.top_layer,
                reference: metadata.run_image.reference,
                image: metadata.run_image.image,
                mirrors: metadata.run_image.mirrors,
            },
            stack: metadata.stack.map(|stack| StackKeys { run_image: stack.run_image }),
            buildpacks: metadata.buildpacks.into_iter().map(BuildpackKeys::from).collect(),
        }
    }
}

impl From<BuildpackKeys> for BuildpackLayers {
    fn from(keys: BuildpackKeys) -> Self {
        let layer = |keys: LayerKeys| LayerData {
            sha: keys.sha,
            data: match keys.metadata {
                Some(Value::Table(table)) => Some(Data(table)),
                _ => None,
            },
            build: keys.build,
            launch: keys.launch,
            cache: keys.cache,
        };
        Self {
            key: keys.key,
            version: keys.version,
            layers: keys.layers.into_iter().map(|(name, keys)| (name, layer(keys))).collect(),
            store: keys.store,
        }
    }
}

impl From<BuildpackLayers> for BuildpackKeys {
    fn from(layers: BuildpackLayers) -> Self {
        let keys = |layer: LayerData| LayerKeys {
            sha: layer.sha,
            build: layer.build,
            launch: layer.launch,
            cache: layer.cache,
            metadata: layer.data.map(|data| Value::Table(data.0)),
        };
        Self {
            key: layers.key,
            version: layers.version,
            layers: layers.layers.into_iter().map(|(name, layer)| (name, keys(layer))).collect(),
            store: layers.store,
        }
    }
}
