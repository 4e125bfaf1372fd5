//! Extension: applies the Dockerfiles that extensions made to the base image we run in. The build image is extended
//! for the build that follows in the same container; of the run image what is new is saved for the exporter.
//!
//! Spec: platform.md "extender"; `image_extension.md` "Phase: Extension".

mod dockerfiles;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use dockerfile::{Applier, Cache, Ignore, Setting, Work};
use image::{BlobSource, Digest, Image, Layout, Reference};
use platform_api::{
    Analyzed, Group,
    inputs::{ExtendKind, ExtenderInputs},
    names,
};
use tracing::{debug, warn};

use crate::labels;
use dockerfiles::ToApply;

/// What Go's zero time looks like: the same extension makes the same image, whenever it runs.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// Where the restorer leaves the documents of a base image for the extender.
pub(crate) fn base_dir(kaniko: &Path, digest: &str) -> PathBuf {
    kaniko.join("cache").join("base").join(digest)
}

/// Extends the base image whose file system is at `root` (`/`, in a container of it). Returns the environment of the
/// extended image. A run image is saved in `<extended>/run/<digest>`, without the layers of its base.
///
/// # Errors
/// The base image is not known, a Dockerfile cannot be applied, or a run image's user ends up as root.
pub fn extend(
    i: &ExtenderInputs,
    group: &Group,
    analyzed: &Analyzed,
    root: &Path,
) -> anyhow::Result<Vec<(String, String)>> {
    let kind = kind_name(i.kind);
    let (base, image) = base(i, analyzed).with_context(|| format!("getting {kind} image to extend"))?;
    let to_apply = dockerfiles::find(i, group).with_context(|| format!("getting {kind}.Dockerfiles"))?;
    let work = Work::new(&i.kaniko, "work-")?;
    let setting = Setting {
        root: root.to_owned(),
        ignore: Ignore::new(root, &ignored(i))?,
        work: work.path().to_owned(),
        cache: Some(Cache { dir: i.kaniko.join("cache").join("layers"), ttl: i.cache_ttl }),
        // The build has a user of its own; who starts the run image is who it names.
        user_required: i.kind == ExtendKind::Run,
    };
    let digest = base.digest.as_ref().map(|digest| Applier::new(setting, digest));
    let mut applier = digest.with_context(|| format!("{base} names no digest"))?;
    let image =
        apply(&mut applier, &to_apply, image, &base, i.kind).with_context(|| format!("extending {kind} image"))?;
    match i.kind {
        ExtendKind::Build => applier.finish()?,
        ExtendKind::Run => save(&image, &i.extended).context("failed to copy extended image to output directory")?,
    }
    let variable = |entry: &String| entry.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(image.config.env.iter().filter_map(variable).collect())
}

fn kind_name(kind: ExtendKind) -> &'static str {
    match kind {
        ExtendKind::Build => "build",
        ExtendKind::Run => "run",
    }
}

/// The image to extend, and its digest reference.
fn base(i: &ExtenderInputs, analyzed: &Analyzed) -> anyhow::Result<(Reference, Image)> {
    let build = || analyzed.build_image.as_ref().map(|image| &image.reference);
    let run = || analyzed.run_image.as_ref().map(|image| &image.reference);
    let name = if i.kind == ExtendKind::Build { build() } else { run() };
    let name = name.filter(|name| !name.is_empty()).context("analyzed.toml does not name it")?;
    let reference = Reference::parse(name)?;
    let Some(digest) = &reference.digest else { bail!("{name} names no digest") };
    let dir = base_dir(&i.kaniko, digest.as_str());
    let mut image = Layout::open(&dir)?.with_context(|| format!("there is no image in {}", dir.display()))?;
    image.normalise_history();
    // Whether the layout has the base's layers or not: they stay where they are.
    for blob in image.layers.iter_mut().filter_map(|layer| layer.blob.as_mut()) {
        blob.source = BlobSource::Registry(reference.clone());
    }
    debug!("Extending base image for {}: {reference}", kind_name(i.kind));
    Ok((reference, image))
}

/// What is the build's and not the image's.
fn ignored(i: &ExtenderInputs) -> Vec<PathBuf> {
    let b = &i.builder;
    let cnb = Path::new(names::path::LIFECYCLE).parent().unwrap_or(Path::new("/cnb"));
    vec![b.app.clone(), b.layers.clone(), b.platform.clone(), i.kaniko.clone(), i.extended.clone(), cnb.to_owned()]
}

