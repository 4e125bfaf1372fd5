//! Build: runs every buildpack's `bin/build` in order, hands on to each what those before it left, and collects what
//! they say of the image.
//!
//! A buildpack may write what it likes into its layers directory. It is read with limits, and nothing outside of that
//! directory and `<layers>/sbom` is written or renamed on its word.
//!
//! Spec: buildpack.md "Phase #5: Build"; platform.md "builder".

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    time::{Instant, SystemTime},
};

use anyhow::{Context as _, bail};
use buildpack_api::{
    BOM_IS_DEPRECATED, BomEntry, BuildToml, Buildpack, BuildpackKind, BuildpackPlan, Context, Env, EnvDirDefault, Kind,
    Label, Launch, LayerTypes, Process, ProcessType, RunError, SbomFormat, Slice,
};
use platform_api::{
    BuildMetadata, Data, ExitCode, Failure, Group, GroupEntry, Plan, TargetData, file, inputs::BuilderInputs,
};
use serde::Serialize;
use tracing::{debug, warn};

use crate::{
    labels,
    layers_dir::{BuildpackDir, is_own_dir, read_own_toml},
    os_release,
    sbom::{self, SbomDir, SbomFile},
    span,
};

/// Runs the group's buildpacks. Who calls writes the result to `<layers>/config/metadata.toml`.
///
/// # Errors
/// A [`Failure`] where a `bin/build` fails (exit code 51) or a Buildpack API is not ours (12). Otherwise: what a
/// buildpack wrote makes no sense, or cannot be read or copied; the error names the file.
pub fn build(
    inputs: &BuilderInputs,
    group: &Group,
    plan: Plan,
    target: Option<&TargetData>,
) -> anyhow::Result<BuildMetadata> {
    group.check_apis()?;
    remove_all(&inputs.layers.join("sbom"))?;
    let mut context = context(inputs, target);
    let mut plan = plan;
    let mut outputs = Outputs::default();
    for entry in &group.buildpacks {
        debug!("Running build for buildpack {}", entry.full_name());
        debug!("Looking up buildpack");
        let buildpack = inputs.dirs.buildpack(&entry.id, &entry.version)?;
        GroupEntry { api: buildpack.api_text.clone(), ..entry.clone() }.supported_api(Kind::Buildpack)?;
        debug!("Finding plan");
        let own_plan = plan.for_module(Kind::Buildpack, &entry.id, &entry.version);
        let (began, since) = (SystemTime::now(), Instant::now());
        let met = run_one(inputs, entry, &buildpack, &own_plan, &mut context, &mut outputs);
        span::tell("build", "buildpack", entry, began, since.elapsed(), met.is_ok());
        plan = plan.without(&met?);
        debug!("Finished running build for buildpack {}", entry.full_name());
    }
    let metadata = finish(inputs, group, outputs)?;
    refuse_links(&inputs.layers)?;
    Ok(metadata)
}

/// What a buildpack may have put in the place of metadata.toml, or of its directory, could lead who writes it anywhere.
fn refuse_links(layers: &Path) -> anyhow::Result<()> {
    let config = layers.join("config");
    let metadata = config.join("metadata.toml");
    if is_own_dir(&config)? && metadata.is_symlink() {
        bail!("{} is a symbolic link; it must be a file", metadata.display());
    }
    Ok(())
}

fn context(inputs: &BuilderInputs, target: Option<&TargetData>) -> Context {
    Context {
        app: inputs.app.clone(),
        platform: inputs.platform.clone(),
        build_config: Some(inputs.build_config.clone()),
        target: os_release::completed_aloud(target),
        no_color: inputs.log.no_color,
        exec_env: inputs.exec_env.clone(),
        env: Env::for_build(inputs.inherited.iter().cloned()),
    }
}

/// What the buildpacks said so far.
#[derive(Default)]
struct Outputs {
    processes: Processes,
    labels: Vec<Label>,
    slices: Vec<Slice>,
    /// With ID and version of their buildpack.
    launch_bom: Vec<(BomEntry, (String, String))>,
    build_bom: Vec<(BomEntry, (String, String))>,
    sboms: Vec<SbomCopy>,
}

/// An SBOM file and where it is to be copied.
struct SbomCopy {
    file: SbomFile,
    entry: GroupEntry,
    format: SbomFormat,
    types: LayerTypes,
}

