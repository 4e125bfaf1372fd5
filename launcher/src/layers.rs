//! `<layers>` as the launcher sees it: the directories of the image's buildpacks, each read once.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use buildpack_api::{Dir, EntryKind};
use platform_api::GroupEntry;

use crate::error::Error;

/// The layer directories of each buildpack: buildpacks in the order of the build, layers in byte order of their names.
#[derive(Debug)]
pub(crate) struct LayerDirs {
    /// `<layers>` itself: everything lies below it.
    root: Dir,
    by_buildpack: Vec<Vec<PathBuf>>,
}

impl LayerDirs {
    /// A buildpack that brought no layers into the image has no directory, which is no error.
    pub(crate) fn find(layers: &Path, buildpacks: &[GroupEntry]) -> Result<Self, Error> {
        let root = Dir::open(layers);
        let of = |entry: &GroupEntry| {
            let found = list(&root, &layers.join(entry.id.escaped()), |kind| kind == Kind::Directory)?;
            Ok(found.unwrap_or_default())
        };
        let by_buildpack = buildpacks.iter().map(of).collect::<Result<_, _>>()?;
        Ok(Self { root, by_buildpack })
    }

    /// Where to look for what is in layers.
    pub(crate) const fn root(&self) -> &Dir {
        &self.root
    }

    /// One slice of layers per buildpack.
    pub(crate) fn by_buildpack(&self) -> impl Iterator<Item = &[PathBuf]> {
        self.by_buildpack.iter().map(Vec::as_slice)
    }

    /// The files in `<layer>/<dir>` of every layer, then those in `<layer>/<dir>/<process type>` of every layer.
    pub(crate) fn files(&self, dir: &str, process_type: Option<&str>) -> Result<Vec<PathBuf>, Error> {
        let is_file = |kind| kind == Kind::File;
        let (mut files, mut for_process) = (Vec::new(), Vec::new());
        for layer in self.by_buildpack.iter().flatten() {
            let dir = layer.join(dir);
            if let Some(mut found) = list(&self.root, &dir, is_file)? {
                files.append(&mut found);
                for_process.extend(process_type.map(|process_type| dir.join(process_type)));
            }
        }
        for dir in for_process {
            files.append(&mut list(&self.root, &dir, is_file)?.unwrap_or_default());
        }
        Ok(files)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A directory itself, not a link to one.
    Directory,
    File,
    DirectoryLink,
}

/// The wanted entries of a directory in byte order; `None` where there is no such directory.
fn list(root: &Dir, dir: &Path, wanted: impl Fn(Kind) -> bool) -> Result<Option<Vec<PathBuf>>, Error> {
    let failed = |e: io::Error| Error::io(&format!("list files in '{}'", dir.display()), &e);
    let entries = match root.list(dir) {
        Ok(entries) => entries,
        // `exec.d` may be a file in a layer that has other ideas of what it is.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut paths = Vec::new();
    for (name, kind) in entries {
        let path = dir.join(OsStr::from_bytes(name.to_bytes()));
        let kind = match kind {
            EntryKind::Directory => Kind::Directory,
            EntryKind::File => Kind::File,
            EntryKind::Other => self::kind(&path).map_err(failed)?,
        };
        if wanted(kind) {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(Some(paths))
}

/// Asked of the file system, where the directory's entry does not tell.
fn kind(path: &Path) -> io::Result<Kind> {
    let file_type = fs::symlink_metadata(path)?.file_type();
    Ok(if file_type.is_dir() {
        Kind::Directory
    } else if file_type.is_symlink() && path.is_dir() {
        Kind::DirectoryLink
    } else {
        Kind::File
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use platform_api::GroupEntry;

    use super::LayerDirs;

    fn buildpack(id: &str) -> GroupEntry {
        GroupEntry {
            id: id.to_owned().try_into().unwrap(),
            version: "1".into(),
            api: "0.12".into(),
            homepage: None,
            optional: false,
        }
    }

    fn file(root: &Path, path: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn layers_are_in_build_order_then_byte_order_and_links_are_none() {
        let root = tempfile::tempdir().unwrap();
        for path in ["z_z/b/x", "z_z/a/x", "z_z/B/x", "z_z/a.toml", "a/only/x"] {
            file(root.path(), path);
        }
        symlink("a", root.path().join("z_z/link")).unwrap();
        let dirs = LayerDirs::find(root.path(), &[buildpack("z/z"), buildpack("none"), buildpack("a")]).unwrap();
        let names: Vec<Vec<_>> = dirs
            .by_buildpack()
            .map(|layers| layers.iter().map(|l| l.strip_prefix(root.path()).unwrap().to_str().unwrap()).collect())
            .collect();
        assert_eq!(names, [vec!["z_z/B", "z_z/a", "z_z/b"], vec![], vec!["a/only"]]);
    }

    #[test]
    fn plain_files_of_every_layer_come_before_those_of_the_process_type() {
        let root = tempfile::tempdir().unwrap();
        for path in ["bp/a/exec.d/2", "bp/a/exec.d/10", "bp/a/exec.d/web/1", "bp/b/exec.d/0", "bp/b/exec.d/job/1"] {
            file(root.path(), path);
        }
        symlink("web", root.path().join("bp/a/exec.d/linked-dir")).unwrap();
        symlink("2", root.path().join("bp/a/exec.d/linked-file")).unwrap();
        file(root.path(), "bp/c/exec.d");
        let dirs = LayerDirs::find(root.path(), &[buildpack("bp")]).unwrap();
        let names = |process_type| -> Vec<String> {
            let files = dirs.files("exec.d", process_type).unwrap();
            files.iter().map(|f| f.strip_prefix(root.path()).unwrap().to_str().unwrap().to_owned()).collect()
        };
        let plain = ["bp/a/exec.d/10", "bp/a/exec.d/2", "bp/a/exec.d/linked-file", "bp/b/exec.d/0"];
        assert_eq!(names(None), plain);
        assert_eq!(names(Some("web")), [&plain[..], &["bp/a/exec.d/web/1"]].concat());
    }
}
