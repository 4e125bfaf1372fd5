//! Saving an image, and telling the user what became of each name. Shared by export and rebase.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail};
use image::{Image, ImageId, Images, Layout, Reference};
use platform_api::ImageReport;

/// When images, unless told otherwise, say they were made: what is built from the same input is the same image.
pub(crate) const DEFAULT_CREATED: &str = "1980-01-01T00:00:01Z";

/// Saves the image under these names, the first of which is its own; `on_first` follows where that is done.
///
/// # Errors
/// It could not be saved under one of them at least; the text says which and why.
pub(crate) fn save(
    image: &Image,
    names: &[String],
    images: &Images,
    on_first: impl FnOnce(),
) -> anyhow::Result<ImageReport> {
    let first = names.first().context("no name to save the image under")?;
    tracing::info!("Saving {first}...");
    let saved = images.save(image, names).context("saving image")?;
    if saved.names.first().is_some_and(|result| result.error.is_none()) {
        on_first();
    }
    let id = saved.id.as_ref();
    tracing::info!("*** Images ({}):", id.map(short).unwrap_or_default());
    let mut report = ImageReport::default();
    let mut failed = Vec::new();
    for result in saved.names {
        match result.error {
            None => {
                tracing::info!("      {}", result.name);
                report.tags.push(result.name);
            }
            Some(cause) => {
                tracing::info!("      {} - {cause}", result.name);
                failed.push(format!("[{}: {cause}]", result.name));
            }
        }
    }
    match id {
        Some(ImageId::Daemon(id)) => {
            tracing::debug!("\n*** Image ID: {id}");
            report.image_id = Some(id.clone());
        }
        Some(ImageId::Registry { reference, .. }) => {
            let digest = reference.identifier().to_owned();
            tracing::debug!("\n*** Digest: {digest}");
            report.digest = Some(digest);
        }
        Some(ImageId::Layout { .. }) | None => {}
    }
    if let Some(size) = saved.manifest_size.filter(|size| *size > 0) {
        tracing::debug!("\n*** Manifest Size: {size}");
        report.manifest_size = Some(size);
    }
    if failed.is_empty() {
        Ok(report)
    } else {
        bail!("failed to write image to the following tags: {}", failed.join(","))
    }
}

/// How the log names an image.
fn short(id: &ImageId) -> String {
    match id {
        ImageId::Daemon(id) => {
            let hex = id.strip_prefix("sha256:").unwrap_or(id);
            hex.get(..12).unwrap_or(hex).to_owned()
        }
        ImageId::Registry { reference, .. } => reference.identifier().to_owned(),
        ImageId::Layout { .. } => id.to_string(),
    }
}

/// An image that must be there; a registry that is having a bad moment is given a few more.
pub(crate) fn find_patiently(images: &Images, name: &str) -> image::Result<Option<Image>> {
    let Images::Registry(registry) = images else { return find_identified(images, name) };
    let mut on_retry = |attempt: usize, attempts: usize, why: &str, pause: Duration| {
        tracing::warn!("Failed to open remote image (attempt {attempt}/{attempts}): {why}, retrying in {pause:?}");
    };
    let (found, failures) = registry.find_patiently(&Reference::parse(name)?, &mut on_retry)?;
    if failures > 0 && found.is_some() {
        tracing::info!("Successfully opened remote image after {failures} retries");
    }
    Ok(found)
}

/// An image by the identifier that an earlier phase found it to have; a layout's is `<path>@<digest>`.
pub(crate) fn find_identified(images: &Images, identifier: &str) -> image::Result<Option<Image>> {
    match images {
        Images::Layout(layout) if !Path::new(identifier).is_absolute() => layout.find(identifier),
        Images::Layout(_) => Layout::open(Path::new(identifier)),
        Images::Registry(_) | Images::Daemon(_) => images.find(identifier),
    }
}

/// One time for the image and for every step of its history, in seconds since 1970 or the usual one.
pub(crate) fn set_created(image: &mut Image, epoch: Option<i64>) {
    image.stamp(&epoch.map_or_else(|| DEFAULT_CREATED.to_owned(), rfc3339));
}

/// Seconds since 1970, as the calendar says it in UTC.
pub fn rfc3339(epoch: i64) -> String {
    let (days, second) = (epoch.div_euclid(86_400), epoch.rem_euclid(86_400));
    // Years begin in March here, so that the leap day is the last one; 400 years have 146,097 days.
    let days = days.saturating_add(719_468);
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + carry;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use image::{Digest, History};

    use super::*;

    #[test]
    fn seconds_become_dates() {
        for (epoch, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (315_532_801, DEFAULT_CREATED),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(epoch), text, "{epoch}");
        }
    }

    #[test]
    fn every_step_has_the_image_s_time() {
        let mut image = Image::default();
        image.config.history = vec![History { created: Some("2020".into()), ..History::default() }, History::default()];
        set_created(&mut image, Some(1));
        assert_eq!(image.config.created.as_deref(), Some("1970-01-01T00:00:01Z"));
        assert!(image.config.history.iter().all(|h| h.created == image.config.created));
        set_created(&mut image, None);
        assert_eq!(image.config.created.as_deref(), Some(DEFAULT_CREATED));
    }

    #[test]
    fn short_names_of_images() {
        let digest = Digest::of(b"x");
        let reference = Reference::parse("a.example/app").unwrap().with_digest(&digest);
        for (id, text) in [
            (ImageId::Daemon("0123456789abcdef".into()), "0123456789ab".to_owned()),
            (ImageId::Daemon("short".into()), "short".into()),
            (ImageId::Registry { reference, manifest_size: 1 }, digest.to_string()),
            (ImageId::Layout { path: "/l/x".into(), digest: digest.clone() }, format!("/l/x@{digest}")),
        ] {
            assert_eq!(short(&id), text);
        }
    }
}
