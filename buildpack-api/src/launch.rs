//! launch.toml, normalised while parsing: whatever its API, the values have the newest shape.

use std::path::PathBuf;

use crate::{BuildpackApi, ParseError, ProcessType, parse_toml, plan::VersionedEntry};

/// What a buildpack contributes to the app image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Launch {
    pub labels: Vec<Label>,
    pub processes: Vec<Process>,
    pub slices: Vec<Slice>,
    /// Legacy `[[bom]]`.
    pub bom: Vec<BomEntry>,
    /// Sentences for the user, e.g. that a working-dir was dropped.
    pub warnings: Vec<String>,
}

/// A label of the app image.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Label {
    #[serde(default)]
    pub key: String,
    #[serde(default)]
    pub value: String,
}

/// A process of the app image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    pub r#type: ProcessType,
    /// Never empty: the program, then arguments that are always passed.
    pub command: Vec<String>,
    /// Arguments that a user's replace. None and an empty list mean the same; what was said is kept.
    pub args: Option<Vec<String>>,
    /// Executed without a shell. Always true from Buildpack API 0.9 on.
    pub direct: bool,
    /// The image's default process.
    pub default: bool,
    pub working_dir: Option<PathBuf>,
    /// Execution environments it is for (see [`exec_env_applies`](crate::exec_env_applies)).
    pub exec_env: Vec<String>,
}

impl Process {
    /// Arguments that a user's replace.
    pub fn args(&self) -> &[String] {
        self.args.as_deref().unwrap_or_default()
    }
}

/// Paths (globs, relative to the app directory) that go into a layer of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Slice {
    #[serde(default)]
    pub paths: Vec<String>,
}

/// An entry of the legacy bill of materials.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct BomEntry {
    #[serde(default)]
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<toml::Table>,
}

/// For a buildpack with bom entries and without SBOM files.
pub const BOM_IS_DEPRECATED: &str = "BOM table is deprecated in this buildpack api version, though it remains supported \
     for backwards compatibility. Buildpack authors should write BOM information to <layer>.sbom.<ext>, \
     launch.sbom.<ext>, or build.sbom.<ext>.";

