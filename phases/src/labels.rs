//! Label values and their JSON text. The text is what Go's `encoding/json` makes of the same value: compact, with
//! `<`, `>`, `&` and the two line separators escaped.

use anyhow::Context as _;
use image::{Config, Image, escaped_like_go};
pub use platform_api::names::label::*;
use platform_api::{CacheMetadata, LayersMetadata};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// How the toml crate shows a datetime to a serialiser that does not know it.
const DATETIME_KEY: &str = "$__toml_private_datetime";

/// The JSON text of a label.
///
/// # Errors
/// A value that JSON cannot hold.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<String> {
    let text = serde_json::to_string(value)?;
    Ok(escaped_like_go(datetimes_as_strings(&text)))
}

/// `{"$__toml_private_datetime":"…"}` becomes `"…"`. The pattern begins with an unescaped quote, so it cannot occur
/// within a string.
fn datetimes_as_strings(json: &str) -> String {
    let start = format!("{{\"{DATETIME_KEY}\":\"");
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some((before, after)) = rest.split_once(start.as_str()) {
        out.push_str(before);
        let Some((datetime, after)) = after.split_once("\"}") else {
            rest = after;
            break;
        };
        out.push('"');
        out.push_str(datetime);
        out.push('"');
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Reads a label's value. Go writes `null` for what is not there; for us that is a missing key.
fn from_json<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    from_value(without_nulls(serde_json::from_str(text)?))
}

/// serde also makes a struct of an array, of which Go wants nothing to know.
fn from_value<T: DeserializeOwned>(value: Value) -> serde_json::Result<T> {
    let takes_objects = || serde_json::from_value::<T>(Value::Object(serde_json::Map::new())).is_ok();
    if value.is_array() && takes_objects() {
        return Err(serde::de::Error::custom("an array in the place of an object"));
    }
    serde_json::from_value(value)
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect()
        }
        Value::Array(values) => values.into_iter().filter(|v| !v.is_null()).map(without_nulls).collect(),
        other => other,
    }
}

/// The lifecycle label of an image; empty where it has none.
///
/// # Errors
/// A label that cannot be understood.
pub fn layers_metadata(config: &Config) -> anyhow::Result<LayersMetadata> {
    let Some(text) = config.label(LIFECYCLE_METADATA).filter(|t| !t.is_empty()) else {
        return Ok(LayersMetadata::default());
    };
    let name = || format!("label '{LIFECYCLE_METADATA}'");
    let mut value = without_nulls(serde_json::from_str(text).with_context(name)?);
    // Very old images have another shape there; what they say of slices is of no use.
    if value.get("app").is_some_and(|app| !is_list_of_layers(app)) {
        if let Some(label) = value.as_object_mut() {
            label.remove("app");
        }
    }
    from_value(value).with_context(name)
}

fn is_list_of_layers(app: &Value) -> bool {
    app.as_array()
        .is_some_and(|layers| layers.iter().all(|l| l.get("sha").is_none_or(Value::is_string) && l.is_object()))
}

/// The metadata of a cache; what cannot be understood is an empty cache.
pub fn cache_metadata(text: &str) -> CacheMetadata {
    from_json(text).unwrap_or_default()
}

