//! Generation: runs the image extensions of the group, checks the Dockerfiles they make, and chooses the run image
//! these ask for.
//!
//! Spec: `image_extension.md` "Phase: Generation"; platform.md "detector".

mod check;

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Instant, SystemTime},
};

use anyhow::{Context as _, bail};
use buildpack_api::{Context, ExtendConfig, Extension, Kind, RunError, read_bounded};
use platform_api::{
    Analyzed, BuildImage, ExitCode, Failure, Group, GroupEntry, Plan, RunImage, RunImages, inputs::DetectorInputs,
};
use tracing::{debug, warn};

use crate::{
    detect::{Detected, context},
    layers_dir::{is_own_dir, read_own_toml},
    os_release, run_image, sbom, span,
};
use check::{Checked, DockerfileKind, check};

/// Build arguments that the extender gives every Dockerfile.
const RESERVED_ARGS: [&str; 3] = ["build_id", "user_id", "group_id"];
const EXTEND_CONFIG: &str = "extend-config.toml";

/// Runs the extensions of the group. Returns the plan without what they provide, and what is known of the images with
/// the run image they chose.
///
/// # Errors
/// A [`Failure`] where a `bin/generate` fails (exit code 91) or a Buildpack API is not ours (12). Otherwise: what an
/// extension made breaks the spec, or cannot be read or copied; the error names the file. Nothing that was generated
/// stays then.
pub fn generate(
    inputs: &DetectorInputs,
    detected: Detected,
    analyzed: Analyzed,
    run: &RunImages,
) -> anyhow::Result<(Detected, Analyzed)> {
    let places = places(inputs, &detected.group);
    let generated = generate_in(&places, inputs, detected, analyzed, run);
    if generated.is_err() {
        places.all().for_each(discard);
    }
    generated
}

/// Where what extensions make comes to lie.
struct Places {
    /// Each extension has a directory here.
    output: PathBuf,
    /// Before Platform API 0.13 extensions wrote elsewhere, and only Dockerfiles and arguments were kept.
    work: Option<PathBuf>,
    /// What is kept.
    kept: Vec<PathBuf>,
}

impl Places {
    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.work.iter().chain(&self.kept)
    }
}

fn places(inputs: &DetectorInputs, group: &Group) -> Places {
    let ids = || group.extensions.iter().map(|entry| entry.id.escaped());
    let generated = &inputs.generated;
    if inputs.api.generated_contexts() {
        return Places { output: generated.clone(), work: None, kept: ids().map(|id| generated.join(id)).collect() };
    }
    let work = generated.join(".output");
    let by_kind = [DockerfileKind::Build, DockerfileKind::Run].map(|kind| generated.join(kind.name()));
    let kept = by_kind.iter().flat_map(|dir| ids().map(|id| dir.join(id))).collect();
    Places { output: work.clone(), work: Some(work), kept }
}

fn generate_in(
    places: &Places,
    inputs: &DetectorInputs,
    detected: Detected,
    analyzed: Analyzed,
    run: &RunImages,
) -> anyhow::Result<(Detected, Analyzed)> {
    let Detected { group, mut plan } = detected;
    let target = analyzed.run_image.as_ref().and_then(|image| image.target.as_ref());
    let context = context(inputs, os_release::completed_aloud(target));
    let output = &places.output;
    let mut dockerfiles = Vec::new();
    for entry in &group.extensions {
        entry.supported_api(Kind::Extension)?;
        debug!("Running generate for extension {}", entry.full_name());
        let (began, since) = (SystemTime::now(), Instant::now());
        let left = run_one(inputs, entry, plan, &context, &output.join(entry.id.escaped()), &mut dockerfiles);
        span::tell("generate", "extension", entry, began, since.elapsed(), left.is_ok());
        plan = left?;
        debug!("Finished running generate for extension {}", entry.full_name());
    }
    debug!("Checking run image");
    let analyzed = choose_images(inputs, analyzed, &mut dockerfiles, run);
    debug!("Copying Dockerfiles");
    let Some(work) = &places.work else {
        dockerfiles.iter().try_for_each(Dockerfile::put_aside)?;
        return Ok((Detected { group, plan }, analyzed));
    };
    // What an earlier build left is not this one's.
    places.kept.iter().try_for_each(|dir| remove_dir(dir))?;
    dockerfiles.iter().try_for_each(|dockerfile| dockerfile.copy_to(&inputs.generated))?;
    remove_dir(work)?;
    Ok((Detected { group, plan }, analyzed))
}

