//! Reading and writing a file of the contract. Errors name the path.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
};

/// No file of the contract comes near this size; what does was not meant for us.
const LIMIT: u64 = 64 << 20;

/// A file that could not be read, understood or written. The text names the path and the cause, Go-style
/// (`open <path>: no such file or directory`, `<path>: toml: line 3: …`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FileError(pub String);

impl FileError {
    fn new(doing: &str, path: &Path, cause: &io::Error) -> Self {
        Self(format!("{doing} {}: {}", path.display(), cause_text(cause)))
    }
}

/// What went wrong, in the words every Unix program uses: without Rust's number, beginning in lower case.
fn cause_text(cause: &io::Error) -> String {
    let text = cause.to_string();
    let text = text.split(" (os error ").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// The file's text.
pub fn read(path: &Path) -> Result<String, FileError> {
    let file = File::open(path).map_err(|e| FileError::new("open", path, &e))?;
    read_open(path, file)
}

/// The file's text, `None` where there is no such file.
pub fn read_if_exists(path: &Path) -> Result<Option<String>, FileError> {
    match File::open(path) {
        Ok(file) => read_open(path, file).map(Some),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FileError::new("open", path, &e)),
    }
}

fn read_open(path: &Path, file: File) -> Result<String, FileError> {
    let mut bytes = Vec::new();
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

/// Writes the whole file or nothing: a temporary file beside it, synced and renamed, parents made (0777 & umask); in
/// place where the target is a mount point or the directory refuses a new file.
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
        // A device, a pipe or a link to nothing cannot be replaced without being lost.
        Ok(_) => write_in_place(path, text),
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
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn write_in_place(path: &Path, text: &str) -> Result<(), FileError> {
    let mut file = File::create(path).map_err(|e| FileError::new("open", path, &e))?;
    file.write_all(text.as_bytes()).map_err(|e| FileError::new("write", path, &e))
}
