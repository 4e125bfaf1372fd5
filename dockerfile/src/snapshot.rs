//! What is on the file system: a walk over metadata only, on all cores. The kernel sets a file's change time on every
//! change of content, mode, owner, times, links or extended attributes, and nobody can set it back, so two walks tell
//! what changed between them without reading a file.

mod ignore;
mod walk;

use std::{
    collections::HashSet,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub use self::ignore::Ignore;
use self::walk::walk;
use crate::Result;

/// The kernel's clock for files advances in steps; within one, a change leaves no trace. No step is longer.
const CLOCK_STEP: Duration = Duration::from_millis(20);

/// The part of a mode that says what kind of file it is.
const KIND: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;

/// The files below a root, and how each was.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Sorted by path.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Relative to the root.
    path: PathBuf,
    mode: u32,
    /// Of a directory, too: what came and went in it changed its time, which layers keep.
    changed: (i64, i64),
    size: u64,
    owner: (u32, u32),
    inode: u64,
}

impl Entry {
    fn state(&self) -> (u32, (i64, i64), u64, (u32, u32)) {
        (self.mode, self.changed, self.size, self.owner)
    }
}

/// What lies between two snapshots; paths are relative to the root.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// New and changed ones and the directories above them, sorted.
    pub(crate) present: Vec<PathBuf>,
    /// Sorted; of a removed directory only itself.
    pub(crate) removed: Vec<PathBuf>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.present.is_empty() && self.removed.is_empty()
    }

    /// Those that are not in these places.
    pub(crate) fn without(mut self, places: &[PathBuf]) -> Self {
        let counts = |path: &PathBuf| !places.iter().any(|place| path.starts_with(place));
        self.present.retain(counts);
        self.removed.retain(counts);
        self
    }
}

impl Snapshot {
    /// Looks at everything below `root` that is not ignored.
    ///
    /// # Errors
    /// Naming a directory that cannot be read.
    pub fn take(root: &Path, ignore: &Ignore) -> Result<Self> {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut entries = walk(root, ignore)?;
        entries.sort_unstable_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
        let newest = entries.iter().map(|e| e.changed).max().unwrap_or_default();
        let step = started.saturating_sub(CLOCK_STEP);
        // What changes next must get another time than what has just been seen.
        if newest.0 >= i64::try_from(step.as_secs()).unwrap_or_default() {
            thread::sleep(CLOCK_STEP);
        }
        Ok(Self { entries })
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn find(&self, path: &Path) -> Option<&Entry> {
        let key = path.as_os_str().as_bytes();
        let at = self.entries.binary_search_by(|e| e.path.as_os_str().as_bytes().cmp(key)).ok()?;
        self.entries.get(at)
    }

    fn has_dir(&self, path: &Path) -> bool {
        path.as_os_str().is_empty() || self.find(path).is_some_and(|e| e.mode & KIND == DIRECTORY)
    }

    /// What has become of the files since `before`.
    pub(crate) fn since(&self, before: &Self) -> Changes {
        let mut changes = Changes::default();
        let mut listed: HashSet<&Path> = HashSet::new();
        // Directories that have come here by another name: that changed their time, but not those of the files in them.
        // Only there the inode counts, for not every file system gives a file the same one every time.
        let mut moved: HashSet<&Path> = HashSet::new();
        for entry in &self.entries {
            if let Some(old) = before.find(&entry.path) {
                let within = !moved.is_empty() && entry.path.parent().is_some_and(|above| moved.contains(above));
                let differs = old.state() != entry.state();
                let other = (differs || within) && old.inode != entry.inode;
                if other {
                    // A directory is sorted before what is in it.
                    moved.insert(&entry.path);
                }
                if !differs && !other {
                    continue;
                }
            }
            for path in entry.path.ancestors().filter(|p| !p.as_os_str().is_empty()) {
                if !listed.insert(path) {
                    break;
                }
            }
        }
        for entry in &before.entries {
            let above = entry.path.parent().unwrap_or(Path::new(""));
            if self.find(&entry.path).is_none() && self.has_dir(above) {
                changes.removed.push(entry.path.clone());
                listed.extend(above.ancestors().filter(|p| !p.as_os_str().is_empty()));
            }
        }
        changes.present = listed.into_iter().map(Path::to_owned).collect();
        changes.present.sort_unstable_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
        changes
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File, FileTimes},
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    };

    use super::*;

