//! Unpacking a layer tar onto the file system, safely: nothing is written outside `root`, and below `within` no symlink
//! is followed, whoever made it. Directories are reached by file descriptors, so that nothing swapped in meanwhile
//! leads elsewhere. Owners and times are not restored: the files belong to who runs this, as of now.
//!
//! A stream is unpacked entry by entry. A file whose blocks have checksums is unpacked by several threads.

mod checked;

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    sys::stat::{Mode, SFlag, fchmod, fstatat, mkdirat},
    unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat},
};
use tar::EntryType;

pub use self::checked::extract_checked;
use crate::{Error, Result, TarEntry, TarReader};

const ALL: Mode = Mode::from_bits_truncate(0o777);
/// Bytes written at a time: file systems that keep large pages make one of each call.
const COPY_SIZE: usize = 512 << 10;

/// Unpacks below `root` (`/` in production); names in the tar may be absolute or relative. `within`: absolute paths as
/// the tar has them; only entries under these directories (or their parents) may be written; anything else is an error.
/// Parents that exist are left alone. The tar is read to its very end, so that what counts or hashes it sees it whole.
///
/// # Errors
/// Naming the entry: [`Error::Corrupt`] where it lies elsewhere, leads through a symlink or is a device or fifo, and
/// where the tar cannot be read; [`Error::Io`] where the file system refuses.
pub fn extract(tar: &mut dyn Read, root: &Path, within: &[&Path]) -> Result<()> {
    let mut target = Target::new(root, within, false)?;
    let mut tar = TarReader::new(tar);
    let umask = umask();
    let mut buffer = vec![0; COPY_SIZE];
    for index in 0.. {
        let Some(entry) = tar.next_entry().map_err(|e| corrupt(&e))? else { break };
        let put = Item::of(&entry).and_then(|item| {
            target.put(&item, &mut |dir, name| {
                let mut file = replacing(dir.as_fd(), name, || create(dir.as_fd(), name, item.mode, umask))?;
                copy(&mut tar.content(&entry), &mut file, &mut buffer)
            })
        });
        put.map_err(|fault| fault.on(&doing(index, &entry)))?;
    }
    target.finish()?;
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(|e| corrupt(&e))?;
    Ok(())
}

/// Whoever reads an error should not have to guess; a name is data, so it is quoted.
fn doing(index: usize, entry: &TarEntry) -> String {
    format!("extract entry {index} {:?}", String::from_utf8_lossy(&entry.name))
}

fn corrupt(error: &io::Error) -> Error {
    Error::Corrupt(format!("read layer tar: {error}"))
}

/// Why an entry could not be put in place.
enum Fault {
    /// The tar asks for what no layer may have.
    Tar(String),
    /// The file system refuses.
    Os(io::Error),
}

impl Fault {
    fn on(self, doing: &str) -> Error {
        match self {
            Self::Tar(why) => Error::Corrupt(format!("{doing}: {why}")),
            Self::Os(error) => Error::Io(format!("{doing}: {error}")),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Os(error)
    }
}

impl From<Errno> for Fault {
    fn from(error: Errno) -> Self {
        Self::Os(error.into())
    }
}

type Put<T> = std::result::Result<T, Fault>;

fn refuse<T>(why: &str) -> Put<T> {
    Err(Fault::Tar(why.to_owned()))
}

/// What an entry asks for, its content apart.
struct Item {
    kind: EntryType,
    path: PathBuf,
    mode: Mode,
    link: Option<Vec<u8>>,
}

impl Item {
    fn of(entry: &TarEntry) -> Put<Self> {
        if !entry.is_whole() {
            return refuse("a sparse file, which no layer has");
        }
        Ok(Self {
            kind: entry.kind,
            path: parts(OsStr::from_bytes(&entry.name))?,
            mode: Mode::from_bits_truncate(entry.mode),
            link: entry.link.clone(),
        })
    }
}

/// Makes a file in an open directory.
type PutFile<'a> = dyn FnMut(&Arc<OwnedFd>, &OsStr) -> Put<()> + 'a;

/// Where entries go, and the directories on the way to the last one, open.
struct Target<'a> {
    root: &'a Path,
    within: Vec<PathBuf>,
    /// The directory of `within` the open path starts at.
    base: Option<usize>,
    /// Open directories: that of `within` itself, then those below it, each with its name.
    open: Vec<(OsString, Arc<OwnedFd>)>,
    /// Directories made here, with the modes to be set when nothing more goes into them: none for those no entry
    /// tells of (yet).
    made: HashMap<PathBuf, Option<Mode>>,
    /// What has the name of an entry is not replaced, but an error.
    all_new: bool,
}