/// A label that holds a JSON array of strings; empty where the image has no such label.
///
/// # Errors
/// A label that cannot be understood.
pub fn string_list(image: &Image, key: &str) -> anyhow::Result<Vec<String>> {
    match image.config.label(key).filter(|t| !t.is_empty()) {
        Some(text) => from_json(text).with_context(|| format!("label '{key}'")),
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(label: &str) -> Config {
        Config { labels: [(LIFECYCLE_METADATA.to_owned(), label.to_owned())].into(), ..Config::default() }
    }

    #[test]
    fn text_is_go_s() {
        for (value, text) in [
            (serde_json::json!("a<b>&c"), r#""a\u003cb\u003e\u0026c""#),
            (serde_json::json!("\u{2028}\u{2029}"), "\"\\u2028\\u2029\""),
            (serde_json::json!({"b": 1, "a": [1.5, true, null]}), r#"{"a":[1.5,true,null],"b":1}"#),
        ] {
            assert_eq!(to_json(&value).unwrap(), text);
        }
    }

    #[test]
    fn datetimes_are_strings() {
        let table: toml::Table = toml::from_str("at = 2024-01-02T03:04:05Z\nname = 'x'\nday = 2024-01-02").unwrap();
        assert_eq!(to_json(&table).unwrap(), r#"{"at":"2024-01-02T03:04:05Z","day":"2024-01-02","name":"x"}"#);
    }

    #[test]
    fn a_string_that_looks_like_a_datetime_stays() {
        let text = format!("{{\"{DATETIME_KEY}\":\"x\"}}");
        assert_eq!(serde_json::from_str::<String>(&to_json(&text).unwrap()).unwrap(), text);
    }

    #[test]
    fn nulls_are_missing_keys() {
        let label = r#"{"app":null,"buildpacks":[{"key":"a","version":"1","layers":{"l":{"sha":"s","data":null,"build":false,"launch":true,"cache":false}}}],"config":{"sha":""},"launcher":{"sha":""},"process-types":{"sha":""},"runImage":{"topLayer":"t","reference":"r"}}"#;
        let metadata = layers_metadata(&config(label)).unwrap();
        assert!(metadata.app.is_empty());
        assert_eq!(metadata.buildpacks[0].layers["l"].data, None);
        assert!(metadata.buildpacks[0].layers["l"].launch);
        assert_eq!(metadata.run_image.top_layer, "t");
    }

    #[test]
    fn integers_stay_integers() {
        let label = r#"{"buildpacks":[{"key":"a","version":"1","layers":{"l":{"sha":"s","data":{"n":1,"f":1.5},"launch":true}},"store":{"metadata":{"n":7,"x":null}}}]}"#;
        let metadata = layers_metadata(&config(label)).unwrap();
        assert_eq!(metadata.buildpacks[0].layers["l"].data.as_ref().unwrap().0["n"].as_integer(), Some(1));
        assert_eq!(metadata.buildpacks[0].store.as_ref().unwrap().metadata["n"].as_integer(), Some(7));
    }

    #[test]
    fn floats_are_the_same_after_every_build() {
        // Read to the nearest but one, it would drift, and every build would be another image.
        let label = r#"{"app":null,"buildpacks":[{"key":"a","version":"1","layers":{"l":{"sha":"s","data":{"f":1.8446744073709517e+19},"build":false,"launch":true,"cache":false}}}]}"#;
        let once = to_json(&layers_metadata(&config(label)).unwrap()).unwrap();
        let twice = to_json(&layers_metadata(&config(&once)).unwrap()).unwrap();
        assert!(once.contains("1.8446744073709517e+19"), "{once}");
        assert_eq!(once, twice);
    }

    #[test]
    fn other_shapes_of_app_are_left_aside() {
        for app in [r#""sha256:x""#, r#"{"sha":"x"}"#, r#"["x"]"#, "7"] {
            let metadata = layers_metadata(&config(&format!(r#"{{"app":{app},"config":{{"sha":"c"}}}}"#))).unwrap();
            assert!(metadata.app.is_empty(), "{app}");
            assert_eq!(metadata.config.sha, "c");
        }
    }

    #[test]
    fn a_missing_label_is_empty_and_a_broken_one_an_error() {
        assert_eq!(layers_metadata(&Config::default()).unwrap(), LayersMetadata::default());
        assert_eq!(layers_metadata(&config("")).unwrap(), LayersMetadata::default());
        for broken in ["{", "[]", "[[],[]]", "7"] {
            assert!(layers_metadata(&config(broken)).is_err(), "{broken}");
        }
        assert_eq!(cache_metadata("not json"), CacheMetadata::default());
    }
}
