//! The application directory, divided into slices: what a slice's globs match goes into its layer, what no slice
//! takes into the last one. The tree is walked once, and every glob only looks where it can match.
//!
//! Spec: buildpack.md "Slice Layers".

use std::{
    ffi::OsString,
    fs::{self, FileType},
    io,
    path::{Component, Path, PathBuf},
};

use anyhow::Context as _;
use buildpack_api::Slice;
use image::Glob;

/// A path of the application directory, and what is there, if that was looked at.
pub(super) type Found = (PathBuf, Option<FileType>);

/// The paths of each slice, and last of what is left. A slice has the directories above its files too.
///
/// # Errors
/// A directory that cannot be read; a pattern that is none.
pub(super) fn divide(app: &Path, slices: &[Slice]) -> anyhow::Result<Vec<Vec<Found>>> {
    let mut tree = Tree::read(app)?;
    let mut divided = Vec::with_capacity(slices.len() + 1);
    for slice in slices {
        let mut matches = Vec::new();
        for pattern in &slice.paths {
            if let Some(parts) = parse(app, pattern)? {
                tree.find(0, &parts, &mut matches);
            }
        }
        divided.push(tree.take(&matches));
    }
    divided.push(tree.rest());
    Ok(divided)
}

/// The application directory (node 0) and all below it.
struct Tree {
    nodes: Vec<Node>,
}

struct Node {
    /// Relative to its parent; the root's is the whole path.
    name: OsString,
    file_type: Option<FileType>,
    parent: usize,
    children: Vec<usize>,
    /// In a slice already.
    taken: bool,
}

impl Node {
    fn new(name: OsString, file_type: Option<FileType>, parent: usize) -> Self {
        Self { name, file_type, parent, children: Vec::new(), taken: false }
    }
}

impl Tree {
    fn read(app: &Path) -> anyhow::Result<Self> {
        let root = Node::new(app.as_os_str().to_owned(), None, 0);
        let mut tree = Self { nodes: vec![root] };
        let mut pending = vec![(0, app.to_path_buf())];
        while let Some((dir, path)) = pending.pop() {
            let failed = |e: io::Error| anyhow::Error::new(e).context(format!("read {}", path.display()));
            for entry in fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let index = tree.nodes.len();
                let file_type = entry.file_type().map_err(failed)?;
                if file_type.is_dir() {
                    pending.push((index, entry.path()));
                }
                tree.nodes.push(Node::new(entry.file_name(), Some(file_type), dir));
                if let Some(parent) = tree.nodes.get_mut(dir) {
                    parent.children.push(index);
                }
            }
        }
        Ok(tree)
    }

    fn found(&self, index: usize) -> Found {
        (self.path(index), self.nodes.get(index).and_then(|node| node.file_type))
    }

    fn path(&self, index: usize) -> PathBuf {
        let mut names = Vec::new();
        let mut at = index;
        while let Some(node) = self.nodes.get(at) {
            names.push(&node.name);
            if at == 0 {
                break;
            }
            at = node.parent;
        }
        names.into_iter().rev().collect()
    }

    fn children(&self, index: usize) -> &[usize] {
        self.nodes.get(index).map_or(&[], |node| &node.children)
    }

    fn is_taken(&self, index: usize) -> bool {
        self.nodes.get(index).is_none_or(|node| node.taken)
    }

    fn mark(&mut self, index: usize) {
        if let Some(node) = self.nodes.get_mut(index) {
            node.taken = true;
        }
    }

    /// All nodes whose path below `dir` matches the parts of a pattern.
    fn find(&self, dir: usize, parts: &[Glob], found: &mut Vec<usize>) {
        let Some((first, rest)) = parts.split_first() else { return };
        for &child in self.children(dir) {
            if self.nodes.get(child).is_some_and(|node| first.matches(&node.name)) {
                if rest.is_empty() {
                    found.push(child);
                } else {
                    self.find(child, rest, found);
                }
            }
        }
    }

    /// The matches that no earlier slice took, what is below them, and the directories above.
    fn take(&mut self, matches: &[usize]) -> Vec<Found> {
        let mut taken = Vec::new();
        let mut pending: Vec<usize> = matches.to_vec();
        while let Some(index) = pending.pop() {
            if !self.is_taken(index) {
                self.mark(index);
                taken.push(index);
                pending.extend_from_slice(self.children(index));
            }
        }
        let mut above: Vec<(usize, usize)> = Vec::new();
        let mut is_above = vec![false; self.nodes.len()];
        for &index in &taken {
            self.add_above(index, &mut is_above, &mut above);
        }
        let paths = taken.iter().chain(above.iter().map(|(_, dir)| dir)).map(|index| self.found(*index)).collect();
        // The deepest first: a directory whose last entry is taken is taken itself.
        above.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
        for (_, dir) in above {
            if self.children(dir).iter().all(|child| self.is_taken(*child)) {
                self.mark(dir);
            }
        }
        paths
    }

    /// The directories above a node, with their depth, those that are in the slice already left out.
    fn add_above(&self, index: usize, is_above: &mut [bool], above: &mut Vec<(usize, usize)>) {
        let mut chain = Vec::new();
        let mut at = index;
        while at != 0 {
            at = self.nodes.get(at).map_or(0, |node| node.parent);
            chain.push(at);
        }
        for (depth, &dir) in chain.iter().rev().enumerate() {
            if let Some(seen) = is_above.get_mut(dir).filter(|seen| !**seen) {
                *seen = true;
                if !self.is_taken(dir) {
                    above.push((depth, dir));
                }
            }
        }
    }

    /// What no slice took.
    fn rest(&self) -> Vec<Found> {
        (0..self.nodes.len()).filter(|index| !self.is_taken(*index)).map(|index| self.found(index)).collect()
    }
}