impl<'a> Target<'a> {
    fn new(root: &'a Path, within: &[&Path], all_new: bool) -> Result<Self> {
        let within = within.iter().map(|dir| parts(dir.as_os_str())).collect::<Put<Vec<_>>>();
        let within = within.map_err(|fault| fault.on("extract"))?;
        Ok(Self { root, within, base: None, open: Vec::new(), made: HashMap::new(), all_new })
    }

    /// Puts an entry in its place; `file` does it with regular ones.
    fn put(&mut self, item: &Item, file: &mut PutFile<'_>) -> Put<()> {
        let Item { kind, path, mode, link } = item;
        let Some((base, below)) = self.place(path) else {
            let parent = self.within.iter().any(|dir| dir.starts_with(path));
            return match kind {
                EntryType::Directory if parent => self.put_parent(path, *mode),
                _ => refuse("lies outside of what this layer may write"),
            };
        };
        let link = |missing: &str| link.as_deref().map(OsStr::from_bytes).ok_or_else(|| Fault::Tar(missing.to_owned()));
        match kind {
            EntryType::Directory => self.put_dir(base, &below, path, *mode),
            EntryType::Regular => {
                let (dir, name) = self.parent(base, &below)?;
                file(dir, &name)
            }
            EntryType::Symlink => {
                let link = link("a symlink to nowhere")?;
                let all_new = self.all_new;
                let (dir, name) = self.parent(base, &below)?;
                let make = || Ok(symlinkat(link, dir, name.as_os_str())?);
                if all_new { make() } else { replacing(dir.as_fd(), &name, make) }
            }
            EntryType::Link => self.put_hard_link(&parts(link("a hard link to nowhere")?)?, base, &below),
            other => Err(Fault::Tar(format!("unknown file type in tar {}", other.as_byte()))),
        }
    }

    /// The directory of `within` (its number) an entry lies in, and its path below that.
    fn place(&self, path: &Path) -> Option<(usize, PathBuf)> {
        self.within.iter().enumerate().find_map(|(i, dir)| Some((i, path.strip_prefix(dir).ok()?.to_owned())))
    }

