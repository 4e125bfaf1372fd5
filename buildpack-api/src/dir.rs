//! What is in a directory. std's `ReadDir` gives nobody its descriptor, takes memory for each directory, and asks more of
//! the system; at every start of an app, dozens are listed.

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, openat},
    libc,
    sys::stat::Mode,
};

/// More than the names of most directories of a layer take.
const BUFFER_SIZE: usize = 4096;

/// What an entry is, as the directory tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory itself, not a link to one.
    Directory,
    /// A regular file.
    File,
    /// A link or something special; or the file system does not tell.
    Other,
}

/// Where the system looks for a path: below a directory that is open, so that what leads there is not looked up for each
/// file anew.
#[derive(Debug)]
pub struct Dir {
    /// `None`: from the root or the working directory on.
    fd: Option<OwnedFd>,
    path: PathBuf,
}

impl Dir {
    /// A directory; one that cannot be opened makes nothing quicker.
    pub fn open(path: &Path) -> Self {
        let fd = openat(AT_FDCWD, path, OPEN, Mode::empty()).ok();
        Self { fd, path: path.to_owned() }
    }

    /// No directory: all paths are looked for from their beginning.
    pub(crate) fn none() -> Self {
        Self { fd: None, path: PathBuf::new() }
    }

    /// What a path below is called there.
    pub(crate) fn at<'a>(&'a self, path: &'a Path) -> (BorrowedFd<'a>, &'a Path) {
        let below = || {
            let fd = self.fd.as_ref()?;
            let rest =
                path.as_os_str().as_bytes().strip_prefix(self.path.as_os_str().as_bytes())?.strip_prefix(b"/")?;
            // What begins with a slash would lead elsewhere.
            let rest = rest.first().filter(|first| **first != b'/').map(|_| OsStr::from_bytes(rest))?;
            Some((fd.as_fd(), Path::new(rest)))
        };
        below().unwrap_or((AT_FDCWD, path))
    }

    /// The entries of a directory, in no order.
    ///
    /// # Errors
    /// It cannot be opened or read. They do not name it.
    pub fn list(&self, path: &Path) -> io::Result<Vec<(CString, EntryKind)>> {
        Ok(entries(self.open_dir(path)?.as_fd(), &mut [0; BUFFER_SIZE])?)
    }

    pub(crate) fn open_dir(&self, path: &Path) -> nix::Result<OwnedFd> {
        let (dir, path) = self.at(path);
        openat(dir, path, OPEN, Mode::empty())
    }
}

/// To be read. musl's `open` sets `O_CLOEXEC` by another call, `openat` does not.
const OPEN: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// Names and kinds, in no order. The buffer takes what the system tells at a time.
pub(crate) fn entries(dir: BorrowedFd, buffer: &mut [u8]) -> nix::Result<Vec<(CString, EntryKind)>> {
    let mut entries = Vec::new();
    loop {
        // SAFETY: the system writes into the buffer alone, no more than its length.
        #[allow(unsafe_code)]
        let read = unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) };
        let read = usize::try_from(Errno::result(read)?).map_err(|_| Errno::EOVERFLOW)?;
        if read == 0 {
            return Ok(entries);
        }
        let mut rest = buffer.get(..read).unwrap_or_default();
        // getdents64(2): 16 bytes of numbers, the length of the record in 2, the type in 1, then the name.
        while let Some(&[low, high, kind]) = rest.get(16..19) {
            let (record, after) = rest.split_at_checked(u16::from_ne_bytes([low, high]).into()).ok_or(Errno::EINVAL)?;
            let name = record.get(19..).and_then(|name| CStr::from_bytes_until_nul(name).ok()).ok_or(Errno::EINVAL)?;
            if !matches!(name.to_bytes(), b"." | b"..") {
                let kind = match kind {
                    libc::DT_DIR => EntryKind::Directory,
                    libc::DT_REG => EntryKind::File,
                    _ => EntryKind::Other,
                };
                entries.push((name.to_owned(), kind));
            }
            rest = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_a_directory_are_found_from_there() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("layers/one/env")).unwrap();
        let layers = root.path().join("layers");
        let dir = Dir::open(&layers);
        let at = |path: &Path| dir.at(path).1.to_owned();
        assert_eq!(at(&layers.join("one/env")), Path::new("one/env"));
        let elsewhere = [layers.clone(), root.path().join("layers2/x"), "/etc".into(), "one".into()];
        for path in elsewhere.into_iter().chain([format!("{}//etc", layers.display()).into()]) {
            assert_eq!(at(&path), path);
        }
        // Wherever it has moved to.
        std::fs::rename(&layers, root.path().join("moved")).unwrap();
        assert_eq!(dir.list(&layers.join("one")).unwrap(), [(c"env".to_owned(), EntryKind::Directory)]);
        let missing = Dir::open(&layers);
        assert_eq!(missing.at(&layers.join("one")).1, layers.join("one"));
        assert_eq!(missing.list(&layers).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
