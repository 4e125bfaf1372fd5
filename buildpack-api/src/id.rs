//! Names that become file names: checked when parsed, so that no later code can be led out of its directory.

use std::fmt;

use crate::ParseError;

/// The ID of a buildpack or extension, e.g. `heroku/nodejs`. Never empty, never a name that leaves its directory, and
/// never one of those that mean something else under `<layers>`.
///
/// The spec allows letters, digits, `.`, `/` and `-`; others (`_`, `@`, …) are in use and do no harm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BuildpackId(String);

/// Names that buildpack.md, "buildpack.toml" keeps from buildpacks: each is something else under `<layers>`.
const RESERVED_IDS: [&str; 4] = ["app", "config", "generated", "sbom"];

/// Characters that a process type may not have.
const FORBIDDEN_IN_TYPES: &str = r"/><:|&\";

impl BuildpackId {
    /// The ID as a file name: `/` becomes `_`.
    pub fn escaped(&self) -> String {
        escape(&self.0)
    }

    /// The ID as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn escape(id: &str) -> String {
    id.replace('/', "_")
}

impl TryFrom<String> for BuildpackId {
    type Error = ParseError;

    fn try_from(id: String) -> Result<Self, ParseError> {
        if id.is_empty() {
            return Err(ParseError("the ID of a buildpack or extension is missing or empty".to_owned()));
        }
        if RESERVED_IDS.contains(&id.as_str()) {
            return Err(ParseError(format!("buildpack ID '{id}' is reserved")));
        }
        if !is_file_name(&escape(&id)) {
            return Err(ParseError(format!("buildpack ID '{}' is not allowed", id.escape_default())));
        }
        Ok(Self(id))
    }
}

impl From<BuildpackId> for String {
    fn from(id: BuildpackId) -> Self {
        id.0
    }
}

impl fmt::Display for BuildpackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text, used as a file name, names an entry of its directory and nothing else. Versions of buildpacks and
/// names of layers that come from a file are to be asked this before they become part of a path.
pub fn is_file_name(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && !text.contains(|c: char| c == '/' || c.is_control())
}

/// Whether `<name>.toml` describes a layer: `launch.toml`, `build.toml` and `store.toml` are files of their own.
pub fn is_layer_name(name: &str) -> bool {
    is_file_name(name) && !matches!(name, "launch" | "build" | "store")
}

/// The type of a process, e.g. `web`; the name of its link under `/cnb/process`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ProcessType(String);

impl ProcessType {
    /// Any text; whether it may be exported is [`ProcessType::check`]'s question.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The type as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Refuses a type that cannot be a file name (empty, or holding one of `/><:|&\`).
    pub fn check(&self) -> Result<(), ParseError> {
        let text = self.0.as_str();
        let why = if text.is_empty() {
            "type may not be empty".to_owned()
        } else if text.contains(|c| FORBIDDEN_IN_TYPES.contains(c)) {
            format!("type may not contain characters '{FORBIDDEN_IN_TYPES}'")
        } else if !is_file_name(text) {
            "type is not a file name".to_owned()
        } else {
            return Ok(());
        };
        Err(ParseError(format!("invalid process type '{}': {why}", text.escape_debug())))
    }
}

impl fmt::Display for ProcessType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct File {
        #[serde(rename = "id")]
        _id: BuildpackId,
    }

    #[test]
    fn ids_become_file_names() {
        for (id, escaped) in [
            ("heroku/nodejs", "heroku_nodejs"),
            ("io.buildpacks.ruby", "io.buildpacks.ruby"),
            ("a/b/c", "a_b_c"),
            ("../x", ".._x"),
            ("/", "_"),
            ("./.", "._."),
            ("with_underscore@x y", "with_underscore@x y"),
            ("config/x", "config_x"),
            ("äöü", "äöü"),
        ] {
            assert_eq!(BuildpackId::try_from(id.to_owned()).unwrap().escaped(), escaped);
        }
    }

    #[test]
    fn ids_that_lead_elsewhere_are_refused() {
        for id in ["", ".", "..", "a\0b", "a\nb", "\u{7f}", "app", "config", "generated", "sbom"] {
            assert!(BuildpackId::try_from(id.to_owned()).is_err(), "{id:?}");
        }
        let error = crate::parse_toml::<File>("\nid = 'sbom'").unwrap_err().to_string();
        assert_eq!(error, "toml: line 2: buildpack ID 'sbom' is reserved");
    }

    #[test]
    fn layer_names() {
        for (name, is_layer) in [
            ("jdk", true),
            ("a.b", true),
            ("launch", false),
            ("build", false),
            ("store", false),
            ("..", false),
            ("a/b", false),
        ] {
            assert_eq!(is_layer_name(name), is_layer, "{name}");
        }
    }

    #[test]
    fn process_types() {
        for (text, ok) in [
            ("web", true),
            ("some.type_with-all", true),
            ("with space", true),
            ("", false),
            ("..", false),
            ("a/b", false),
            ("a>b", false),
            ("a<b", false),
            ("a:b", false),
            ("a|b", false),
            ("a&b", false),
            ("a\\b", false),
            ("a\nb", false),
        ] {
            assert_eq!(ProcessType::new(text).check().is_ok(), ok, "{text:?}");
        }
    }
}
