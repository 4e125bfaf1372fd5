//! Which run image: mirrors by registry and by access, and what the lifecycle label says of it.
//! platform.md "Run Image Resolution"

use image::{Images, Reference};
use platform_api::{
    Analyzed, BuildMetadata, Failure, LayersMetadata, PlatformApi, RunImageForLabel, RunImageMirrors, RunImages,
};

const INACCESSIBLE: &str = "failed to find accessible run image";

/// The run image of an analyze: the one asked for, else the first that the platform offers, from its best mirror for
/// `output_image`.
///
/// # Errors
/// A [`Failure`] with exit code 3: there is none, or none can be read.
pub fn resolve(
    asked_for: Option<&str>,
    offered: &RunImages,
    output_image: &str,
    images: &Images,
    api: PlatformApi,
) -> Result<String, Failure> {
    if let Some(name) = asked_for {
        return Ok(name.to_owned());
    }
    let invalid = |text: &str| Failure::invalid_args(format!("failed to resolve inputs: {text}"));
    let target = Reference::parse(output_image).map_err(|e| invalid(&e.to_string()))?;
    let none = RunImageMirrors::default();
    let offer = match offered.images.first() {
        Some(first) => first,
        None if api.run_toml() => {
            return Err(invalid("-run-image is required when there is no run metadata available"));
        }
        None => &none,
    };
    best_mirror(&target.registry, &offer.image, &offer.mirrors, |name| access(images, name))
        .map_err(|text| invalid(&text))
}

/// Whether an image can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// It is there.
    Readable,
    /// Nobody refuses, but there is no such image.
    Missing,
    /// Refused, or out of reach: why.
    Refused(String),
}

/// In a layout or a daemon every image counts as readable; in a registry we look.
pub fn access(images: &Images, name: &str) -> Access {
    if !matches!(images, Images::Registry(_)) {
        return Access::Readable;
    }
    match images.ensure_readable(name) {
        Err(error) => Access::Refused(error.to_string()),
        Ok(()) => match images.find(name) {
            Ok(Some(_)) => Access::Readable,
            Ok(None) => Access::Missing,
            Err(error) => Access::Refused(error.to_string()),
        },
    }
}

/// The first candidate in the target's registry that can be read, else the first that can be read anywhere. A missing
/// one is taken only where no other can be read: whoever uses it will say that it is missing.
///
/// # Errors
/// The sentence for the user, with what each candidate failed of.
pub fn best_mirror(
    registry: &str,
    image: &str,
    mirrors: &[String],
    access: impl Fn(&str) -> Access,
) -> Result<String, String> {
    if image.is_empty() {
        return Err("missing run image metadata (-run-image)".to_owned());
    }
    let names = || std::iter::once(image).chain(mirrors.iter().map(String::as_str));
    let near = |name: &&str| Reference::parse(name).is_ok_and(|r| r.registry == registry);
    let (mut missing, mut reasons) = (None, Vec::new());
    for name in names().filter(near).chain(names().filter(|n| !near(n))) {
        match access(name) {
            Access::Readable => return Ok(name.to_owned()),
            Access::Missing => missing = missing.or(Some(name)),
            Access::Refused(reason) => reasons.push(format!("{name}: {reason}")),
        }
    }
    missing.map(str::to_owned).ok_or_else(|| format!("{INACCESSIBLE}: {}", reasons.join("; ")))
}

/// Whether `name` is among these names, digests left aside.
pub fn contains(image: &str, mirrors: &[String], name: &str) -> bool {
    !image.is_empty() && Reference::same_name(image, name) || mirrors.iter().any(|m| Reference::same_name(m, name))
}

/// What the exported image's lifecycle label says of its run image.
pub fn for_label(
    api: PlatformApi,
    offered: &RunImages,
    analyzed: &Analyzed,
    metadata: &BuildMetadata,
) -> RunImageForLabel {
    let as_label = |r: &RunImageMirrors| RunImageForLabel { image: r.image.clone(), mirrors: r.mirrors.clone() };
    let Some(first) = offered.images.first() else { return RunImageForLabel::default() };
    if !api.run_toml() {
        return as_label(first);
    }
    let used = analyzed.run_image.as_ref().and_then(|r| r.image.as_deref()).unwrap_or_default();
    if let Some(offer) = offered.images.iter().find(|r| contains(&r.image, &r.mirrors, used)) {
        return as_label(offer);
    }
    if metadata.extensions.is_empty() {
        as_label(first)
    } else {
        // An extension may have switched it: what run.toml offers first was perhaps not meant.
        RunImageForLabel { image: used.to_owned(), mirrors: Vec::new() }
    }
}

