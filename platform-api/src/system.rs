//! system.toml (Platform API 0.15). Spec: platform.md, "system.toml".

use buildpack_api::{OrderElement, ParseError, parse_toml};
use serde::Deserialize;

/// Buildpacks the operator puts around every group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct System {
    /// Before the first of the group.
    pub pre: Vec<OrderElement>,
    /// After the last of the group.
    pub post: Vec<OrderElement>,
}

#[derive(Deserialize)]
struct FileKeys {
    #[serde(default)]
    system: SystemKeys,
}

#[derive(Default, Deserialize)]
struct SystemKeys {
    #[serde(default)]
    pre: SideKeys,
    #[serde(default)]
    post: SideKeys,
}

#[derive(Default, Deserialize)]
struct SideKeys {
    #[serde(default)]
    buildpacks: Vec<OrderElement>,
}

impl System {
    /// # Errors
    /// Malformed TOML, or an element without an ID.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let keys: FileKeys = parse_toml(text)?;
        Ok(Self { pre: keys.system.pre.buildpacks, post: keys.system.post.buildpacks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_and_optional_are_read() {
        let text = "[[system.pre.buildpacks]]\nid='a'\nversion='1'\n[[system.post.buildpacks]]\nid='b'\nversion='2'\noptional=true";
        let system = System::parse(text).unwrap();
        assert_eq!((system.pre[0].id.as_str(), system.pre[0].optional), ("a", false));
        assert_eq!((system.post[0].version.as_str(), system.post[0].optional), ("2", true));
        assert_eq!(System::parse("").unwrap(), System::default());
        assert!(System::parse("system = 1").is_err());
    }
}
