//! Directory trees from literals: layers, apps, and buildpacks whose executables are shell scripts.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::PoisonError,
};

use tempfile::TempDir;

/// What is at a path of a tree.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// A file of mode 0644.
    File(&'a str),
    /// The same, of any bytes.
    Bytes(&'a [u8]),
    /// An executable (0755): the body of a `/bin/sh` script.
    Script(&'a str),
    /// A file of this mode.
    Mode(u32, &'a str),
    /// A symbolic link to this target.
    Link(&'a str),
    /// A directory, empty but for the paths below it.
    Dir,
}

/// A temporary directory that every user may enter, removed when dropped.
/// # Panics
/// Where the system refuses.
pub fn temp_dir() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("permissions of the temporary directory");
    dir
}

/// A temporary directory of this kind, and what is in it. Paths are relative to it; every method panics where the file
/// system refuses.
#[derive(Debug)]
pub struct TempTree(TempDir);

impl TempTree {
    /// Holds these entries.
    pub fn new(entries: &[(&str, Entry)]) -> Self {
        let tree = Self(temp_dir());
        tree.write(entries);
        tree
    }

    /// Where it is, without symbolic links.
    pub fn path(&self, path: &str) -> PathBuf {
        self.0.path().canonicalize().expect("the temporary directory").join(path)
    }

    /// [`TempTree::path`] as text.
    pub fn text(&self, path: &str) -> String {
        self.path(path).to_str().expect("a path of letters").to_owned()
    }

    /// Writes the entries, each with the parents it needs.
    pub fn write(&self, entries: &[(&str, Entry)]) {
        write(self.0.path(), entries);
    }

    /// A file's text.
    pub fn read(&self, path: &str) -> String {
        let bytes = fs::read(self.path(path)).unwrap_or_else(|e| panic!("read {path}: {e}"));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A file's text as TOML.
    pub fn toml(&self, path: &str) -> toml::Table {
        let text = self.read(path);
        toml::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}\n{text}"))
    }

    /// Whether something is there, be it a link that leads nowhere.
    pub fn exists(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// Removes the file or tree there.
    pub fn remove(&self, path: &str) {
        let path = self.path(path);
        let is_dir = path.symlink_metadata().is_ok_and(|m| m.is_dir());
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.unwrap_or_else(|e| panic!("remove {}: {e}", path.display()));
    }
}

/// Writes the entries below `root`, each with the parents it needs. Paths are relative.
/// # Panics
/// Where the file system refuses.
pub fn write(root: &Path, entries: &[(&str, Entry)]) {
    for (path, entry) in entries {
        write_entry(&root.join(path), entry).unwrap_or_else(|e| panic!("write {path} in {}: {e}", root.display()));
    }
}

fn write_entry(path: &Path, entry: &Entry) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match *entry {
        Entry::File(text) => write_file(path, 0o644, text.as_bytes()),
        Entry::Bytes(bytes) => write_file(path, 0o644, bytes),
        Entry::Script(body) => write_file(path, 0o755, format!("#!/bin/sh\n{body}\n").as_bytes()),
        Entry::Mode(mode, text) => write_file(path, mode, text.as_bytes()),
        Entry::Link(target) => symlink(target, path),
        Entry::Dir => fs::create_dir_all(path),
    }
}

fn write_file(path: &Path, mode: u32, bytes: &[u8]) -> std::io::Result<()> {
    let _no_start = crate::run::STARTS.read().unwrap_or_else(PoisonError::into_inner);
    fs::write(path, bytes)?;
    // By itself, because the mode of a new file is cut by the umask.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Writes a buildpack where a lifecycle looks for it, `<root>/<escaped id>/<version>`: buildpack.toml of this API
/// with `toml` at its end, and `bin/detect` and `bin/build` with these bodies (none where empty).
/// # Panics
/// Where the file system refuses.
pub fn write_buildpack(root: &Path, (id, version, api): (&str, &str, &str), toml: &str, detect: &str, build: &str) {
    let dir = root.join(id.replace('/', "_")).join(version);
    let descriptor =
        format!("api = \"{api}\"\n\n[buildpack]\nid = \"{id}\"\nversion = \"{version}\"\nname = \"{id}\"\n\n{toml}\n");
    write(&dir, &[("buildpack.toml", Entry::File(&descriptor))]);
    for (name, body) in [("bin/detect", detect), ("bin/build", build)] {
        if !body.is_empty() {
            write(&dir, &[(name, Entry::Script(body))]);
        }
    }
}

/// Gives `path`, and all that is in it, to a user and group. Needs root.
/// # Panics
/// Where the file system refuses.
pub fn give_to(path: &Path, uid: u32, gid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap_or_else(|e| panic!("chown {}: {e}", path.display()));
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display())) {
            give_to(&entry.expect("a directory entry").path(), uid, gid);
        }
    }
}