    /// A directory above `within`: it is the machine's, not the layer's.
    fn put_parent(&mut self, path: &Path, mode: Mode) -> Put<()> {
        let full = self.root.join(path);
        match std::fs::create_dir(&full) {
            Ok(()) => {
                self.made.insert(path.to_owned(), Some(mode));
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && full.is_dir() => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn put_dir(&mut self, base: usize, below: &Path, path: &Path, mode: Mode) -> Put<()> {
        if below.as_os_str().is_empty() {
            let exists = self.root.join(path).is_dir();
            self.enter(base, Path::new(""))?;
            if !exists {
                self.made.insert(path.to_owned(), Some(mode));
            }
            return Ok(());
        }
        let (dir, name) = self.parent(base, below)?;
        match mkdirat(dir, name.as_os_str(), ALL) {
            Ok(()) => {
                self.made.insert(path.to_owned(), Some(mode));
                Ok(())
            }
            Err(Errno::EEXIST) => {
                if !is_dir(dir.as_fd(), &name)? {
                    return refuse("a file or symlink is in the place of this directory");
                }
                // Made by an entry before this one, as something's parent: its mode is known only now.
                if let Some(unset) = self.made.get_mut(path) {
                    *unset = Some(mode);
                }
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    fn put_hard_link(&mut self, to: &Path, base: usize, below: &Path) -> Put<()> {
        let outside = || Fault::Tar("a hard link to outside of what this layer may write".to_owned());
        let (to_base, to_below) = self.place(to).ok_or_else(outside)?;
        let (to_dir, to_name) = self.parent(to_base, &to_below)?;
        let to_dir = Arc::clone(to_dir);
        let all_new = self.all_new;
        let (dir, name) = self.parent(base, below)?;
        let link = || Ok(linkat(to_dir.as_fd(), to_name.as_os_str(), dir, name.as_os_str(), AtFlags::empty())?);
        if all_new { link() } else { replacing(dir.as_fd(), &name, link) }
    }

    /// The open directory an entry goes into, and its name there.
    fn parent(&mut self, base: usize, below: &Path) -> Put<(&Arc<OwnedFd>, OsString)> {
        let name = below.file_name().ok_or_else(|| Fault::Tar("would replace a directory it goes into".to_owned()))?;
        let dir = self.enter(base, below.parent().unwrap_or(Path::new("")))?;
        Ok((dir, name.to_owned()))
    }

    /// Opens a directory below `within[base]`, making what is missing on the way. What is open already is used.
    fn enter(&mut self, base: usize, below: &Path) -> Put<&Arc<OwnedFd>> {
        if self.base != Some(base) {
            let start = self.root.join(&self.within[base]);
            std::fs::create_dir_all(&start)?;
            self.open = vec![(OsString::new(), Arc::new(File::open(&start)?.into()))];
            self.base = Some(base);
        }
        let names: Vec<&OsStr> = below.iter().collect();
        let same = self.open.iter().skip(1).zip(&names).take_while(|((open, _), name)| open == *name).count();
        self.open.truncate(same + 1);
        for (depth, name) in names.iter().enumerate().skip(same) {
            let (next, made) = open_dir(self.top()?.as_fd(), name)?;
            self.open.push(((*name).to_owned(), Arc::new(next)));
            if made {
                let path = names[..=depth].iter().fold(self.within[base].clone(), |path, name| path.join(name));
                self.made.insert(path, None);
            }
        }
        self.top()
    }

    fn top(&self) -> Put<&Arc<OwnedFd>> {
        self.open.last().map(|(_, fd)| fd).ok_or_else(|| Fault::Tar("no directory is open".to_owned()))
    }

    /// Sets the modes of the directories that were made, the deepest first: a parent may lose its write permission.
    fn finish(&mut self) -> Result<()> {
        let known = |(path, mode): (PathBuf, Option<Mode>)| Some((path, mode?));
        let mut modes: Vec<(PathBuf, Mode)> = self.made.drain().filter_map(known).collect();
        modes.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        for (path, mode) in modes {
            self.set_mode(&path, mode).map_err(|fault| fault.on(&format!("set mode of {}", path.display())))?;
        }
        Ok(())
    }

    fn set_mode(&mut self, path: &Path, mode: Mode) -> Put<()> {
        match self.place(path) {
            Some((base, below)) => Ok(fchmod(self.enter(base, &below)?, mode)?),
            None => Ok(fchmod(File::open(self.root.join(path))?, mode)?),
        }
    }
}

/// Opens a directory, and says whether it had to be made.
fn open_dir(dir: BorrowedFd<'_>, name: &OsStr) -> Put<(OwnedFd, bool)> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(dir, name, flags, Mode::empty()) {
        Err(Errno::ENOENT) => {
            mkdirat(dir, name, ALL)?;
            Ok((openat(dir, name, flags, Mode::empty())?, true))
        }
        Err(Errno::ENOTDIR | Errno::ELOOP) => {
            Err(Fault::Tar(format!("leads through {}, which is no directory", name.to_string_lossy())))
        }
        other => Ok((other?, false)),
    }
}

/// A new file.
fn create(dir: BorrowedFd<'_>, name: &OsStr, mode: Mode, umask: Mode) -> Put<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(dir, name, flags, mode)?;
    // A second call only where the umask has taken something away.
    if mode.intersects(umask) {
        fchmod(&file, mode)?;
    }
    Ok(file.into())
}

/// Makes something, and again after removing the file or symlink that is in its place. A directory stays.
fn replacing<T>(dir: BorrowedFd<'_>, name: &OsStr, mut make: impl FnMut() -> Put<T>) -> Put<T> {
    match make() {
        Err(Fault::Os(e)) if e.kind() == io::ErrorKind::AlreadyExists => {
            unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)?;
            make()
        }
        other => other,
    }
}

fn is_dir(dir: BorrowedFd<'_>, name: &OsStr) -> Put<bool> {
    let found = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

fn copy(content: &mut dyn Read, file: &mut File, buffer: &mut [u8]) -> Put<()> {
    loop {
        match content.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => file.write_all(&buffer[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Fault::Tar(format!("its content: {e}"))),
        }
    }
}

/// A name of the tar below its root. `..` is refused even where it would stay inside: no tool writes it.
fn parts(name: &OsStr) -> Put<PathBuf> {
    let mut path = PathBuf::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::ParentDir => return refuse("leads upwards"),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(path)
}

/// What the process takes away from the modes of new files. Asking the kernel would change it for a moment, for all
/// threads; so it is read, and where that is impossible every mode is set a second time.
fn umask() -> Mode {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let bits = found.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok());
    bits.map_or(Mode::all(), Mode::from_bits_truncate)
}
