//! The keys of metadata.toml, and how they become values. The text is made elsewhere: its bytes matter.

use std::path::PathBuf;

use buildpack_api::{BomEntry, Label, Process, ProcessType, Slice};
use serde::{Deserialize, Serialize};

use crate::{build_metadata::Command, group::EntryKeys};

/// A process for every execution environment.
pub(crate) const EVERY_EXEC_ENV: &str = "*";

/// The file, key by key.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct FileKeys {
    pub(crate) buildpack_default_process_type: Option<String>,
    #[serde(default)]
    pub(crate) bom: Vec<BomKeys>,
    #[serde(default)]
    pub(crate) buildpacks: Vec<EntryKeys>,
    #[serde(default)]
    pub(crate) extensions: Vec<EntryKeys>,
    #[serde(default)]
    pub(crate) labels: Vec<Label>,
    #[serde(default)]
    pub(crate) processes: Vec<ProcessKeys>,
    #[serde(default)]
    pub(crate) slices: Vec<Slice>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ProcessKeys {
    r#type: String,
    command: Command,
    args: Option<Vec<String>>,
    #[serde(default)]
    direct: bool,
    #[serde(default)]
    buildpack_id: String,
    working_dir: Option<PathBuf>,
    #[serde(default)]
    exec_env: Vec<String>,
}

impl ProcessKeys {
    pub(crate) fn into_process(self) -> (Process, String) {
        let process = Process {
            r#type: ProcessType::new(self.r#type),
            command: match self.command {
                Command::Program(program) => vec![program],
                Command::Words(words) => words,
            },
            args: self.args,
            direct: self.direct,
            default: false,
            working_dir: self.working_dir.filter(|dir| !dir.as_os_str().is_empty()),
            exec_env: if self.exec_env.iter().any(|env| env == EVERY_EXEC_ENV) { Vec::new() } else { self.exec_env },
        };
        (process, self.buildpack_id)
    }
}

/// A legacy bill of materials' entry with its owner.
#[derive(Serialize, Deserialize)]
pub(crate) struct BomKeys {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<toml::Table>,
    #[serde(default)]
    buildpack: BomOwner,
}

#[derive(Default, Serialize, Deserialize)]
struct BomOwner {
    #[serde(default)]
    id: String,
    #[serde(default)]
    version: String,
}

impl BomKeys {
    pub(crate) fn into_entry(self) -> (BomEntry, (String, String)) {
        (BomEntry { name: self.name, metadata: self.metadata }, (self.buildpack.id, self.buildpack.version))
    }
}

pub(crate) fn bom_keys(bom: &[(BomEntry, (String, String))]) -> Vec<BomKeys> {
    let keys = |(entry, (id, version)): &(BomEntry, (String, String))| BomKeys {
        name: entry.name.clone(),
        metadata: entry.metadata.clone(),
        buildpack: BomOwner { id: id.clone(), version: version.clone() },
    };
    bom.iter().map(keys).collect()
}
