//! project-metadata.toml and label `io.buildpacks.project.metadata`. Spec: platform.md, "project-metadata.toml".

use buildpack_api::{ParseError, parse_toml};
use serde::Deserialize;
use toml::{Table, Value};

use crate::Data;

/// Where the source came from.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct ProjectMetadata {
    /// `{type?, version?, metadata?}`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Data>,
}

#[derive(Deserialize)]
struct FileKeys {
    source: Option<SourceKeys>,
}

#[derive(Deserialize)]
struct SourceKeys {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    version: Table,
    #[serde(default)]
    metadata: Table,
}

impl ProjectMetadata {
    /// # Errors
    /// Malformed TOML, or a value of the wrong type.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let source = parse_toml::<FileKeys>(text)?.source.map(|keys| {
            let mut source = Table::new();
            for (key, table) in [("version", keys.version), ("metadata", keys.metadata)] {
                if !table.is_empty() {
                    source.insert(key.into(), Value::Table(table));
                }
            }
            if !keys.r#type.is_empty() {
                source.insert("type".into(), keys.r#type.into());
            }
            Data(source)
        });
        Ok(Self { source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_holds_what_the_file_says() {
        for (text, label) in [
            ("", "{}"),
            ("[other]\nx=1", "{}"),
            ("[source]", r#"{"source":{}}"#),
            ("[source]\ntype='git'\nother=1", r#"{"source":{"type":"git"}}"#),
            (
                "[source]\ntype='git'\n[source.version]\ncommit='c'\nn=1\nat=1979-05-27T07:32:00Z\n[source.metadata]\nrefs=['m']",
                r#"{"source":{"metadata":{"refs":["m"]},"type":"git","version":{"at":"1979-05-27T07:32:00Z","commit":"c","n":1}}}"#,
            ),
        ] {
            let json = serde_json::to_value(ProjectMetadata::parse(text).unwrap()).unwrap();
            assert_eq!(json, serde_json::from_str::<serde_json::Value>(label).unwrap(), "{text}");
        }
        assert!(ProjectMetadata::parse("[source]\nversion='1'").is_err());
    }
}