/// Runs a buildpack and takes in what it wrote. Returns the names of the plan's entries that it met.
fn run_one(
    inputs: &BuilderInputs,
    entry: &GroupEntry,
    buildpack: &Buildpack,
    plan: &BuildpackPlan,
    context: &mut Context,
    outputs: &mut Outputs,
) -> anyhow::Result<Vec<String>> {
    debug!("Creating plan directory");
    debug!("Preparing paths");
    let path = inputs.layers.join(entry.id.escaped());
    if !is_own_dir(&path)? {
        fs::create_dir_all(&path).with_context(|| format!("mkdir {}", path.display()))?;
    }
    debug!("Running build command");
    buildpack_api::build(buildpack, plan, context, &path).map_err(run_failure)?;

    debug!("Processing layers");
    let dir = BuildpackDir::read(&inputs.layers, &entry.id, &entry.version)?;
    process_layers(&inputs.layers, &dir).context("failed to process buildpack layer")?;
    debug!("Updating environment");
    for layer in dir.layers.iter().filter(|layer| types(&dir, &layer.name).build) {
        context.env.add_build_layer(&layer.path)?;
        context.env.apply_dir(&layer.path.join("env"), EnvDirDefault::Override)?;
        context.env.apply_dir(&layer.path.join("env.build"), EnvDirDefault::Override)?;
    }
    debug!("Reading output files");
    read_outputs(entry, buildpack, plan, &dir, outputs)
}

fn run_failure(error: RunError) -> anyhow::Error {
    match error {
        RunError::Status { .. } | RunError::Start(_) => {
            Failure::new(ExitCode::BuildpackBuild, error.to_string()).into()
        }
        RunError::Around(_) => error.into(),
    }
}

/// What a layer is for; a layer without a file is for nothing.
fn types(dir: &BuildpackDir, layer: &str) -> LayerTypes {
    dir.layer(layer).and_then(|layer| layer.toml.as_ref().ok()).map(|toml| toml.types).unwrap_or_default()
}

/// Checks every layer, and takes those that are for nothing out of the way.
fn process_layers(layers: &Path, dir: &BuildpackDir) -> anyhow::Result<()> {
    // As a layer that is for nothing it would be put aside, and nobody would hear of it.
    for name in ["launch.toml", "build.toml", "store.toml"] {
        if dir.path.join(name).is_dir() {
            bail!("read {}: is a directory", dir.path.join(name).display());
        }
    }
    for layer in &dir.layers {
        let types = layer.toml.as_ref().map_err(Clone::clone).context("failed to decode layer metadata file")?.types;
        if types == LayerTypes::default() {
            ignore(&layer.path).context("failed to rename layer directory")?;
        } else if layer.has_contents && (types.launch || types.cache) {
            refuse_link_out(layers, &layer.path)?;
        }
    }
    Ok(())
}

/// Renames `<layer>` to `<layer>.ignore`, whatever is there already.
fn ignore(layer: &Path) -> anyhow::Result<()> {
    if fs::symlink_metadata(layer).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    let mut ignored = layer.as_os_str().to_owned();
    ignored.push(".ignore");
    let ignored = Path::new(&ignored);
    remove_all(ignored)?;
    fs::rename(layer, ignored).with_context(|| format!("rename {} to {}", layer.display(), ignored.display()))
}

/// A layer may be a link, but for an image or the cache not one that leads out of the layers directory: it would be empty
/// there.
fn refuse_link_out(layers: &Path, layer: &Path) -> anyhow::Result<()> {
    if !fs::symlink_metadata(layer).is_ok_and(|meta| meta.is_symlink()) {
        return Ok(());
    }
    let real = |path: &Path| fs::canonicalize(path).with_context(|| format!("resolve {}", path.display()));
    let (to, layers) = (real(layer)?, real(layers)?);
    if !to.starts_with(layers) {
        let (layer, to) = (layer.display(), to.display());
        bail!("layer {layer} is a symbolic link to {to}, outside of the layers directory");
    }
    Ok(())
}

/// Removes a file, a link (not what it leads to) or a directory, if it is there.
fn remove_all(path: &Path) -> anyhow::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).context(format!("remove {}", path.display())),
        _ => Ok(()),
    }
}

