//! A run image that extensions extended: `<extended>/run/<digest>`, an OCI layout with the layers they added. Its
//! config becomes the app image's, its own layers go right above the base's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use image::{BlobSource, Config, History, Image, Images, Layer, Layout, Recipe};
use platform_api::Failure;

use super::layers::{Content, Kind, Planned};

/// What extensions made of the run image.
pub(super) struct Extended {
    config: Config,
    layers: Vec<Planned>,
}

impl Extended {
    /// # Errors
    /// There is no extended run image, or more than one.
    pub(super) fn read(dir: &Path) -> anyhow::Result<Self> {
        let missing = || Failure::failed("failed to get extended image config: missing extended run image");
        let Some(path) = only_entry(dir)? else { return Err(missing().into()) };
        let layouts = Images::Layout(Layout { dir: dir.to_path_buf() });
        let name = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
        let mut image = layouts.find(name)?.ok_or_else(missing)?;
        image.normalise_history();
        let steps = image.config.history.drain(..).chain(std::iter::repeat_with(History::default));
        let layers = image.layers.iter().zip(steps).enumerate();
        let layers = layers.filter_map(|(n, (layer, step))| planned(n, layer, step)).collect();
        Ok(Self { config: image.config, layers })
    }

    /// The layers that extensions added, those of the base below them left out.
    pub(super) fn take_layers(&mut self) -> Vec<Planned> {
        std::mem::take(&mut self.layers)
    }

    /// Gives `image` the config that containers are started with.
    pub(super) fn configure(self, image: &mut Image) {
        let extended = self.config;
        let config = &mut image.config;
        config.env = extended.env;
        config.entrypoint = extended.entrypoint;
        config.cmd = extended.cmd;
        config.labels = extended.labels;
        config.user = extended.user;
        config.working_dir = extended.working_dir;
        config.rest_of_config = extended.rest_of_config;
    }
}

/// The blobs of the base's layers are not kept: the layout is sparse.
fn planned(n: usize, layer: &Layer, step: History) -> Option<Planned> {
    let blob = layer.blob.as_ref()?;
    let BlobSource::Layout(layout) = &blob.source else { return None };
    let path = layout.join("blobs").join("sha256").join(blob.digest.hex());
    if !path.is_file() {
        return None;
    }
    let created_by = step.created_by.unwrap_or_default();
    let from = created_by.rsplit_once("Created by extension: ").map_or("from extensions", |(_, id)| id);
    Some(Planned {
        identifier: format!("{from}:extended-layer-{n}"),
        kind: Kind::Extension,
        content: Content::Recipe { recipe: Recipe::tar(&path), previous: Vec::new() },
        created_by,
    })
}

fn only_entry(dir: &Path) -> anyhow::Result<Option<PathBuf>> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(None) };
    let entries: Vec<_> = entries.collect::<Result<_, _>>().with_context(|| format!("read {}", dir.display()))?;
    match entries.as_slice() {
        [] => Ok(None),
        [entry] => Ok(Some(entry.path())),
        _ => bail!("expected {} to have a single directory", dir.display()),
    }
}