/// The run image that an app image's label names, with its mirrors; where a rebase finds the new one.
pub fn from_label(api: PlatformApi, metadata: &LayersMetadata) -> Option<(&str, &[String])> {
    let run_image = &metadata.run_image;
    if api.run_image_in_label() && !run_image.image.is_empty() {
        return Some((&run_image.image, &run_image.mirrors));
    }
    let stack = &metadata.stack.as_ref()?.run_image;
    (!stack.image.is_empty()).then_some((stack.image.as_str(), stack.mirrors.as_slice()))
}

#[cfg(test)]
mod tests {
    use platform_api::{GroupEntry, RunImage, RunImageLabel, StackLabel};

    use super::*;

    #[test]
    fn mirrors_by_registry_then_by_access() {
        let mirrors = ["near.example/run".to_owned(), "far.example/run".to_owned(), "near.example/other".to_owned()];
        // Readable, missing, or refused; by the order of `names`.
        for (why, states, expected) in [
            ("same registry first", "rrrr", Ok("near.example/run")),
            ("second of the same registry", "r-rr", Ok("near.example/other")),
            ("then in order", "r-r-", Ok("hub.example/run")),
            ("mirror when the image is refused", "--r-", Ok("far.example/run")),
            ("a missing one is passed over", "mmr-", Ok("far.example/run")),
            ("a missing one is better than none", "--m-", Ok("far.example/run")),
            (
                "none",
                "----",
                Err("failed to find accessible run image: near.example/run: no 1; near.example/other: no 3; \
                     hub.example/run: no 0; far.example/run: no 2"),
            ),
        ] {
            let names = ["hub.example/run", "near.example/run", "far.example/run", "near.example/other"];
            let access = |name: &str| {
                let at = names.iter().position(|n| *n == name).unwrap();
                match states.as_bytes()[at] {
                    b'r' => Access::Readable,
                    b'm' => Access::Missing,
                    _ => Access::Refused(format!("no {at}")),
                }
            };
            let found = best_mirror("near.example", "hub.example/run", &mirrors, access);
            assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned), "{why}");
        }
        let found = best_mirror("r", "", &[], |_| Access::Readable);
        assert_eq!(found.unwrap_err(), "missing run image metadata (-run-image)");
    }

    fn offer(image: &str, mirrors: &[&str]) -> RunImageMirrors {
        RunImageMirrors { image: image.into(), mirrors: mirrors.iter().map(|m| (*m).to_owned()).collect() }
    }

    #[test]
    fn the_label_names_the_offer_that_was_used() {
        let offered =
            RunImages { images: vec![offer("a.example/one", &["b.example/one:latest"]), offer("a.example/two", &[])] };
        let analyzed = |image: &str| Analyzed {
            run_image: Some(RunImage { image: Some(image.into()), ..RunImage::default() }),
            ..Analyzed::default()
        };
        let extended = || BuildMetadata {
            extensions: vec![GroupEntry {
                id: "acme/ext".to_owned().try_into().unwrap(),
                version: "1".into(),
                api: "0.10".into(),
                homepage: None,
                optional: false,
            }],
            ..BuildMetadata::default()
        };
        let new = PlatformApi::V0_12;
        for (why, api, image, metadata, expected) in [
            ("stack.toml", PlatformApi::V0_11, "a.example/two", BuildMetadata::default(), "a.example/one"),
            ("the entry used", new, "a.example/two", BuildMetadata::default(), "a.example/two"),
            ("found by mirror", new, "b.example/one", BuildMetadata::default(), "a.example/one"),
            ("not found: the first", new, "c.example/x", BuildMetadata::default(), "a.example/one"),
            ("not found, extended: as it is", new, "c.example/x", extended(), "c.example/x"),
        ] {
            assert_eq!(for_label(api, &offered, &analyzed(image), &metadata).image, expected, "{why}");
        }
        assert_eq!(for_label(new, &RunImages::default(), &analyzed("x"), &extended()), RunImageForLabel::default());
    }

    #[test]
    fn rebase_reads_the_new_key_first() {
        let stack = StackLabel { run_image: RunImageForLabel { image: "s".into(), mirrors: vec!["m".into()] } };
        let both = LayersMetadata {
            run_image: RunImageLabel { image: "r".into(), ..RunImageLabel::default() },
            stack: Some(stack),
            ..LayersMetadata::default()
        };
        assert_eq!(from_label(PlatformApi::V0_12, &both).unwrap().0, "r");
        assert_eq!(from_label(PlatformApi::V0_11, &both), Some(("s", ["m".to_owned()].as_slice())));
        assert_eq!(from_label(PlatformApi::V0_12, &LayersMetadata::default()), None);
    }
}
