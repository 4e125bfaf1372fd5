//! The Build Plan (what detect writes) and the Buildpack Plan (what build and generate read).

use crate::{ParseError, parse_toml};

/// One `[[provides]]`/`[[requires]]` pair of lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sections {
    /// Names provided.
    pub provides: Vec<String>,
    pub requires: Vec<Require>,
}

/// What a module asks for.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Require {
    #[serde(default)]
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<toml::Table>,
}

/// The top-level sections, then each `[[or]]`, in the order they are tried.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildPlan {
    /// Never empty.
    pub alternatives: Vec<Sections>,
}

#[derive(serde::Deserialize)]
struct PlanFile {
    #[serde(default)]
    provides: Vec<ProvideEntry>,
    #[serde(default)]
    requires: Vec<VersionedEntry>,
    #[serde(default)]
    or: Vec<OrEntry>,
}

#[derive(serde::Deserialize)]
struct OrEntry {
    #[serde(default)]
    provides: Vec<ProvideEntry>,
    #[serde(default)]
    requires: Vec<VersionedEntry>,
}

#[derive(serde::Deserialize)]
struct ProvideEntry {
    #[serde(default)]
    name: String,
}

/// A require or bom entry with the key that both once had.
#[derive(serde::Deserialize)]
pub(crate) struct VersionedEntry {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) version: String,
    pub(crate) metadata: Option<toml::Table>,
}

impl From<VersionedEntry> for Require {
    fn from(entry: VersionedEntry) -> Self {
        Self { name: entry.name, metadata: entry.metadata }
    }
}

impl BuildPlan {
    /// Parses what a detect wrote. A `version` key in a require is refused, as every supported API demands.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Self::parse_of("the build plan", text)
    }

    /// The same; `author` (`buildpack <id>`) is who a forbidden key is blamed on.
    pub(crate) fn parse_of(author: &str, text: &str) -> Result<Self, ParseError> {
        let file: PlanFile = parse_toml(text)?;
        let top = OrEntry { provides: file.provides, requires: file.requires };
        let sections: Vec<_> = std::iter::once(top).chain(file.or).collect();
        if sections.iter().flat_map(|s| &s.requires).any(|require| !require.version.is_empty()) {
            return Err(ParseError(format!(
                "{author} has a \"version\" key which is not supported. \"metadata.version\" should be used instead"
            )));
        }
        let alternatives = sections.into_iter().map(|entry| Sections {
            provides: entry.provides.into_iter().map(|provide| provide.name).collect(),
            requires: entry.requires.into_iter().map(Require::from).collect(),
        });
        Ok(Self { alternatives: alternatives.collect() })
    }

    /// Whether anything is required, in any alternative. An extension may not.
    pub(crate) fn has_requires(&self) -> bool {
        self.alternatives.iter().any(|sections| !sections.requires.is_empty())
    }
}

/// No provides, no requires.
impl Default for BuildPlan {
    fn default() -> Self {
        Self { alternatives: vec![Sections::default()] }
    }
}

/// The entries a buildpack's build (or an extension's generate) is given.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct BuildpackPlan {
    pub entries: Vec<Require>,
}

impl BuildpackPlan {
    /// The text of the plan file: `[[entries]]` tables; empty for no entry.
    pub fn to_toml(&self) -> String {
        if self.entries.is_empty() { String::new() } else { print_toml(self) }
    }
}

/// The TOML text of a value made of tables, strings and what a TOML file once held: all of it can be printed.
pub(crate) fn print_toml(value: &impl serde::Serialize) -> String {
    toml::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Read {
        entries: Vec<Require>,
    }

    fn require(name: &str, metadata: Option<&str>) -> Require {
        Require { name: name.to_owned(), metadata: metadata.map(|text| text.parse().unwrap()) }
    }

    #[test]
    fn top_level_first_then_each_or() {
        let plan = BuildPlan::parse(
            r#"
            unknown = 1
            [[or]]
            [[or.requires]]
            name = "late"
            [[provides]]
            name = "node"
            [[provides]]
            name = "npm"
            [[requires]]
            name = "node"
            [requires.metadata]
            version = "18"
            build = true
            [[or]]
            "#,
        )
        .unwrap();
        let top = Sections {
            provides: vec!["node".to_owned(), "npm".to_owned()],
            requires: vec![require(
                "node",
                Some(
                    "version = '18'
build = true",
                ),
            )],
        };
        let or = Sections { provides: vec![], requires: vec![require("late", None)] };
        assert_eq!(plan.alternatives, [top, or, Sections::default()]);
        assert!(plan.has_requires());
    }

    #[test]
    fn an_empty_plan_has_one_empty_alternative() {
        assert_eq!(BuildPlan::parse("").unwrap(), BuildPlan::default());
        assert!(!BuildPlan::default().has_requires());
    }

    #[test]
    fn version_keys_are_refused_everywhere() {
        for text in [
            "[[requires]]\nname = 'x'\nversion = '1'",
            "[[requires]]\nname = 'x'\nversion = '1'\n[requires.metadata]\nversion = '1'",
            "[[or]]\n[[or.requires]]\nname = 'x'\nversion = '1'",
        ] {
            assert_eq!(
                BuildPlan::parse_of("buildpack a/b", text).unwrap_err().to_string(),
                r#"buildpack a/b has a "version" key which is not supported. "metadata.version" should be used instead"#,
                "{text}"
            );
        }
        assert!(BuildPlan::parse("[[requires]]\nname = 'x'\nversion = ''").is_ok());
        assert!(BuildPlan::parse("[[requires]]\nname = 'x'\nversion = 1").is_err());
    }

    #[test]
    fn plans_print_what_they_read() {
        assert_eq!(BuildpackPlan::default().to_toml(), "");
        let metadata = "date = 2020-01-02T03:04:05Z\nfloat = 1.0\nint = 1\nnested = { a = [ { b = 'c' } ] }";
        let plan =
            BuildpackPlan { entries: vec![require("a", Some(metadata)), require("b", None), require("c", Some(""))] };
        let read: Read = parse_toml(&plan.to_toml()).unwrap();
        assert_eq!(read.entries, plan.entries);
        assert!(plan.to_toml().starts_with("[[entries]]\nname = \"a\"\n"), "{}", plan.to_toml());
    }
}
