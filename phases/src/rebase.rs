//! rebase: another run image under an app image that is not built again. Every check comes before any work.
//!
//! Spec: platform.md "Rebaser".

mod fit;
mod label;

use std::thread;

use anyhow::{Context as _, anyhow, bail};
use image::{Image, Images, Reference};
use platform_api::{ExitCode, Failure, LayersMetadata, PlatformApi, Report, inputs::RebaserInputs};

use self::label::RebasedLabel;
use crate::{export::save, labels, run_image};

/// Puts the new run image under the app image and saves that under its names.
///
/// # Errors
/// An image that is not there, a run image that does not fit, a name under which the image could not be saved.
pub fn rebase(i: &RebaserInputs, images: &Images) -> anyhow::Result<Report> {
    let report = rebased(i, images);
    images.cancel_uploads();
    report
}

fn rebased(i: &RebaserInputs, images: &Images) -> anyhow::Result<Report> {
    // There will be a new config, whatever it says.
    i.output_images.iter().take(1).for_each(|name| images.begin_config(name));
    let (app, asked_for) = thread::scope(|scope| {
        let app = scope.spawn(|| find_app(i, images));
        // Needs no word of the app image: both are read side by side.
        let base = i.run_image.as_deref().map(|name| find_base(images, name));
        (app.join(), base)
    });
    let mut app = app.unwrap_or_else(|_| bail!("looking for the app image: a thread panicked"))?;
    let metadata = labels::layers_metadata(&app.config).context("get image metadata")?;
    let name = run_image_name(i, images, &metadata)?;
    let base = asked_for.unwrap_or_else(|| find_base(images, &name))?;

    fit::check(i, &app, &base)?;
    let mut label = RebasedLabel::of(&app)?;
    let is_new = fit::is_new_name(i, &metadata, &name)?;
    let top = top_layer(&app, &metadata.run_image.top_layer)?;

    replace_base(&mut app, &base, top);
    label.set_run_image(&base, is_new.then_some(&*name));
    app.config.labels.insert(labels::LIFECYCLE_METADATA.to_owned(), labels::to_json(&label)?);
    copy_labels(&mut app, &base, i.api);
    save::set_created(&mut app, None);
    Ok(Report { image: save::save(&app, &i.output_images, images, || ())?, build: None })
}

/// The image to rebase: the previous one, else the one of the first name.
fn find_app(i: &RebaserInputs, images: &Images) -> anyhow::Result<Image> {
    let name = match i.previous_image.as_str() {
        "" => i.output_images.first().context("at least one image argument is required")?,
        name => name,
    };
    let failed = |cause: String| {
        let text = format!("failed to set app image: failed to access image to rebase: {cause}");
        Failure::new(ExitCode::Rebase, text)
    };
    let found = images.find(name).map_err(|e| failed(e.to_string()))?;
    Ok(found.ok_or_else(|| failed(format!("image {name} not found")))?)
}

fn find_base(images: &Images, name: &str) -> anyhow::Result<Image> {
    let inaccessible = |cause: &str| Failure::new(ExitCode::Rebase, format!("failed to access run image: {cause}"));
    let found = save::find_patiently(images, name).map_err(|e| inaccessible(&e.to_string()))?;
    let base = found.ok_or_else(|| inaccessible(&format!("image {name} not found")))?;
    if base.layers.is_empty() {
        // The next rebase could not tell the app's layers from the base's.
        return Err(inaccessible(&format!("image {name} has no layers")).into());
    }
    Ok(base)
}

/// Every name the new run image may be found under, as the app image's label has them; none where it cannot be read.
/// For who has to find credentials for them before privileges are dropped.
pub fn run_images_of_label(i: &RebaserInputs, images: &Images) -> Vec<String> {
    let Some(metadata) = find_app(i, images).ok().and_then(|app| labels::layers_metadata(&app.config).ok()) else {
        return Vec::new();
    };
    let names = run_image::from_label(i.api, &metadata);
    names.map(|(image, mirrors)| [&[image.to_owned()], mirrors].concat()).unwrap_or_default()
}

/// The run image asked for, else the one that the app image names, from its best mirror for the app image.
fn run_image_name(i: &RebaserInputs, images: &Images, metadata: &LayersMetadata) -> anyhow::Result<String> {
    if let Some(name) = &i.run_image {
        return Ok(name.clone());
    }
    let Some((image, mirrors)) = run_image::from_label(i.api, metadata) else {
        let text = "-run-image is required when there is no run image metadata available";
        return Err(Failure::invalid_args(format!("failed to parse arguments: {text}")).into());
    };
    let app = if i.previous_image.is_empty() { i.output_images.first() } else { Some(&i.previous_image) };
    let registry = Reference::parse(app.map_or("", String::as_str)).map(|r| r.registry).unwrap_or_default();
    run_image::best_mirror(&registry, image, mirrors, |name| run_image::access(images, name)).map_err(|e| anyhow!(e))
}

