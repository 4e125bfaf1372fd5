//! `<layers>/config/metadata.toml`: what build hands to export and to the launcher.
//!
//! The file is part of the image, so its bytes depend on the build's result alone. Spec: platform.md,
//! "metadata.toml".

use buildpack_api::{BomEntry, Label, ParseError, Process, ProcessType, Slice, parse_toml};
use serde::{Deserialize, Serialize};

use crate::{
    BuildLabel, GroupEntry, LauncherInfo, PlatformApi,
    build_metadata_keys::{BomKeys, EVERY_EXEC_ENV, FileKeys, ProcessKeys},
    metadata_text::{self, Fields, Node, array, quoted, quoted_command, strings},
};

/// What the build came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuildMetadata {
    /// The group's buildpacks, in order.
    pub buildpacks: Vec<GroupEntry>,
    /// The group's extensions, in order.
    pub extensions: Vec<GroupEntry>,
    /// Sorted by type; with the buildpack each is from.
    pub processes: Vec<(Process, String)>,
    /// Of all buildpacks, in order.
    pub slices: Vec<Slice>,
    /// Of all buildpacks, in order; a later one of the same key wins.
    pub labels: Vec<Label>,
    /// What the image runs unless told otherwise.
    pub default_process: Option<ProcessType>,
    /// Legacy, Platform API before 0.9: entries with `(id, version)` of their buildpack.
    pub bom: Vec<(BomEntry, (String, String))>,
}

impl BuildMetadata {
    /// Reads every API's shape (`command` as string or array).
    /// # Errors
    /// Malformed TOML, or a value of the wrong type.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let keys: FileKeys = parse_toml(text)?;
        Ok(Self {
            buildpacks: keys.buildpacks.into_iter().map(GroupEntry::from).collect(),
            extensions: keys.extensions.into_iter().map(GroupEntry::from).collect(),
            processes: keys.processes.into_iter().map(ProcessKeys::into_process).collect(),
            slices: keys.slices,
            labels: keys.labels,
            default_process: keys.buildpack_default_process_type.map(ProcessType::new),
            bom: keys.bom.into_iter().map(BomKeys::into_entry).collect(),
        })
    }

    /// Same input, same bytes: the file is part of the image.
    pub fn to_toml(&self, api: PlatformApi) -> String {
        let mut file = Fields::new();
        let mut tables = |name: &str, tables: Vec<Fields>| file.push((name.to_owned(), Node::Tables(tables)));
        if !api.bom_out_of_metadata() {
            tables("bom", self.bom.iter().map(bom).collect());
        }
        tables("buildpacks", self.buildpacks.iter().map(module).collect());
        tables("extensions", self.extensions.iter().map(module).collect());
        let label = |l: &Label| values([("key", Some(quoted(&l.key))), ("value", Some(quoted(&l.value)))]);
        tables("labels", self.labels.iter().map(label).collect());
        let processes = self.sorted_processes();
        tables("processes", processes.iter().map(|(p, id)| process(p, id, api)).collect());
        let slice = |slice: &Slice| values([("paths", (!slice.paths.is_empty()).then(|| strings(&slice.paths)))]);
        tables("slices", self.slices.iter().map(slice).collect());
        if processes.is_empty() {
            file.push(("processes".to_owned(), Node::Value("[]".to_owned())));
        }
        if let Some(default) = &self.default_process {
            file.push(("buildpack-default-process-type".to_owned(), Node::Value(quoted(default.as_str()))));
        }
        metadata_text::print(&file)
    }

    /// The value of label `io.buildpacks.build.metadata`.
    pub fn label(&self, launcher: &LauncherInfo, api: PlatformApi) -> BuildLabel {
        BuildLabel::new(self, launcher, api)
    }

    pub(crate) fn sorted_processes(&self) -> Vec<(&Process, &str)> {
        let mut all: Vec<_> = self.processes.iter().map(|(process, id)| (process, id.as_str())).collect();
        all.sort_by_key(|(process, _)| &process.r#type);
        all
    }
}

/// Keys without a value are left out.
fn values<const N: usize>(values: [(&str, Option<String>); N]) -> Fields {
    values.into_iter().filter_map(|(key, value)| Some((key.to_owned(), Node::Value(value?)))).collect()
}

fn module(entry: &GroupEntry) -> Fields {
    values([
        ("id", Some(quoted(entry.id.as_str()))),
        ("version", Some(quoted(&entry.version))),
        ("api", (!entry.api.is_empty()).then(|| quoted(&entry.api))),
        ("homepage", entry.homepage.as_deref().map(quoted)),
    ])
}

