//! `COPY` and `ADD`: files of the context into the file system.

use std::{
    ffi::OsString,
    fs::{self, File, FileTimes, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink},
    path::{Component, Path, PathBuf},
};

use image::clean_path;

use crate::{
    Error, Result, archive,
    context::{Context, Found, sorted},
    fetch::Fetched,
    unpack::{self, Kind},
};

/// What to copy, all variables put in.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) sources: Vec<Found>,
    /// What `ADD` had from elsewhere.
    pub(crate) fetched: Vec<Fetched>,
    /// Names and contents of here-documents.
    pub(crate) documents: Vec<(String, String)>,
    /// Absolute; its end says whether it has to be a directory.
    pub(crate) destination: String,
    /// `--chown`
    pub(crate) owner: Option<(u32, u32)>,
    /// `--chmod`
    pub(crate) mode: Option<u32>,
    /// `ADD`: archives are unpacked.
    pub(crate) unpack: bool,
}

impl Plan {
    /// Copies into the file system at `root`.
    ///
    /// # Errors
    /// Naming the file that could not be read or written.
    pub(crate) fn run(&self, context: &Context, root: &Path) -> Result<()> {
        let count = self.sources.len() + self.fetched.len() + self.documents.len();
        let target = within(root, Path::new(&self.destination))?;
        let into = self.destination.ends_with('/') || target.is_dir();
        if count > 1 && !into {
            let text = "with more than one source file, the destination must be a directory and end with a /";
            return Err(Error::new(text));
        }
        for source in &self.sources {
            let put = self.put(context, source, &target, into);
            put.map_err(|e| Error::new(format!("copy {} to {}: {e}", source.path.display(), self.destination)))?;
        }
        for file in &self.fetched {
            self.put_fetched(file, &target, into)
                .map_err(|e| Error::new(format!("put {} to {}: {e}", file.url, self.destination)))?;
        }
        for (name, content) in &self.documents {
            // Not upwards, whatever its name.
            let name = clean_path(Path::new(name));
            let target = if into { target.join(name.strip_prefix("/").unwrap_or(&name)) } else { target.clone() };
            self.put_document(content, &target)
                .map_err(|e| Error::new(format!("write {} to {}: {e}", name.display(), self.destination)))?;
        }
        Ok(())
    }

    fn put(&self, context: &Context, source: &Found, target: &Path, into: bool) -> Result<()> {
        let io = |e: io::Error| Error::new(e.to_string());
        if source.path.is_dir() {
            self.make_dirs(target).map_err(io)?;
            return self.copy_dir(context, &source.path, target).map_err(io);
        }
        if self.unpack {
            if let Some(tar) = archive::tar_in(&source.path)? {
                self.make_dirs(target).map_err(io)?;
                return unpack::unpack(tar, target, Kind::Archive(self.owner));
            }
        }
        let target = if into { target.join(&source.name) } else { target.to_owned() };
        self.make_dirs(target.parent().unwrap_or(Path::new("/"))).map_err(io)?;
        self.copy_file(&source.path, &target).map_err(io)
    }

    /// As it is, archives too, and for its owner alone.
    fn put_fetched(&self, file: &Fetched, target: &Path, into: bool) -> io::Result<()> {
        if into && file.name.is_empty() {
            return Err(io::Error::other("the URL names no file, so the destination must"));
        }
        let target = if into { target.join(&file.name) } else { target.to_owned() };
        self.make_dirs(target.parent().unwrap_or(Path::new("/")))?;
        give_way(&target)?;
        fs::copy(&file.path, &target)?;
        self.own(&target)?;
        fs::set_permissions(&target, Permissions::from_mode(self.mode.unwrap_or(0o600)))?;
        // Without a date of its own it gets one that is the same every time.
        File::open(target)?.set_times(FileTimes::new().set_modified(file.modified))
    }

    fn put_document(&self, content: &str, target: &Path) -> io::Result<()> {
        self.make_dirs(target.parent().unwrap_or(Path::new("/")))?;
        give_way(target)?;
        fs::write(target, content)?;
        self.own(target)?;
        fs::set_permissions(target, Permissions::from_mode(self.mode.unwrap_or(0o644)))
    }

    fn own(&self, path: &Path) -> io::Result<()> {
        let (uid, gid) = self.owner.unwrap_or_default();
        lchown(path, Some(uid), Some(gid))
    }

    /// Directories that are missing, owned like what goes into them.
    fn make_dirs(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.make_dirs(above)?;
        }
        fs::create_dir(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o755))?;
        self.own(path)
    }

    fn copy_dir(&self, context: &Context, from: &Path, to: &Path) -> io::Result<()> {
        for source in sorted(from)? {
            let target = to.join(source.file_name().unwrap_or_default());
            if !context.includes(&source)? {
                continue;
            }
            let failed = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", source.display()));
            if source.symlink_metadata()?.is_dir() {
                if !target.is_dir() {
                    give_way(&target).map_err(failed)?;
                    fs::create_dir(&target).map_err(failed)?;
                }
                self.own(&target).map_err(failed)?;
                let mode = self.mode.unwrap_or(source.symlink_metadata()?.mode() & 0o7777);
                fs::set_permissions(&target, Permissions::from_mode(mode)).map_err(failed)?;
                self.copy_dir(context, &source, &target)?;
            } else {
                self.copy_file(&source, &target).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn copy_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        let found = from.symlink_metadata()?;
        give_way(to)?;
        if found.is_symlink() {
            symlink(fs::read_link(from)?, to)?;
            return self.own(to);
        }
        if !found.is_file() {
            // Sockets, pipes and devices are not the stuff of build contexts.
            return Ok(());
        }
        fs::copy(from, to)?;
        self.own(to)?;
        fs::set_permissions(to, Permissions::from_mode(self.mode.unwrap_or(found.mode() & 0o7777)))?;
        File::open(to)?.set_times(FileTimes::new().set_modified(found.modified()?))
    }
}

/// A file gives way to a file, a directory to nothing.
fn give_way(to: &Path) -> io::Result<()> {
    match to.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(found) if found.is_dir() => Err(io::Error::other("cannot replace a directory by a file")),
        Ok(_) => fs::remove_file(to),
    }
}

/// Where a path leads in the file system at `root`, its symlinks followed: to what need not be there.
///
/// # Errors
/// They lead round and round.
pub(crate) fn within(root: &Path, path: &Path) -> Result<PathBuf> {
    /// As the kernel has it.
    const LINKS: usize = 40;
    let mut links = 0;
    let mut found = root.to_owned();
    let mut parts: Vec<OsString> = path.iter().rev().map(OsString::from).collect();
    while let Some(part) = parts.pop() {
        match Path::new(&part).components().next() {
            Some(Component::Normal(part)) => found.push(part),
            Some(Component::ParentDir) if found != root => {
                found.pop();
            }
            _ => {}
        }
        if let Some(link) = fs::read_link(&found).ok().filter(|_| found != root) {
            links += 1;
            if links > LINKS {
                return Err(Error::at("follow", path, &"too many levels of symbolic links"));
            }
            found.pop();
            if link.is_absolute() {
                root.clone_into(&mut found);
            }
            parts.extend(link.iter().rev().map(OsString::from));
        }
    }
    Ok(found)
}

/// A destination seen from the working directory. Its end stays: it may say that it is a directory.
pub(crate) fn destination(workdir: &str, text: &str) -> String {
    let is_dir = text.ends_with('/') || text == "." || text.is_empty();
    let path = clean_path(&PathBuf::from("/").join(workdir).join(text));
    let path = path.display().to_string();
    if is_dir && path != "/" { format!("{path}/") } else { path }
}
