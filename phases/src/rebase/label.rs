//! The lifecycle label of an app image upon a new base.
//!
//! Spec: platform.md "Rebaser", `io.buildpacks.lifecycle.metadata`.

use std::collections::BTreeMap;

use anyhow::Context as _;
use image::Image;
use platform_api::{RunImageForLabel, StackLabel};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::labels;

/// The lifecycle label as it was, in its order; whatever else is in it stays as it is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct RebasedLabel {
    #[serde(default)]
    app: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sbom: Option<Value>,
    #[serde(default)]
    buildpacks: Value,
    #[serde(default)]
    config: Value,
    #[serde(default)]
    launcher: Value,
    #[serde(default)]
    process_types: Value,
    #[serde(default, rename = "runImage")]
    run_image: RunImageKeys,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stack: Option<Value>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RunImageKeys {
    top_layer: String,
    reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mirrors: Option<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl RebasedLabel {
    pub(super) fn of(app: &Image) -> anyhow::Result<Self> {
        let text = app.config.label(labels::LIFECYCLE_METADATA).filter(|text| !text.is_empty()).unwrap_or("{}");
        let name = || format!("get image metadata: label '{}'", labels::LIFECYCLE_METADATA);
        let mut value: Value = serde_json::from_str(text).with_context(name)?;
        // Go writes null for an absent object, too.
        if let Some(label) = value.as_object_mut() {
            label.retain(|key, value| !(value.is_null() && matches!(key.as_str(), "runImage" | "stack" | "sbom")));
        }
        serde_json::from_value(value).with_context(name)
    }

    pub(super) fn set_run_image(&mut self, base: &Image, new_name: Option<&str>) {
        let run_image = &mut self.run_image;
        run_image.top_layer = base.config.diff_ids.last().map(ToString::to_string).unwrap_or_default();
        run_image.reference = base.id.as_ref().map(ToString::to_string).unwrap_or_default();
        if let Some(name) = new_name {
            run_image.image = Some(name.to_owned());
            run_image.mirrors = None;
            let names = RunImageForLabel { image: name.to_owned(), mirrors: Vec::new() };
            self.stack = serde_json::to_value(StackLabel { run_image: names }).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Digest;

    use super::{
        super::tests::{image, push},
        *,
    };

    #[test]
    fn the_label_keeps_what_it_does_not_know() {
        let text = r#"{"app":{"sha":"old shape"},"buildpacks":[{"key":"a","layers":{"l":{"data":{"n":1}}}}],"config":{"sha":"c"},"launcher":{"sha":"l"},"process-types":{"sha":""},"runImage":{"topLayer":"t","reference":"r","image":"i","mirrors":["m"]},"stack":null,"unknown":[1,2]}"#;
        let app = image("", &[(labels::LIFECYCLE_METADATA, text)]);
        let mut base = image("", &[]);
        push(&mut base, "new");
        let mut label = RebasedLabel::of(&app).unwrap();
        label.set_run_image(&base, None);
        let top = Digest::of(b"new");
        assert_eq!(
            labels::to_json(&label).unwrap(),
            text.replace(r#""topLayer":"t","reference":"r""#, &format!(r#""topLayer":"{top}","reference":"""#))
                .replace(r#","stack":null"#, "")
        );
        label.set_run_image(&base, Some("b.example/new"));
        let text = labels::to_json(&label).unwrap();
        assert!(text.contains(r#""image":"b.example/new"},"stack":{"runImage":{"image":"b.example/new"}}"#), "{text}");
    }
}
