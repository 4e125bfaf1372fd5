//! The layers directories of buildpacks, `<layers>/<escaped id>`, read once into values: what build looks at after a
//! buildpack ran, restore before one runs, and export at the end.
//!
//! Everything in them was written by buildpacks, so nothing is trusted: files are read up to a limit and only where
//! they are regular files, the directory itself may not be a link, and no name leads out of it.
//!
//! Spec: buildpack.md "Layer Types" and "Layer Content Metadata (TOML)".

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use buildpack_api::{BuildpackId, LayerToml, ParseError, Store, is_layer_name, read_toml_bounded};
use platform_api::{Group, file::FileError};

use crate::sbom::SbomFile;

/// The layers directories of a group.
#[derive(Debug)]
pub(crate) struct LayersDir {
    /// In the order of the group.
    pub(crate) buildpacks: Vec<BuildpackDir>,
}

/// The layers directory of one buildpack.
#[derive(Debug)]
pub(crate) struct BuildpackDir {
    pub(crate) id: BuildpackId,
    pub(crate) version: String,
    /// `<layers>/<escaped id>`; need not exist.
    pub(crate) path: PathBuf,
    /// store.toml
    pub(crate) store: Option<Store>,
    /// Everything that is a layer by name: `<layer>.toml` or a directory, in byte order of the former.
    pub(crate) layers: Vec<LayerDir>,
    /// `*.sbom.*.json`, sorted by name.
    pub(crate) sboms: Vec<SbomFile>,
}

/// One layer.
#[derive(Debug)]
pub(crate) struct LayerDir {
    /// Never empty, `.`, `..` or a reserved name; it has no `/`.
    pub(crate) name: String,
    /// `<layer>`
    pub(crate) path: PathBuf,
    /// `<layer>` is a directory, or a link to one.
    pub(crate) has_contents: bool,
    /// `<layer>.toml` is there.
    pub(crate) has_toml: bool,
    /// `<layer>.toml`; the default where there is none. The error names the path.
    pub(crate) toml: Result<LayerToml, ParseError>,
}

impl LayersDir {
    /// Reads the directories of all buildpacks of the group.
    ///
    /// # Errors
    /// As [`BuildpackDir::read`].
    pub(crate) fn read(layers: &Path, group: &Group) -> anyhow::Result<Self> {
        let buildpacks = group.buildpacks.iter().map(|bp| BuildpackDir::read(layers, &bp.id, &bp.version));
        Ok(Self { buildpacks: buildpacks.collect::<Result<_, FileError>>()? })
    }
}

impl BuildpackDir {
    /// Reads `<layers>/<escaped id>`; one that is not there is empty.
    ///
    /// # Errors
    /// The directory is a link or no directory, cannot be listed, has a bad store.toml, or holds a `*.toml` that can
    /// name no layer. What is wrong with a layer's file is in [`LayerDir::toml`].
    pub(crate) fn read(layers: &Path, id: &BuildpackId, version: &str) -> Result<Self, FileError> {
        let path = layers.join(id.escaped());
        let (id, version) = (id.clone(), version.to_owned());
        let mut dir = Self { id, version, path, store: None, layers: Vec::new(), sboms: Vec::new() };
        if !is_own_dir(&dir.path)? {
            return Ok(dir);
        }
        // By file name with `.toml`, whether or not there is such a file: `a-b.toml` comes before `a.toml`.
        let mut layers: BTreeMap<String, String> = BTreeMap::new();
        for (name, kind) in list(&dir.path)? {
            if kind.is_dir() {
                if !name.ends_with(".ignore") && is_layer_name(&name) {
                    layers.insert(format!("{name}.toml"), name);
                }
            } else if let Some(layer) = name.strip_suffix(".toml") {
                if is_layer_name(layer) {
                    layers.insert(name.clone(), layer.to_owned());
                } else if !matches!(layer, "build" | "launch" | "store") {
                    let path = dir.path.join(&name);
                    return Err(FileError(format!("{}: '{layer}' cannot be the name of a layer", path.display())));
                }
            } else if let Some(sbom) = SbomFile::from_name(&dir.path, &name) {
                dir.sboms.push(sbom);
            }
        }
        for layer in layers.into_values() {
            dir.layers.push(LayerDir::read(&dir.path, layer));
        }
        dir.store = read_own_toml(&dir.path.join("store.toml"), Store::parse)?;
        Ok(dir)
    }

    /// The layer of this name.
    pub(crate) fn layer(&self, name: &str) -> Option<&LayerDir> {
        self.layers.iter().find(|layer| layer.name == name)
    }
}

impl LayerDir {
    fn read(dir: &Path, name: String) -> Self {
        let path = dir.join(&name);
        let toml_path = dir.join(format!("{name}.toml"));
        Self {
            has_contents: path.is_dir(),
            has_toml: !toml_path.is_dir() && fs::symlink_metadata(&toml_path).is_ok(),
            toml: if toml_path.is_dir() { Ok(LayerToml::default()) } else { LayerToml::read(&toml_path) },
            name,
            path,
        }
    }
}

