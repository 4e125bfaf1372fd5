#![no_main]
//! Taking over another tool's tar, gzipped or not: it is as long as announced, and taken over once more the same.

use std::io::{self, Write};

use image::Recipe;
use libfuzzer_sys::fuzz_target;

/// A sparse file may be as long as a tar can say.
const LIMIT: usize = 4 << 20;

struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LIMIT {
            return Err(io::Error::other("longer than this target takes"));
        }
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn take_over(tar: &[u8]) -> Option<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("tar");
    std::fs::write(&path, tar).expect("a file");
    let recipe = Recipe::tar(&path);
    let mut taken = Limited(Vec::new());
    recipe.write_to(&mut taken).ok()?;
    assert_eq!(recipe.tar_size().expect("what can be streamed has a size"), taken.0.len() as u64);
    Some(taken.0)
}

fuzz_target!(|data: &[u8]| {
    if let Some(once) = take_over(data) {
        assert_eq!(take_over(&once).as_ref(), Some(&once));
    }
});
