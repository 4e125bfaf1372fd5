//! rebase: another run image under an app image that is not built again. Every check comes before any work.
//!
//! Spec: platform.md "Rebaser".

use std::{collections::BTreeMap, thread};

use anyhow::{Context as _, anyhow, bail};
use image::{Image, Images, Reference};
use platform_api::{
    ExitCode, Failure, LayersMetadata, PlatformApi, Report, RunImageForLabel, StackLabel, inputs::RebaserInputs,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{export::save, labels, run_image, target};

const FORCE: &str = "please provide -force to override";

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
    let (app, asked_for) = thread::scope(|scope| {
        // There will be a new config, whatever it says.
        scope.spawn(|| i.output_images.first().map(|name| images.begin_upload(name)));
        let app = scope.spawn(|| find_app(i, images));
        // Needs no word of the app image: both are read side by side.
        let base = i.run_image.as_deref().map(|name| find_base(images, name));
        (app.join(), base)
    });
    let mut app = app.unwrap_or_else(|_| bail!("looking for the app image: a thread panicked"))?;
    let metadata = labels::layers_metadata(&app.config).context("get image metadata")?;
    let name = run_image_name(i, images, &metadata)?;
    let base = asked_for.unwrap_or_else(|| find_base(images, &name))?;

    check(i, &app, &base)?;
    let mut label = RebasedLabel::of(&app)?;
    let is_new = is_new_name(i, &metadata, &name)?;
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
    Ok(found.ok_or_else(|| inaccessible(&format!("image {name} not found")))?)
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

/// Whether app and base fit. What is compared depends on the Platform API the app was built with.
fn check(i: &RebaserInputs, app: &Image, base: &Image) -> anyhow::Result<()> {
    match app.config.env_var("CNB_PLATFORM_API").filter(|api| !api.is_empty()) {
        Some(api) if PlatformApi::image_has_target(api) => check_target(i, app, base),
        _ => {
            check_stack(app, base)?;
            check_mixins(app, base)
        }
    }
}

fn check_stack(app: &Image, base: &Image) -> anyhow::Result<()> {
    let stack = |image: &Image| image.config.label(labels::STACK_ID).unwrap_or_default().to_owned();
    let (of_app, of_base) = (stack(app), stack(base));
    if of_app.is_empty() {
        bail!("stack not defined on app image");
    }
    if of_base.is_empty() {
        bail!("stack not defined on new base image");
    }
    if of_app != of_base {
        bail!("incompatible stack: '{of_base}' is not compatible with '{of_app}'");
    }
    Ok(())
}

fn check_mixins(app: &Image, base: &Image) -> anyhow::Result<()> {
    let of_app = labels::string_list(app, labels::STACK_MIXINS).context("get app image mixins")?;
    let of_base = labels::string_list(base, labels::STACK_MIXINS).context("get run image mixins")?;
    let plain = |mixin: &String| mixin.split_once(':').map_or(mixin.clone(), |(_, name)| name.to_owned());
    let of_base: Vec<String> = of_base.iter().map(plain).collect();
    let mut missing: Vec<String> = of_app.iter().map(plain).filter(|mixin| !of_base.contains(mixin)).collect();
    missing.sort();
    missing.dedup();
    if missing.is_empty() { Ok(()) } else { bail!("missing required mixin(s): {}", missing.join(", ")) }
}

fn check_target(i: &RebaserInputs, app: &Image, base: &Image) -> anyhow::Result<()> {
    if app.config.label(labels::REBASABLE) == Some("false") {
        unless_forced(i, "app image is not marked as rebasable")?;
    }
    let (of_app, of_base) = (target::of_image(app), target::of_image(base));
    if !target::satisfied_for_rebase(&of_base, &of_app) {
        let text = format!(
            "unable to satisfy target os/arch constraints; new run image: {}, old run image: {}",
            target::to_json(&of_base),
            target::to_json(&of_app)
        );
        unless_forced(i, &text)?;
    }
    Ok(())
}

fn unless_forced(i: &RebaserInputs, text: &str) -> anyhow::Result<()> {
    if !i.force {
        bail!("{text}; {FORCE}");
    }
    tracing::warn!("{text}");
    Ok(())
}

/// Whether the app image does not know the new run image's name; that takes force (Platform API 0.12).
fn is_new_name(i: &RebaserInputs, metadata: &LayersMetadata, name: &str) -> anyhow::Result<bool> {
    if !i.api.run_image_in_label() {
        return Ok(false);
    }
    let of_label = &metadata.run_image;
    let stack = metadata.stack.as_ref().map(|stack| &stack.run_image);
    if run_image::contains(&of_label.image, &of_label.mirrors, name)
        || stack.is_some_and(|stack| run_image::contains(&stack.image, &stack.mirrors, name))
    {
        return Ok(false);
    }
    let known = match stack {
        _ if !of_label.image.is_empty() => labels::to_json(of_label)?,
        Some(stack) => labels::to_json(stack)?,
        None => "not found".to_owned(),
    };
    let text = format!("rebase app image: new base image '{name}' not found in existing run image metadata: {known}");
    unless_forced(i, &text)?;
    Ok(true)
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
    let describes_base = |key: &str| {
        key.starts_with("io.buildpacks.stack.") || api.target_data() && key.starts_with("io.buildpacks.base.")
    };
    app.config.labels.retain(|key, _| !describes_base(key));
    let of_base = base.config.labels.iter().filter(|(key, _)| describes_base(key));
    app.config.labels.extend(of_base.map(|(key, value)| (key.clone(), value.clone())));
}

/// The lifecycle label as it was, in its order; whatever else is in it stays as it is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RebasedLabel {
    #[serde(default)]
    app: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sbom: Option<Value>,
    #[serde(default)]
    buildpacks: Value,
    #[serde(default)]
    config: Value,
    #[serde(default)]
    launcher: Value,
    #[serde(default)]
    process_types: Value,
    #[serde(default, rename = "runImage")]
    run_image: RunImageKeys,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stack: Option<Value>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RunImageKeys {
    top_layer: String,
    reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mirrors: Option<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl RebasedLabel {
    fn of(app: &Image) -> anyhow::Result<Self> {
        let text = app.config.label(labels::LIFECYCLE_METADATA).filter(|text| !text.is_empty()).unwrap_or("{}");
        let name = || format!("get image metadata: label '{}'", labels::LIFECYCLE_METADATA);
        let mut value: Value = serde_json::from_str(text).with_context(name)?;
        // Go writes null for an absent object, too.
        if let Some(label) = value.as_object_mut() {
            label.retain(|key, value| !(value.is_null() && matches!(key.as_str(), "runImage" | "stack" | "sbom")));
        }
        serde_json::from_value(value).with_context(name)
    }

    fn set_run_image(&mut self, base: &Image, new_name: Option<&str>) {
        let run_image = &mut self.run_image;
        run_image.top_layer = base.config.diff_ids.last().map(ToString::to_string).unwrap_or_default();
        run_image.reference = base.id.as_ref().map(ToString::to_string).unwrap_or_default();
        if let Some(name) = new_name {
            run_image.image = Some(name.to_owned());
            run_image.mirrors = None;
            let names = RunImageForLabel { image: name.to_owned(), mirrors: Vec::new() };
            self.stack = serde_json::to_value(StackLabel { run_image: names }).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use image::{Config, Digest, History, Layer};
    use platform_api::inputs::{ImageLocation, LogInputs, LogLevel, UserInputs};

    use super::*;

    fn inputs(api: PlatformApi, force: bool) -> RebaserInputs {
        RebaserInputs {
            api,
            log: LogInputs { level: LogLevel::Info, no_color: true },
            user: UserInputs::default(),
            force,
            insecure_registries: vec![],
            location: ImageLocation::Registry,
            output_images: vec!["a.example/app".into()],
            previous_image: String::new(),
            report: "report.toml".into(),
            run_image: None,
            warnings: vec![],
        }
    }

    /// An image with these labels; `api` is in its environment.
    fn image(api: &str, labels: &[(&str, &str)]) -> Image {
        let config = Config {
            os: "linux".into(),
            architecture: "amd64".into(),
            env: vec![format!("CNB_PLATFORM_API={api}")],
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Config::default()
        };
        Image { config, ..Image::default() }
    }

    fn push(image: &mut Image, name: &str) {
        let layer = Layer { diff_id: Digest::of(name.as_bytes()), blob: None, recipe: None };
        image.push(layer, History { created_by: Some(name.into()), ..History::default() });
    }

    #[test]
    fn app_and_base_must_fit() {
        let stack = ("io.buildpacks.stack.id", "acme");
        let mixins = |list: &'static str| ("io.buildpacks.stack.mixins", list);
        let distro = ("io.buildpacks.base.distro.name", "ubuntu");
        let locked = ("io.buildpacks.rebasable", "false");
        for (why, app, base, error) in [
            ("stacks match", image("0.11", &[stack]), image("", &[stack]), None),
            ("no API is an old one", image("", &[]), image("", &[stack]), Some("stack not defined on app image")),
            ("no stack below", image("0.9", &[stack]), image("", &[]), Some("stack not defined on new base image")),
            (
                "another stack",
                image("0.9", &[stack]),
                image("", &[("io.buildpacks.stack.id", "other")]),
                Some("incompatible stack: 'other' is not compatible with 'acme'"),
            ),
            (
                "mixins are covered, whatever their stage",
                image("0.9", &[stack, mixins(r#"["build:git","jq"]"#)]),
                image("", &[stack, mixins(r#"["run:git","jq","curl"]"#)]),
                None,
            ),
            (
                "mixins are missing",
                image("0.9", &[stack, mixins(r#"["z","a","jq"]"#)]),
                image("", &[stack, mixins(r#"["jq"]"#)]),
                Some("missing required mixin(s): a, z"),
            ),
            ("targets match", image("0.12", &[]), image("", &[]), None),
            ("an API newer than ours has targets", image("0.99", &[]), image("", &[]), None),
            (
                "not rebasable",
                image("0.12", &[locked]),
                image("", &[]),
                Some("app image is not marked as rebasable; please provide -force to override"),
            ),
            (
                "another target",
                image("0.12", &[]),
                image("", &[distro]),
                Some(
                    "unable to satisfy target os/arch constraints; new run image: \
                     {\"os\":\"linux\",\"arch\":\"amd64\",\"distro\":{\"name\":\"ubuntu\",\"version\":\"\"}}, \
                     old run image: {\"os\":\"linux\",\"arch\":\"amd64\"}; please provide -force to override",
                ),
            ),
        ] {
            let checked = check(&inputs(PlatformApi::V0_12, false), &app, &base).map_err(|e| format!("{e:#}"));
            assert_eq!(checked.err().as_deref(), error, "{why}");
        }
    }

    #[test]
    fn force_turns_errors_into_warnings() {
        let app = image("0.12", &[("io.buildpacks.rebasable", "false")]);
        let base = image("", &[("io.buildpacks.base.distro.name", "ubuntu")]);
        check(&inputs(PlatformApi::V0_12, true), &app, &base).unwrap();
        let unknown = LayersMetadata::default();
        assert!(is_new_name(&inputs(PlatformApi::V0_12, true), &unknown, "b.example/run").unwrap());
    }

    #[test]
    fn a_new_name_takes_force() {
        let mut metadata = LayersMetadata::default();
        let names = |metadata: &LayersMetadata, api, name| is_new_name(&inputs(api, false), metadata, name);
        let error = names(&metadata, PlatformApi::V0_12, "b.example/run").unwrap_err().to_string();
        assert_eq!(
            error,
            "rebase app image: new base image 'b.example/run' not found in existing run image metadata: not found; \
             please provide -force to override"
        );
        assert!(!names(&metadata, PlatformApi::V0_11, "b.example/run").unwrap());
        metadata.stack = Some(StackLabel {
            run_image: RunImageForLabel { image: "x".into(), mirrors: vec!["b.example/run".into()] },
        });
        assert!(!names(&metadata, PlatformApi::V0_12, "b.example/run:latest").unwrap());
        metadata.run_image.image = "c.example/run".into();
        assert!(!names(&metadata, PlatformApi::V0_12, "c.example/run").unwrap());
        assert!(names(&metadata, PlatformApi::V0_12, "c.example/run:v2").is_err());
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

    #[test]
    fn the_label_keeps_what_it_does_not_know() {
        let text = r#"{"app":{"sha":"old shape"},"buildpacks":[{"key":"a","layers":{"l":{"data":{"n":1}}}}],"config":{"sha":"c"},"launcher":{"sha":"l"},"process-types":{"sha":""},"runImage":{"topLayer":"t","reference":"r","image":"i","mirrors":["m"]},"stack":null,"unknown":[1,2]}"#;
        let app = image("", &[(labels::LIFECYCLE_METADATA, text)]);
        let mut base = image("", &[]);
        push(&mut base, "new");
        let mut label = RebasedLabel::of(&app).unwrap();
        label.set_run_image(&base, None);
        let top = Digest::of(b"new");
        assert_eq!(
            labels::to_json(&label).unwrap(),
            text.replace(r#""topLayer":"t","reference":"r""#, &format!(r#""topLayer":"{top}","reference":"""#))
                .replace(r#","stack":null"#, "")
        );
        label.set_run_image(&base, Some("b.example/new"));
        let text = labels::to_json(&label).unwrap();
        assert!(text.contains(r#""image":"b.example/new"},"stack":{"runImage":{"image":"b.example/new"}}"#), "{text}");
    }
}
