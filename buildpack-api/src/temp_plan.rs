//! The plan file of one call, in a directory of its own that goes with it.

use std::{
    fs,
    hash::{BuildHasher, RandomState},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::{BuildpackPlan, RunError, parse::naming};

/// A plan file that only we and the module can read; removed with its directory when dropped.
pub(crate) struct TempPlan {
    dir: PathBuf,
    pub(crate) path: PathBuf,
}

impl TempPlan {
    /// `<tmp>/plan.*/plan.toml`, empty, for detect to fill.
    pub(crate) fn for_detect() -> Result<Self, RunError> {
        Self::write("plan.", Path::new(""), "").map_err(|error| RunError::Around(error.to_string()))
    }

    /// `<tmp>/<module>-*/<module>/plan.toml`, for build or generate to read.
    pub(crate) fn for_module(escaped_id: &str, plan: &BuildpackPlan) -> Result<Self, RunError> {
        Self::write(&format!("{escaped_id}-"), Path::new(escaped_id), &plan.to_toml())
            .map_err(|error| RunError::Around(error.to_string()))
    }

    fn write(prefix: &str, below: &Path, text: &str) -> io::Result<Self> {
        let dir = new_dir(&std::env::temp_dir(), prefix)?;
        // From here on it is removed whatever happens.
        let plan = Self { path: dir.join(below).join("plan.toml"), dir };
        if !below.as_os_str().is_empty() {
            let parent = plan.dir.join(below);
            fs::create_dir_all(&parent).map_err(|error| naming("create", &parent, &error))?;
        }
        fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&plan.path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| naming("write", &plan.path, &error))?;
        Ok(plan)
    }
}

impl Drop for TempPlan {
    fn drop(&mut self) {
        // Mostly the file is all there is.
        if fs::remove_file(&self.path).and_then(|()| fs::remove_dir(&self.dir)).is_ok() {
            return;
        }
        // A directory that stays behind in a build container harms nobody, and there is no one to tell.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn new_dir(parent: &Path, prefix: &str) -> io::Result<PathBuf> {
    loop {
        let dir = parent.join(format!("{prefix}{:016x}", RandomState::new().hash_one(0)));
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(naming("create", &dir, &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::Require;

    #[test]
    fn plans_are_private_and_go_when_they_are_dropped() {
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let detect = TempPlan::for_detect().unwrap();
        assert_eq!((mode(&detect.path), mode(&detect.dir)), (0o600, 0o700));
        assert_eq!(fs::read(&detect.path).unwrap(), b"");

        let entries = vec![Require { name: "x".to_owned(), metadata: None }];
        let build = TempPlan::for_module("a_b", &BuildpackPlan { entries }).unwrap();
        assert!(build.path.ends_with("a_b/plan.toml"));
        assert!(build.dir.file_name().unwrap().to_str().unwrap().starts_with("a_b-"));
        assert_eq!(fs::read_to_string(&build.path).unwrap(), "[[entries]]\nname = \"x\"\n");

        fs::write(build.dir.join("left"), "by the buildpack").unwrap();
        let dirs = [detect.dir.clone(), build.dir.clone()];
        drop((detect, build));
        assert!(dirs.iter().all(|dir| !dir.exists()));
    }
}