fn process(process: &Process, buildpack_id: &str, api: PlatformApi) -> Fields {
    let (command, args) = Command::of(process, api);
    let command = match command {
        Command::Program(program) => quoted_command(&program),
        Command::Words(words) => array(words.iter().map(|word| quoted_command(word))),
    };
    let exec_env = match process.exec_env.as_slice() {
        [] => api.exec_env().then(|| array([quoted(EVERY_EXEC_ENV)])),
        some => Some(strings(some)),
    };
    values([
        ("type", Some(quoted(process.r#type.as_str()))),
        ("command", Some(command)),
        ("args", args.map(|args| strings(&args))),
        ("direct", Some(process.direct.to_string())),
        ("buildpack-id", Some(quoted(buildpack_id))),
        ("working-dir", process.working_dir.as_ref().map(|dir| quoted(&dir.to_string_lossy()))),
        ("exec-env", exec_env),
    ])
}

fn bom((entry, (id, version)): &(BomEntry, (String, String))) -> Fields {
    let mut fields = values([("name", Some(quoted(&entry.name)))]);
    if let Some(metadata) = &entry.metadata {
        fields.push(("metadata".to_owned(), Node::Table(metadata_text::table(metadata))));
    }
    let owner = values([("id", Some(quoted(id))), ("version", Some(quoted(version)))]);
    fields.push(("buildpack".to_owned(), Node::Table(owner)));
    fields
}

/// A command: a string before Platform API 0.10, an array since.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Command {
    Program(String),
    Words(Vec<String>),
}

impl Command {
    /// The command as this API has it, and the arguments, if there is something to say of them. Where the command is a
    /// program alone, its other words go before the arguments, so that none is lost.
    pub(crate) fn of(process: &Process, api: PlatformApi) -> (Self, Option<Vec<String>>) {
        if api.command_array() {
            return (Self::Words(process.command.clone()), process.args.clone());
        }
        let (program, words) = process.command.split_first().map_or((String::new(), &[][..]), |(p, w)| (p.clone(), w));
        (Self::Program(program), Some([words, process.args()].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str) -> GroupEntry {
        GroupEntry {
            id: id.to_owned().try_into().unwrap(),
            version: "1".into(),
            api: "0.9".into(),
            homepage: None,
            optional: false,
        }
    }

    fn process(r#type: &str, command: &[&str], args: &[&str]) -> (Process, String) {
        let words = |all: &[&str]| all.iter().map(|w| (*w).to_owned()).collect();
        let process = Process {
            r#type: ProcessType::new(r#type),
            command: words(command),
            args: Some(words(args)).filter(|args| !args.is_empty()),
            direct: true,
            default: true,
            working_dir: None,
            exec_env: Vec::new(),
        };
        (process, "some/bp".to_owned())
    }

    fn metadata() -> BuildMetadata {
        let mut worker = process("worker", &["work"], &[]);
        worker.0.working_dir = Some("/w".into());
        worker.0.exec_env = vec!["test".into()];
        BuildMetadata {
            buildpacks: vec![entry("some/bp")],
            extensions: vec![],
            processes: vec![worker, process("web", &["serve", "--port"], &["80\n\"x\""])],
            slices: vec![Slice { paths: vec!["static/*".into()] }],
            labels: vec![Label { key: "k".into(), value: "v".into() }],
            default_process: Some(ProcessType::new("web")),
            bom: vec![(BomEntry { name: "dep".into(), metadata: None }, ("some/bp".into(), "1".into()))],
        }
    }

    #[test]
    fn the_shape_of_each_api() {
        for api in PlatformApi::ALL {
            let text = metadata().to_toml(api);
            let file: toml::Table = toml::from_str(&text).unwrap();
            let web = &file["processes"][0];
            assert_eq!(web["type"].as_str(), Some("web"), "sorted by type");
            assert_eq!(web["direct"].as_bool(), Some(true));
            assert!(web.get("default").is_none());
            assert_eq!(web["command"].is_str(), !api.command_array(), "{api}");
            let args = if api.command_array() { 1 } else { 2 };
            assert_eq!(web["args"].as_array().unwrap().len(), args, "{api}");
            assert_eq!(file.contains_key("bom"), !api.bom_out_of_metadata(), "{api}");
            assert_eq!(web.get("exec-env").is_some(), api.exec_env(), "{api}");
            assert_eq!(file["processes"][1]["exec-env"][0].as_str(), Some("test"));
            assert!(!file.contains_key("extensions"));
            assert_eq!(text, metadata().to_toml(api));
        }
    }

    /// These bytes are a layer of every app image, and the reference's are the same.
    #[test]
    fn the_bytes_of_each_api() {
        let new = r#"buildpack-default-process-type = "web"

[[buildpacks]]
  id = "some/bp"
  version = "1"
  api = "0.9"

[[labels]]
  key = "k"
  value = "v"

[[processes]]
  type = "web"
  command = ["serve", "--port"]
  args = ["80\n\"x\""]
  direct = true
  buildpack-id = "some/bp"

[[processes]]
  type = "worker"
  command = ["work"]
  direct = true
  buildpack-id = "some/bp"
  working-dir = "/w"
  exec-env = ["test"]

[[slices]]
  paths = ["static/*"]
"#;
        let bom = r#"
[[bom]]
  name = "dep"
  [bom.buildpack]
    id = "some/bp"
    version = "1"
"#;
        let old = new
            .replace("[\"serve\", \"--port\"]", "\"serve\"")
            .replace("args = [", "args = [\"--port\", ")
            .replace("[\"work\"]", "\"work\"\n  args = []");
        for api in PlatformApi::ALL {
            let mut text = if api.command_array() { new.to_owned() } else { old.clone() };
            if !api.bom_out_of_metadata() {
                text = text.replacen("\n\n", &format!("\n{bom}\n"), 1);
            }
            if api.exec_env() {
                let end = "buildpack-id = \"some/bp\"\n";
                text = text.replacen(end, &format!("{end}  exec-env = [\"*\"]\n"), 1);
            }
            assert_eq!(metadata().to_toml(api), text, "{api}");
        }
    }

    #[test]
    fn no_processes_are_said_to_be_none() {
        let nothing = BuildMetadata { buildpacks: vec![entry("some/bp")], ..BuildMetadata::default() };
        let text = "processes = []\n\n[[buildpacks]]\n  id = \"some/bp\"\n  version = \"1\"\n  api = \"0.9\"\n";
        assert_eq!(nothing.to_toml(PlatformApi::V0_14), text);
    }

    /// A layer is made of them: none and an empty list are different bytes.
    #[test]
    fn what_was_said_of_arguments_is_kept() {
        let with = |args| BuildMetadata {
            processes: vec![(Process { args, ..process("web", &["run"], &[]).0 }, "some/bp".to_owned())],
            ..BuildMetadata::default()
        };
        for (args, line) in [(None, false), (Some(Vec::new()), true)] {
            let text = with(args.clone()).to_toml(PlatformApi::V0_14);
            assert_eq!(text.contains("  args = []\n"), line);
            assert_eq!(BuildMetadata::parse(&text).unwrap().processes[0].0.args, args);
            let label = with(args).label(&LauncherInfo::default(), PlatformApi::V0_14);
            let label = serde_json::to_string(&label).unwrap();
            assert!(label.contains(if line { r#""args":[]"# } else { r#""args":null"# }), "{label}");
        }
    }

    #[test]
    fn what_was_written_is_read() {
        for api in PlatformApi::ALL {
            let mut expected = metadata();
            expected.processes.sort_by_key(|(p, _)| p.r#type.clone());
            for (process, _) in &mut expected.processes {
                process.default = false;
                if !api.command_array() {
                    let words = process.command.split_off(1);
                    process.args = Some([words, process.args().to_vec()].concat());
                }
            }
            if api.bom_out_of_metadata() {
                expected.bom.clear();
            }
            assert_eq!(BuildMetadata::parse(&expected.to_toml(api)).unwrap(), expected, "{api}");
        }
    }

    #[test]
    fn both_shapes_of_a_command_are_read() {
        let text = "[[processes]]\ntype='a'\ncommand='run it'\n[[processes]]\ntype='b'\ncommand=['run','it']\nexec-env=['*','x']";
        let read = BuildMetadata::parse(text).unwrap();
        assert_eq!(read.processes[0].0.command, ["run it"]);
        assert_eq!(read.processes[1].0.command, ["run", "it"]);
        assert!(read.processes[1].0.exec_env.is_empty());
        assert!(BuildMetadata::parse("[[processes]]\ntype='a'\ncommand=1").is_err());
        assert_eq!(BuildMetadata::parse("").unwrap(), BuildMetadata::default());
    }

    #[test]
    fn the_label_of_each_api() {
        let launcher = LauncherInfo { version: "1.2".into(), repository: "repo".into(), commit: "abc".into() };
        let label = |api| serde_json::to_string(&metadata().label(&launcher, api)).unwrap();
        let new = concat!(
            r#"{"buildpacks":[{"id":"some/bp","version":"1","api":"0.9"}],"#,
            r#""launcher":{"version":"1.2","source":{"git":{"repository":"repo","commit":"abc"}}},"processes":["#,
            r#"{"type":"web","command":["serve","--port"],"args":["80\n\"x\""],"direct":true,"buildpackID":"some/bp"},"#,
            r#"{"type":"worker","command":["work"],"args":null,"direct":true,"buildpackID":"some/bp","#,
            r#""working-dir":"/w","exec-env":["test"]}],"buildpack-default-process-type":"web"}"#
        );
        assert_eq!(label(PlatformApi::V0_15), new);
        assert_eq!(label(PlatformApi::V0_10), new);
        let old = label(PlatformApi::V0_8);
        let bom = r#"{"bom":[{"name":"dep","metadata":null,"buildpack":{"id":"some/bp","version":"1"}}],"buildpacks""#;
        assert!(old.starts_with(bom), "{old}");
        assert!(old.contains(r#""command":"serve","args":["--port","80\n\"x\""]"#), "{old}");
        assert!(old.contains(r#""command":"work","args":[],"#), "{old}");
        assert!(!label(PlatformApi::V0_9).contains("bom"));
        assert!(label(PlatformApi::V0_9).contains(r#""command":"serve""#));
    }
}