/// The parts of a pattern, which is relative to the application directory or leads into it. `None`: it can match
/// nothing below it.
fn parse(app: &Path, pattern: &str) -> anyhow::Result<Option<Vec<Glob>>> {
    let mut parts: Vec<&str> = Vec::new();
    let path = Path::new(pattern);
    let relative = match (path.is_absolute(), clean(path)) {
        (false, cleaned) => cleaned,
        (true, cleaned) => match cleaned.strip_prefix(clean(app)) {
            Ok(relative) => relative.to_path_buf(),
            Err(_) => return Ok(None),
        },
    };
    for part in relative.components() {
        match part {
            Component::Normal(name) => parts.extend(name.to_str()),
            _ => return Ok(None),
        }
    }
    let globs: Option<Vec<_>> = parts.into_iter().map(Glob::name).collect();
    let globs = globs.with_context(|| format!("failed to check what matches '{pattern}': syntax error in pattern"))?;
    Ok(Some(globs).filter(|globs| !globs.is_empty()))
}

/// The path without `.`, and without `..` where it can be resolved in the text.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(cleaned.components().next_back(), Some(Component::Normal(_))) => {
                cleaned.pop();
            }
            Component::ParentDir if cleaned.has_root() => {}
            other => cleaned.push(other),
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(files: &[&str]) -> tempfile::TempDir {
        let tmp = tempfile::tempdir().unwrap();
        for file in files {
            let path = tmp.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if !file.ends_with('/') {
                fs::write(path, file).unwrap();
            }
        }
        tmp
    }

    /// The slices' paths relative to the application directory, sorted; the directory itself is `.`.
    fn slices(app: &Path, patterns: &[&[&str]]) -> Vec<Vec<String>> {
        let slices: Vec<_> =
            patterns.iter().map(|p| Slice { paths: p.iter().map(|p| (*p).to_owned()).collect() }).collect();
        let relative = |(path, _): Found| match path.strip_prefix(app).unwrap().to_str().unwrap() {
            "" => ".".to_owned(),
            path => path.to_owned(),
        };
        let mut divided: Vec<Vec<String>> =
            divide(app, &slices).unwrap().into_iter().map(|s| s.into_iter().map(relative).collect()).collect();
        for slice in &mut divided {
            slice.sort();
        }
        divided
    }

    #[test]
    fn each_file_is_in_one_slice() {
        let tmp = app(&["a.txt", "b.md", "dir/c.txt", "dir/sub/d.txt", "other/e"]);
        for (why, patterns, expected) in [
            (
                "no slices",
                vec![],
                vec![vec![".", "a.txt", "b.md", "dir", "dir/c.txt", "dir/sub", "dir/sub/d.txt", "other", "other/e"]],
            ),
            (
                "a file, and the directories above it",
                vec![vec!["dir/sub/*.txt"]],
                vec![
                    vec![".", "dir", "dir/sub", "dir/sub/d.txt"],
                    vec![".", "a.txt", "b.md", "dir", "dir/c.txt", "other", "other/e"],
                ],
            ),
            (
                "a matched directory with all below it",
                vec![vec!["dir"]],
                vec![
                    vec![".", "dir", "dir/c.txt", "dir/sub", "dir/sub/d.txt"],
                    vec![".", "a.txt", "b.md", "other", "other/e"],
                ],
            ),
            (
                "what an earlier slice took is not taken again",
                vec![vec!["*.txt"], vec!["*"]],
                vec![
                    vec![".", "a.txt"],
                    vec![".", "b.md", "dir", "dir/c.txt", "dir/sub", "dir/sub/d.txt", "other", "other/e"],
                    vec![],
                ],
            ),
            (
                "a star does not cross a slash",
                vec![vec!["*e"]],
                vec![
                    vec![],
                    vec![".", "a.txt", "b.md", "dir", "dir/c.txt", "dir/sub", "dir/sub/d.txt", "other", "other/e"],
                ],
            ),
            (
                "patterns are cleaned",
                vec![vec!["./dir//sub/", "x/../a.txt"]],
                vec![
                    vec![".", "a.txt", "dir", "dir/sub", "dir/sub/d.txt"],
                    vec![".", "b.md", "dir", "dir/c.txt", "other", "other/e"],
                ],
            ),
            (
                "nothing outside the directory",
                vec![vec!["../*", "/etc/*", "."]],
                vec![
                    vec![],
                    vec![".", "a.txt", "b.md", "dir", "dir/c.txt", "dir/sub", "dir/sub/d.txt", "other", "other/e"],
                ],
            ),
        ] {
            let patterns: Vec<&[&str]> = patterns.iter().map(Vec::as_slice).collect();
            assert_eq!(slices(tmp.path(), &patterns), expected, "{why}");
        }
    }

    #[test]
    fn absolute_patterns_match_below_the_directory() {
        let tmp = app(&["a.txt", "dir/b"]);
        let pattern = format!("{}/*.txt", tmp.path().display());
        assert_eq!(slices(tmp.path(), &[&[&pattern]]), [vec![".", "a.txt"], vec![".", "dir", "dir/b"]]);
    }

    #[test]
    fn an_empty_directory_is_one_entry() {
        let tmp = app(&[]);
        assert_eq!(slices(tmp.path(), &[]), [["."]]);
        assert!(divide(&tmp.path().join("gone"), &[]).unwrap_err().to_string().contains("gone"));
    }
}