fn read_outputs(
    entry: &GroupEntry,
    buildpack: &Buildpack,
    plan: &BuildpackPlan,
    dir: &BuildpackDir,
    outputs: &mut Outputs,
) -> anyhow::Result<Vec<String>> {
    let api = entry_api(buildpack)?;
    let build = read_own_toml(&dir.path.join("build.toml"), BuildToml::parse)?.unwrap_or_default();
    let met = met_names(plan, &build.unmet)?;
    add_sboms(entry, buildpack, dir, outputs)?;
    let launch = read_own_toml(&dir.path.join("launch.toml"), |text| Launch::parse(text, api))?.unwrap_or_default();

    let has_bom = !build.bom.is_empty() || !launch.bom.is_empty();
    if has_bom && dir.sboms.is_empty() {
        warn!("{BOM_IS_DEPRECATED}");
    }
    for warning in &launch.warnings {
        warn!("{}", warning.strip_prefix("Warning: ").unwrap_or(warning));
    }
    debug!("Updating buildpack processes");
    let from = (entry.id.to_string(), entry.version.clone());
    let with_source = |bom: Vec<BomEntry>| bom.into_iter().map(|item| (item, from.clone())).collect::<Vec<_>>();
    outputs.build_bom.extend(with_source(build.bom));
    outputs.launch_bom.extend(with_source(launch.bom));
    outputs.labels.extend(launch.labels);
    outputs.slices.extend(launch.slices);
    debug!("Updating process list");
    if let Some(r#type) = outputs.processes.add(launch.processes, entry.id.as_str()) {
        warn!("redefining the following default process type with a process not marked as default: {type}");
    }
    Ok(met)
}

fn entry_api(buildpack: &Buildpack) -> anyhow::Result<buildpack_api::BuildpackApi> {
    buildpack.api.clone().with_context(|| format!("buildpack {}", buildpack.full_name()))
}

/// The names of the plan's entries but the unmet ones.
fn met_names(plan: &BuildpackPlan, unmet: &[String]) -> anyhow::Result<Vec<String>> {
    for name in unmet {
        if plan.entries.iter().all(|entry| entry.name != *name) {
            bail!("unmet.name '{name}' must match a requested dependency");
        }
    }
    let met = plan.entries.iter().map(|entry| &entry.name).filter(|name| !unmet.contains(name));
    Ok(met.cloned().collect())
}

/// Notes the SBOM files to be copied. Those of a layer without a `<layer>.toml` are of no layer, and ignored.
fn add_sboms(
    entry: &GroupEntry,
    buildpack: &Buildpack,
    dir: &BuildpackDir,
    outputs: &mut Outputs,
) -> anyhow::Result<()> {
    let declared = match &buildpack.kind {
        BuildpackKind::Component { sbom_formats, .. } => sbom_formats.as_slice(),
        BuildpackKind::Composite { .. } => &[],
    };
    for file in &dir.sboms {
        let layer_types = match &file.of {
            sbom::SbomOf::Layer(name) if !dir.layer(name).is_some_and(|layer| layer.has_toml) => continue,
            sbom::SbomOf::Layer(name) => types(dir, name),
            sbom::SbomOf::Launch | sbom::SbomOf::Build => LayerTypes::default(),
        };
        let format = file.checked_format(&entry.full_name(), declared)?;
        outputs.sboms.push(SbomCopy { file: file.clone(), entry: entry.clone(), format, types: layer_types });
    }
    Ok(())
}

/// Writes `<layers>/sbom` and puts together what the image's metadata will be.
fn finish(inputs: &BuilderInputs, group: &Group, outputs: Outputs) -> anyhow::Result<BuildMetadata> {
    // Ours alone: whatever buildpacks put there, links included, is gone.
    remove_all(&inputs.layers.join("sbom"))?;
    if inputs.api.sbom_layers() {
        debug!("Copying SBOM files");
        for SbomCopy { file, entry, format, types } in &outputs.sboms {
            let (layer, dirs) = file.destinations(*types);
            for dir in dirs {
                sbom::copy(&file.path, &dir.file(&inputs.layers, &entry.id, layer, *format))?;
            }
        }
    }
    let mut bom = outputs.launch_bom;
    if inputs.api.bom_out_of_metadata() {
        debug!("Creating SBOM files for legacy BOM");
        for (dir, bom) in [(SbomDir::Launch, &bom), (SbomDir::Build, &outputs.build_bom)] {
            file::write(&dir.legacy_file(&inputs.layers), &legacy_json(bom)?)?;
        }
        bom = Vec::new();
    }
    debug!("Listing processes");
    let (processes, default_process) = outputs.processes.into_parts();
    let plain = |entries: &[GroupEntry]| entries.iter().cloned().map(|e| GroupEntry { optional: false, ..e }).collect();
    Ok(BuildMetadata {
        buildpacks: plain(&group.buildpacks),
        extensions: plain(&group.extensions),
        processes,
        slices: outputs.slices,
        labels: outputs.labels,
        default_process,
        bom,
    })
}

