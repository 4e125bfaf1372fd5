//! Build: runs every buildpack's `bin/build` in order, hands on to each what those before it left, and collects what
//! they say of the image.
//!
//! A buildpack may write what it likes into its layers directory. It is read with limits, and nothing outside of that
//! directory and `<layers>/sbom` is written or renamed on its word.
//!
//! Spec: buildpack.md "Phase #5: Build"; platform.md "builder".

mod layers;
mod legacy_bom;
mod outputs;
mod processes;

use std::{
    fs, io,
    path::Path,
    time::{Instant, SystemTime},
};

use anyhow::{Context as _, bail};
use buildpack_api::{Buildpack, BuildpackPlan, Context, Env, EnvDirDefault, Kind, RunError};
use platform_api::{BuildMetadata, ExitCode, Failure, Group, GroupEntry, Plan, TargetData, inputs::BuilderInputs};
use tracing::debug;

use self::{
    layers::{process_layers, types},
    outputs::{Outputs, finish, read_outputs},
};
use crate::{
    layers_dir::{BuildpackDir, is_own_dir},
    os_release, span,
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
