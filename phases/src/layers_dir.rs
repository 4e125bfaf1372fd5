//! A buildpack's layers directory, `<layers>/<escaped id>`, read once into values: what build looks at after a
//! buildpack ran, restore before one runs, and export at the end.
//!
//! Everything in it was written by a buildpack, so nothing is trusted: files are opened without waiting and read up
//! to a limit, the directory itself may not be a link, and no name leads out of it.
//!
//! Spec: buildpack.md "Layer Types" and "Layer Content Metadata (TOML)".

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use buildpack_api::{BuildpackId, LayerToml, Store};
use nix::fcntl::OFlag;
use platform_api::file::FileError;

use crate::sbom::SbomFile;

/// The longest TOML file a buildpack may write: 16 MiB, far beyond any real one.
pub const MAX_TOML: u64 = 16 << 20;

/// File names (without `.toml`) that are not layers'.
const RESERVED: [&str; 3] = ["build", "launch", "store"];

/// The layers directory of one buildpack.
#[derive(Debug)]
pub struct BuildpackLayersDir {
    pub id: BuildpackId,
    /// `<layers>/<escaped id>`; need not exist.
    pub path: PathBuf,
    /// Every layer with a readable `<layer>.toml`, in byte order of those files' names.
    pub layers: Vec<LayerOnDisk>,
    /// Every `<layer>.toml` that could not be read or understood.
    pub malformed: Vec<FileError>,
    /// Names of directories that have no `<layer>.toml` and may not be layers, sorted. Those that end in `.ignore`
    /// are not among them.
    pub without_toml: Vec<String>,
    /// `*.sbom.*.json`, sorted by name.
    pub sboms: Vec<SbomFile>,
}

/// A layer that has a `<layer>.toml`.
#[derive(Debug)]
pub struct LayerOnDisk {
    /// Never empty, `.` or `..`; it has no `/`.
    pub name: String,
    pub toml: LayerToml,
    /// `<layer>.toml`
    pub toml_path: PathBuf,
    /// `<layer>` is a directory, or a link to one.
    pub has_dir: bool,
    /// `<layer>`
    pub path: PathBuf,
}

impl BuildpackLayersDir {
    /// Reads `<layers>/<escaped id>`; one that is not there is empty.
    ///
    /// # Errors
    /// The directory is a link or no directory, cannot be listed, or holds a `*.toml` that names no layer.
    /// What is wrong inside a layer's file is in [`Self::malformed`].
    pub fn read(layers: &Path, id: &BuildpackId) -> Result<Self, FileError> {
        let path = layers.join(id.escaped());
        let mut dir = Self {
            id: id.clone(),
            path,
            layers: Vec::new(),
            malformed: Vec::new(),
            without_toml: Vec::new(),
            sboms: Vec::new(),
        };
        if !is_own_dir(&dir.path)? {
            return Ok(dir);
        }
        let listing = dir.list()?;
        let mut dirs = Vec::new();
        for (name, kind) in listing {
            if kind.is_dir() {
                dirs.push(name);
            } else if let Some(layer) = name.strip_suffix(".toml") {
                dir.add_layer(layer)?;
            } else if let Some(sbom) = SbomFile::from_name(&dir.path, &name) {
                dir.sboms.push(sbom);
            }
        }
        dirs.retain(|name| !name.ends_with(".ignore") && !RESERVED.contains(&name.as_str()));
        dirs.retain(|name| !dir.path.join(format!("{name}.toml")).is_file());
        dir.without_toml = dirs;
        Ok(dir)
    }

    /// store.toml, `None` where there is none.
    pub fn read_store(&self) -> Result<Option<Store>, FileError> {
        parse_bounded(&self.path.join("store.toml"), Store::parse)
    }

    /// The first malformed file as an error; otherwise nothing.
    pub fn check(&self) -> Result<(), FileError> {
        self.malformed.first().map_or(Ok(()), |e| Err(e.clone()))
    }

    /// The layer of this name.
    pub fn layer(&self, name: &str) -> Option<&LayerOnDisk> {
        self.layers.iter().find(|layer| layer.name == name)
    }

