//! extend-config.toml.

use crate::{ParseError, parse_toml};

/// What an extension has to say to the Dockerfiles it made.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct ExtendConfig {
    /// For build.Dockerfile.
    #[serde(default)]
    pub build: ExtendArgs,
    /// For run.Dockerfile.
    #[serde(default)]
    pub run: ExtendArgs,
}

/// One table of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct ExtendArgs {
    #[serde(default)]
    pub args: Vec<ExtendArg>,
}

/// A build argument.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct ExtendArg {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub value: String,
}

impl ExtendConfig {
    /// Parses extend-config.toml.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse_toml(text)
    }

    /// The names of all arguments.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.build.args.iter().chain(&self.run.args).map(|arg| arg.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_their_order() {
        let text = "[[run.args]]\nname = \"b\"\nvalue = \"1\"\n[[build.args]]\nname = \"c\"\n[[run.args]]\nname = \"a\"\nmore = 1\n";
        let config = ExtendConfig::parse(text).unwrap();
        assert_eq!(config.names().collect::<Vec<_>>(), ["c", "b", "a"]);
        assert_eq!(config.run.args[0].value, "1");
        assert_eq!(config.build.args[0].value, "");
        assert_eq!(ExtendConfig::parse("").unwrap(), ExtendConfig::default());
        assert!(ExtendConfig::parse("[[run.args]]\nname = 1").is_err());
    }
}
