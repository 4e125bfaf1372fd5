//! What snapshots leave out.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// What snapshots leave out: paths relative to the root.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    paths: HashSet<PathBuf>,
}

/// Of every system, whatever is mounted.
const ALWAYS: [&str; 5] = ["proc", "sys", "dev", "var/run", "etc/mtab"];
/// Directories that apt-key makes while it runs.
const PREFIX: &[u8] = b"tmp/apt-key-gpghome";

impl Ignore {
    /// These directories (absolute, as seen in `root`), whatever is mounted below `root`, and what belongs to the
    /// kernel.
    ///
    /// # Errors
    /// Where the list of mounts cannot be read.
    pub fn new(root: &Path, dirs: &[PathBuf]) -> Result<Self> {
        let mounts = Path::new("/proc/self/mountinfo");
        let text = fs::read(mounts).map_err(|e| Error::at("read", mounts, &e))?;
        let mounted = text.split(|b| *b == b'\n').filter_map(|line| {
            let path = unescaped(line.split(|b| *b == b' ').nth(4)?);
            Some(Path::new(OsStr::from_bytes(&path)).strip_prefix(root).ok()?.to_owned())
        });
        let given = dirs.iter().map(|dir| dir.strip_prefix("/").unwrap_or(dir).to_owned());
        let paths = mounted.chain(given).chain(ALWAYS.iter().map(PathBuf::from));
        Ok(Self { paths: paths.filter(|path| !path.as_os_str().is_empty()).collect() })
    }

    pub(super) fn has(&self, path: &Path) -> bool {
        self.paths.contains(path) || path.as_os_str().as_bytes().starts_with(PREFIX)
    }
}

/// `\040` and the like stand for white space in lists of mounts.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\').and_then(|c| std::str::from_utf8(c).ok());
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            out.push(byte);
            rest = &after[3..];
        } else {
            out.push(*first);
            rest = after;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_mounts_escape_white_space() {
        assert_eq!(unescaped(br"/a\040b\134\0"), br"/a b\\0");
    }
}
