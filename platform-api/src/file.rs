//! Reading and writing a file of the contract. Errors name the path.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
};

use buildpack_api::io_text;

/// No file of the contract comes near this size; what does was not meant for us.
const LIMIT: u64 = 16 << 20;

/// A file that could not be read, understood or written. The text names the path and the cause, Go-style
/// (`open <path>: no such file or directory`, `<path>: toml: line 3: …`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FileError(pub String);

impl FileError {
    fn new(doing: &str, path: &Path, cause: &io::Error) -> Self {
        Self(format!("{doing} {}: {}", path.display(), io_text(cause)))
    }
}

/// The file's text.
pub fn read(path: &Path) -> Result<String, FileError> {
    let size = refuse_special(path)?;
    let file = File::open(path).map_err(|e| FileError::new("open", path, &e))?;
    read_open(path, file, size)
}

/// A FIFO or a device that a buildpack left in the place of a file would keep us for ever. A platform that means one
/// names it in `/dev` (`/dev/stdin`). Gives the size in bytes, 0 where it is not known.
fn refuse_special(path: &Path) -> Result<u64, FileError> {
    let Ok(found) = fs::metadata(path) else { return Ok(0) };
    if !found.is_file() && !found.is_dir() && !path.starts_with("/dev") {
        return Err(FileError(format!("{}: not a regular file", path.display())));
    }
    Ok(if found.is_file() { found.len() } else { 0 })
}

/// The file's text, `None` where there is no such file.
pub(crate) fn read_if_exists(path: &Path) -> Result<Option<String>, FileError> {
    let size = refuse_special(path)?;
    match File::open(path) {
        Ok(file) => read_open(path, file, size).map(Some),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FileError::new("open", path, &e)),
    }
}

fn read_open(path: &Path, file: File, size: u64) -> Result<String, FileError> {
    // One byte more, so that the end shows without a larger buffer.
    let mut bytes = Vec::with_capacity(usize::try_from(size.min(LIMIT)).unwrap_or_default() + 1);
    file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(|e| FileError::new("read", path, &e))?;
    if bytes.len() as u64 > LIMIT {
        return Err(FileError(format!("{}: larger than {} MiB", path.display(), LIMIT >> 20)));
    }
    String::from_utf8(bytes).map_err(|_| FileError(format!("{}: not UTF-8", path.display())))
}

/// Reads and parses; a parse error gets the path.
pub fn parse<T, E: std::fmt::Display>(path: &Path, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, FileError> {
    parse(&read(path)?).map_err(|e| FileError(format!("{}: {e}", path.display())))
}

/// The same, `None` where there is no such file.
pub fn parse_if_exists<T, E: std::fmt::Display>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, FileError> {
    read_if_exists(path)?
        .map(|text| parse(&text).map_err(|e| FileError(format!("{}: {e}", path.display()))))
        .transpose()
}

/// Writes the whole file or nothing: a temporary file beside it, renamed, parents made (0777 & umask); in place where the
/// target is a mount point or the directory refuses a new file. Not synced to the disk: the build that reads it would not
/// survive a power failure either, and a sync can cost more than all else a phase does.
pub fn write(path: &Path, text: &str) -> Result<(), FileError> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(|e| FileError::new("mkdir", parent, &e))?;
    }
    match fs::metadata(path) {
        // A link keeps pointing where it points; its target is replaced.
        Ok(old) if old.is_file() => {
            let target = fs::canonicalize(path).map_err(|e| FileError::new("open", path, &e))?;
            replace(&target, text, Some(&old))
        }
        // A device or a link to nothing cannot be replaced without being lost.
        Ok(_) => refuse_special(path).and_then(|_| write_in_place(path, text)),
        Err(_) if path.is_symlink() => write_in_place(path, text),
        Err(_) => replace(path, text, None),
    }
}

