//! group.toml. Spec: platform.md, "group.toml".

use buildpack_api::{ApiError, BuildpackApi, BuildpackId, Kind, ParseError, parse_toml};
use serde::{Deserialize, Serialize};

use crate::{ExitCode, Failure, print::to_toml};

/// The modules of the build, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// `[[group]]`
    pub buildpacks: Vec<GroupEntry>,
    /// `[[group-extensions]]`
    pub extensions: Vec<GroupEntry>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupEntry {
    /// What it is called.
    pub id: BuildpackId,
    /// Which of its versions.
    pub version: String,
    /// As written; see [`GroupEntry::supported_api`].
    pub api: String,
    /// Where to read about it.
    pub homepage: Option<String>,
    /// Tolerated when read, never written.
    pub optional: bool,
}

impl GroupEntry {
    /// `<id>@<version>`
    pub fn full_name(&self) -> String {
        format!("{}@{}", self.id, self.version)
    }

    /// Exit code 12 where it is not one of ours.
    pub fn supported_api(&self, kind: Kind) -> Result<BuildpackApi, Failure> {
        let name = self.full_name();
        self.api.parse().map_err(|e| {
            let text = match e {
                // Platforms match the sentence up to the name; what stands in for the version there is no version.
                ApiError::Malformed(_) => format!(
                    "failed to parse buildpack API '<nil>' for {} '{name}': '{}' is not an API version",
                    kind.to_string().to_lowercase(),
                    self.api
                ),
                ApiError::Unsupported(_) => format!(
                    "failed to set API for {kind} '{name}': buildpack API version '{}' is incompatible with the \
                     lifecycle",
                    self.api
                ),
            };
            Failure::new(ExitCode::BuildpackApi, text)
        })
    }
}

impl Group {
    /// # Errors
    /// Malformed TOML, or an ID that cannot be one.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let keys: GroupKeys = parse_toml(text)?;
        Ok(Self {
            buildpacks: keys.group.into_iter().map(GroupEntry::from).collect(),
            extensions: keys
                .group_extensions
                .into_iter()
                .map(|keys| GroupEntry { optional: true, ..keys.into() })
                .collect(),
        })
    }

    /// The text of the file.
    pub fn to_toml(&self) -> String {
        to_toml(&GroupKeys {
            group: self.buildpacks.iter().map(EntryKeys::from).collect(),
            group_extensions: self.extensions.iter().map(EntryKeys::from).collect(),
        })
    }

    /// Every API of the group is one of ours ; exit code 12.
    pub fn check_apis(&self) -> Result<(), Failure> {
        let buildpacks = self.buildpacks.iter().map(|entry| entry.supported_api(Kind::Buildpack));
        let extensions = self.extensions.iter().map(|entry| entry.supported_api(Kind::Extension));
        buildpacks.chain(extensions).try_for_each(|api| api.map(drop))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct GroupKeys {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    group: Vec<EntryKeys>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    group_extensions: Vec<EntryKeys>,
}

/// A module as group.toml and metadata.toml have it.
#[derive(Serialize, Deserialize)]
pub(crate) struct EntryKeys {
    id: BuildpackId,
    #[serde(default)]
    version: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    api: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    homepage: String,
    #[serde(default, skip_serializing)]
    optional: bool,
}

impl From<EntryKeys> for GroupEntry {
    fn from(keys: EntryKeys) -> Self {
        Self {
            id: keys.id,
            version: keys.version,
            api: keys.api,
            homepage: (!keys.homepage.is_empty()).then_some(keys.homepage),
            optional: keys.optional,
        }
    }
}

impl From<&GroupEntry> for EntryKeys {
    fn from(entry: &GroupEntry) -> Self {
        Self {
            id: entry.id.clone(),
            version: entry.version.clone(),
            api: entry.api.clone(),
            homepage: entry.homepage.clone().unwrap_or_default(),
            optional: entry.optional,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[[group]]\nid = \"a/b\"\nversion = \"1\"\napi = \"0.9\"\nhomepage = \"h\"\n\n\
                        [[group]]\nid = \"c\"\nversion = \"2\"\napi = \"0.12\"\n\n\
                        [[group-extensions]]\nid = \"e\"\nversion = \"3\"\napi = \"0.10\"\n";

    #[test]
    fn round_trip() {
        let group = Group::parse(FILE).unwrap();
        assert_eq!(group.buildpacks[0].full_name(), "a/b@1");
        assert_eq!(group.buildpacks[0].homepage.as_deref(), Some("h"));
        assert!(group.extensions[0].optional && !group.buildpacks[1].optional);
        assert_eq!(group.to_toml(), FILE);
        assert!(group.check_apis().is_ok());
    }

    #[test]
    fn hand_written_files() {
        let group = Group::parse("[[group]]\nid='a'\nversion='1'\noptional=true\nextension=false\nx=1").unwrap();
        assert!(group.buildpacks[0].optional);
        assert!(!group.to_toml().contains("optional"));
        assert_eq!(Group::parse("").unwrap(), Group::default());
        for text in ["[[group]]\nversion='1'", "[[group]]\nid='..'\nversion='1'", "group = 1"] {
            assert!(Group::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn apis_of_others_are_exit_code_12() {
        for (text, expected) in [
            (
                "[[group]]\nid='a'\nversion='1'\napi='0.2'",
                "failed to set API for Buildpack 'a@1': buildpack API version '0.2' is incompatible with the lifecycle",
            ),
            (
                "[[group-extensions]]\nid='e'\nversion='1'\napi='9.0'",
                "failed to set API for Extension 'e@1': buildpack API version '9.0' is incompatible with the lifecycle",
            ),
            (
                "[[group]]\nid='a'\nversion='1'\napi='bad'",
                "failed to parse buildpack API '<nil>' for buildpack 'a@1': 'bad' is not an API version",
            ),
            (
                "[[group]]\nid='a'\nversion='1'",
                "failed to parse buildpack API '<nil>' for buildpack 'a@1': '' is not an API version",
            ),
        ] {
            let failure = Group::parse(text).unwrap().check_apis().unwrap_err();
            assert_eq!((failure.code, failure.text.as_str()), (ExitCode::BuildpackApi, expected));
        }
    }
}
