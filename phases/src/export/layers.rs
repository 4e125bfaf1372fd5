//! Which layers the app image has, in their order, and what is in each.

use std::{path::Path, thread};

use anyhow::{Context as _, bail};
use image::{Owner, Recipe};
use platform_api::{
    BuildMetadata, BuildpackLayers, Data, LayerData, LayersMetadata,
    inputs::ExporterInputs,
    names::path::{LAUNCHER, LIFECYCLE, PROCESS},
};

use super::slices;
use crate::{
    layers_dir::{BuildpackDir, LayerDir, LayersDir},
    sbom::SbomDir,
};

/// A layer as it is to be.
pub(super) struct Planned {
    /// For messages: `<buildpack>:<layer>`, `slice-<n>`, `buildpacksio/lifecycle:<what>`.
    pub(super) identifier: String,
    /// For the history.
    pub(super) created_by: String,
    pub(super) kind: Kind,
    pub(super) content: Content,
}

/// Where a layer is recorded in the lifecycle label.
pub(super) enum Kind {
    /// Made by an extension; not recorded.
    Extension,
    /// By the index of the buildpack in the group, and the layer's name.
    Buildpack {
        index: usize,
        layer: String,
    },
    Sbom,
    App,
    Launcher,
    Config,
    ProcessTypes,
}

/// What is in a layer.
pub(super) enum Content {
    /// Files. Where they come out as one of the `previous` diff IDs, the previous image's layer is used.
    Recipe { recipe: Recipe, previous: Vec<String> },
    /// The previous image's layer with this diff ID: the buildpack left it where it was.
    Previous(String),
}

const ROOT: Owner = Owner { uid: 0, gid: 0 };

/// All layers of the app image above those of the (extended) run image. `previous` is the lifecycle label of the
/// previous image.
pub(super) fn plan(
    i: &ExporterInputs,
    dir: &LayersDir,
    previous: &LayersMetadata,
    metadata: &BuildMetadata,
) -> anyhow::Result<Vec<Planned>> {
    let owner = Owner { uid: i.user.uid.into(), gid: i.user.gid.into() };
    // The application is as large as all layers, often enough: both are walked at once.
    let (of_buildpacks, of_app) = thread::scope(|scope| {
        let of_app = scope.spawn(|| app_layers(i, previous, metadata, owner));
        (buildpack_layers(dir, previous, owner), of_app.join())
    });
    let mut planned = of_buildpacks?;
    let sbom = SbomDir::Launch.path(&i.layers);
    if i.api.sbom_layers() && sbom.is_dir() {
        planned.push(Planned {
            identifier: "buildpacksio/lifecycle:launch.sbom".to_owned(),
            created_by: "Software Bill-of-Materials".to_owned(),
            kind: Kind::Sbom,
            content: files(recipe_of(&sbom, owner)?, previous.sbom.iter().map(|layer| &layer.sha)),
        });
    }
    planned.extend(super::joined(of_app)?);
    planned.push(Planned {
        identifier: "buildpacksio/lifecycle:launcher".to_owned(),
        created_by: "Buildpacks Application Launcher".to_owned(),
        kind: Kind::Launcher,
        content: files(launcher(&i.launcher)?, [&previous.launcher.sha]),
    });
    planned.push(Planned {
        identifier: "buildpacksio/lifecycle:config".to_owned(),
        created_by: "Buildpacks Launcher Config".to_owned(),
        kind: Kind::Config,
        content: files(recipe_of(&i.layers.join("config"), owner)?, [&previous.config.sha]),
    });
    if !metadata.processes.is_empty() {
        planned.push(Planned {
            identifier: "buildpacksio/lifecycle:process-types".to_owned(),
            created_by: "Buildpacks Process Types".to_owned(),
            kind: Kind::ProcessTypes,
            content: files(process_types(metadata)?, [&previous.process_types.sha]),
        });
    }
    Ok(planned)
}

fn files<'a>(recipe: Recipe, previous: impl IntoIterator<Item = &'a String>) -> Content {
    Content::Recipe { recipe, previous: previous.into_iter().filter(|sha| !sha.is_empty()).cloned().collect() }
}

pub(super) fn recipe_of(dir: &Path, owner: Owner) -> anyhow::Result<Recipe> {
    Recipe::dir(dir, owner).with_context(|| format!("creating layer from {}", dir.display()))
}

fn app_layers(
    i: &ExporterInputs,
    previous: &LayersMetadata,
    metadata: &BuildMetadata,
    owner: Owner,
) -> anyhow::Result<Vec<Planned>> {
    let mut planned = Vec::new();
    let slices = slices::divide(&i.app, &metadata.slices).context("exporting app layers: creating app layers")?;
    for (n, paths) in (1..).zip(slices) {
        let whole = metadata.slices.is_empty();
        let recipe = Recipe::files(&i.app, paths, owner).context("exporting app layers")?;
        planned.push(Planned {
            identifier: format!("slice-{n}"),
            created_by: if whole { "Application Layer".to_owned() } else { format!("Application Slice: {n}") },
            kind: Kind::App,
            content: files(recipe, previous.app.iter().map(|layer| &layer.sha)),
        });
    }
    Ok(planned)
}

