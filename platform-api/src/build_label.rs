//! The value of label `io.buildpacks.build.metadata`. Spec: platform.md, "Labels".

use serde::Serialize;

use crate::{BuildMetadata, Data, GroupEntry, PlatformApi, build_metadata::Command};

/// Who made the image: version and source of the lifecycle, for the build label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LauncherInfo {
    /// Version of the lifecycle; platforms compare it with that of their builder.
    pub version: String,
    /// Where its source is.
    pub repository: String,
    /// The commit it was built from.
    pub commit: String,
}

/// Label `io.buildpacks.build.metadata`; a value that serialises to the label's JSON.
#[derive(Clone, Debug, Serialize)]
pub struct BuildLabel {
    /// Before Platform API 0.9.
    #[serde(skip_serializing_if = "Option::is_none")]
    bom: Option<Vec<BomLabel>>,
    buildpacks: Vec<ModuleLabel>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extensions: Vec<ModuleLabel>,
    launcher: LauncherLabel,
    processes: Vec<ProcessLabel>,
    #[serde(rename = "buildpack-default-process-type", skip_serializing_if = "Option::is_none")]
    default_process: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct BomLabel {
    name: String,
    metadata: Option<Data>,
    buildpack: BomOwner,
}

#[derive(Clone, Debug, Serialize)]
struct BomOwner {
    id: String,
    version: String,
}

#[derive(Clone, Debug, Serialize)]
struct ModuleLabel {
    id: String,
    version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    homepage: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct LauncherLabel {
    version: String,
    source: SourceLabel,
}

#[derive(Clone, Debug, Serialize)]
struct SourceLabel {
    git: GitLabel,
}

#[derive(Clone, Debug, Serialize)]
struct GitLabel {
    repository: String,
    commit: String,
}

#[derive(Clone, Debug, Serialize)]
struct ProcessLabel {
    r#type: String,
    command: Command,
    /// `null` where nothing was said of them.
    args: Option<Vec<String>>,
    direct: bool,
    #[serde(rename = "buildpackID")]
    buildpack_id: String,
    #[serde(rename = "working-dir", skip_serializing_if = "Option::is_none")]
    working_dir: Option<String>,
    #[serde(rename = "exec-env", skip_serializing_if = "Vec::is_empty")]
    exec_env: Vec<String>,
}

impl BuildLabel {
    pub(crate) fn new(build: &BuildMetadata, launcher: &LauncherInfo, api: PlatformApi) -> Self {
        let bom = || {
            let entry = |(entry, (id, version)): &(buildpack_api::BomEntry, (String, String))| BomLabel {
                name: entry.name.clone(),
                metadata: entry.metadata.clone().map(Data),
                buildpack: BomOwner { id: id.clone(), version: version.clone() },
            };
            build.bom.iter().map(entry).collect()
        };
        Self {
            bom: (!api.bom_out_of_metadata()).then(bom),
            buildpacks: build.buildpacks.iter().map(module).collect(),
            extensions: build.extensions.iter().map(module).collect(),
            launcher: LauncherLabel {
                version: launcher.version.clone(),
                source: SourceLabel {
                    git: GitLabel { repository: launcher.repository.clone(), commit: launcher.commit.clone() },
                },
            },
            processes: build.sorted_processes().into_iter().map(|(p, id)| process(p, id, api)).collect(),
            default_process: build.default_process.as_ref().map(ToString::to_string),
        }
    }
}

fn module(entry: &GroupEntry) -> ModuleLabel {
    ModuleLabel {
        id: entry.id.to_string(),
        version: entry.version.clone(),
        api: entry.api.clone(),
        homepage: entry.homepage.clone(),
    }
}

fn process(process: &buildpack_api::Process, buildpack_id: &str, api: PlatformApi) -> ProcessLabel {
    let (command, args) = Command::of(process, api);
    ProcessLabel {
        r#type: process.r#type.to_string(),
        command,
        args,
        direct: process.direct,
        buildpack_id: buildpack_id.to_owned(),
        working_dir: process.working_dir.as_ref().map(|dir| dir.to_string_lossy().into_owned()),
        exec_env: process.exec_env.clone(),
    }
}
