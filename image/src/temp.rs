//! Files that appear whole or not at all.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::tar_stream::on_path;

/// A file under a name of its own, removed when dropped before it got its real one.
#[derive(Debug)]
pub(crate) struct TempFile {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl TempFile {
    /// In `dir`, which is made if need be.
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(dir).map_err(|e| on_path("create", dir, &e))?;
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!(".{}-{number}.tmp", std::process::id()));
            match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { path, file, kept: false }),
                // Left by a process of the same number, in another container.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(on_path("create", &path, &e)),
            }
        }
    }

    /// Gives the file its name; another of that name is replaced.
    pub(crate) fn persist(mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to).map_err(|e| on_path("create", to, &e))?;
        self.kept = true;
        Ok(())
    }

    /// A whole small file.
    pub(crate) fn put(to: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = Self::new(to.parent().unwrap_or(Path::new("/")))?;
        file.write_all(content).map_err(|e| on_path("write", to, &e))?;
        file.persist(to)
    }
}

impl Write for TempFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing more can be done about a file that cannot be removed.
            let _ = fs::remove_file(&self.path);
        }
    }
}
