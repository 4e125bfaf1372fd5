//! The build context: the directory that `COPY` and `ADD` take files from, and never leave.

use std::{
    cell::OnceCell,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Component, Path, PathBuf},
};

use image::{Digest, Glob};
use sha2::{Digest as _, Sha256};

use crate::{
    Error, Result,
    dockerignore::{NO_PATTERN, Rules},
};

/// A build context that is opened where something is taken from it: there need not be one.
#[derive(Debug)]
pub(crate) struct Lazy<'a> {
    dir: &'a Path,
    dockerfile: &'a Path,
    opened: OnceCell<Context>,
}

impl<'a> Lazy<'a> {
    pub(crate) fn new(dir: &'a Path, dockerfile: &'a Path) -> Self {
        Self { dir, dockerfile, opened: OnceCell::new() }
    }

    /// # Errors
    /// As [`Context::open`].
    pub(crate) fn open(&self) -> Result<&Context> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let opened = Context::open(self.dir, self.dockerfile)?;
        Ok(self.opened.get_or_init(|| opened))
    }
}

/// A build context, opened.
#[derive(Debug)]
pub(crate) struct Context {
    /// Without symlinks.
    dir: PathBuf,
    /// What is not there.
    rules: Rules,
}

/// A file of the context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where it is; no symlink leads there.
    pub(crate) path: PathBuf,
    /// The name it was asked for by.
    pub(crate) name: std::ffi::OsString,
}

impl Context {
    /// `dockerfile`: where the Dockerfile is.
    ///
    /// # Errors
    /// There is no such directory, or its `.dockerignore` cannot be read.
    pub(crate) fn open(dir: &Path, dockerfile: &Path) -> Result<Self> {
        let dir = dir.canonicalize().map_err(|e| Error::at("open build context", dir, &e))?;
        Ok(Self { rules: Rules::read(&dir, dockerfile)?, dir })
    }

    /// Whether `.dockerignore` leaves it out.
    fn excludes(&self, path: &Path) -> bool {
        path.strip_prefix(&self.dir).is_ok_and(|relative| self.rules.excludes(relative))
    }

