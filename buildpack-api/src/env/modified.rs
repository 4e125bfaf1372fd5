//! Env directories: what each of their files does to a variable
//! (buildpack.md, "Environment Variable Modification Rules").

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt,
    path::Path,
};

use super::Env;
use crate::{dir::Dir, env_dir::EnvDir};

/// What a file without a suffix means in an env directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvDirDefault {
    /// A buildpack's layer.
    Override,
    /// The operator's build config.
    SetIfEmpty,
}

/// What the name of a file ends in that holds a delimiter.
const DELIMITER_SUFFIX: &[u8] = b".delim";

impl Env {
    /// Applies an env directory: `NAME`, `NAME.append`, `.prepend`, `.default`, `.override`, `.delim`, in byte order
    /// of the file names. A directory that is not there changes nothing. Errors name the path.
    ///
    /// A name that ends in its period means prepend with `:`, as it does in the reference; another suffix nothing.
    ///
    /// Whether it has directories, which are not applied: `env.launch` may have one for the process type.
    pub fn apply_dir(&mut self, dir: &Path, bare: EnvDirDefault) -> io::Result<bool> {
        self.apply_dir_from(&Dir::none(), dir, bare)
    }

    /// As [`Self::apply_dir`], looking from an open directory on.
    pub fn apply_dir_from(&mut self, from: &Dir, dir: &Path, bare: EnvDirDefault) -> io::Result<bool> {
        let dir = EnvDir::read_at(from, dir)?;
        let has_dirs = dir.has_dirs;
        let (delimiters, files): (Vec<_>, Vec<_>) =
            dir.files.into_iter().partition(|(file, _)| file.as_bytes().ends_with(DELIMITER_SUFFIX));
        for (file, value) in files {
            let bytes = file.as_bytes();
            let Some(period) = bytes.iter().position(|b| *b == b'.') else {
                if bare == EnvDirDefault::Override || self.is_empty(&file) {
                    self.set(file, value);
                }
                continue;
            };
            let (name, suffix) = bytes.split_at(period);
            // No variable is without a name: `.gitkeep` and its like.
            if name.is_empty() {
                continue;
            }
            let delimiter = |default: &'static str| {
                let of_this = |file: &OsString| file.as_bytes().strip_suffix(DELIMITER_SUFFIX) == Some(name);
                let found = delimiters.iter().find(|(file, _)| of_this(file));
                found.map_or(OsStr::new(default), |(_, delimiter)| delimiter.as_os_str())
            };
            let variable = OsStr::from_bytes(name);
            match suffix {
                b".append" => self.append(variable, value, delimiter("")),
                b".prepend" => self.prepend(variable, value, delimiter("")),
                b"." => self.prepend(variable, value, delimiter(":")),
                b".override" => self.set(variable, value),
                b".default" if self.is_empty(variable) => self.set(variable, value),
                _ => {}
            }
        }
        Ok(has_dirs)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{
        super::tests::{dir, env},
        *,
    };

    #[test]
    fn modification_rules() {
        use EnvDirDefault::{Override, SetIfEmpty};
        for (bare, files, before, after) in [
            (Override, &[("V", "new")][..], Some("old"), Some("new")),
            (SetIfEmpty, &[("V", "new")], Some("old"), Some("old")),
            (SetIfEmpty, &[("V", "new")], Some(""), Some("new")),
            (SetIfEmpty, &[("V", "new")], None, Some("new")),
            (Override, &[("V.override", "new")], Some("old"), Some("new")),
            (SetIfEmpty, &[("V.override", "new")], Some("old"), Some("new")),
            (Override, &[("V.default", "new")], Some("old"), Some("old")),
            (Override, &[("V.default", "new")], None, Some("new")),
            (Override, &[("V.append", "new")], Some("old"), Some("oldnew")),
            (Override, &[("V.append", "new"), ("V.delim", ";")], Some("old"), Some("old;new")),
            (Override, &[("V.append", "new"), ("V.delim", ";")], None, Some("new")),
            (Override, &[("V.append", "new"), ("V.delim", ";")], Some(""), Some("new")),
            (Override, &[("V.prepend", "new")], Some("old"), Some("newold")),
            (Override, &[("V.prepend", "new"), ("V.delim", "::")], Some("old"), Some("new::old")),
            (Override, &[("V.prepend", "new"), ("V.delim", ";")], None, Some("new")),
            (Override, &[("V.", "new")], Some("old"), Some("new:old")),
            (Override, &[("V.", "new"), ("V.delim", ";")], Some("old"), Some("new;old")),
            (Override, &[("V.delim", ";")], Some("old"), Some("old")),
            (Override, &[("V.append", "new"), ("W.delim", ";")], Some("old"), Some("oldnew")),
            (Override, &[("V.unknown", "new"), ("V.append.x", "new"), ("V.APPEND", "new")], Some("old"), Some("old")),
            (Override, &[("V", " new\n")], Some("old"), Some(" new\n")),
            (Override, &[("V", "")], Some("old"), Some("")),
            (Override, &[("V.append", "")], Some("old"), Some("old")),
            // In byte order of file names: V, V.append, V.default, V.override, V.prepend.
            (Override, &[("V.prepend", "p"), ("V.append", "a"), ("V", "v"), ("V.delim", "-")], None, Some("p-v-a")),
            (Override, &[("V.prepend", "p"), ("V.override", "o"), ("V.append", "a")], Some("old"), Some("po")),
            (Override, &[("V.default", "d"), ("V.append", "a")], None, Some("a")),
        ] {
            let dir = dir(files);
            let mut env = Env::default();
            if let Some(before) = before {
                env.set("V", before);
            }
            env.apply_dir(dir.path(), bare).unwrap();
            assert_eq!(env.get("V").map(|v| v.to_str().unwrap()), after, "{bare:?} {files:?} {before:?}");
            assert!(env.iter().all(|(name, _)| name == "V"), "{files:?} {env:?}");
        }
    }

    #[test]
    fn env_directories_hold_files_and_links_to_files() {
        let outside = dir(&[("value", "linked")]);
        let dir = dir(&[("A", "a"), (".gitkeep", ""), (".override", "x")]);
        fs::create_dir(dir.path().join("web")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("value"), dir.path().join("B")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("..data")).unwrap();
        fs::write(dir.path().join("C"), b"\xff\0").unwrap();
        let mut applied = Env::default();
        applied.apply_dir(dir.path(), EnvDirDefault::Override).unwrap();
        applied.apply_dir(&dir.path().join("missing"), EnvDirDefault::Override).unwrap();
        assert_eq!(applied.get("C").unwrap().as_bytes(), b"\xff\0");
        applied.remove("C");
        assert_eq!(applied, env(&[("A", "a"), ("B", "linked")]));

        std::os::unix::fs::symlink("nowhere", dir.path().join("D")).unwrap();
        let error = applied.apply_dir(dir.path(), EnvDirDefault::Override).unwrap_err().to_string();
        assert_eq!(error, format!("stat {}: no such file or directory", dir.path().join("D").display()));
        let file = outside.path().join("value");
        let error = applied.apply_dir(&file, EnvDirDefault::Override).unwrap_err().to_string();
        assert_eq!(error, format!("open {}: not a directory", file.display()));
    }
}