fn replace(path: &Path, text: &str, old: Option<&fs::Metadata>) -> Result<(), FileError> {
    let temp = temporary_name(path);
    // In a container every process may have the same number: what a killed one left behind must not stop us.
    let _ = fs::remove_file(&temp);
    let written = write_new(&temp, text, old).and_then(|()| fs::rename(&temp, path));
    let Err(cause) = written else { return Ok(()) };
    // Nothing is left behind; where even that fails the first error is the one to tell.
    let _ = fs::remove_file(&temp);
    match cause.kind() {
        ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::ResourceBusy
        | ErrorKind::CrossesDevices => write_in_place(path, text),
        _ => Err(FileError::new("write", path, &cause)),
    }
}

fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

/// A new file with the mode and, where we may, the owner of the one it will replace.
fn write_new(path: &Path, text: &str, old: Option<&fs::Metadata>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    if let Some(old) = old {
        let new = file.metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            let _ = chown(path, Some(old.uid()), Some(old.gid()));
        }
        file.set_permissions(old.permissions())?;
    }
    file.write_all(text.as_bytes())
}

fn write_in_place(path: &Path, text: &str) -> Result<(), FileError> {
    let mut file = File::create(path).map_err(|e| FileError::new("open", path, &e))?;
    file.write_all(text.as_bytes()).map_err(|e| FileError::new("write", path, &e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn errors_name_the_path_as_go_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("latin1"), b"\xe9").unwrap();
        File::create(path("huge")).unwrap().set_len(LIMIT + 1).unwrap();
        for (name, expected) in [
            ("none", "open PATH: no such file or directory"),
            ("latin1/x", "open PATH: not a directory"),
            (".", "read PATH: is a directory"),
            ("latin1", "PATH: not UTF-8"),
            ("huge", "PATH: larger than 16 MiB"),
        ] {
            let error = read(&path(name)).unwrap_err().0;
            assert_eq!(error, expected.replace("PATH", &path(name).display().to_string()));
        }
        symlink("/dev/zero", path("endless")).unwrap();
        let refused = Err(FileError(format!("{}: not a regular file", path("endless").display())));
        assert_eq!(
            (read(&path("endless")), write(&path("endless"), "x")),
            (refused.clone(), refused.clone().map(drop))
        );
        assert_eq!(read_if_exists(&path("endless")).map(Option::unwrap_or_default), refused);
        assert_eq!(read(Path::new("/dev/null")), Ok(String::new()));
        assert_eq!(read_if_exists(&path("none")), Ok(None));
        assert!(read_if_exists(&path("latin1")).is_err());
        fs::write(path("good"), "text").unwrap();
        assert_eq!(read_if_exists(&path("good")), Ok(Some("text".into())));
        let error = parse(&path("good"), |_| Err::<(), _>("toml: line 1: bad")).unwrap_err().0;
        assert_eq!(error, format!("{}: toml: line 1: bad", path("good").display()));
        assert_eq!(parse_if_exists(&path("none"), |_| Err::<(), _>("unread")), Ok(None));
    }

    #[test]
    fn parents_are_made_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/file.toml");
        write(&path, "one").unwrap();
        write(&path, "two").unwrap();
        assert_eq!(read(&path).unwrap(), "two");
        assert_eq!(names(path.parent().unwrap()), ["file.toml"]);
        // What a killed process of the same number left behind.
        fs::write(temporary_name(&path), "half").unwrap();
        write(&path, "three").unwrap();
        assert_eq!((read(&path).unwrap().as_str(), names(path.parent().unwrap()).len()), ("three", 1));
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_its_link() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        write(&real, "one").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("real", &link).unwrap();
        write(&link, "two").unwrap();
        assert!(link.is_symlink());
        assert_eq!(read(&real).unwrap(), "two");
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        symlink("new", dir.path().join("dangling")).unwrap();
        write(&dir.path().join("dangling"), "three").unwrap();
        assert_eq!(read(&dir.path().join("new")).unwrap(), "three");
        write(Path::new("/dev/null"), "four").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_failure_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = write(dir.path(), "x").unwrap_err().0;
        assert_eq!(error, format!("open {}: is a directory", dir.path().display()));
        let file = dir.path().join("file");
        write(&file, "old").unwrap();
        let error = write(&file.join("x"), "y").unwrap_err().0;
        assert!(error.starts_with(&format!("mkdir {}: ", file.display())), "{error}");
        assert_eq!(read(&file).unwrap(), "old");
    }
}
