//! An image as the daemon describes it: not its config, but what was made of that.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{Config, Digest, History, Image, ImageId, Layer, Result};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Inspected {
    pub(super) id: String,
    pub(super) created: Option<String>,
    pub(super) author: Option<String>,
    pub(super) architecture: String,
    pub(super) variant: Option<String>,
    pub(super) os: String,
    pub(super) os_version: Option<String>,
    pub(super) config: Option<Map<String, Value>>,
    #[serde(rename = "RootFS")]
    pub(super) root_fs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct RootFs {
    pub(super) layers: Option<Vec<Digest>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Step {
    pub(super) created_by: String,
    pub(super) comment: String,
}

/// The image; `steps` are its history, the newest first.
pub(super) fn image_of(inspected: Inspected, mut steps: Vec<Step>, id: String) -> Result<Image> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