/// The text of sbom.legacy.json.
fn legacy_json(bom: &[(BomEntry, (String, String))]) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Source<'a> {
        id: &'a str,
        version: &'a str,
    }
    #[derive(Serialize)]
    struct Entry<'a> {
        name: &'a str,
        metadata: Option<Data>,
        buildpack: Source<'a>,
    }
    if bom.is_empty() {
        return Ok("null\n".to_owned());
    }
    let entries = bom.iter().map(|(entry, (id, version))| Entry {
        name: &entry.name,
        metadata: entry.metadata.clone().map(Data),
        buildpack: Source { id, version },
    });
    Ok(labels::to_json(&entries.collect::<Vec<_>>()).context("encode the bill of materials")? + "\n")
}

/// The processes of the image: of each type the last one defined.
#[derive(Default)]
struct Processes {
    by_type: BTreeMap<ProcessType, (Process, String)>,
    default: Option<ProcessType>,
}

impl Processes {
    /// Adds a buildpack's. Returns the type that was the default and, being defined anew without saying so, is it no
    /// longer.
    fn add(&mut self, processes: Vec<Process>, buildpack: &str) -> Option<ProcessType> {
        let mut lost = None;
        for process in processes {
            if process.default {
                self.default = Some(process.r#type.clone());
                lost = None;
            } else if self.default.as_ref() == Some(&process.r#type) {
                lost = self.default.take();
            }
            self.by_type.insert(process.r#type.clone(), (process, buildpack.to_owned()));
        }
        lost
    }

    fn into_parts(self) -> (Vec<(Process, String)>, Option<ProcessType>) {
        let plain = |(process, buildpack)| (Process { default: false, ..process }, buildpack);
        (self.by_type.into_values().map(plain).collect(), self.default)
    }
}

#[cfg(test)]
mod tests {
    use buildpack_api::Require;

    use super::*;

    #[test]
    fn the_last_process_of_a_type_counts() {
        // `web!` is marked as the default
        let of = |words: &str| -> Vec<Process> {
            let process = |word: &str| Process {
                r#type: ProcessType::new(word.trim_end_matches('!')),
                command: vec!["run".to_owned()],
                args: Vec::new(),
                direct: true,
                default: word.ends_with('!'),
                working_dir: None,
                exec_env: Vec::new(),
            };
            words.split_whitespace().map(process).collect()
        };
        for (sentence, buildpacks, default, lost, all) in [
            ("none is the default", &["web worker"][..], None, None, "web:0 worker:0"),
            ("one is", &["worker web!"], Some("web"), None, "web:0 worker:0"),
            ("the last one marked is", &["web!", "worker!"], Some("worker"), None, "web:0 worker:1"),
            ("a later buildpack replaces", &["a web!", "web!"], Some("web"), None, "a:0 web:1"),
            ("redefined and not marked, it is lost", &["web!", "web"], None, Some("web"), "web:1"),
            ("unless another is marked then", &["web!", "web a!"], Some("a"), None, "a:1 web:1"),
        ] {
            let mut processes = Processes::default();
            let mut last_lost = None;
            for (index, words) in buildpacks.iter().enumerate() {
                last_lost = processes.add(of(words), &index.to_string());
            }
            let (list, found) = processes.into_parts();
            let list: Vec<_> = list.iter().map(|(p, b)| format!("{}:{b}", p.r#type)).collect();
            assert_eq!(list.join(" "), all, "{sentence}");
            assert_eq!(found.as_ref().map(ProcessType::as_str), default, "{sentence}");
            assert_eq!(last_lost.as_ref().map(ProcessType::as_str), lost, "{sentence}");
        }
    }

    #[test]
    fn met_is_what_is_not_unmet() {
        let require = |name: &str| Require { name: name.to_owned(), metadata: None };
        let plan = BuildpackPlan { entries: vec![require("a"), require("b"), require("a")] };
        assert_eq!(met_names(&plan, &["b".to_owned()]).unwrap(), ["a", "a"]);
        let error = met_names(&plan, &["c".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "unmet.name 'c' must match a requested dependency");
    }

    #[test]
    fn legacy_bill_of_materials() {
        assert_eq!(legacy_json(&[]).unwrap(), "null\n");
        let metadata = toml::from_str("n = 1\nat = 2020-01-02T03:04:05Z").ok();
        let entry = BomEntry { name: "jdk".to_owned(), metadata };
        let bare = BomEntry { name: "x".to_owned(), metadata: None };
        let from = || ("a".to_owned(), "1".to_owned());
        assert_eq!(
            legacy_json(&[(entry, from()), (bare, from())]).unwrap(),
            "[{\"name\":\"jdk\",\"metadata\":{\"at\":\"2020-01-02T03:04:05Z\",\"n\":1},\
             \"buildpack\":{\"id\":\"a\",\"version\":\"1\"}},\
             {\"name\":\"x\",\"metadata\":null,\"buildpack\":{\"id\":\"a\",\"version\":\"1\"}}]\n"
        );
    }
}
