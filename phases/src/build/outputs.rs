//! What buildpacks say of the image: taken in after each, and put together in the end.

use anyhow::{Context as _, bail};
use buildpack_api::{
    BOM_IS_DEPRECATED, BomEntry, BuildToml, Buildpack, BuildpackKind, BuildpackPlan, Label, Launch, LayerTypes,
    SbomFormat, Slice,
};
use platform_api::{BuildMetadata, Group, GroupEntry, file, inputs::BuilderInputs};
use tracing::{debug, warn};

use super::{
    layers::types,
    legacy_bom::{Bom, legacy_json},
    processes::Processes,
    remove_all,
};
use crate::{
    layers_dir::{BuildpackDir, read_own_toml},
    sbom::{self, SbomDir, SbomFile},
};

/// What the buildpacks said so far.
#[derive(Default)]
pub(super) struct Outputs {
    processes: Processes,
    labels: Vec<Label>,
    slices: Vec<Slice>,
    launch_bom: Bom,
    build_bom: Bom,
    sboms: Vec<SbomCopy>,
}

/// An SBOM file and where it is to be copied.
struct SbomCopy {
    file: SbomFile,
    entry: GroupEntry,
    format: SbomFormat,
    types: LayerTypes,
}

/// Takes in what a buildpack wrote beside its layers. Returns the names of the plan's entries that it met.
pub(super) fn read_outputs(
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
pub(super) fn finish(inputs: &BuilderInputs, group: &Group, outputs: Outputs) -> anyhow::Result<BuildMetadata> {
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

#[cfg(test)]
mod tests {
    use buildpack_api::Require;

    use super::*;

    #[test]
    fn met_is_what_is_not_unmet() {
        let require = |name: &str| Require { name: name.to_owned(), metadata: None };
        let plan = BuildpackPlan { entries: vec![require("a"), require("b"), require("a")] };
        assert_eq!(met_names(&plan, &["b".to_owned()]).unwrap(), ["a", "a"]);
        let error = met_names(&plan, &["c".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "unmet.name 'c' must match a requested dependency");
    }
}