/// How many layers of the app image are its run image's.
fn top_layer(app: &Image, top: &str) -> anyhow::Result<usize> {
    let position = app.layers.iter().position(|layer| layer.diff_id.as_str() == top);
    position.map(|index| index + 1).context("rebase app image: could not find base layer in image")
}

/// The new base's layers and their history below the app's; what the image runs on is what the base is.
fn replace_base(app: &mut Image, base: &Image, old_layers: usize) {
    app.normalise_history();
    let mut below = base.clone();
    below.normalise_history();
    let own = |all: usize| old_layers.min(all);
    let layers = app.layers.split_off(own(app.layers.len()));
    let history = app.config.history.split_off(own(app.config.history.len()));
    let diff_ids = app.config.diff_ids.split_off(own(app.config.diff_ids.len()));
    app.layers = below.layers;
    app.layers.extend(layers);
    app.config.history = below.config.history;
    app.config.history.extend(history);
    app.config.diff_ids = below.config.diff_ids;
    app.config.diff_ids.extend(diff_ids);
    app.config.os = below.config.os;
    app.config.os_version = below.config.os_version;
    app.config.architecture = below.config.architecture;
    app.config.variant = below.config.variant;
    app.id = None;
}

/// The labels that describe the base are those of the new one.
fn copy_labels(app: &mut Image, base: &Image, api: PlatformApi) {
    let describes_base =
        |key: &str| key.starts_with(labels::STACK_PREFIX) || api.target_data() && key.starts_with(labels::BASE_PREFIX);
    app.config.labels.retain(|key, _| !describes_base(key));
    let of_base = base.config.labels.iter().filter(|(key, _)| describes_base(key));
    app.config.labels.extend(of_base.map(|(key, value)| (key.clone(), value.clone())));
}

#[cfg(test)]
mod tests {
    use image::{Config, Digest, History, Layer};

    use super::*;

    /// An image with these labels; `api` is in its environment.
    pub(super) fn image(api: &str, labels: &[(&str, &str)]) -> Image {
        let config = Config {
            os: "linux".into(),
            architecture: "amd64".into(),
            env: vec![format!("CNB_PLATFORM_API={api}")],
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Config::default()
        };
        Image { config, ..Image::default() }
    }

    pub(super) fn push(image: &mut Image, name: &str) {
        let layer = Layer { diff_id: Digest::of(name.as_bytes()), blob: None, recipe: None };
        image.push(layer, History { created_by: Some(name.into()), ..History::default() });
    }

    #[test]
    fn layers_and_history_of_the_app_stay() {
        let mut app = image("0.12", &[]);
        let mut base = image("", &[]);
        for name in ["old-1", "old-2", "app-1", "app-2"] {
            push(&mut app, name);
        }
        push(&mut base, "new-1");
        base.config.variant = Some("v2".into());
        base.config.os_version = Some("1".into());
        app.config.user = "1000".into();
        base.config.user = "root".into();
        let top = top_layer(&app, Digest::of(b"old-2").as_str()).unwrap();
        replace_base(&mut app, &base, top);
        let created: Vec<_> = app.config.history.iter().filter_map(|h| h.created_by.as_deref()).collect();
        assert_eq!(created, ["new-1", "app-1", "app-2"]);
        let ids: Vec<_> = ["new-1", "app-1", "app-2"].iter().map(|n| Digest::of(n.as_bytes())).collect();
        assert_eq!(app.config.diff_ids, ids);
        assert_eq!(app.layers.iter().map(|l| l.diff_id.clone()).collect::<Vec<_>>(), ids);
        assert_eq!((app.config.variant.as_deref(), app.config.os_version.as_deref()), (Some("v2"), Some("1")));
        assert_eq!(app.config.user, "1000");
        assert_eq!(
            top_layer(&app, "sha256:unknown").unwrap_err().to_string(),
            "rebase app image: could not find base layer in image"
        );
    }

    #[test]
    fn labels_of_the_base_are_replaced() {
        let mut app = image("", &[("io.buildpacks.stack.id", "a"), ("io.buildpacks.base.id", "a"), ("own", "x")]);
        let base = image("", &[("io.buildpacks.stack.x", "b"), ("io.buildpacks.base.y", "b"), ("other", "b")]);
        let mut old = app.clone();
        copy_labels(&mut app, &base, PlatformApi::V0_12);
        let keys: Vec<_> = app.config.labels.keys().map(String::as_str).collect();
        assert_eq!(keys, ["io.buildpacks.base.y", "io.buildpacks.stack.x", "own"]);
        copy_labels(&mut old, &base, PlatformApi::V0_11);
        let keys: Vec<_> = old.config.labels.keys().map(String::as_str).collect();
        assert_eq!(keys, ["io.buildpacks.base.id", "io.buildpacks.stack.x", "own"]);
    }
}