/// Reads and parses a TOML file that a buildpack or an extension wrote, `None` where there is none.
///
/// # Errors
/// It is no regular file, too long, not UTF-8, or the parser refuses it.
pub(crate) fn read_own_toml<T, E: std::fmt::Display>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, FileError> {
    let Some(text) = read_toml_bounded(path).map_err(|e| FileError(e.to_string()))? else { return Ok(None) };
    parse(&text).map(Some).map_err(|e| FileError(format!("{}: {e}", path.display())))
}

/// Whether the directory is there.
///
/// # Errors
/// It is a link (which could lead anywhere) or no directory.
pub(crate) fn is_own_dir(path: &Path) -> Result<bool, FileError> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(true),
        Ok(meta) if meta.is_symlink() => {
            Err(FileError(format!("{} is a symbolic link; it must be a directory", path.display())))
        }
        Ok(_) => Err(FileError(format!("{} is not a directory", path.display()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(FileError(format!("stat {}: {e}", path.display()))),
    }
}

/// Names and types of a directory's entries, in byte order. Links are not followed.
fn list(dir: &Path) -> Result<BTreeMap<String, fs::FileType>, FileError> {
    let failed = |e: io::Error| FileError(format!("read {}: {e}", dir.display()));
    let mut entries = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        match entry.file_name().into_string() {
            Ok(name) => {
                entries.insert(name, kind);
            }
            // Labels are JSON, so such a name can be no layer's; a file that claims to be one is refused.
            Err(name) if name.as_encoded_bytes().ends_with(b".toml") => {
                return Err(FileError(format!("{}: the name of a layer must be UTF-8", dir.join(name).display())));
            }
            Err(_) => {}
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(layers: &Path) -> Result<BuildpackDir, FileError> {
        BuildpackDir::read(layers, &BuildpackId::try_from("some/bp".to_owned()).unwrap(), "1")
    }

    fn layers(files: &[(&str, &str)], dirs: &[&str]) -> tempfile::TempDir {
        let tmp = tempfile::tempdir().unwrap();
        let own = tmp.path().join("some_bp");
        fs::create_dir(&own).unwrap();
        for dir in dirs {
            fs::create_dir(own.join(dir)).unwrap();
        }
        for (name, text) in files {
            fs::write(own.join(name), text).unwrap();
        }
        tmp
    }

    #[test]
    fn layers_are_toml_files_and_directories_but_the_reserved_ones() {
        let tmp = layers(
            &[
                ("a.toml", "[types]\nlaunch = true"),
                ("a.sha", "sha256:1"),
                ("a-b.toml", ""),
                ("launch.toml", "?"),
                ("build.toml", "?"),
                ("store.toml", "[metadata]\nn = 1"),
                ("a.sbom.cdx.json", "{}"),
            ],
            &["a", "bare", "old.ignore", "launch"],
        );
        let dir = read(tmp.path()).unwrap();
        let names: Vec<_> = dir.layers.iter().map(|l| (l.name.as_str(), l.has_toml, l.has_contents)).collect();
        assert_eq!(names, [("a-b", true, false), ("a", true, true), ("bare", false, true)]);
        assert!(dir.layer("a").unwrap().toml.as_ref().unwrap().types.launch);
        assert!(dir.store.unwrap().metadata.contains_key("n"));
        assert_eq!(dir.sboms.len(), 1);
    }

    #[test]
    fn an_absent_directory_is_empty() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = read(tmp.path()).unwrap();
        assert!(dir.layers.is_empty() && dir.store.is_none());
    }

    #[test]
    fn absurd_files_are_errors_that_name_them() {
        let tmp = layers(&[("bad.toml", "[[[")], &[]);
        let own = tmp.path().join("some_bp");
        std::os::unix::fs::symlink("/dev/zero", own.join("zero.toml")).unwrap();
        fs::write(own.join("binary.toml"), [0xff, 0xfe]).unwrap();
        fs::File::create(own.join("huge.toml")).unwrap().set_len(1 << 40).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(own.join("pipe.toml")).status().unwrap().success());
        let dir = read(tmp.path()).unwrap();
        assert_eq!(dir.layers.len(), 5);
        for layer in &dir.layers {
            let error = layer.toml.as_ref().unwrap_err().to_string();
            assert!(error.contains(&format!("{}.toml", layer.name)), "{error}");
        }
        fs::write(own.join("store.toml"), "[[[").unwrap();
        assert!(read(tmp.path()).unwrap_err().to_string().contains("some_bp/store.toml: toml: line 1"));
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        for name in [".toml", "..toml", "...toml"] {
            let tmp = layers(&[(name, "")], &[]);
            let error = read(tmp.path()).unwrap_err().to_string();
            assert!(error.contains("cannot be the name of a layer"), "{name}: {error}");
        }
        let tmp = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), tmp.path().join("some_bp")).unwrap();
        let error = read(tmp.path()).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
    }
}
