//! Directories of one's own in a place that several processes share, in containers of their own: each has process 1,
//! so the number of the process tells nothing.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::{Error, Result};

/// A directory that nobody else uses; removed when it is dropped. What a killed process left is taken over, empty: the
/// kernel holds a lock for those alive.
#[derive(Debug)]
pub struct Work {
    path: PathBuf,
    /// The lock; for as long as it is open.
    _held: File,
}

impl Work {
    /// `<parent>/<prefix><number>`
    ///
    /// # Errors
    /// Naming the directory that cannot be made.
    pub fn new(parent: &Path, prefix: &str) -> Result<Self> {
        fs::create_dir_all(parent).map_err(|e| Error::at("create", parent, &e))?;
        for n in 0_u32.. {
            let path = parent.join(format!("{prefix}{n}"));
            if let Some(held) = take(&path).map_err(|e| Error::at("create", &path, &e))? {
                return Ok(Self { path, _held: held });
            }
        }
        Err(Error::new(format!("{} is full of directories of others", parent.display())))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!("Cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Makes the directory, or takes it where nobody holds it. `None`: it is somebody's.
fn take(path: &Path) -> io::Result<Option<File>> {
    let made = match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        made => made.map(|()| true)?,
    };
    let held = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        held => held?,
    };
    match flock(&held, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        // Not every file system has locks; what is there already may be in use then.
        Err(_) => return Ok(made.then_some(held)),
    }
    // Who held it may have removed it since it was opened. A link or a file is not ours to empty.
    let (ours, found) = (held.metadata()?, path.symlink_metadata().ok());
    if !found.is_some_and(|found| found.is_dir() && (found.dev(), found.ino()) == (ours.dev(), ours.ino())) {
        return Ok(None);
    }
    if !made {
        fs::read_dir(path)?.try_for_each(|entry| crate::unpack::remove(&entry?.path(), true))?;
    }
    Ok(Some(held))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, thread};

    use super::*;

    /// Platforms extend build and run image at once, in containers that share the directory.
    #[test]
    fn two_at_once_are_not_in_each_others_way() {
        let parent = tempfile::tempdir().unwrap();
        let (one, other) = (Work::new(parent.path(), "w-").unwrap(), Work::new(parent.path(), "w-").unwrap());
        assert_ne!(one.path(), other.path());
        drop(one);
        fs::write(other.path().join("layer"), "").unwrap();
        drop(other);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);

        let many = || {
            for n in 0..200 {
                let work = Work::new(parent.path(), "w-").unwrap();
                let own = work.path().join("own");
                File::create_new(&own).unwrap();
                fs::write(&own, n.to_string()).unwrap();
                assert_eq!(fs::read_to_string(&own).unwrap(), n.to_string());
            }
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(many);
            }
        });
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_process_left_is_taken_over() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir_all(parent.path().join("w-0/blobs")).unwrap();
        fs::write(parent.path().join("w-0/blobs/half"), "").unwrap();
        let work = Work::new(parent.path(), "w-").unwrap();
        assert!(work.path().ends_with("w-0"));
        assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0);
        drop(work);
        // But nothing else that has the name.
        let kept = parent.path().join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        symlink(&kept, parent.path().join("w-0")).unwrap();
        fs::write(parent.path().join("w-1"), "").unwrap();
        assert!(Work::new(parent.path(), "w-").unwrap().path().ends_with("w-2"));
        assert!(kept.join("file").exists() && parent.path().join("w-1").exists());
    }
}
