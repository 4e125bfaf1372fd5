//! What is in a directory. std's `ReadDir` gives nobody its descriptor, takes memory for each directory, and asks more of
//! the system; at every start of an app, dozens are listed.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
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

/// The entries of a directory, in no order.
///
/// # Errors
/// It cannot be opened or read. They do not name it.
pub fn list_dir(path: &Path) -> io::Result<Vec<(CString, EntryKind)>> {
    Ok(entries(open_dir(path)?.as_fd(), &mut [0; BUFFER_SIZE])?)
}

/// To be read. musl's `open` sets its flag by another call.
pub(crate) fn open_dir(path: &Path) -> nix::Result<OwnedFd> {
    openat(AT_FDCWD, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

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