/// A Dockerfile that an extension made.
struct Dockerfile {
    extension: String,
    /// The extension's ID as a file name.
    escaped: String,
    kind: DockerfileKind,
    path: PathBuf,
    checked: Checked,
    /// A later one switches the base image, so this has no effect.
    ignored: bool,
}

/// Runs an extension and notes its Dockerfiles. Returns the plan without what it provides.
fn run_one(
    inputs: &DetectorInputs,
    entry: &GroupEntry,
    plan: Plan,
    context: &Context,
    output: &Path,
    dockerfiles: &mut Vec<Dockerfile>,
) -> anyhow::Result<Plan> {
    debug!("Looking up extension");
    let extension = inputs.dirs.extension(&entry.id, &entry.version)?;
    GroupEntry { api: extension.api_text.clone(), ..entry.clone() }.supported_api(Kind::Extension)?;
    debug!("Finding plan");
    let own_plan = plan.for_module(Kind::Extension, &entry.id, &entry.version);
    debug!("Invoking command");
    debug!("Preparing paths");
    remove_dir(output)?;
    fs::create_dir_all(output).with_context(|| format!("mkdir {}", output.display()))?;
    debug!("Running generate command");
    if has_generate(&extension)? {
        buildpack_api::generate(&extension, &own_plan, context, output).map_err(run_failure)?;
    } else {
        copy_prepared(&extension.root.join("generate"), output)?;
    }
    debug!("Reading output files");
    if !is_own_dir(output)? {
        bail!("{} is gone: extension {} removed its output directory", output.display(), entry.id);
    }
    check_config(&output.join(EXTEND_CONFIG))?;
    for kind in [DockerfileKind::Run, DockerfileKind::Build] {
        dockerfiles.extend(find_dockerfile(entry, output, kind)?);
    }
    check_contexts(output)?;
    // "Image extensions MUST satisfy all entries in the Buildpack Plan."
    let met: Vec<String> = own_plan.entries.into_iter().map(|require| require.name).collect();
    Ok(plan.without(&met))
}

fn run_failure(error: RunError) -> anyhow::Error {
    match error {
        RunError::Status { .. } | RunError::Start(_) => {
            Failure::new(ExitCode::ExtensionGenerate, error.to_string()).into()
        }
        RunError::Around(_) => error.into(),
    }
}

fn has_generate(extension: &Extension) -> anyhow::Result<bool> {
    let path = extension.root.join("bin").join("generate");
    path.try_exists().with_context(|| format!("stat {}", path.display()))
}

/// Removes a directory, if it is there. A link in its place is an error.
fn remove_dir(path: &Path) -> anyhow::Result<()> {
    if is_own_dir(path)? {
        fs::remove_dir_all(path).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

/// Removes what an extension that failed has made, or put in its place.
fn discard(path: &PathBuf) {
    match fs::remove_dir_all(path).or_else(|_| fs::remove_file(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => warn!("Cannot remove {}: {error}", path.display()),
        _ => {}
    }
}

/// An extension without `bin/generate` brings its output along. Links stay links.
fn copy_prepared(from: &Path, to: &Path) -> anyhow::Result<()> {
    let entries = match fs::read_dir(from) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("read {}", from.display()))?,
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", from.display()))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let failed = || format!("copy {} to {}", source.display(), target.display());
        let kind = entry.file_type().with_context(failed)?;
        if kind.is_dir() {
            fs::DirBuilder::new().mode(0o777).create(&target).with_context(failed)?;
            copy_prepared(&source, &target)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&source).with_context(failed)?;
            std::os::unix::fs::symlink(link, &target).with_context(failed)?;
        } else {
            sbom::copy(&source, &target)?;
        }
    }
    Ok(())
}

fn check_config(path: &Path) -> anyhow::Result<()> {
    let config = read_own_toml(path, ExtendConfig::parse).context("reading extend config")?.unwrap_or_default();
    if let Some(name) = config.names().find(|name| RESERVED_ARGS.contains(name)) {
        bail!("validating extend config: invalid content: arg with name \"{name}\" is not allowed");
    }
    Ok(())
}