    /// Whether `.dockerignore` leaves it in; of a directory that it leaves out, whether something below is an exception.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub(crate) fn includes(&self, path: &Path) -> io::Result<bool> {
        if !self.excludes(path) {
            return Ok(true);
        }
        if !self.rules.have_exceptions() || !path.symlink_metadata()?.is_dir() {
            return Ok(false);
        }
        for entry in sorted(path)? {
            if self.includes(&entry)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The files a source of `COPY` or `ADD` names, sorted. A pattern may name none, as with Docker: what is there may
    /// well depend on the app.
    ///
    /// # Errors
    /// What is no pattern is not there, or files are outside.
    pub(crate) fn find(&self, source: &str) -> Result<Vec<Found>> {
        let mut parts = Vec::new();
        for part in Path::new(source).components() {
            match part {
                Component::Normal(part) => parts.push(part),
                Component::ParentDir if parts.pop().is_none() => {
                    return Err(Error::new(format!("forbidden path outside the build context: {source}")));
                }
                _ => {}
            }
        }
        let mut found = vec![self.dir.clone()];
        for part in parts {
            let text = part.to_string_lossy();
            if !text.contains(['*', '?', '[', '\\']) {
                for path in &mut found {
                    path.push(part);
                }
                continue;
            }
            let glob = Glob::name(&text).ok_or_else(|| Error::new(format!("{source}: {NO_PATTERN}")))?;
            let mut next = Vec::new();
            for dir in found {
                let Some(real) = self.inside_if_there(&dir, source)? else { continue };
                let Ok(entries) = fs::read_dir(real) else { continue };
                let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
                next.extend(names.filter(|name| glob.matches(name)).map(|name| dir.join(name)));
            }
            found = next;
        }
        let missing = || {
            let dir = self.dir.display();
            Error::new(format!("stat {source}: no such file in the build context {dir}, or excluded by .dockerignore"))
        };
        found.sort();
        let mut files = Vec::new();
        for path in found {
            let Some(real) = self.inside_if_there(&path, source)? else { continue };
            if self.includes(&path).map_err(|e| Error::at("read", &path, &e))? {
                files.push(Found { name: path.file_name().unwrap_or_default().to_owned(), path: real });
            }
        }
        if files.is_empty() && !is_pattern(source) { Err(missing()) } else { Ok(files) }
    }

    /// The path without symlinks; `None`: there is nothing, not even a link that leads nowhere.
    fn inside_if_there(&self, path: &Path, source: &str) -> Result<Option<PathBuf>> {
        match self.inside(path, source) {
            Err(_) if path.symlink_metadata().is_err() => Ok(None),
            real => real.map(Some),
        }
    }

    /// The path without symlinks.
    fn inside(&self, path: &Path, source: &str) -> Result<PathBuf> {
        let real = path.canonicalize().map_err(|e| Error::at("stat", path, &e))?;
        if real.starts_with(&self.dir) {
            Ok(real)
        } else {
            Err(Error::new(format!("forbidden path outside the build context: {source} leads to {}", real.display())))
        }
    }

    /// The digest of names, modes and contents of these files.
    ///
    /// # Errors
    /// Naming the file that cannot be read.
    pub(crate) fn digest(&self, files: &[Found]) -> Result<Digest> {
        let mut hash = Sha256::new();
        for file in files {
            hash.update(file.name.as_bytes());
            self.hash(&file.path, &mut hash).map_err(|e| Error::at("read", &file.path, &e))?;
        }
        Ok(Digest::from_hasher(hash))
    }

    fn hash(&self, path: &Path, hash: &mut Sha256) -> io::Result<()> {
        let found = path.symlink_metadata()?;
        hash.update(found.mode().to_le_bytes());
        if found.is_dir() {
            for entry in sorted(path)? {
                if self.includes(&entry)? {
                    hash.update([1]);
                    hash.update(entry.file_name().unwrap_or_default().as_bytes());
                    hash.update([0]);
                    self.hash(&entry, hash)?;
                }
            }
            hash.update([2]);
        } else if found.is_symlink() {
            hash.update(fs::read_link(path)?.as_os_str().as_bytes());
            hash.update([0]);
        } else if found.is_file() {
            let mut file = Sha256::new();
            io::copy(&mut fs::File::open(path)?, &mut file)?;
            hash.update(file.finalize());
        }
        Ok(())
    }
}

/// A directory's entries.
pub(crate) fn sorted(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = fs::read_dir(dir)?.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}

/// Whether a source of `COPY` can name other files than one. What is escaped stands for itself.
fn is_pattern(source: &str) -> bool {
    let mut chars = source.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn context() -> (tempfile::TempDir, Context) {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        fs::create_dir_all(at.join("c/d/e")).unwrap();
        for name in ["secret", "c/a.txt", "c/b.txt", "c/d/x.log", "c/d/e/keep.log"] {
            fs::write(at.join(name), name).unwrap();
        }
        symlink("../secret", at.join("c/out")).unwrap();
        symlink("..", at.join("c/up")).unwrap();
        symlink("d", at.join("c/in")).unwrap();
        fs::write(at.join("c/.dockerignore"), "# no\n**/*.log\n!d/e/keep.log\n/b.*\n").unwrap();
        let context = Context::open(&at.join("c"), &at.join("Dockerfile")).unwrap();
        (dir, context)
    }

    #[test]
    fn sources_stay_inside() {
        let (_dir, context) = context();
        for (source, expected) in [
            ("../secret", "forbidden path outside the build context: ../secret"),
            ("d/../../secret", "forbidden path"),
            ("out", "forbidden path outside the build context: out leads to"),
            ("up/secret", "forbidden path"),
            ("u*/secret", "forbidden path"),
            ("none", "no such file in the build context"),
            ("n\\*", "no such file in the build context"),
            ("none/u*/../../../secret", "forbidden path"),
            ("u*", "forbidden path"),
            ("b.txt", "excluded by .dockerignore"),
            ("d/x.log", "excluded by .dockerignore"),
            ("d/[", "d/[: syntax error in pattern"),
        ] {
            let error = context.find(source).unwrap_err().to_string();
            assert!(error.contains(expected), "{source}: {error}");
        }
        let names = |source: &str| -> Vec<String> {
            context
                .find(source)
                .unwrap()
                .iter()
                .map(|f| f.path.strip_prefix(&context.dir).unwrap().display().to_string())
                .collect()
        };
        assert_eq!(names("/*.txt"), ["a.txt"]);
        assert_eq!(names("in"), ["d"]);
        assert_eq!(names("d/e/keep.log"), ["d/e/keep.log"]);
        assert_eq!(names("."), [""]);
        for nothing in ["n*", "none/*", "*/none", "x?", "b.tx[t]", "d/*.log", "a.txt/*"] {
            assert_eq!(names(nothing), [""; 0], "{nothing}");
        }
    }

    #[test]
    fn exceptions_bring_their_directories_only() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/x", "b/c/keep", "b/d/y", "e/y"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::write(dir.path().join(".dockerignore"), "*\n!b/c/keep\n!e\ne/y\n").unwrap();
        let context = Context::open(dir.path(), &dir.path().join("Dockerfile")).unwrap();
        let includes = |path: &&str| context.includes(&context.dir.join(path)).unwrap();
        let all = [".", "a", "a/x", "b", "b/c", "b/c/keep", "b/d", "b/d/y", "e", "e/y"];
        assert_eq!(all.iter().copied().filter(includes).collect::<Vec<_>>(), [".", "b", "b/c", "b/c/keep", "e"]);
        assert!(context.find("a").unwrap_err().to_string().contains("excluded by .dockerignore"));
        assert_eq!(context.find("b").unwrap().len(), 1);
    }

    #[test]
    fn digests_follow_contents() {
        let (dir, context) = context();
        let digest = |source: &str| context.digest(&context.find(source).unwrap()).unwrap();
        let before = digest(".");
        fs::write(dir.path().join("c/d/x.log"), "ignored").unwrap();
        assert_eq!(digest("."), before);
        fs::write(dir.path().join("c/d/e/keep.log"), "changed").unwrap();
        assert_ne!(digest("."), before);
    }
}
