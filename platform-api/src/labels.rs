//! The values of the label `io.buildpacks.lifecycle.metadata` and of the cache's, as serde types whose JSON is the
//! label's (field order included). JSON text itself is made in `phases`.
//!
//! Reading is lenient where older or other lifecycles differ: lists may be null, `app` may have any shape.
//!
//! Spec: platform.md, "Labels".

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::Value;

use crate::data::{Any, Data, null_as_default};

/// A layer by its diff ID; empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerSha {
    /// `sha256:…`
    #[serde(default, deserialize_with = "null_as_default")]
    pub sha: String,
}

/// Label `io.buildpacks.lifecycle.metadata`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayersMetadata {
    /// One per slice; empty where an older image's label has another shape.
    #[serde(default, deserialize_with = "app_layers")]
    pub app: Vec<LayerSha>,
    /// SBOMs of the app (Platform API 0.8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sbom: Option<LayerSha>,
    /// In the order of the group.
    #[serde(default, deserialize_with = "null_as_default")]
    pub buildpacks: Vec<BuildpackLayers>,
    /// `<layers>/config`
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: LayerSha,
    /// The launcher.
    #[serde(default, deserialize_with = "null_as_default")]
    pub launcher: LayerSha,
    /// The links of the processes.
    #[serde(default, rename = "process-types", deserialize_with = "null_as_default")]
    pub process_types: LayerSha,
    /// What rebase needs to know.
    #[serde(default, rename = "runImage", deserialize_with = "null_as_default")]
    pub run_image: RunImageLabel,
    /// The run image once more, where older platforms look for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<StackLabel>,
    /// Execution environment of the build (spec 0.15).
    #[serde(default, rename = "exec-env", skip_serializing_if = "Option::is_none")]
    pub exec_env: Option<String>,
}

impl LayersMetadata {
    /// The layers of one buildpack.
    pub fn buildpack(&self, id: &str) -> Option<&BuildpackLayers> {
        self.buildpacks.iter().find(|layers| layers.key == id)
    }
}

/// A buildpack's layers in a label.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BuildpackLayers {
    /// The buildpack's ID.
    pub key: String,
    /// The buildpack's version.
    #[serde(default, deserialize_with = "null_as_default")]
    pub version: String,
    /// By layer name.
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: BTreeMap<String, LayerData>,
    /// The buildpack's store.toml.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_store",
        deserialize_with = "read_store"
    )]
    pub store: Option<buildpack_api::Store>,
}

/// One layer in a label.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerData {
    /// The diff ID; empty where the layer was not exported.
    #[serde(default, deserialize_with = "null_as_default")]
    pub sha: String,
    /// The layer's `[metadata]`, `null` where it has none.
    #[serde(default, deserialize_with = "table_or_nothing")]
    pub data: Option<Data>,
    /// For later buildpacks.
    #[serde(default)]
    pub build: bool,
    /// For the app image.
    #[serde(default)]
    pub launch: bool,
    /// For the next build.
    #[serde(default)]
    pub cache: bool,
}

/// `runImage` of the lifecycle label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunImageLabel {
    /// Diff ID of the run image's last layer.
    #[serde(default, rename = "topLayer")]
    pub top_layer: String,
    /// Digest reference or image ID.
    #[serde(default)]
    pub reference: String,
    /// Platform API 0.12.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Platform API 0.12.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub mirrors: Vec<String>,
}

/// `stack` of the lifecycle label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackLabel {
    /// Its names.
    #[serde(default, rename = "runImage", deserialize_with = "null_as_default")]
    pub run_image: RunImageForLabel,
}

/// A run image's names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunImageForLabel {
    /// The first choice.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Where else it can be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub mirrors: Vec<String>,
}

/// Label (or file) `io.buildpacks.lifecycle.cache.metadata`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheMetadata {
    /// SBOMs of cached layers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub sbom: LayerSha,
    /// In the order of the group.
    #[serde(default, deserialize_with = "null_as_default")]
    pub buildpacks: Vec<BuildpackLayers>,
}

impl CacheMetadata {
    /// The layers of one buildpack.
    pub fn buildpack(&self, id: &str) -> Option<&BuildpackLayers> {
        self.buildpacks.iter().find(|layers| layers.key == id)
    }
}

/// `[{sha}]`; nothing for any other shape.
pub(crate) fn app_layers_of(app: Option<&Value>) -> Vec<LayerSha> {
    let sha = |layer: &Value| Some(LayerSha { sha: layer.get("sha")?.as_str()?.to_owned() });
    app.and_then(Value::as_array).and_then(|layers| layers.iter().map(sha).collect()).unwrap_or_default()
}

fn app_layers<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<LayerSha>, D::Error> {
    Ok(app_layers_of(Any::deserialize(d)?.0.as_ref()))
}

fn table_or_nothing<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Data>, D::Error> {
    Ok(match Any::deserialize(d)?.0 {
        Some(Value::Table(table)) => Some(Data(table)),
        _ => None,
    })
}

/// A store's JSON: its own serialisation is TOML's, which has other datetimes.
#[derive(Default, Serialize, Deserialize)]
struct StoreLabel {
    #[serde(default, deserialize_with = "null_as_default")]
    metadata: Data,
}

