//! A layer is a recipe, not a file: which files go in, in which order, with which owner. It can be streamed as a tar
//! as often as needed, with identical bytes: those of the reference, so that diff IDs agree.

use std::{
    ffi::OsStr,
    fs::FileType,
    io::{self, Write},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use crate::{
    tar_copy,
    tar_header::{DIRECTORY, Header, SYMLINK},
    tar_stream::{self, TarStream, WriterSink, on_path},
};

/// Who owns entries of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub uid: u64,
    pub gid: u64,
}

/// The entries of one layer.
///
/// Compact, as an app may have a million files: a name is kept as what differs from the one before it, and nothing
/// of a file's metadata is kept; it is read when the tar is streamed.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    entries: Vec<Entry>,
    /// The ends of the names, one after another.
    names: Vec<u8>,
    last_name: Vec<u8>,
    owners: Vec<Owner>,
    made: Vec<Made>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Bytes of the name that differ from the name before.
    rest: u32,
    /// Bytes it shares with the name before.
    shared: u16,
    /// Index in `owners`.
    owner: u16,
    kind: Kind,
}

/// What the walk saw; it saves a call per file later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Dir,
    Symlink,
    /// To be looked at.
    Any,
    /// A directory above the layer's own: owner as on disk, symlinks followed.
    Parent,
    /// The next of `made`.
    Made,
}

/// Gets name, kind and owner of an entry, and what it is where it is not on disk.
type EachEntry<'a> = dyn FnMut(&[u8], Kind, Owner, Option<&Made>) -> io::Result<()> + 'a;

/// An entry that is no copy of one on disk.
#[derive(Clone, Debug)]
enum Made {
    Dir {
        mode: u32,
    },
    Symlink {
        target: Vec<u8>,
    },
    File {
        source: PathBuf,
        mode: u32,
    },
    /// All entries of another tar, normalised.
    Tar {
        path: PathBuf,
    },
}

impl Recipe {
    /// A directory as a layer: its parents with their owners on disk, then the directory and what is in it, in walk
    /// order, owned by `owner`.
    ///
    /// # Errors
    /// Naming the directory that could not be read.
    pub fn dir(dir: &Path, owner: Owner) -> io::Result<Self> {
        let dir = clean_path(&std::path::absolute(dir)?);
        let mut recipe = Self::default();
        recipe.push_parents(&dir);
        let found = dir.symlink_metadata().map_err(|e| on_path("read", &dir, &e))?;
        let kind = kind_of(found.file_type());
        let mut name = dir.into_os_string().into_vec();
        recipe.push(&name, kind, owner);
        if kind == Kind::Dir {
            recipe.walk(&mut name, owner)?;
        }
        Ok(recipe)
    }

    fn walk(&mut self, dir: &mut Vec<u8>, owner: Owner) -> io::Result<()> {
        let path = Path::new(OsStr::from_bytes(dir));
        let mut children = Vec::new();
        for child in path.read_dir().map_err(|e| on_path("read", path, &e))? {
            let child = child.map_err(|e| on_path("read", path, &e))?;
            let kind = child.file_type().map_or(Kind::Any, kind_of);
            children.push((child.file_name().into_vec(), kind));
        }
        children.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let length = dir.len();
        for (name, kind) in children {
            dir.truncate(length);
            if dir.last() != Some(&b'/') {
                dir.push(b'/');
            }
            dir.extend_from_slice(&name);
            self.push(dir, kind, owner);
            if kind == Kind::Dir {
                self.walk(dir, owner)?;
            }
        }
        dir.truncate(length);
        Ok(())
    }