    /// Names and types of the entries, in byte order. Links are not followed.
    fn list(&self) -> Result<Vec<(String, fs::FileType)>, FileError> {
        let failed = |e: io::Error| FileError(format!("read {}: {e}", self.path.display()));
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            match entry.file_name().into_string() {
                Ok(name) => entries.push((name, kind)),
                // Such a file can be no layer (labels are JSON); one that claims to be is refused.
                Err(name) if name.as_encoded_bytes().ends_with(b".toml") => {
                    let path = self.path.join(name);
                    return Err(FileError(format!("{}: the name of a layer must be UTF-8", path.display())));
                }
                Err(_) => {}
            }
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    fn add_layer(&mut self, name: &str) -> Result<(), FileError> {
        if RESERVED.contains(&name) {
            return Ok(());
        }
        let toml_path = self.path.join(format!("{name}.toml"));
        if name.is_empty() || name == "." || name == ".." {
            return Err(FileError(format!("{}: '{name}' cannot be the name of a layer", toml_path.display())));
        }
        match parse_bounded(&toml_path, LayerToml::parse) {
            Ok(Some(toml)) => {
                let path = self.path.join(name);
                let has_dir = path.is_dir();
                self.layers.push(LayerOnDisk { name: name.to_owned(), toml, toml_path, has_dir, path });
            }
            Ok(None) => self.malformed.push(FileError(format!("{}: a link that leads nowhere", toml_path.display()))),
            Err(e) => self.malformed.push(e),
        }
        Ok(())
    }
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

/// Reads and parses a TOML file that a buildpack or extension wrote, `None` where there is none.
///
/// # Errors
/// It is no regular file, longer than [`MAX_TOML`], not UTF-8, or the parser refuses it.
pub(crate) fn parse_bounded<T, E: std::fmt::Display>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, FileError> {
    let Some(text) = read_bounded(path, MAX_TOML)? else { return Ok(None) };
    parse(&text).map(Some).map_err(|e| FileError(format!("{}: {e}", path.display())))
}

/// The text of a regular file of at most `limit` bytes, `None` where there is none.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Option<String>, FileError> {
    let failed = |e: io::Error| FileError(format!("read {}: {e}", path.display()));
    let Some(file) = open_regular(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too long, however it grows meanwhile.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(FileError(format!("{}: the file is longer than {limit} bytes", path.display())));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| FileError(format!("{}: the file is not UTF-8", path.display())))
}

/// Opens a regular file (links are followed) without ever waiting, `None` where there is none.
pub(crate) fn open_regular(path: &Path) -> Result<Option<File>, FileError> {
    let failed = |e: io::Error| FileError(format!("open {}: {e}", path.display()));
    // Without O_NONBLOCK a named pipe would hold us until somebody writes into it.
    let file = match fs::OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    if file.metadata().map_err(failed)?.is_file() {
        Ok(Some(file))
    } else {
        Err(FileError(format!("{} is not a regular file", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> BuildpackId {
        BuildpackId::try_from("some/bp".to_owned()).unwrap()
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
    fn layers_are_the_toml_files_but_the_reserved_ones() {
        let tmp = layers(
            &[
                ("a.toml", "[types]\nlaunch = true"),
                ("a-b.toml", ""),
                ("launch.toml", "?"),
                ("build.toml", "?"),
                ("store.toml", "?"),
                ("a.sbom.cdx.json", "{}"),
            ],
            &["a", "bare", "old.ignore", "launch"],
        );
        let dir = BuildpackLayersDir::read(tmp.path(), &id()).unwrap();
        let names: Vec<_> = dir.layers.iter().map(|l| (l.name.as_str(), l.has_dir)).collect();
        assert_eq!(names, [("a-b", false), ("a", true)], "in byte order of the file names");
        assert!(dir.layer("a").unwrap().toml.types.launch);
        assert_eq!(dir.without_toml, ["bare"]);
        assert_eq!(dir.sboms.len(), 1);
        dir.check().unwrap();
    }

    #[test]
    fn an_absent_directory_is_empty() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = BuildpackLayersDir::read(tmp.path(), &id()).unwrap();
        assert!(dir.layers.is_empty() && dir.read_store().unwrap().is_none());
    }

    #[test]
    fn absurd_files_are_errors_that_name_them() {
        let tmp = layers(&[("bad.toml", "[[[")], &["dir.toml"]);
        let own = tmp.path().join("some_bp");
        std::os::unix::fs::symlink("/dev/zero", own.join("zero.toml")).unwrap();
        std::os::unix::fs::symlink("nowhere", own.join("gone.toml")).unwrap();
        fs::write(own.join("binary.toml"), [0xff, 0xfe]).unwrap();
        fs::File::create(own.join("huge.toml")).unwrap().set_len(1 << 40).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(own.join("pipe.toml")).status().unwrap().success());
        let dir = BuildpackLayersDir::read(tmp.path(), &id()).unwrap();
        assert!(dir.layers.is_empty());
        let text: Vec<_> = dir.malformed.iter().map(ToString::to_string).collect();
        for (name, why) in [
            ("bad.toml", "toml"),
            ("zero.toml", "not a regular file"),
            ("gone.toml", "leads nowhere"),
            ("binary.toml", "not UTF-8"),
            ("huge.toml", "longer than"),
            ("pipe.toml", "not a regular file"),
        ] {
            assert!(text.iter().any(|t| t.contains(name) && t.contains(why)), "{name}: {text:?}");
        }
        assert!(dir.check().is_err());
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        for name in [".toml", "..toml", "...toml"] {
            let tmp = layers(&[(name, "")], &[]);
            let error = BuildpackLayersDir::read(tmp.path(), &id()).unwrap_err().to_string();
            assert!(error.contains("cannot be the name of a layer"), "{name}: {error}");
        }
        let tmp = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), tmp.path().join("some_bp")).unwrap();
        let error = BuildpackLayersDir::read(tmp.path(), &id()).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
    }
}
