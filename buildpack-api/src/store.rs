//! store.toml.

use crate::{ParseError, parse_toml, plan::print_toml};

/// Data a buildpack keeps from one build to the next.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Store {
    /// Written even if it is empty: there are buildpacks that take a file without it for a broken one.
    #[serde(default)]
    pub metadata: toml::Table,
}

impl Store {
    /// Parses store.toml.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse_toml(text)
    }

    /// The text of store.toml.
    pub fn to_toml(&self) -> String {
        print_toml(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_kind() {
        let text = "[metadata]\nb = true\ndate = 2020-01-02T03:04:05Z\nfloat = 1.0\nint = 1\nlist = [1, 2]\n\n[metadata.t]\nx = \"y\"\n";
        assert_eq!(Store::parse(text).unwrap().to_toml(), text);
        assert_eq!(Store::parse("").unwrap(), Store::default());
        assert_eq!(Store::default().to_toml(), "[metadata]\n");
        assert!(Store::parse("metadata = 1").is_err());
    }
}