    /// These paths (absolute, of or below `root`), sorted by all their bytes, after the parents of `root`. What is there
    /// is looked at where it is not known. No path at all: no entry at all.
    ///
    /// # Errors
    /// None at present: what is on disk is looked at when the tar is streamed.
    pub fn files(root: &Path, mut paths: Vec<(PathBuf, Option<FileType>)>, owner: Owner) -> io::Result<Self> {
        let mut recipe = Self::default();
        if paths.is_empty() {
            return Ok(recipe);
        }
        paths.sort_unstable_by(|(a, _), (b, _)| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
        recipe.push_parents(&clean_path(&std::path::absolute(root)?));
        for (path, found) in paths {
            recipe.push(path.as_os_str().as_bytes(), found.map_or(Kind::Any, kind_of), owner);
        }
        Ok(recipe)
    }

    /// The entries of a layer's tar (gzipped or not), with times, user and group names normalised and everything else
    /// kept: how the layers an extension made are taken over.
    pub fn tar(path: &Path) -> Self {
        let mut recipe = Self::default();
        recipe.push_made(b"", Made::Tar { path: path.to_owned() }, Owner::default());
        recipe
    }

    fn push_parents(&mut self, dir: &Path) {
        let mut parents: Vec<&Path> = dir.ancestors().skip(1).filter(|p| p.parent().is_some()).collect();
        parents.reverse();
        for parent in parents {
            self.push(parent.as_os_str().as_bytes(), Kind::Parent, Owner::default());
        }
    }

    /// A directory that need not be on disk.
    pub fn push_dir(&mut self, name: &str, mode: u32, owner: Owner) {
        self.push_made(name.as_bytes(), Made::Dir { mode }, owner);
    }

    /// A symlink (mode 0755) that need not be on disk.
    pub fn push_symlink(&mut self, name: &str, target: &str, owner: Owner) {
        self.push_made(name.as_bytes(), Made::Symlink { target: target.as_bytes().to_vec() }, owner);
    }

    /// A file on disk under another name, mode and owner.
    ///
    /// # Errors
    /// Where there is no such file.
    pub fn push_file(&mut self, name: &str, source: &Path, mode: u32, owner: Owner) -> io::Result<()> {
        source.metadata().map_err(|e| on_path("read", source, &e))?;
        self.push_made(name.as_bytes(), Made::File { source: source.to_owned(), mode }, owner);
        Ok(())
    }

    fn push_made(&mut self, name: &[u8], made: Made, owner: Owner) {
        self.made.push(made);
        self.push(name, Kind::Made, owner);
    }

    fn push(&mut self, name: &[u8], kind: Kind, owner: Owner) {
        let owner_index = self.owners.iter().rposition(|o| *o == owner).unwrap_or_else(|| {
            self.owners.push(owner);
            self.owners.len() - 1
        });
        let same = self.last_name.iter().zip(name).take_while(|(a, b)| a == b).count();
        let shared = u16::try_from(same).unwrap_or(u16::MAX);
        let rest = &name[usize::from(shared)..];
        self.names.extend_from_slice(rest);
        self.last_name.truncate(usize::from(shared));
        self.last_name.extend_from_slice(rest);
        self.entries.push(Entry {
            // No path is four gigabytes long, and no layer has 65,536 owners: a recipe is made with two at most.
            rest: u32::try_from(rest.len()).unwrap_or(u32::MAX),
            shared,
            owner: u16::try_from(owner_index).unwrap_or(u16::MAX),
            kind,
        });
    }

    /// The number of entries (sockets, which are left out of the tar, included).
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the tar has no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Streams the tar. Errors name the path. A file that shrinks, grows or vanishes meanwhile is an error.
    ///
    /// # Errors
    /// Naming the path that could not be read; those of `out` as they are.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut sink = WriterSink::new(out);
        self.stream(&mut TarStream::new(&mut sink))
    }

    /// Streams the tar into blocks.
    pub(crate) fn stream(&self, tar: &mut TarStream<'_>) -> io::Result<()> {
        self.for_each(&mut |name, kind, owner, made| match made {
            Some(Made::Dir { mode }) => tar.header(&header(name, DIRECTORY, *mode, owner)),
            Some(Made::Symlink { target }) => {
                tar.header(&Header { link: target, ..header(name, SYMLINK, 0o755, owner) })
            }
            Some(Made::File { source, mode }) => tar_stream::made_file(tar, name, source, *mode, owner),
            Some(Made::Tar { path }) => tar_copy::copy(tar, path),
            None => tar_stream::from_disk(tar, name, kind, owner),
        })?;
        tar.finish()
    }

    /// Bytes of the tar, from the metadata on disk now.
    ///
    /// # Errors
    /// Naming the path that could not be read.
    pub fn tar_size(&self) -> io::Result<u64> {
        let mut size = 1024;
        self.for_each(&mut |name, kind, owner, made| {
            size += match made {
                Some(Made::Dir { mode }) => tar_stream::header_size(&header(name, DIRECTORY, *mode, owner)),
                Some(Made::Symlink { target }) => {
                    tar_stream::header_size(&Header { link: target, ..header(name, SYMLINK, 0o755, owner) })
                }
                Some(Made::File { source, .. }) => tar_stream::size_on_disk(name, source, true, owner)?,
                Some(Made::Tar { path }) => tar_copy::size(path)?,
                None => {
                    let path = Path::new(OsStr::from_bytes(name));
                    tar_stream::size_on_disk(name, path, kind == Kind::Parent, owner)?
                }
            };
            Ok(())
        })?;
        Ok(size)
    }

    fn for_each(&self, entry: &mut EachEntry<'_>) -> io::Result<()> {
        let mut made = self.made.iter();
        let mut names = self.names.as_slice();
        let mut name = Vec::new();
        for packed in &self.entries {
            let (rest, others) = names.split_at(packed.rest as usize);
            names = others;
            name.truncate(usize::from(packed.shared));
            name.extend_from_slice(rest);
            let owner = self.owners.get(usize::from(packed.owner)).copied().unwrap_or_default();
            let made = if packed.kind == Kind::Made { made.next() } else { None };
            entry(&name, packed.kind, owner, made)?;
        }
        Ok(())
    }
}

fn header(name: &[u8], kind: u8, mode: u32, owner: Owner) -> Header<'_> {
    Header { name, kind, mode, uid: owner.uid, gid: owner.gid, ..Header::default() }
}

fn kind_of(file_type: FileType) -> Kind {
    if file_type.is_file() {
        Kind::File
    } else if file_type.is_dir() {
        Kind::Dir
    } else if file_type.is_symlink() {
        Kind::Symlink
    } else {
        Kind::Any
    }
}

/// The absolute path without `.`, `..` and doubled slashes; the file system is not asked, so links are no matter.
pub fn clean_path(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::Normal(part) => out.push(part),
            std::path::Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}
