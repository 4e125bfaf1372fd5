//! analyzed.toml. Its `[metadata]` is the lifecycle label in other words: TOML's key names, and `metadata` for `data`.
//!
//! Spec: platform.md, "analyzed.toml".

use std::collections::BTreeMap;

use buildpack_api::{Distro, ParseError, Store, Target};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::{
    BuildpackLayers, Data, LayerData, LayerSha, LayersMetadata, RunImageForLabel, RunImageLabel, StackLabel,
    labels::app_layers_of, parse,
};

/// What analyze found, as later phases refine it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Analyzed {
    /// Reference of the previous image: a digest reference, a daemon's image ID, or `<path>@<digest>` of a layout.
    pub previous_image: Option<String>,
    /// The previous image's lifecycle label.
    pub metadata: LayersMetadata,
    pub run_image: Option<RunImage>,
    pub build_image: Option<BuildImage>,
}

/// The run image chosen for this build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunImage {
    /// Digest reference, image ID or `<path>@<digest>`; empty where it was not found.
    pub reference: String,
    /// The name as asked for (Platform API 0.12).
    pub image: Option<String>,
    /// Extensions will add to it.
    pub extend: bool,
    /// What it is; unknown before Platform API 0.12.
    pub target: Option<TargetData>,
}

/// What a run image is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetData {
    /// Label `io.buildpacks.base.id`.
    pub id: Option<String>,
    /// One distribution at most.
    pub target: Target,
}

/// The build image, where extensions will extend it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildImage {
    pub reference: String,
    pub extend: bool,
}

impl Analyzed {
    /// # Errors
    /// Malformed TOML, or a value of the wrong type.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse::from_toml::<AnalyzedFile>(text).map(Self::from)
    }

    /// `[image] reference` is always written; both names of `arch-variant`/`variant` are read.
    pub fn to_toml(&self) -> String {
        parse::to_toml(&AnalyzedFile::from(self.clone()))
    }
}

/// The file, key by key.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct AnalyzedFile {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Laid out as the Go encoder does.
    const FILE: &str = r#"
[image]
  reference = "reg/app@sha256:1"

[build-image]
  reference = "reg/build@sha256:2"
  extend = true

[metadata]
  [[metadata.app]]
    sha = "sha256:a1"
  [[metadata.app]]
    sha = "sha256:a2"
  [metadata.sbom]
    sha = "sha256:b"

  [[metadata.buildpacks]]
    key = "some/bp"
    version = "1.2"
    [metadata.buildpacks.layers]
      [metadata.buildpacks.layers.deps]
        sha = "sha256:d"
        build = true
        launch = true
        cache = false
        [metadata.buildpacks.layers.deps.metadata]
          count = 1
          share = 1.0
          when = 1979-05-27T07:32:00Z
          [metadata.buildpacks.layers.deps.metadata.nested]
            list = [1, 2]
      [metadata.buildpacks.layers.none]
        sha = ""
        build = false
        launch = false
        cache = true
    [metadata.buildpacks.store]
      [metadata.buildpacks.store.metadata]
        n = 3
  [metadata.config]
    sha = "sha256:c"
  [metadata.launcher]
    sha = "sha256:l"
  [metadata.process-types]
    sha = "sha256:p"
  [metadata.run-image]
    top-layer = "sha256:t"
    reference = "reg/run@sha256:r"
    image = "reg/run"
    mirrors = ["m1", "m2"]
  [metadata.stack]
    [metadata.stack.run-image]
      image = "reg/run"
      mirrors = ["m1"]

[run-image]
  reference = "reg/run@sha256:r"
  image = "reg/run:x"
  extend = true
  [run-image.target]
    id = "some-id"
    os = "linux"
    arch = "arm64"
    arch-variant = "v8"
    [run-image.target.distro]
      name = "debian"
      version = "12"
"#;

    #[test]
    fn the_references_file_round_trips() {
        let read = Analyzed::parse(FILE).unwrap();
        assert_eq!(read.previous_image.as_deref(), Some("reg/app@sha256:1"));
        assert_eq!(read.build_image, Some(BuildImage { reference: "reg/build@sha256:2".into(), extend: true }));
        let deps = &read.metadata.buildpacks[0].layers["deps"];
        assert_eq!(deps.data.as_ref().unwrap().0["count"], Value::Integer(1));
        assert!(deps.data.as_ref().unwrap().0["when"].is_datetime());
        assert_eq!(read.metadata.buildpacks[0].layers["none"].data, None);
        assert_eq!(read.metadata.run_image.top_layer, "sha256:t");
        assert_eq!(read.metadata.stack.as_ref().unwrap().run_image.mirrors, ["m1"]);
        let target = read.run_image.as_ref().unwrap().target.as_ref().unwrap();
        assert_eq!((target.target.variant.as_str(), target.target.distros[0].version.as_str()), ("v8", "12"));
        let written = read.to_toml();
        assert_eq!(toml::from_str::<Table>(&written).unwrap(), toml::from_str::<Table>(FILE).unwrap(), "{written}");
        assert_eq!(Analyzed::parse(&written).unwrap(), read);
    }

    #[test]
    fn the_same_value_as_label_and_as_file() {
        let read = Analyzed::parse(FILE).unwrap();
        let label = serde_json::to_string(&read.metadata).unwrap();
        assert!(
            label.contains(r#""data":{"count":1,"nested":{"list":[1,2]},"share":1.0,"when":"1979-05-27T07:32:00Z"}"#)
        );
        let from_label = Analyzed { metadata: serde_json::from_str(&label).unwrap(), ..Analyzed::default() };
        let file: Table = toml::from_str(&from_label.to_toml()).unwrap();
        let layer = &file["metadata"]["buildpacks"][0]["layers"]["deps"];
        assert_eq!(layer["metadata"]["count"], Value::Integer(1));
        assert_eq!(layer["metadata"]["share"], Value::Float(1.0));
    }

    #[test]
    fn nothing_found_is_written_and_read() {
        let text = Analyzed::default().to_toml();
        let file: Table = toml::from_str(&text).unwrap();
        assert_eq!(file["image"]["reference"], Value::from(""));
        assert!(!file.contains_key("run-image") && !file.contains_key("build-image"));
        assert_eq!(Analyzed::parse(&text).unwrap(), Analyzed::default());
        assert_eq!(Analyzed::parse("").unwrap(), Analyzed::default());
    }

    #[test]
    fn both_names_of_the_variant_and_any_app_are_read() {
        let read = Analyzed::parse("[run-image]\nreference='r'\n[run-image.target]\nos='linux'\nvariant='v7'").unwrap();
        let target = read.run_image.unwrap().target.unwrap();
        assert_eq!(target.target.variant, "v7");
        assert!(TargetKeys::from(target).arch_variant == "v7");
        for app in ["'x'", "{ sha = 'x' }", "[1]", "3"] {
            assert_eq!(Analyzed::parse(&format!("[metadata]\napp = {app}")).unwrap().metadata.app, [], "{app}");
        }
    }

    #[test]
    fn wrong_types_are_errors() {
        for text in ["image = 1", "[run-image]\nextend = 'x'", "[[metadata.buildpacks]]\nversion='1'", "x"] {
            assert!(Analyzed::parse(text).unwrap_err().0.starts_with("toml: line "), "{text}");
        }
    }
}
