//! A tar onto the file system: archives that `ADD` unpacks, and layers taken from the cache.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File, FileTimes, Permissions},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, lchown, symlink},
    },
    path::{Component, Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use image::{TarEntry, TarReader};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat};
use tar::EntryType;

use crate::{Error, Result};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Whose tar it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An image's layer: names that begin with `.wh.` remove.
    Layer,
    /// All belongs to this user and group, or to those it names.
    Archive(Option<(u32, u32)>),
}

/// Unpacks into `dir`.
///
/// # Errors
/// The tar is malformed, or leads out of `dir` by `..` or by a symlink it brings itself.
pub(crate) fn unpack(tar: impl Read, dir: &Path, kind: Kind) -> Result<()> {
    let mut unpacking = Unpacking { dir, kind, links: HashSet::new(), dirs: Vec::new() };
    let mut tar = TarReader::new(tar);
    let failed = |e: io::Error| Error::at("unpack into", dir, &e);
    while let Some(entry) = tar.next_entry().map_err(failed)? {
        let name = Path::new(OsStr::from_bytes(&entry.name));
        unpacking.put(&entry, &mut tar.content(&entry)).map_err(|e| Error::at("unpack", name, &e))?;
    }
    // Last, for putting files into a directory changes its time.
    for (path, mtime) in unpacking.dirs.iter().rev() {
        set_time(path, *mtime).map_err(|e| Error::at("unpack", path, &e))?;
    }
    Ok(())
}

struct Unpacking<'a> {
    dir: &'a Path,
    kind: Kind,
    /// Symlinks that this tar made: nothing goes through them.
    links: HashSet<PathBuf>,
    dirs: Vec<(PathBuf, u64)>,
}

fn refuse<T>(why: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}

impl Unpacking<'_> {
    fn put(&mut self, entry: &TarEntry, content: &mut impl Read) -> io::Result<()> {
        let kind = entry.kind;
        let Some(path) = self.place(Path::new(OsStr::from_bytes(&entry.name)))? else { return Ok(()) };
        let file_name = path.file_name().unwrap_or_default().as_bytes().to_vec();
        if self.kind == Kind::Layer && file_name.starts_with(WHITEOUT) {
            return whiteout(&path, &file_name);
        }
        // A symlink that the image has for a directory stays, as /lib on Debian: its files would be out of reach.
        // A layer knows better.
        let own = self.kind == Kind::Layer || self.links.contains(&path);
        let path = if kind == EntryType::Directory && !own && path.is_symlink() && path.is_dir() {
            path.canonicalize()?
        } else {
            path
        };
        if kind != EntryType::Directory || !path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            // A directory gives way only to what a layer says is in its place.
            remove(&path, self.kind == Kind::Layer || kind == EntryType::Directory)?;
        }
        let link =
            || entry.link.as_ref().map_or_else(|| refuse("a link to nowhere"), |l| Ok(Path::new(OsStr::from_bytes(l))));
        let mode = Mode::from_raw_mode(entry.mode);
        match kind {
            EntryType::Directory => {
                if !path.is_dir() {
                    fs::create_dir(&path)?;
                }
            }
            EntryType::Symlink => {
                symlink(link()?, &path)?;
                self.links.insert(path.clone());
            }
            EntryType::Link => {
                let to = self.place(link()?)?.map_or_else(|| refuse("a hard link to the directory itself"), Ok)?;
                return fs::hard_link(to, &path);
            }
            EntryType::Regular => {
                io::copy(content, &mut File::create_new(&path)?)?;
            }
            EntryType::Fifo => mknodat(CWD, &path, FileType::Fifo, mode, 0)?,
            EntryType::Char | EntryType::Block => {
                let kind = if kind == EntryType::Char { FileType::CharacterDevice } else { FileType::BlockDevice };
                mknodat(CWD, &path, kind, mode, makedev(entry.device.0, entry.device.1))?;
            }
            other => return refuse(&format!("unknown file type {}", other.as_byte())),
        }
        self.set_metadata(entry, &path)
    }

    fn set_metadata(&mut self, entry: &TarEntry, path: &Path) -> io::Result<()> {
        let id = |id: u64| u32::try_from(id).unwrap_or_default();
        let mut owner = (id(entry.uid), id(entry.gid));
        if let Kind::Archive(Some(given)) = self.kind {
            owner = given;
        }
        lchown(path, Some(owner.0), Some(owner.1))?;
        if entry.kind == EntryType::Symlink {
            return Ok(());
        }
        // After the owner: a change of owner takes away set-user-ID bits and capabilities.
        fs::set_permissions(path, Permissions::from_mode(entry.mode))?;
        for (name, value) in entry.xattrs() {
            rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())?;
        }
        match entry.kind {
            EntryType::Directory => self.dirs.push((path.to_owned(), entry.mtime)),
            EntryType::Regular => set_time(path, entry.mtime)?,
            _ => {}
        }
        Ok(())
    }

    /// Where an entry goes; `None`: it is `dir`. Directories above it are made.
    fn place(&self, name: &Path) -> io::Result<Option<PathBuf>> {
        let mut parts = Vec::new();
        for part in name.components() {
            match part {
                Component::Normal(part) => parts.push(part),
                Component::ParentDir => return refuse("leads upwards"),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        let Some((last, above)) = parts.split_last() else { return Ok(None) };
        let mut path = self.dir.to_owned();
        for part in above {
            path.push(part);
            if self.links.contains(&path) {
                return refuse("leads through a symlink of the same archive");
            }
            match path.symlink_metadata() {
                Ok(found) if found.is_symlink() => path = path.canonicalize()?,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => fs::create_dir(&path)?,
                Err(e) => return Err(e),
            }
        }
        Ok(Some(path.join(last)))
    }
}

fn whiteout(path: &Path, name: &[u8]) -> io::Result<()> {
    if name == OPAQUE {
        let above = path.parent().unwrap_or(path);
        for entry in fs::read_dir(above)? {
            remove(&entry?.path(), true)?;
        }
        return Ok(());
    }
    let target = name.get(WHITEOUT.len()..).unwrap_or_default();
    remove(&path.with_file_name(OsStr::from_bytes(target)), true)
}

pub(crate) fn remove(path: &Path, directories: bool) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(found) if found.is_dir() && !directories => refuse("a directory is in its place"),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}

fn set_time(path: &Path, mtime: u64) -> io::Result<()> {
    let time = UNIX_EPOCH + Duration::from_secs(mtime);
    File::open(path)?.set_times(FileTimes::new().set_modified(time))
}
