//! analyzed.toml. Its `[metadata]` is the lifecycle label in other words: TOML's key names, and `metadata` for `data`.
//!
//! Spec: platform.md, "analyzed.toml".

use buildpack_api::{ParseError, Target, parse_toml};

use crate::{LayersMetadata, analyzed_keys::AnalyzedFile, print::to_toml};

/// What analyze found, as later phases refine it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Analyzed {
    /// Reference of the previous image: a digest reference, a daemon's image ID, or `<path>@<digest>` of a layout.
    pub previous_image: Option<String>,
    /// The previous image's lifecycle label.
    pub metadata: LayersMetadata,
    /// Unknown in a file that analyze did not write.
    pub run_image: Option<RunImage>,
    /// Known where the platform named it (Platform API 0.10).
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
    /// Digest reference.
    pub reference: String,
    /// Extensions will add to it (Platform API 0.13).
    pub extend: bool,
}

impl Analyzed {
    /// # Errors
    /// Malformed TOML, or a value of the wrong type.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse_toml::<AnalyzedFile>(text).map(Self::from)
    }

    /// `[image] reference` is always written; both names of `arch-variant`/`variant` are read.
    pub fn to_toml(&self) -> String {
        to_toml(&AnalyzedFile::from(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use toml::{Table, Value};

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
        let run_image = RunImage { target: Some(target), ..RunImage::default() };
        let text = Analyzed { run_image: Some(run_image), ..Analyzed::default() }.to_toml();
        assert!(text.contains("arch-variant = \"v7\"") && !text.contains("\nvariant"), "{text}");
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
