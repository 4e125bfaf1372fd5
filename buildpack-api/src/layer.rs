//! `<layer>.toml`, the description of one layer.

use std::path::Path;

use crate::{ParseError, parse_toml, plan::print_toml, read_toml_bounded};

/// What a layer is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LayerTypes {
    #[serde(default)]
    pub launch: bool,
    #[serde(default)]
    pub build: bool,
    #[serde(default)]
    pub cache: bool,
}

/// `<layer>.toml`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerToml {
    pub types: LayerTypes,
    pub metadata: Option<toml::Table>,
}

#[derive(serde::Deserialize)]
struct LayerFile {
    #[serde(default)]
    types: LayerTypes,
    metadata: Option<toml::Table>,
    launch: Option<toml::Value>,
    build: Option<toml::Value>,
    cache: Option<toml::Value>,
}

/// What is wrong with types where Buildpack APIs before 0.6 had them.
const MISPLACED_TYPES: &str = "the launch, cache and build flags should be in the types table";

impl LayerToml {
    /// # Errors
    /// Malformed TOML, or top-level `launch`, `build`, `cache` keys (they belong into `[types]`).
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Self::parse_unless_misplaced(text)?.ok_or_else(|| ParseError(MISPLACED_TYPES.to_owned()))
    }

    /// Reads `<layer>.toml`. Without one the layer is for nothing.
    /// # Errors
    /// As [`Self::parse`], and for a file that cannot be read. They name the path.
    pub fn read(path: &Path) -> Result<Self, ParseError> {
        let Some(text) = read_toml_bounded(path).map_err(|error| ParseError(error.to_string()))? else {
            return Ok(Self::default());
        };
        match Self::parse_unless_misplaced(&text) {
            Ok(Some(layer)) => Ok(layer),
            Ok(None) => Err(ParseError(format!("{MISPLACED_TYPES} of {}", path.display()))),
            Err(error) => Err(ParseError(format!("{}: {error}", path.display()))),
        }
    }

    fn parse_unless_misplaced(text: &str) -> Result<Option<Self>, ParseError> {
        let file: LayerFile = parse_toml(text)?;
        let misplaced = file.launch.is_some() || file.build.is_some() || file.cache.is_some();
        Ok((!misplaced).then_some(Self { types: file.types, metadata: file.metadata }))
    }

    /// What restore writes: `[metadata]` only, no `[types]`; empty where there is no metadata.
    pub fn restored_toml(&self) -> String {
        #[derive(serde::Serialize)]
        struct Restored<'a> {
            metadata: &'a toml::Table,
        }
        self.metadata.as_ref().map_or_else(String::new, |metadata| print_toml(&Restored { metadata }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_metadata() {
        let layer = LayerToml::parse(
            "unknown = 1\n[types]\nlaunch = true\ncache = true\nother = 'x'\n[metadata]\nn = 1\nexec-env = ['test']",
        )
        .unwrap();
        assert_eq!(layer.types, LayerTypes { launch: true, build: false, cache: true });
        assert_eq!(layer.restored_toml(), "[metadata]\nexec-env = [\"test\"]\nn = 1\n");
        assert_eq!(LayerToml::parse("").unwrap(), LayerToml::default());
        assert_eq!(LayerToml::default().restored_toml(), "");
        assert_eq!(LayerToml::parse("[metadata]").unwrap().restored_toml(), "[metadata]\n");
    }

    #[test]
    fn types_belong_into_their_table() {
        for text in ["launch = true", "build = false", "cache = 'x'", "[launch]", "cache = true\n[types]\ncache = true"]
        {
            assert_eq!(LayerToml::parse(text).unwrap_err().to_string(), MISPLACED_TYPES, "{text}");
        }
        assert!(LayerToml::parse("[types]\nlaunch = 'yes'").is_err());
    }

    #[test]
    fn errors_of_files_name_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jdk.toml");
        assert_eq!(LayerToml::read(&path).unwrap(), LayerToml::default());
        std::fs::write(&path, "launch = true").unwrap();
        assert_eq!(
            LayerToml::read(&path).unwrap_err().to_string(),
            format!("the launch, cache and build flags should be in the types table of {}", path.display())
        );
        std::fs::write(&path, "[types").unwrap();
        let error = LayerToml::read(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: toml: line 1: ", path.display())), "{error}");
    }
}