#[derive(serde::Deserialize)]
struct LaunchFile {
    #[serde(default)]
    labels: Vec<Label>,
    #[serde(default)]
    processes: Vec<ProcessEntry>,
    #[serde(default)]
    slices: Vec<Slice>,
    #[serde(default)]
    bom: Vec<VersionedEntry>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ProcessEntry {
    #[serde(default)]
    r#type: ProcessType,
    command: Option<toml::Value>,
    args: Option<Vec<String>>,
    direct: Option<bool>,
    #[serde(default)]
    default: bool,
    #[serde(default)]
    working_dir: PathBuf,
    #[serde(default, deserialize_with = "crate::exec_env::deserialize")]
    exec_env: Vec<String>,
}

impl Launch {
    /// Parses launch.toml as this API has it.
    /// # Errors
    /// The wrong kind of `command` or none, a `direct` key where it is gone, more than one default process, a
    /// versioned bom.
    pub fn parse(text: &str, api: BuildpackApi) -> Result<Self, ParseError> {
        let file: LaunchFile = parse_toml(text)?;
        let mut launch = Self { labels: file.labels, slices: file.slices, ..Self::default() };
        for entry in file.processes {
            let process = entry.normalised(api, &mut launch.warnings)?;
            launch.processes.push(process);
        }
        launch.bom = check_bom(file.bom)?;
        if launch.processes.iter().filter(|process| process.default).count() > 1 {
            return Err(ParseError("multiple default process types aren't allowed".to_owned()));
        }
        Ok(launch)
    }
}

impl ProcessEntry {
    fn normalised(self, api: BuildpackApi, warnings: &mut Vec<String>) -> Result<Process, ParseError> {
        if self.direct.is_some() && api.command_array() {
            return Err(ParseError("process.direct is not supported on this buildpack version".to_owned()));
        }
        let command = command(self.command, api)
            .map_err(|what| ParseError(format!("process '{}': {what} (Buildpack API {api})", self.r#type)))?;
        let mut working_dir = Some(self.working_dir).filter(|dir| !dir.as_os_str().is_empty());
        if working_dir.is_some() && !api.working_dir() {
            working_dir = None;
            warnings.push(format!(
                "Warning: process working directory isn't supported in this buildpack api version. Ignoring working \
                 directory for process '{}'",
                self.r#type
            ));
        }
        Ok(Process {
            r#type: self.r#type,
            command,
            args: self.args,
            direct: self.direct.unwrap_or(api.command_array()),
            default: self.default,
            working_dir,
            exec_env: self.exec_env,
        })
    }
}

fn command(value: Option<toml::Value>, api: BuildpackApi) -> Result<Vec<String>, &'static str> {
    let Some(value) = value else { return Err("command is missing") };
    if !api.command_array() {
        return match value {
            toml::Value::String(command) => Ok(vec![command]),
            _ => Err("command must be a string"),
        };
    }
    let command: Vec<String> = value.try_into().map_err(|_| "command must be an array of strings")?;
    if command.is_empty() { Err("command is empty") } else { Ok(command) }
}

/// The entries without the version that they must not have.
pub(crate) fn check_bom(entries: Vec<VersionedEntry>) -> Result<Vec<BomEntry>, ParseError> {
    let check = |entry: VersionedEntry| {
        if entry.version.is_empty() {
            return Ok(BomEntry { name: entry.name, metadata: entry.metadata });
        }
        Err(ParseError(format!(
            "bom entry '{}' has a top level version which is not allowed. The buildpack should instead set \
             metadata.version",
            entry.name
        )))
    };
    entries.into_iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    fn process(command: &[&str], direct: bool) -> Process {
        Process { r#type: ProcessType::new("web"), command: texts(command), direct, ..Process::default() }
    }

    #[test]
    fn a_process_has_the_newest_shape_whatever_its_api() {
        for (api, keys, expected) in [
            (BuildpackApi::V0_8, "command = 'run it'", process(&["run it"], false)),
            (BuildpackApi::V0_8, "command = ''", process(&[""], false)),
            (BuildpackApi::V0_7, "command = 'x'\ndirect = true", process(&["x"], true)),
            (BuildpackApi::V0_9, "command = ['x', 'y']", process(&["x", "y"], true)),
            (
                BuildpackApi::V0_12,
                "command = ['x']\nargs = ['a', 'b']",
                Process { args: Some(texts(&["a", "b"])), ..process(&["x"], true) },
            ),
            (
                BuildpackApi::V0_8,
                "command = 'x'\ndefault = true\nworking-dir = 'sub'",
                Process { default: true, working_dir: Some(PathBuf::from("sub")), ..process(&["x"], false) },
            ),
            (
                BuildpackApi::V0_12,
                "command = ['x']\nworking-dir = ''\nexec-env = ['test']",
                Process { exec_env: texts(&["test"]), ..process(&["x"], true) },
            ),
            (
                BuildpackApi::V0_12,
                "command = ['x']\nunknown = 1\n[[processes.exec-env]]\nname = 'test'",
                Process { exec_env: texts(&["test"]), ..process(&["x"], true) },
            ),
        ] {
            let launch = Launch::parse(&format!("[[processes]]\ntype = 'web'\n{keys}"), api).unwrap();
            assert_eq!(launch.processes, [expected], "{api} {keys}");
            assert!(launch.warnings.is_empty());
        }
    }

    #[test]
    fn what_a_process_may_not_be() {
        for (api, keys, error) in [
            (BuildpackApi::V0_8, "command = ['x']", "process 'web': command must be a string (Buildpack API 0.8)"),
            (BuildpackApi::V0_8, "", "process 'web': command is missing (Buildpack API 0.8)"),
            (
                BuildpackApi::V0_9,
                "command = 'x'",
                "process 'web': command must be an array of strings (Buildpack API 0.9)",
            ),
            (
                BuildpackApi::V0_9,
                "command = [1]",
                "process 'web': command must be an array of strings (Buildpack API 0.9)",
            ),
            (BuildpackApi::V0_9, "command = []", "process 'web': command is empty (Buildpack API 0.9)"),
            (
                BuildpackApi::V0_9,
                "command = ['x']\ndirect = true",
                "process.direct is not supported on this buildpack version",
            ),
            (
                BuildpackApi::V0_9,
                "command = ['x']\ndirect = false",
                "process.direct is not supported on this buildpack version",
            ),
            (
                BuildpackApi::V0_9,
                "command = ['x']\ndefault = true\n[[processes]]\ntype = 'b'\ncommand = ['y']\ndefault = true",
                "multiple default process types aren't allowed",
            ),
        ] {
            let launch = Launch::parse(&format!("[[processes]]\ntype = 'web'\n{keys}"), api);
            assert_eq!(launch.unwrap_err().to_string(), error, "{keys}");
        }
    }

    #[test]
    fn working_dir_is_dropped_with_a_warning_where_it_is_not_known() {
        let text = "[[processes]]\ntype = 'web'\ncommand = 'x'\nworking-dir = '/w'";
        let launch = Launch::parse(text, BuildpackApi::V0_7).unwrap();
        assert_eq!(launch.processes, [process(&["x"], false)]);
        assert_eq!(
            launch.warnings,
            [
                "Warning: process working directory isn't supported in this buildpack api version. Ignoring working directory for process 'web'"
            ]
        );
    }

    #[test]
    fn labels_slices_and_bom() {
        let text = "[[labels]]\nkey = 'k'\nvalue = 'v'\n[[slices]]\npaths = ['a', 'b/*']\n[[slices]]\n\
                    [[bom]]\nname = 'n'\n[bom.metadata]\nx = 1";
        let launch = Launch::parse(text, BuildpackApi::V0_12).unwrap();
        assert_eq!(launch.labels, [Label { key: "k".to_owned(), value: "v".to_owned() }]);
        assert_eq!(launch.slices, [Slice { paths: texts(&["a", "b/*"]) }, Slice::default()]);
        assert_eq!(launch.bom, [BomEntry { name: "n".to_owned(), metadata: Some("x = 1".parse().unwrap()) }]);
        assert_eq!(Launch::parse("", BuildpackApi::V0_12).unwrap(), Launch::default());
        let error = Launch::parse("[[bom]]\nname = 'n'\nversion = '1'", BuildpackApi::V0_12).unwrap_err().to_string();
        assert!(error.starts_with("bom entry 'n' has a top level version which is not allowed."), "{error}");
    }
}
