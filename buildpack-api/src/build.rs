//! build.toml.

use crate::{BomEntry, ParseError, launch::check_bom, parse_toml, plan::VersionedEntry};

/// What a buildpack reports of its build.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuildToml {
    /// Names of plan entries it leaves to later buildpacks. That each is an entry is for the caller to check.
    pub unmet: Vec<String>,
    /// Legacy `[[bom]]`.
    pub bom: Vec<BomEntry>,
}

#[derive(serde::Deserialize)]
struct BuildFile {
    #[serde(default)]
    unmet: Vec<Unmet>,
    #[serde(default)]
    bom: Vec<VersionedEntry>,
}

#[derive(serde::Deserialize)]
struct Unmet {
    #[serde(default)]
    name: String,
}

impl BuildToml {
    /// Parses build.toml.
    /// # Errors
    /// A bom entry with a version, an unmet entry without a name.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let file: BuildFile = parse_toml(text)?;
        let bom = check_bom(file.bom)?;
        if file.unmet.iter().any(|unmet| unmet.name.is_empty()) {
            return Err(ParseError("unmet.name is required".to_owned()));
        }
        Ok(Self { unmet: file.unmet.into_iter().map(|unmet| unmet.name).collect(), bom })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys() {
        let build = BuildToml::parse(
            "x = 1\n[[unmet]]\nname = 'a'\n[[unmet]]\nname = 'b'\n[[bom]]\nname = 'c'\n[bom.metadata]\nversion = '1'",
        )
        .unwrap();
        assert_eq!(build.unmet, ["a", "b"]);
        assert_eq!(build.bom.len(), 1);
        assert_eq!(build.bom[0].name, "c");
        assert_eq!(build.bom[0].metadata.as_ref().unwrap()["version"].as_str(), Some("1"));
        assert_eq!(BuildToml::parse("").unwrap(), BuildToml::default());
    }

    #[test]
    fn errors() {
        for (text, error) in [
            ("[[unmet]]\n", "unmet.name is required"),
            (
                "[[bom]]\nname = 'x'\nversion = '1'",
                "bom entry 'x' has a top level version which is not allowed. The buildpack should instead set metadata.version",
            ),
        ] {
            assert_eq!(BuildToml::parse(text).unwrap_err().to_string(), error);
        }
    }
}
