//! plan.toml. Spec: platform.md, "plan.toml".

use buildpack_api::{BuildpackId, BuildpackPlan, Kind, ParseError, Require, parse_toml};
use serde::{Deserialize, Serialize};

use crate::print::to_toml;

/// The Build Plan as detection resolved it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Each name once.
    pub entries: Vec<PlanEntry>,
}

/// One dependency: who provides it, who asks for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanEntry {
    /// In the order of the group.
    pub providers: Vec<Provider>,
    /// All of one name.
    pub requires: Vec<Require>,
}

/// A module that can provide a dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its ID.
    pub id: BuildpackId,
    /// Its version.
    pub version: String,
    /// Buildpack or extension.
    pub kind: Kind,
}

impl Plan {
    /// # Errors
    /// Malformed TOML, or an ID that cannot be one.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let keys: PlanKeys = parse_toml(text)?;
        let entry = |keys: EntryKeys| PlanEntry {
            providers: keys.providers.into_iter().map(Provider::from).collect(),
            requires: keys.requires,
        };
        Ok(Self { entries: keys.entries.into_iter().map(entry).collect() })
    }

    /// The text of the file.
    pub fn to_toml(&self) -> String {
        let keys = |entry: &PlanEntry| EntryKeys {
            providers: entry.providers.iter().map(ProviderKeys::from).collect(),
            requires: entry.requires.clone(),
        };
        to_toml(&PlanKeys { entries: self.entries.iter().map(keys).collect() })
    }

    /// The requires of every entry that this module provides. A group has one version of a module, so the version of
    /// a plan written by other hands does not matter.
    pub fn for_module(&self, kind: Kind, id: &BuildpackId, _version: &str) -> BuildpackPlan {
        let provides = |entry: &&PlanEntry| entry.providers.iter().any(|p| p.kind == kind && p.id == *id);
        BuildpackPlan {
            entries: self.entries.iter().filter(provides).flat_map(|entry| entry.requires.clone()).collect(),
        }
    }

    /// Without the entries of these names.
    #[must_use]
    pub fn without(self, met: &[String]) -> Self {
        let is_met = |entry: &PlanEntry| entry.requires.iter().any(|require| met.contains(&require.name));
        Self { entries: self.entries.into_iter().filter(|entry| !is_met(entry)).collect() }
    }
}

#[derive(Serialize, Deserialize)]
struct PlanKeys {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    entries: Vec<EntryKeys>,
}

#[derive(Serialize, Deserialize)]
struct EntryKeys {
    #[serde(default)]
    providers: Vec<ProviderKeys>,
    #[serde(default)]
    requires: Vec<Require>,
}

#[derive(Serialize, Deserialize)]
struct ProviderKeys {
    id: BuildpackId,
    #[serde(default)]
    version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extension: Option<bool>,
}

impl From<ProviderKeys> for Provider {
    fn from(keys: ProviderKeys) -> Self {
        let kind = if keys.extension == Some(true) { Kind::Extension } else { Kind::Buildpack };
        Self { id: keys.id, version: keys.version, kind }
    }
}

impl From<&Provider> for ProviderKeys {
    fn from(provider: &Provider) -> Self {
        Self {
            id: provider.id.clone(),
            version: provider.version.clone(),
            extension: (provider.kind == Kind::Extension).then_some(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
[[entries]]
  [[entries.providers]]
    id = "a"
    version = "1"
  [[entries.providers]]
    id = "a"
    version = "1"
    extension = true
  [[entries.requires]]
    name = "x"
    [entries.requires.metadata]
      n = 1
      when = 1979-05-27T07:32:00Z
[[entries]]
  [[entries.providers]]
    id = "b"
    version = "2"
  [[entries.requires]]
    name = "y"
  [[entries.requires]]
    name = "y"
"#;

    fn id(text: &str) -> BuildpackId {
        text.to_owned().try_into().unwrap()
    }

    fn names(plan: &BuildpackPlan) -> Vec<&str> {
        plan.entries.iter().map(|require| require.name.as_str()).collect()
    }

    #[test]
    fn round_trip() {
        let plan = Plan::parse(FILE).unwrap();
        assert_eq!(plan.entries[0].providers[1].kind, Kind::Extension);
        let text = plan.to_toml();
        assert_eq!(toml::from_str::<toml::Table>(&text).unwrap(), toml::from_str::<toml::Table>(FILE).unwrap());
        assert_eq!(Plan::parse("").unwrap(), Plan::default());
        assert_eq!(Plan::default().to_toml(), "");
        assert!(Plan::parse("entries = 1").is_err());
    }

    #[test]
    fn each_module_gets_what_it_provides() {
        let plan = Plan::parse(FILE).unwrap();
        assert_eq!(names(&plan.for_module(Kind::Buildpack, &id("a"), "1")), ["x"]);
        assert_eq!(names(&plan.for_module(Kind::Extension, &id("a"), "1")), ["x"]);
        assert_eq!(names(&plan.for_module(Kind::Buildpack, &id("b"), "2")), ["y", "y"]);
        assert!(names(&plan.for_module(Kind::Extension, &id("b"), "2")).is_empty());
        let left = plan.without(&["x".into()]);
        assert_eq!(left.entries.len(), 1);
        assert!(left.without(&["y".into()]).entries.is_empty());
    }
}