#[allow(clippy::ref_option)] // serde's signature
fn write_store<S: Serializer>(store: &Option<buildpack_api::Store>, s: S) -> Result<S::Ok, S::Error> {
    store.as_ref().map(|store| StoreLabel { metadata: Data(store.metadata.clone()) }).serialize(s)
}

fn read_store<'de, D: Deserializer<'de>>(d: D) -> Result<Option<buildpack_api::Store>, D::Error> {
    Ok(Option::<StoreLabel>::deserialize(d)?.map(|store| buildpack_api::Store { metadata: store.metadata.0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha(text: &str) -> LayerSha {
        LayerSha { sha: text.into() }
    }

    #[test]
    fn fields_are_written_in_the_labels_order() {
        let data = Data(toml::from_str("when = 2020-01-01T00:00:00Z\nn = 1").unwrap());
        let layer = LayerData { sha: "s".into(), data: Some(data.clone()), build: true, launch: true, cache: false };
        let metadata = LayersMetadata {
            app: vec![sha("a")],
            sbom: Some(sha("b")),
            buildpacks: vec![BuildpackLayers {
                key: "x/y".into(),
                version: "1".into(),
                layers: [("z".into(), LayerData::default()), ("l".into(), layer)].into(),
                store: Some(buildpack_api::Store { metadata: data.0 }),
            }],
            config: sha("c"),
            launcher: sha("d"),
            process_types: sha(""),
            run_image: RunImageLabel { top_layer: "t".into(), reference: "r".into(), ..Default::default() },
            stack: Some(StackLabel { run_image: RunImageForLabel { image: "i".into(), mirrors: vec!["m".into()] } }),
            exec_env: None,
        };
        let expected = concat!(
            r#"{"app":[{"sha":"a"}],"sbom":{"sha":"b"},"buildpacks":[{"key":"x/y","version":"1","layers":{"#,
            r#""l":{"sha":"s","data":{"n":1,"when":"2020-01-01T00:00:00Z"},"build":true,"launch":true,"cache":false},"#,
            r#""z":{"sha":"","data":null,"build":false,"launch":false,"cache":false}},"#,
            r#""store":{"metadata":{"n":1,"when":"2020-01-01T00:00:00Z"}}}],"config":{"sha":"c"},"#,
            r#""launcher":{"sha":"d"},"process-types":{"sha":""},"runImage":{"topLayer":"t","reference":"r"},"#,
            r#""stack":{"runImage":{"image":"i","mirrors":["m"]}}}"#
        );
        let text = serde_json::to_string(&metadata).unwrap();
        assert_eq!(text, expected);
        let again: LayersMetadata = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), expected);
    }

    #[test]
    fn integers_stay_integers_from_label_to_label() {
        let text = r#"{"key":"k","version":"","layers":{"l":{"sha":"","data":{"f":1.0,"n":1},"build":false,"launch":true,"cache":true}}}"#;
        let read: BuildpackLayers = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }

    #[test]
    fn app_of_any_shape_is_read() {
        for (app, expected) in [
            (r#"[{"sha":"a"},{"sha":"b"}]"#, vec![sha("a"), sha("b")]),
            ("null", vec![]),
            (r#"{"sha":"a"}"#, vec![]),
            (r#""a""#, vec![]),
            ("[1]", vec![]),
            (r#"[{"sha":1}]"#, vec![]),
            (r#"[["a"]]"#, vec![]),
        ] {
            let text = format!(r#"{{"app":{app},"launcher":{{"sha":"x"}}}}"#);
            let read: LayersMetadata = serde_json::from_str(&text).unwrap();
            assert_eq!((read.app, read.launcher), (expected, sha("x")), "{app}");
        }
    }

    #[test]
    fn nulls_and_missing_keys_are_empty() {
        let text = r#"{"app":null,"sbom":null,"buildpacks":null,"config":null,"launcher":null,"process-types":null,
            "runImage":null,"stack":null,"exec-env":null,"unknown":[null]}"#;
        assert_eq!(serde_json::from_str::<LayersMetadata>(text).unwrap(), LayersMetadata::default());
        assert_eq!(serde_json::from_str::<LayersMetadata>("{}").unwrap(), LayersMetadata::default());
        let bare = r#"{"key":"k","version":null,"layers":null,"store":null}"#;
        let read: BuildpackLayers = serde_json::from_str(bare).unwrap();
        assert_eq!(read, BuildpackLayers { key: "k".into(), ..Default::default() });
        let cache: CacheMetadata = serde_json::from_str(r#"{"sbom":null,"buildpacks":null}"#).unwrap();
        assert_eq!(serde_json::to_string(&cache).unwrap(), r#"{"sbom":{"sha":""},"buildpacks":[]}"#);
    }

    #[test]
    fn data_that_is_no_table_is_dropped() {
        let read: LayerData = serde_json::from_str(r#"{"sha":"s","data":"text"}"#).unwrap();
        assert_eq!((read.sha.as_str(), read.data), ("s", None));
    }

    #[test]
    fn an_undecodable_label_is_an_error() {
        for text in ["", "x", "1", "\"\"", r#"{"buildpacks":1}"#, r#"{"runImage":1}"#] {
            assert!(serde_json::from_str::<LayersMetadata>(text).is_err(), "{text}");
        }
    }
}