fn find_dockerfile(entry: &GroupEntry, output: &Path, kind: DockerfileKind) -> anyhow::Result<Option<Dockerfile>> {
    let path = output.join(kind.file_name());
    let Some(bytes) = read_bounded(&path)? else { return Ok(None) };
    debug!("Found {} for processing", kind.file_name());
    // Docker takes any encoding: it is the comments that are not always UTF-8.
    let checked = check(&String::from_utf8_lossy(&bytes), kind)
        .with_context(|| format!("failed to parse {} for extension {}", kind.file_name(), entry.id))?;
    for warning in &checked.warnings {
        warn!("{warning}");
    }
    let (extension, escaped) = (entry.id.to_string(), entry.id.escaped());
    Ok(Some(Dockerfile { extension, escaped, kind, path, checked, ignored: false }))
}

/// "The `<output>/context` folder MUST NOT be created together with any combination of the image-specific folders."
fn check_contexts(output: &Path) -> anyhow::Result<()> {
    let is_dir = |name: &str| output.join(name).is_dir();
    if is_dir("context") && (is_dir("context.run") || is_dir("context.build")) {
        bail!("{}: image-specific context dir is provided together with a shared context", output.display());
    }
    Ok(())
}

/// Goes back from the last run.Dockerfile to the one that switches the run image; those before it have no effect.
fn choose_images(
    inputs: &DetectorInputs,
    mut analyzed: Analyzed,
    dockerfiles: &mut [Dockerfile],
    run: &RunImages,
) -> Analyzed {
    let mut new_base: Option<String> = None;
    let mut extend = false;
    for dockerfile in dockerfiles.iter_mut().rev().filter(|d| d.kind == DockerfileKind::Run) {
        if new_base.is_some() {
            dockerfile.ignored = true;
            continue;
        }
        extend |= dockerfile.checked.extends;
        if let Some(base) = &dockerfile.checked.new_base {
            debug!("Found a run.Dockerfile from extension '{}' setting run image to '{base}' ", dockerfile.extension);
            new_base = Some(base.clone());
        }
    }
    if let Some(base) = new_base.filter(|base| is_new(inputs, &analyzed, base)) {
        if !run.images.iter().any(|known| run_image::contains(&known.image, &known.mirrors, &base)) {
            warn!("new runtime base image '{base}' not found in run metadata");
        }
        debug!("Updating analyzed metadata with new run image '{base}'");
        analyzed.run_image = Some(RunImage { reference: base.clone(), image: Some(base), extend, target: None });
    }
    if let (true, Some(image)) = (extend, &mut analyzed.run_image) {
        debug!("Updating analyzed metadata to indicate run image extension");
        image.extend = true;
    }
    let builds = dockerfiles.iter().any(|d| d.kind == DockerfileKind::Build);
    if inputs.api.generated_contexts() && (builds || analyzed.build_image.is_some()) {
        let known = analyzed.build_image.unwrap_or_default();
        analyzed.build_image = Some(BuildImage { extend: builds, ..known });
    }
    analyzed
}

/// A digest counts here: what the author of the extension wrote is what he wants.
fn is_new(inputs: &DetectorInputs, analyzed: &Analyzed, base: &str) -> bool {
    let current = analyzed.run_image.as_ref().and_then(|image| image.image.as_deref());
    !inputs.api.target_data() || current != Some(base)
}

impl Dockerfile {
    /// Where the extender does not find it, if it has no effect.
    fn put_aside(&self) -> anyhow::Result<()> {
        if !self.ignored {
            return Ok(());
        }
        let aside = self.path.with_file_name(format!("{}.ignore", self.kind.file_name()));
        fs::rename(&self.path, &aside).with_context(|| format!("rename {} to {}", self.path.display(), aside.display()))
    }

    /// To `<generated>/<kind>/<escaped id>/Dockerfile`, with its arguments beside it.
    fn copy_to(&self, generated: &Path) -> anyhow::Result<()> {
        let dir = generated.join(self.kind.name()).join(&self.escaped);
        let to = dir.join(if self.ignored { "Dockerfile.ignore" } else { "Dockerfile" });
        debug!("Copying {} to {}", self.path.display(), to.display());
        sbom::copy(&self.path, &to)?;
        let config = self.path.with_file_name(EXTEND_CONFIG);
        if config.exists() {
            sbom::copy(&config, &dir.join(EXTEND_CONFIG))?;
        }
        Ok(())
    }
}
