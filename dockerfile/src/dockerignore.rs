//! `.dockerignore`: what of a build context is not there for a Dockerfile.
//!
//! <https://docs.docker.com/build/concepts/context/#dockerignore-files>

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use image::{Glob, clean_path};

use crate::{Error, Result};

/// The lines of a file; the last one that fits decides.
#[derive(Debug)]
pub(crate) struct Rules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    pattern: Glob,
    excludes: bool,
}

pub(crate) const NO_PATTERN: &str = "syntax error in pattern";

impl Rules {
    /// Those of the file beside the Dockerfile that has its name and `.dockerignore`; where there is none, those of the
    /// context. Never both: who writes the first wants other files for this Dockerfile than the app's author for his.
    ///
    /// # Errors
    /// Naming the file that cannot be read, or has no pattern where one has to be.
    pub(crate) fn read(context: &Path, dockerfile: &Path) -> Result<Self> {
        let mut beside = dockerfile.as_os_str().to_owned();
        beside.push(".dockerignore");
        for file in [PathBuf::from(beside), context.join(".dockerignore")] {
            let text = match fs::read(&file) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                text => text.map_err(|e| Error::at("read", &file, &e))?,
            };
            // Comments may be in any encoding; names are compared as if they were text, too.
            let rules = Self::parse(&String::from_utf8_lossy(&text));
            return rules.map_err(|e| Error::new(format!("{}: {e}", file.display())));
        }
        Ok(Self(Vec::new()))
    }

    fn parse(text: &str) -> Result<Self> {
        let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().zip(1..);
        let rules = lines.filter_map(|(line, n)| {
            let wrong = |e| Error::new(format!("line {n}: {e}"));
            rule(line).map_err(wrong).transpose()
        });
        rules.collect::<Result<_>>().map(Self)
    }

    /// Whether they leave out what is at this path in the context.
    pub(crate) fn excludes(&self, relative: &Path) -> bool {
        if relative.as_os_str().is_empty() {
            return false;
        }
        let fits = |rule: &&Rule| relative.ancestors().any(|path| rule.pattern.matches(path));
        self.0.iter().rev().find(fits).is_some_and(|rule| rule.excludes)
    }

    /// Whether something in a directory that is left out may be there all the same.
    pub(crate) fn have_exceptions(&self) -> bool {
        self.0.iter().any(|rule| !rule.excludes)
    }
}

/// A line; `None`: it says nothing.
fn rule(line: &str) -> Result<Option<Rule>> {
    // Only where it is the first character.
    if line.starts_with('#') || line.trim().is_empty() {
        return Ok(None);
    }
    let line = line.trim();
    let (pattern, excludes) = line.strip_prefix('!').map_or((line, true), |rest| (rest.trim(), false));
    if pattern.is_empty() {
        return Err(Error::new("illegal exclusion pattern: \"!\""));
    }
    let pattern = clean_path(Path::new(pattern)).display().to_string();
    // The context itself is never left out.
    let Some(pattern) = pattern.strip_prefix('/').filter(|pattern| !pattern.is_empty()) else { return Ok(None) };
    let pattern = Glob::path(pattern).ok_or_else(|| Error::new(format!("{pattern}: {NO_PATTERN}")))?;
    Ok(Some(Rule { pattern, excludes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(dir.path().join(".dockerignore"), text).unwrap();
        let read = || Rules::read(dir.path(), &dir.path().join("Dockerfile"));
        let excludes = |text: &str, path: &str| {
            write(text);
            read().unwrap().excludes(Path::new(path))
        };
        for (text, path, expected) in [
            ("a", "a", true),
            ("a", "a/b", true),
            ("a", "b/a", false),
            ("/a/", "a", true),
            ("./a", "a", true),
            ("b/../a", "a", true),
            ("../a", "a", true),
            (" a ", "a", true),
            ("\u{feff}a", "a", true),
            ("*/a", "b/a", true),
            ("**/a", "a", true),
            ("*\n!a", "a", false),
            ("*\n!a\na", "a", true),
            ("a\n!a/b", "a/b", false),
            ("#a", "#a", false),
            (" #a", "#a", true),
            // The context itself cannot be meant.
            (".", "a", false),
            ("/", "a", false),
            ("a/..", "a", false),
        ] {
            assert_eq!(excludes(text, path), expected, "{text:?} {path}");
        }
        for (text, expected) in [("a\n!", "line 2: illegal exclusion pattern"), ("[", "line 1: [: syntax error")] {
            write(text);
            let error = read().unwrap_err().to_string();
            assert!(error.contains("/.dockerignore: ") && error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_file_beside_the_dockerfile_is_the_only_one() {
        let dir = tempfile::tempdir().unwrap();
        let (context, dockerfile) = (dir.path().join("context"), dir.path().join("run.Dockerfile"));
        fs::create_dir(&context).unwrap();
        let excluded = || {
            let rules = Rules::read(&context, &dockerfile).unwrap();
            ["a", "b"].into_iter().filter(|path| rules.excludes(Path::new(path))).collect::<Vec<_>>()
        };
        assert_eq!(excluded(), [""; 0]);
        fs::write(context.join(".dockerignore"), b"# \xe9\na\n").unwrap();
        assert_eq!(excluded(), ["a"]);
        let beside = dir.path().join("run.Dockerfile.dockerignore");
        fs::write(&beside, "b\n").unwrap();
        assert_eq!(excluded(), ["b"]);
        fs::write(&beside, "").unwrap();
        assert_eq!(excluded(), [""; 0]);
        fs::write(&beside, "!\n").unwrap();
        let error = Rules::read(&context, &dockerfile).unwrap_err().to_string();
        assert!(error.contains("/run.Dockerfile.dockerignore: line 1: illegal exclusion pattern"), "{error}");
    }
}