fn apply(
    applier: &mut Applier,
    to_apply: &[ToApply],
    mut image: Image,
    base: &Reference,
    kind: ExtendKind,
) -> anyhow::Result<Image> {
    let original = user_of(&image).0;
    let mut rebasable = true;
    // The first one's base is the base as it is; later ones' has no other name than its digest.
    let mut digest: Option<Digest> = base.digest.clone();
    for (n, dockerfile) in to_apply.iter().enumerate() {
        // Generate let the first run.Dockerfile that counts switch the base: restorer kept that one, and we are in it.
        let may_switch = kind == ExtendKind::Run && n == 0;
        image = apply_one(applier, dockerfile, image, (base, digest.as_ref()), may_switch)?;
        let says_so = image.config.label(labels::REBASABLE).is_some_and(is_true);
        rebasable = rebasable && says_so;
        image.config.labels.insert(labels::REBASABLE.to_owned(), rebasable.to_string());
        image.config.created = Some(NO_TIME.to_owned());
        digest = Some(Layout::digest_of(&image)?);
    }
    let user = user_of(&image).0;
    // A base that names nobody is taken as it is, as by the reference.
    let whole = &image.config.user;
    if kind == ExtendKind::Run && !whole.is_empty() && applier.is_root(whole)? {
        let user = if user.is_empty() { whole } else { &user };
        bail!("the final user ID is {user} (root); please add another extension that resets the user to non-root");
    }
    if user != original {
        warn!("The original user ID was {original} but the final extension left the user ID set to {user}.");
    }
    Ok(image)
}

fn apply_one(
    applier: &mut Applier,
    dockerfile: &ToApply,
    mut image: Image,
    (base, digest): (&Reference, Option<&Digest>),
    may_switch: bool,
) -> anyhow::Result<Image> {
    let path = dockerfile.path.display();
    debug!("Applying Dockerfile {path} of extension {}", dockerfile.extension);
    let (user, group) = user_of(&image);
    let current = digest.map_or_else(|| base.to_string(), |digest| base.with_digest(digest).to_string());
    let own = [("build_id", build_id()?), ("user_id", user.clone()), ("group_id", group)];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
    let args: Vec<_> =
        own.chain(dockerfile.args.iter().cloned()).chain([("base_image".to_owned(), current.clone())]).collect();
    let from = dockerfile::base_of(&dockerfile.parsed, &image, &args).with_context(|| format!("Dockerfile {path}"))?;
    if from != current && !may_switch {
        bail!(
            "Dockerfile {path}: FROM {from}: it is applied to the image before it, and has to say FROM ${{base_image}}"
        );
    }
    // Each has to say for itself that what it adds is safe.
    image.config.labels.remove(labels::REBASABLE);
    let layers = image.layers.len();
    let done = applier
        .apply(&dockerfile.parsed, image, &args, &dockerfile.path, &dockerfile.context)
        .with_context(|| format!("applying Dockerfile {path} to image"))?;
    for warning in done.warnings {
        warn!("{path}: {warning}");
    }
    let mut image = done.image;
    for step in image.config.history.iter_mut().skip(layers) {
        let instruction = step.created_by.take().unwrap_or_default();
        step.created_by = Some(format!("Layer: '{instruction}', Created by extension: {}", dockerfile.extension));
    }
    let now = user_of(&image).0;
    if now != user && applier.is_root(&image.config.user)? {
        warn!(
            "Extension from {path} changed the user ID from {user} to {now}; this must not be the final user ID (a \
             following extension must reset the user)."
        );
    }
    Ok(image)
}

/// User and group as the image's config has them.
fn user_of(image: &Image) -> (String, String) {
    let (user, group) = image.config.user.split_once(':').unwrap_or((&image.config.user, ""));
    (user.to_owned(), group.to_owned())
}

/// As Go's `strconv.ParseBool`.
fn is_true(text: &str) -> bool {
    ["1", "t", "T", "TRUE", "true", "True"].contains(&text)
}

/// A random one for each Dockerfile: who mentions it runs every time.
fn build_id() -> anyhow::Result<String> {
    let path = "/proc/sys/kernel/random/uuid";
    Ok(fs::read_to_string(path).with_context(|| format!("read {path}"))?.trim().to_owned())
}

/// Whole or not at all: there is nothing in `<extended>/run` before all of it is.
fn save(image: &Image, extended: &Path) -> anyhow::Result<()> {
    let run = extended.join("run");
    let new = extended.join(".run");
    for dir in [&run, &new] {
        match fs::remove_dir_all(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("remove {}", dir.display()));
            }
            _ => {}
        }
    }
    let digest = Layout::digest_of(image)?;
    Layout::put(image, &new.join(digest.as_str()), None)?;
    fs::rename(&new, &run).with_context(|| format!("create {}", run.display()))
}