/// The layers of a buildpack that belong into the app image, by name.
fn launch_layers(buildpack: &BuildpackDir) -> Vec<&LayerDir> {
    let mut layers: Vec<_> = buildpack.layers.iter().filter(|l| matches!(&l.toml, Ok(t) if t.types.launch)).collect();
    layers.sort_by(|a, b| a.name.cmp(&b.name));
    layers
}

fn buildpack_layers(dir: &LayersDir, previous: &LayersMetadata, owner: Owner) -> anyhow::Result<Vec<Planned>> {
    let mut planned = Vec::new();
    for (index, buildpack) in dir.buildpacks.iter().enumerate() {
        layers_of(&mut planned, index, buildpack, previous, owner)?;
    }
    Ok(planned)
}

fn layers_of(
    planned: &mut Vec<Planned>,
    index: usize,
    buildpack: &BuildpackDir,
    previous: &LayersMetadata,
    owner: Owner,
) -> anyhow::Result<()> {
    let id = &buildpack.id;
    let malformed: Vec<_> = buildpack.layers.iter().filter(|l| l.toml.is_err()).collect();
    if let Some(Err(cause)) = malformed.first().map(|layer| &layer.toml) {
        let ids: Vec<_> = malformed.iter().map(|layer| format!("{id}:{}", layer.name)).collect();
        bail!("failed to parse metadata for layers '[{}]': {cause}", ids.join(" "));
    }
    let previous = previous.buildpacks.iter().find(|b| b.key == id.as_str()).map(|b| &b.layers);
    for layer in launch_layers(buildpack) {
        let identifier = format!("{id}:{}", layer.name);
        let sha = previous.and_then(|layers| layers.get(&layer.name)).map(|data| &data.sha);
        let content = match (layer.has_contents, sha) {
            (true, sha) => files(recipe_of(&layer.path, owner)?, sha),
            (false, _) if matches!(&layer.toml, Ok(t) if t.types.cache) => {
                bail!("layer '{identifier}' is cache=true but has no contents");
            }
            (false, None) => {
                bail!("cannot reuse '{identifier}', previous image has no metadata for layer '{identifier}'");
            }
            (false, Some(sha)) => Content::Previous(sha.clone()),
        };
        planned.push(Planned {
            identifier,
            created_by: format!("Layer: '{}', Created by buildpack: {id}@{}", layer.name, buildpack.version),
            kind: Kind::Buildpack { index, layer: layer.name.clone() },
            content,
        });
    }
    Ok(())
}

/// The launcher, where every process begins.
fn launcher(source: &Path) -> anyhow::Result<Recipe> {
    let mut recipe = Recipe::default();
    recipe.push_dir("/cnb", 0o755, ROOT);
    recipe.push_dir(LIFECYCLE, 0o755, ROOT);
    recipe
        .push_file(LAUNCHER, source, 0o755, ROOT)
        .with_context(|| format!("creating launcher layers: failed to open launcher at path '{}'", source.display()))?;
    Ok(recipe)
}

/// A link to the launcher for each type of process.
fn process_types(metadata: &BuildMetadata) -> anyhow::Result<Recipe> {
    let mut recipe = Recipe::default();
    recipe.push_dir("/cnb", 0o755, ROOT);
    recipe.push_dir(PROCESS, 0o755, ROOT);
    for (process, _) in &metadata.processes {
        let name = process.r#type.as_str();
        process.r#type.check().with_context(|| format!("invalid process type '{name}'"))?;
        recipe.push_symlink(&format!("{PROCESS}/{name}"), LAUNCHER, ROOT);
    }
    Ok(recipe)
}

/// The buildpacks as the lifecycle label lists them; diff IDs are still to come.
pub(super) fn buildpacks_of(dir: &LayersDir) -> Vec<BuildpackLayers> {
    let of = |buildpack: &BuildpackDir| BuildpackLayers {
        key: buildpack.id.to_string(),
        version: buildpack.version.clone(),
        layers: launch_layers(buildpack).into_iter().map(|layer| (layer.name.clone(), data_of(layer))).collect(),
        store: buildpack.store.clone(),
    };
    dir.buildpacks.iter().map(of).collect()
}

/// What a label says of a layer, without its diff ID.
pub(super) fn data_of(layer: &LayerDir) -> LayerData {
    let Ok(toml) = &layer.toml else { return LayerData::default() };
    LayerData {
        sha: String::new(),
        data: toml.metadata.clone().map(Data),
        build: toml.types.build,
        launch: toml.types.launch,
        cache: toml.types.cache,
    }
}
