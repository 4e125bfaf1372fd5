//! The images that restore looks up for the phases after it: the build image that extensions will extend, and the run
//! image as it is now known. platform.md "Restorer"

use std::path::Path;

use anyhow::Context as _;
use image::{Image, ImageId, Images, Layout, Reference, Registry};
use platform_api::{
    Analyzed, BuildImage, ExitCode, Failure, Group, RunImage, RunImages,
    inputs::{ImageLocation, RestorerInputs},
};

use crate::{
    extend,
    run_image::{self, Access},
    target,
};

/// Completes what analyze found: build image and run image by digest, the run image's target. For the restorer
/// executable; within creator analyze and restore are one.
///
/// # Errors
/// A [`Failure`] with exit code 1: an image that cannot be had.
pub fn resolve_images(
    i: &RestorerInputs,
    group: &Group,
    mut analyzed: Analyzed,
    offered: &RunImages,
    images: &Images,
    registry: &Registry,
) -> anyhow::Result<Analyzed> {
    if let Some(name) = i.build_image.as_deref().filter(|_| i.api.image_extensions()) {
        tracing::debug!("Pulling builder image metadata for {name}...");
        let found = pull(registry, name, &i.kaniko)
            .map_err(|e| failure(&format!("failed to pull builder image {name}"), &e))?;
        let extend = analyzed.build_image.as_ref().is_some_and(|b| b.extend);
        analyzed.build_image = Some(BuildImage { reference: identifier(&found), extend });
    }
    if let Some(run_image) = &mut analyzed.run_image {
        complete_run_image(i, group, run_image, offered, images, registry)?;
    }
    Ok(analyzed)
}

fn failure(what: &str, error: &anyhow::Error) -> anyhow::Error {
    Failure::new(ExitCode::Failed, format!("{what}: {error:#}")).into()
}

fn complete_run_image(
    i: &RestorerInputs,
    group: &Group,
    run_image: &mut RunImage,
    offered: &RunImages,
    images: &Images,
    registry: &Registry,
) -> anyhow::Result<()> {
    if i.api.restorer_resolves_run_image() {
        choose_again(run_image, offered, images)?;
    }
    let name = run_image.image.clone().unwrap_or_else(|| run_image.reference.clone());
    let in_layout = matches!(i.location, ImageLocation::Layout(_));
    if run_image.extend && i.api.run_image_extension() && !in_layout {
        // From the registry also where the app goes to a daemon: the extender reads it as a layout, by digest.
        tracing::debug!("Pulling run image metadata for {name}...");
        let found =
            pull(registry, &name, &i.kaniko).map_err(|e| failure(&format!("failed to pull run image {name}"), &e))?;
        describe(run_image, &found, i);
        return Ok(());
    }
    let known = run_image.target.as_ref().is_some_and(|t| !t.target.os.is_empty());
    let needed = !group.extensions.is_empty();
    if known || name.is_empty() || !i.api.image_extensions() || !(needed || i.api.target_data()) {
        return Ok(());
    }
    tracing::debug!("Updating run image info in analyzed metadata...");
    match images.find(&name) {
        Ok(Some(found)) => {
            describe(run_image, &found, i);
            Ok(())
        }
        // Nobody needs it to know yet; export will say that it is missing.
        _ if !needed => Ok(()),
        Ok(None) => Err(Failure::failed(format!("failed to get run image {name}")).into()),
        Err(e) => Err(failure(&format!("failed to get run image {name}"), &e.into())),
    }
}

fn identifier(image: &Image) -> String {
    image.id.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn describe(run_image: &mut RunImage, found: &Image, i: &RestorerInputs) {
    run_image.reference = identifier(found);
    run_image.target = i.api.target_data().then(|| target::of_image(found));
}

/// An image of run.toml stays if it can be read; else its mirrors are asked. Any other was an extension's choice.
fn choose_again(run_image: &mut RunImage, offered: &RunImages, images: &Images) -> anyhow::Result<()> {
    let Some(name) = run_image.image.clone() else { return Ok(()) };
    let Some(offer) = offered.images.iter().find(|r| run_image::contains(&r.image, &r.mirrors, &name)) else {
        return Ok(());
    };
    let access = |name: &str| run_image::access(images, name);
    if !matches!(access(&name), Access::Refused(_)) {
        return Ok(());
    }
    let registry = Reference::parse(&name).map(|r| r.registry).unwrap_or_default();
    let chosen = run_image::best_mirror(&registry, &offer.image, &offer.mirrors, access)
        .map_err(|_| Failure::failed(format!("selected run image '{name}' is not accessible")))?;
    tracing::warn!("run image '{name}' is not accessible, using '{chosen}'");
    run_image.reference.clone_from(&chosen);
    run_image.image = Some(chosen);
    // What was known of the other need not be so of this one.
    run_image.target = None;
    Ok(())
}

/// Finds an image and keeps it for the extender, which reads it by its digest. Manifest and config are all that is
/// kept: who extends an image runs in it, and has no need of its layers.
fn pull(registry: &Registry, name: &str, kaniko: &Path) -> anyhow::Result<Image> {
    let reference = Reference::parse(name)?;
    let found = registry.find(&reference)?.with_context(|| format!("image {name} not found"))?;
    if let Some(ImageId::Registry { reference, .. }) = &found.id {
        Layout::put_sparse(&registry.raw(&found)?, &extend::base_dir(kaniko, reference.identifier()))?;
    }
    Ok(found)
}