    #[test]
    fn changes_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for name in ["a/b/c", "a/b/d", "gone/x/y", "kept/f", "proc/1", "own/f", "tmp/apt-key-gpghome.1/f", "was/dir"] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), "x").unwrap();
        }
        let ignore = Ignore::new(root, &[PathBuf::from("/own")]).unwrap();
        let before = Snapshot::take(root, &ignore).unwrap();
        assert!(Snapshot::take(root, &ignore).unwrap().since(&before).is_empty());

        // Same size; the time of change is all that tells.
        fs::write(root.join("a/b/c"), "y").unwrap();
        fs::remove_dir_all(root.join("gone")).unwrap();
        fs::remove_dir_all(root.join("was")).unwrap();
        fs::write(root.join("was"), "file").unwrap();
        fs::write(root.join("proc/2"), "").unwrap();
        fs::write(root.join("own/g"), "").unwrap();
        fs::set_permissions(root.join("kept/f"), fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("new")).unwrap();
        let changes = Snapshot::take(root, &ignore).unwrap().since(&before);
        let names = |of: &[&str]| of.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(changes.present, names(&["a", "a/b", "a/b/c", "kept", "kept/f", "new", "was"]));
        assert_eq!(changes.removed, names(&["gone"]));
    }

    fn listed(root: &Path, change: impl FnOnce()) -> Vec<String> {
        let before = Snapshot::take(root, &Ignore::default()).unwrap();
        change();
        let changes = Snapshot::take(root, &Ignore::default()).unwrap().since(&before);
        let removed = changes.removed.iter().map(|path| format!("-{}", path.display()));
        removed.chain(changes.present.iter().map(|path| path.display().to_string())).collect()
    }

    #[test]
    fn times_are_changes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a/empty")).unwrap();
        fs::write(at("a/f"), "x").unwrap();
        symlink("f", at("a/l")).unwrap();
        let past = || FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(7));
        let touch = |name: &str, times| File::open(at(name)).unwrap().set_times(times).unwrap();
        touch("a/f", past());
        touch("a/empty", past());
        assert_eq!(listed(dir.path(), || touch("a/f", past())), ["a", "a/f"], "to what it was");
        assert_eq!(
            listed(dir.path(), || touch("a/empty", FileTimes::new().set_modified(UNIX_EPOCH))),
            ["a", "a/empty"]
        );
        // Layers keep the times of directories; so does the reference, and Docker where it has overlay file systems.
        let comes_and_goes = || {
            fs::write(at("a/empty/f"), "").unwrap();
            fs::remove_file(at("a/empty/f")).unwrap();
        };
        assert_eq!(listed(dir.path(), comes_and_goes), ["a", "a/empty"]);
        let look = || {
            fs::read(at("a/f")).unwrap();
            assert_eq!(fs::read_dir(at("a")).unwrap().count(), 3);
            File::options().append(true).open(at("a/f")).unwrap();
        };
        assert_eq!(listed(dir.path(), look), [""; 0]);
    }

    /// Of one size, mode and owner, and from one step of the clock, as files are that an archive brought.
    #[test]
    fn directories_that_are_swapped_bring_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("new/x/deep")).unwrap();
        fs::create_dir_all(at("old/x/deep")).unwrap();
        let names = ["old/x/deep/f", "new/x/deep/f", "old/x/g", "new/x/g", "old/x-g"];
        let time = |name: &str| {
            let found = at(name).metadata().unwrap();
            (found.ctime(), found.ctime_nsec())
        };
        loop {
            for name in names {
                let _ = fs::remove_file(at(name));
                fs::write(at(name), &name[..3]).unwrap();
            }
            if names.iter().all(|name| time(name) == time(names[0])) {
                break;
            }
        }
        let swap = || {
            for (from, to) in [("old/x", "t"), ("new/x", "old/x"), ("t", "new/x")] {
                fs::rename(at(from), at(to)).unwrap();
            }
        };
        let expected = ["new", "new/x", "new/x/deep", "new/x/deep/f", "new/x/g", "old", "old/x", "old/x/deep"];
        assert_eq!(listed(dir.path(), swap), [&expected[..], &["old/x/deep/f", "old/x/g"]].concat());
        // One that comes back under another inode with the same directories in it has nothing new in those.
        let around = || {
            fs::create_dir(at("t")).unwrap();
            fs::rename(at("old/x/deep"), at("t/deep")).unwrap();
            fs::rename(at("old/x/g"), at("t/g")).unwrap();
            fs::remove_dir(at("old/x")).unwrap();
            fs::rename(at("t"), at("old/x")).unwrap();
        };
        assert_eq!(listed(dir.path(), around), ["old", "old/x", "old/x/deep", "old/x/g"]);
    }
}
