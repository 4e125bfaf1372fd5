//! Reading env directories: at every start of an app, many small files, so with as few system calls as can be.

use std::{
    ffi::{CStr, OsStr, OsString},
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};

use crate::{
    dir::{Dir, EntryKind, entries},
    parse::{check_size, naming, read_bounded},
};

/// More than the names of most env directories take, and than most values do.
const BUFFER_SIZE: usize = 4096;

/// What is in an env directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct EnvDir {
    /// Files and what is in them, in byte order of their names. Links are followed.
    pub(crate) files: Vec<(OsString, OsString)>,
    /// Whether there are directories besides.
    pub(crate) has_dirs: bool,
}

impl EnvDir {
    /// Nothing is in a directory that is not there.
    /// # Errors
    /// What cannot be listed or read, as [`read_bounded`] has it. They name the path.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Self::read_at(&Dir::none(), path)
    }

    /// As [`Self::read`], looking from an open directory on.
    pub(crate) fn read_at(from: &Dir, path: &Path) -> io::Result<Self> {
        let mut found = Self::default();
        let dir = match from.open_dir(path) {
            Ok(dir) => dir,
            Err(Errno::ENOENT) => return Ok(found),
            Err(error) => return Err(naming("open", path, &error.into())),
        };
        // One for all: to fill each with zeros first would cost more than most files have.
        let mut buffer = [0; BUFFER_SIZE];
        let entries = entries(dir.as_fd(), &mut buffer).map_err(|error| naming("read", path, &error.into()))?;
        found.files.reserve_exact(entries.len());
        for (name, kind) in entries {
            let file_path = || path.join(OsStr::from_bytes(name.to_bytes()));
            let content = match kind {
                EntryKind::Directory => Content::Directory,
                EntryKind::File => read_regular(dir.as_fd(), &name, &mut buffer, file_path)?,
                EntryKind::Other => read_other(&file_path())?,
            };
            match content {
                Content::File(value) => found.files.push((OsString::from_vec(name.into_bytes()), value)),
                Content::Directory => found.has_dirs = true,
                Content::Gone => {}
            }
        }
        found.files.sort_unstable();
        Ok(found)
    }
}

enum Content {
    File(OsString),
    Directory,
    /// It is not one of the files any more.
    Gone,
}

/// A regular file, so it is not asked again what it is. Should a FIFO have taken its place, nobody waits for it.
fn read_regular(dir: BorrowedFd, name: &CStr, buffer: &mut [u8], path: impl Fn() -> PathBuf) -> io::Result<Content> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let mut file = match openat(dir, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT) => return Ok(Content::Gone),
        Err(error) => return Err(naming("open", &path(), &error.into())),
    };
    let mut value = Vec::new();
    loop {
        match file.read(buffer) {
            Ok(read) => {
                value.extend_from_slice(buffer.get(..read).unwrap_or_default());
                check_size(value.len(), &path)?;
                // A regular file gives less than it is asked for only at its end: one call for most files.
                if read < buffer.len() {
                    return Ok(Content::File(OsString::from_vec(value)));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(naming("read", &path(), &error)),
        }
    }
}

/// A link, or what the file system does not tell the type of.
fn read_other(path: &Path) -> io::Result<Content> {
    if fs::metadata(path).map_err(|error| naming("stat", path, &error))?.is_dir() {
        return Ok(Content::Directory);
    }
    Ok(read_bounded(path)?.map_or(Content::Gone, |value| Content::File(OsString::from_vec(value))))
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use nix::unistd::mkfifo;

    use super::*;
    use crate::MAX_FILE_SIZE;

    #[test]
    fn files_are_read_whole_in_byte_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        // More entries than the system tells of at once; a value longer than is read at once; nothing; any bytes.
        let mut expected: Vec<(OsString, OsString)> =
            (0..500).map(|number| (format!("A_RATHER_LONG_NAME_{number}").into(), "x".into())).collect();
        expected.push(("LONG".into(), "0123456789".repeat(1000).into()));
        expected.push(("EXACT".into(), "y".repeat(BUFFER_SIZE).into()));
        expected.push(("EMPTY".into(), "".into()));
        expected.push((OsString::from_vec(b"B\xff".to_vec()), OsString::from_vec(b"\xff\0\n".to_vec())));
        expected.push(("...".into(), "dots".into()));
        for (name, value) in &expected {
            fs::write(dir.path().join(name), value.as_bytes()).unwrap();
        }
        expected.sort();
        let found = EnvDir::read(dir.path()).unwrap();
        assert!(found.files == expected, "{:?}", found.files);
        assert!(!found.has_dirs);
    }

    #[test]
    fn directories_are_told_of_and_not_read() {
        for name in ["directory", "link"] {
            let dir = tempfile::tempdir().unwrap();
            match name {
                "link" => symlink("/", dir.path().join(name)).unwrap(),
                _ => fs::create_dir(dir.path().join(name)).unwrap(),
            }
            assert_eq!(EnvDir::read(dir.path()).unwrap(), EnvDir { files: Vec::new(), has_dirs: true }, "{name}");
        }
        assert_eq!(EnvDir::read(Path::new("/nowhere/env")).unwrap(), EnvDir::default());
    }

    #[test]
    fn what_is_no_regular_file_of_bearable_size_is_an_error() {
        for (name, what) in [
            ("fifo", "not a regular file"),
            ("socket", "not a regular file"),
            ("device", "not a regular file"),
            ("huge", "larger than 16 MiB"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(name);
            match name {
                "fifo" => mkfifo(&path, Mode::S_IRWXU).unwrap(),
                "socket" => drop(UnixListener::bind(&path).unwrap()),
                "device" => symlink("/dev/zero", &path).unwrap(),
                _ => File::create(&path).unwrap().set_len(MAX_FILE_SIZE + 1).unwrap(),
            }
            let error = EnvDir::read(dir.path()).unwrap_err().to_string();
            assert_eq!(error, format!("{}: {what}", path.display()));
        }
    }

    #[test]
    fn a_file_that_changed_since_it_was_listed_neither_fails_nor_blocks() {
        let dir = tempfile::tempdir().unwrap();
        mkfifo(&dir.path().join("fifo"), Mode::S_IRWXU).unwrap();
        let opened = File::open(dir.path()).unwrap();
        let read = |name| read_regular(opened.as_fd(), name, &mut [0; 1], || PathBuf::from("path")).unwrap();
        assert!(matches!(read(c"gone"), Content::Gone));
        assert!(matches!(read(c"fifo"), Content::File(value) if value.is_empty()));
    }
}
