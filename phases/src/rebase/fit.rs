//! Whether an app image and a new base fit.
//!
//! Spec: platform.md "Rebaser".

use anyhow::{Context as _, bail};
use image::Image;
use platform_api::{LayersMetadata, PlatformApi, inputs::RebaserInputs};

use crate::{labels, run_image, target};

const FORCE: &str = "please provide -force to override";

/// Whether app and base fit. What is compared depends on the Platform API the app was built with.
pub(super) fn check(i: &RebaserInputs, app: &Image, base: &Image) -> anyhow::Result<()> {
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
pub(super) fn is_new_name(i: &RebaserInputs, metadata: &LayersMetadata, name: &str) -> anyhow::Result<bool> {
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

#[cfg(test)]
mod tests {
    use platform_api::{
        RunImageForLabel, StackLabel,
        inputs::{ImageLocation, LogInputs, LogLevel, UserInputs},
    };

    use super::{super::tests::image, *};

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
}
