//! A buildpack in Rust: gives every file of `static/` a name that carries its digest, so that browsers may keep it
//! for ever, and a gzip twin. The application finds the new names in `manifest.json`.

use libcnb::build::{BuildContext, BuildResult, BuildResultBuilder};
use libcnb::data::layer_name;
use libcnb::data::store::Store;
use libcnb::detect::{DetectContext, DetectResult, DetectResultBuilder};
use libcnb::generic::{GenericMetadata, GenericPlatform};
use libcnb::layer::{CachedLayerDefinition, InvalidMetadataAction, LayerState, RestoredLayerAction};
use libcnb::layer_env::{LayerEnv, ModificationBehavior, Scope};
use libcnb::{Buildpack, buildpack_main};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{fmt::Write as _, fs};

struct AssetsBuildpack;

/// What the layer was made from: the same again, and the layer can stay.
#[derive(Serialize, Deserialize, PartialEq)]
struct MadeFrom {
    files: BTreeMap<String, String>,
}

impl Buildpack for AssetsBuildpack {
    type Platform = GenericPlatform;
    type Metadata = GenericMetadata;
    type Error = io::Error;

    fn detect(&self, context: DetectContext<Self>) -> libcnb::Result<DetectResult, io::Error> {
        if context.app_dir.join("static").is_dir() {
            DetectResultBuilder::pass().build()
        } else {
            DetectResultBuilder::fail().build()
        }
    }

    fn build(&self, context: BuildContext<Self>) -> libcnb::Result<BuildResult, io::Error> {
        let source = context.app_dir.join("static");
        let made_from = MadeFrom { files: digests(&source).map_err(libcnb::Error::BuildpackError)? };

        let layer = context.cached_layer(
            layer_name!("assets"),
            CachedLayerDefinition {
                build: false,
                launch: true,
                invalid_metadata_action: &|_| InvalidMetadataAction::DeleteLayer,
                restored_layer_action: &|restored: &MadeFrom, _| {
                    if *restored == made_from {
                        RestoredLayerAction::KeepLayer
                    } else {
                        RestoredLayerAction::DeleteLayer
                    }
                },
            },
        )?;
        if let LayerState::Restored { .. } = layer.state {
            println!("Reusing {} fingerprinted assets: none has changed", made_from.files.len());
        } else {
            println!("Fingerprinting {} assets", made_from.files.len());
            publish(&source, &layer.path(), &made_from).map_err(libcnb::Error::BuildpackError)?;
            layer.write_env(LayerEnv::new().chainable_insert(
                Scope::Launch,
                ModificationBehavior::Override,
                "ASSETS_DIR",
                layer.path(),
            ))?;
        }
        layer.write_metadata(made_from)?;
        // libcnb fails the next build if a store that was saved does not come back as one, be it empty.
        BuildResultBuilder::new().store(Store::default()).build()
    }
}

/// The SHA-256 of every file below `root`, by its path relative to `root`.
fn digests(root: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut open: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else {
                let path = entry.path();
                let name = path.strip_prefix(root).map_err(io::Error::other)?.to_string_lossy().into_owned();
                found.insert(name, hex(&Sha256::digest(fs::read(&path)?)));
            }
        }
    }
    Ok(found)
}

/// Writes each file under its new name, its gzip twin, and the list of names.
fn publish(source: &Path, layer: &Path, made_from: &MadeFrom) -> io::Result<()> {
    let mut manifest = String::from("{");
    for (name, digest) in &made_from.files {
        let new_name = fingerprinted(name, digest);
        let text = fs::read(source.join(name))?;
        let target = layer.join(&new_name);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&target, &text)?;
        let mut twin = flate2::GzBuilder::new()
            .write(fs::File::create(layer.join(format!("{new_name}.gz")))?, flate2::Compression::best());
        twin.write_all(&text)?;
        twin.finish()?;
        let comma = if manifest.len() > 1 { "," } else { "" };
        write!(manifest, "{comma}\n  {name:?}: {new_name:?}").map_err(io::Error::other)?;
    }
    fs::write(layer.join("manifest.json"), manifest + "\n}\n")
}

/// `css/style.css` becomes `css/style-0123456789ab.css`.
fn fingerprinted(name: &str, digest: &str) -> String {
    let short = &digest[..12];
    match name.rsplit_once('.') {
        Some((stem, extension)) if !extension.contains('/') => format!("{stem}-{short}.{extension}"),
        _ => format!("{name}-{short}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

buildpack_main!(AssetsBuildpack);
