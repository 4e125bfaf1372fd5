//! The layers of one buildpack: what each is for is checked, and those that are for nothing are put out of the way.

use std::{fs, io, path::Path};

use anyhow::{Context as _, bail};
use buildpack_api::LayerTypes;

use super::remove_all;
use crate::layers_dir::BuildpackDir;

/// What a layer is for; a layer without a file is for nothing.
pub(super) fn types(dir: &BuildpackDir, layer: &str) -> LayerTypes {
    dir.layer(layer).and_then(|layer| layer.toml.as_ref().ok()).map(|toml| toml.types).unwrap_or_default()
}

/// Checks every layer, and takes those that are for nothing out of the way.
pub(super) fn process_layers(layers: &Path, dir: &BuildpackDir) -> anyhow::Result<()> {
    // As a layer that is for nothing it would be put aside, and nobody would hear of it.
    for name in ["launch.toml", "build.toml", "store.toml"] {
        if dir.path.join(name).is_dir() {
            bail!("read {}: is a directory", dir.path.join(name).display());
        }
    }
    for layer in &dir.layers {
        let types = layer.toml.as_ref().map_err(Clone::clone).context("failed to decode layer metadata file")?.types;
        if types == LayerTypes::default() {
            ignore(&layer.path).context("failed to rename layer directory")?;
        } else if layer.has_contents && (types.launch || types.cache) {
            refuse_link_out(layers, &layer.path)?;
        }
    }
    Ok(())
}

/// Renames `<layer>` to `<layer>.ignore`, whatever is there already.
fn ignore(layer: &Path) -> anyhow::Result<()> {
    if fs::symlink_metadata(layer).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    let mut ignored = layer.as_os_str().to_owned();
    ignored.push(".ignore");
    let ignored = Path::new(&ignored);
    remove_all(ignored)?;
    fs::rename(layer, ignored).with_context(|| format!("rename {} to {}", layer.display(), ignored.display()))
}

/// A layer may be a link, but for an image or the cache not one that leads out of the layers directory: it would be empty
/// there.
fn refuse_link_out(layers: &Path, layer: &Path) -> anyhow::Result<()> {
    if !fs::symlink_metadata(layer).is_ok_and(|meta| meta.is_symlink()) {
        return Ok(());
    }
    let real = |path: &Path| fs::canonicalize(path).with_context(|| format!("resolve {}", path.display()));
    let (to, layers) = (real(layer)?, real(layers)?);
    if !to.starts_with(layers) {
        let (layer, to) = (layer.display(), to.display());
        bail!("layer {layer} is a symbolic link to {to}, outside of the layers directory");
    }
    Ok(())
}
