//! Reading TOML that others wrote: bounded, and with errors that say where they are.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

/// A file whose text breaks its format. The text begins `toml: line N: …` for a syntax error; it does not name the
/// file: who read the file adds its path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub String);

/// The largest file that is read whole, in bytes: far more than any real one, and less than would hurt.
pub const MAX_FILE_SIZE: u64 = 16 * 1024 * 1024;

/// Parses any TOML file of the contract. Nesting is limited by the parser (80 levels), so no text can exhaust the
/// stack.
/// # Errors
/// `toml: line N: <what>` for bad TOML or a value of the wrong type.
pub fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T, ParseError> {
    toml::from_str(text).map_err(|error| {
        let what = error.message().replace('\n', ", ");
        match error.span() {
            Some(span) => {
                let before = text.as_bytes().get(..span.start).unwrap_or(text.as_bytes());
                let line = 1 + before.split(|b| *b == b'\n').skip(1).count();
                ParseError(format!("toml: line {line}: {what}"))
            }
            None => ParseError(format!("toml: {what}")),
        }
    })
}

/// Reads a TOML file that a buildpack or a platform wrote; `None` where there is none.
/// # Errors
/// As [`read_bounded`], and for text that is not UTF-8. They name the path.
pub fn read_toml_bounded(path: &Path) -> io::Result<Option<String>> {
    read_bounded(path)?.map_or(Ok(None), |bytes| {
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{}: not valid UTF-8", path.display())))
    })
}

/// Reads a whole file; `None` where there is none.
/// # Errors
/// What cannot be read, is not a regular file (a FIFO or a device could keep us for ever), or is larger than
/// [`MAX_FILE_SIZE`]. They name the path.
pub fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let fail = |what: &str, kind| Err(io::Error::new(kind, format!("{}: {what}", path.display())));
    // Asked before opening: opening a FIFO waits for a writer.
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(naming("open", path, &error)),
    };
    if !metadata.is_file() {
        return fail("not a regular file", io::ErrorKind::InvalidInput);
    }
    let file = File::open(path).map_err(|error| naming("open", path, &error))?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(MAX_FILE_SIZE)).unwrap_or(0));
    file.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes).map_err(|error| naming("read", path, &error))?;
    check_size(bytes.len(), || path.to_owned())?;
    Ok(Some(bytes))
}

/// Refuses what is larger than any file that is read whole.
pub(crate) fn check_size(size: usize, path: impl Fn() -> PathBuf) -> io::Result<()> {
    if u64::try_from(size).is_ok_and(|size| size <= MAX_FILE_SIZE) {
        return Ok(());
    }
    let text = format!("{}: larger than 16 MiB", path().display());
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

/// The error with what was being done to which path: `open /x: permission denied`. Its kind stays.
pub(crate) fn naming(action: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{action} {}: {}", path.display(), io_text(error)))
}

/// An I/O error as the platforms know it from Go: lower case, without the error's number.
pub fn io_text(error: &io::Error) -> String {
    let text = error.to_string();
    let Some(code) = error.raw_os_error() else { return text };
    let text = text.strip_suffix(&format!(" (os error {code})")).unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Typed {
        #[serde(rename = "n")]
        _n: u8,
    }

    #[test]
    fn errors_name_the_line() {
        for (text, begin) in [
            ("a = 1\nb =\n", "toml: line 2: "),
            ("a = 1\n\n[x\n", "toml: line 3: "),
            ("=", "toml: line 1: "),
            ("a = 1\na = 2\n", "toml: line 2: "),
        ] {
            let error = parse_toml::<toml::Table>(text).unwrap_err().to_string();
            assert!(error.starts_with(begin), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let error = parse_toml::<Typed>("\n\nn = 'x'").unwrap_err().to_string();
        assert!(error.starts_with("toml: line 3: "), "{error}");
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_crash() {
        let deep = 100_000;
        for text in [
            format!("a = {}{}", "[".repeat(deep), "]".repeat(deep)),
            format!("a = {}1{}", "{ a = ".repeat(deep), " }".repeat(deep)),
            format!("a{} = 1", ".a".repeat(deep)),
            format!("[a{}]", ".a".repeat(deep)),
            format!("[[a{}]]", ".a".repeat(deep)),
        ] {
            assert!(parse_toml::<toml::Table>(&text).is_err());
        }
    }

    #[test]
    fn only_regular_files_of_bearable_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert_eq!(read_toml_bounded(&path("none")).unwrap(), None);

        std::fs::write(path("file"), "a = 1").unwrap();
        assert_eq!(read_toml_bounded(&path("file")).unwrap().as_deref(), Some("a = 1"));
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        assert_eq!(read_toml_bounded(&path("link")).unwrap().as_deref(), Some("a = 1"));

        std::fs::write(path("latin1"), b"a = '\xe9'").unwrap();
        File::create(path("huge")).unwrap().set_len(MAX_FILE_SIZE + 1).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("zero")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::create_dir(path("dir")).unwrap();
        for (name, what) in [
            ("latin1", "not valid UTF-8"),
            ("huge", "larger than 16 MiB"),
            ("zero", "not a regular file"),
            ("fifo", "not a regular file"),
            ("dir", "not a regular file"),
        ] {
            let error = read_toml_bounded(&path(name)).unwrap_err().to_string();
            assert_eq!(error, format!("{}: {what}", path(name).display()));
        }
        let error = read_toml_bounded(&path("file").join("x")).unwrap_err().to_string();
        assert_eq!(error, format!("open {}: not a directory", path("file").join("x").display()));
    }
}
