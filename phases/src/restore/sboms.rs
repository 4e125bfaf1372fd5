//! SBOM files of restored layers: unpacked to `<layers>/sbom`, copied beside each layer, and gone from there before
//! the build begins.

use std::{fs, io, path::Path};

use anyhow::Context as _;
use buildpack_api::{BuildpackId, SbomFormat};
use image::Digest;
use platform_api::{CacheMetadata, Group, PlatformApi};

use super::{Contents, with_suffix};
use crate::sbom::{self, SbomDir, SbomFile};

/// The SBOM layer of the cache, if there is one.
pub(super) fn to_restore(layers: &Path, cached: &CacheMetadata, api: PlatformApi) -> Option<Contents> {
    let diff_id = Digest::parse(&cached.sbom.sha).ok().filter(|_| api.sbom_layers())?;
    let dir = SbomDir::Cache.path(layers);
    Some(Contents { identifier: "buildpacksio/lifecycle:cache.sbom".to_owned(), diff_id, dir })
}

/// Copies the SBOM of each layer that was restored to its buildpack; those of launch layers win.
pub(super) fn restore_to_layers(layers: &Path, group: &Group) -> anyhow::Result<()> {
    let copied = copy_all(layers, group);
    // Builds expect none there, whatever went wrong.
    let removed = match fs::remove_dir_all(layers.join("sbom")) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).context("removing restored SBOM files"),
        _ => Ok(()),
    };
    copied.and(removed)
}

fn copy_all(layers: &Path, group: &Group) -> anyhow::Result<()> {
    for dir in [SbomDir::Cache, SbomDir::Launch] {
        for buildpack in &group.buildpacks {
            copy_of_buildpack(layers, dir, &buildpack.id)?;
        }
    }
    Ok(())
}

fn copy_of_buildpack(layers: &Path, dir: SbomDir, id: &BuildpackId) -> anyhow::Result<()> {
    let from = dir.path(layers).join(id.escaped());
    let own = layers.join(id.escaped());
    let entries = match fs::read_dir(&from) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("read {}", from.display())),
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", from.display()))?;
        let Ok(layer) = entry.file_name().into_string() else { continue };
        // A layer that was not restored gets no SBOM either.
        if !with_suffix(&own.join(&layer), ".toml").is_file() {
            continue;
        }
        for format in SbomFormat::ALL {
            let source = dir.file(layers, id, Some(&layer), format);
            if source.is_file() {
                sbom::copy(&source, &SbomFile::path_for_layer(&own, &layer, format))?;
            }
        }
    }
    Ok(())
}
