//! Execution environments (`production`, `test`, …): which a module, an order element or a process is for.

use serde::{Deserialize, Deserializer};

/// Whether something for these execution environments applies in `current`: none named or `*` means all.
pub fn exec_env_applies(declared: &[String], current: &str) -> bool {
    declared.is_empty() || declared.iter().any(|name| name == "*" || name == current)
}

/// Both forms in use: tables with a `name` (`[[buildpack.exec-env]]`, buildpack.md) and a list of names.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected the name of an execution environment, or a table with its name")]
enum Entry {
    Name(String),
    Table { name: String },
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let entries = Vec::<Entry>::deserialize(deserializer)?;
    Ok(entries.into_iter().map(|(Entry::Name(name) | Entry::Table { name })| name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_and_star_mean_all() {
        for (declared, current, applies) in [
            (&[][..], "test", true),
            (&["*"], "test", true),
            (&["production", "*"], "test", true),
            (&["production", "test"], "test", true),
            (&["production"], "test", false),
            (&["tes"], "test", false),
            (&[""], "test", false),
        ] {
            let declared: Vec<String> = declared.iter().map(ToString::to_string).collect();
            assert_eq!(exec_env_applies(&declared, current), applies, "{declared:?} {current}");
        }
    }
}
