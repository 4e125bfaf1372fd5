//! What a base image is: from its config and its labels.

use buildpack_api::{Distro, Target};
use image::Image;
use platform_api::TargetData;
use serde::Serialize;

use crate::labels;

/// The target of an image, as analyzed.toml records it. platform.md "analyzed.toml"
pub(crate) fn of_image(image: &Image) -> TargetData {
    let config = &image.config;
    let (name, version) = (config.label(labels::DISTRO_NAME), config.label(labels::DISTRO_VERSION));
    let distros = if name.is_some() || version.is_some() {
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        vec![Distro { name: text(name), version: text(version) }]
    } else {
        Vec::new()
    };
    TargetData {
        id: config.label(labels::BASE_ID).map(str::to_owned),
        target: Target {
            os: config.os.clone(),
            arch: config.architecture.clone(),
            variant: config.variant.clone().unwrap_or_default(),
            distros,
        },
    }
}

/// Whether an app on `app` can be rebased onto `base`: parts that either leaves open match, a distribution that the
/// new base names must be the app's.
pub(crate) fn satisfied_for_rebase(base: &TargetData, app: &TargetData) -> bool {
    let (base, app) = (&base.target, &app.target);
    let open_or_equal = |a: &str, b: &str| a.is_empty() || b.is_empty() || a == b;
    if base.os != app.os || base.arch != app.arch || !open_or_equal(&base.variant, &app.variant) {
        return false;
    }
    let Some(distro) = base.distros.first() else { return true };
    let Some(of_app) = app.distros.first() else { return false };
    (distro.name.is_empty() || distro.name == of_app.name)
        && (distro.version.is_empty() || distro.version == of_app.version)
}

/// A target as messages show it.
pub(crate) fn to_json(data: &TargetData) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "kebab-case")]
    struct Shown<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        os: &'a str,
        arch: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        arch_variant: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        distro: Option<&'a Distro>,
    }
    let target = &data.target;
    let shown = Shown {
        id: data.id.as_deref(),
        os: &target.os,
        arch: &target.arch,
        arch_variant: &target.variant,
        distro: target.distros.first(),
    };
    labels::to_json(&shown).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(os: &str, arch: &str, variant: &str, distro: Option<(&str, &str)>) -> TargetData {
        let distros = distro.map(|(n, v)| Distro { name: n.into(), version: v.into() }).into_iter().collect();
        TargetData { id: None, target: Target { os: os.into(), arch: arch.into(), variant: variant.into(), distros } }
    }

    #[test]
    fn rebase_wants_the_same_target() {
        let app = data("linux", "arm64", "v8", Some(("ubuntu", "22.04")));
        let plain = data("linux", "arm64", "", None);
        for (base, app, fits) in [
            (data("linux", "arm64", "v8", Some(("ubuntu", "22.04"))), &app, true),
            (data("windows", "arm64", "v8", None), &app, false),
            (data("linux", "amd64", "v8", None), &app, false),
            (data("linux", "arm64", "v7", None), &app, false),
            (data("linux", "arm64", "", None), &app, true),
            (data("linux", "arm64", "v8", Some(("ubuntu", "24.04"))), &app, false),
            (data("linux", "arm64", "v8", Some(("debian", "22.04"))), &app, false),
            (data("linux", "arm64", "v8", Some(("ubuntu", ""))), &app, true),
            (data("linux", "arm64", "v8", Some(("ubuntu", "22.04"))), &plain, false),
            (data("linux", "arm64", "v8", None), &plain, true),
        ] {
            assert_eq!(satisfied_for_rebase(&base, app), fits, "{base:?} for {app:?}");
        }
    }

    #[test]
    fn the_target_is_config_and_labels() {
        let mut image = Image::default();
        image.config.os = "linux".into();
        image.config.architecture = "amd64".into();
        assert_eq!(of_image(&image), data("linux", "amd64", "", None));
        image.config.variant = Some("v3".into());
        for (key, value) in
            [(labels::BASE_ID, "acme"), (labels::DISTRO_NAME, "ubuntu"), (labels::DISTRO_VERSION, "24.04")]
        {
            image.config.labels.insert(key.into(), value.into());
        }
        let found = of_image(&image);
        assert_eq!(found.id.as_deref(), Some("acme"));
        assert_eq!(found.target, data("linux", "amd64", "v3", Some(("ubuntu", "24.04"))).target);
        assert_eq!(
            to_json(&found),
            r#"{"id":"acme","os":"linux","arch":"amd64","arch-variant":"v3","distro":{"name":"ubuntu","version":"24.04"}}"#
        );
    }
}
