//! What the tests of layers and layouts share.
#![allow(dead_code, reason = "no test uses all of it")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use image::{Destination, Event, LayerJob, LayerResult, Owner, Pipeline, Recipe, Result};

pub(crate) const OWNER: Owner = Owner { uid: 1234, gid: 3_000_000_000 };

/// Bytes that do not compress, the same every time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}

/// A directory with everything users' directories have.
pub(crate) fn tree(dir: &Path) {
    let app = dir.join("app");
    fs::create_dir_all(app.join("a")).unwrap();
    fs::create_dir_all(app.join("d/e")).unwrap();
    fs::write(app.join("a/f"), "in a directory").unwrap();
    fs::write(app.join("a-b"), "sorts between the directory and its content").unwrap();
    fs::write(app.join("empty"), "").unwrap();
    fs::write(app.join("block"), vec![b'x'; 512]).unwrap();
    fs::write(app.join("noise"), noise(3 << 20)).unwrap();
    fs::write(app.join("text"), "all work and no play\n".repeat(200_000)).unwrap();
    fs::write(app.join("ünïcode"), "é").unwrap();
    fs::write(app.join("n".repeat(255)), "long").unwrap();
    symlink("../nowhere", app.join("link")).unwrap();
    fs::set_permissions(app.join("a/f"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(app.join("d"), fs::Permissions::from_mode(0o2770)).unwrap();
}

pub(crate) fn job(name: &str, recipe: Recipe) -> LayerJob {
    LayerJob {
        name: name.to_owned(),
        recipe,
        reusable: Vec::new(),
        to: None,
        cache_to: None,
        tar_to: None,
        known: None,
    }
}

pub(crate) fn to_layout(name: &str, recipe: Recipe, dir: &Path) -> LayerJob {
    LayerJob { to: Some(Destination::Layout(dir.to_owned())), ..job(name, recipe) }
}

pub(crate) fn run(workers: usize, jobs: Vec<LayerJob>) -> Result<Vec<LayerResult>> {
    let quiet = |_: Event<'_>| {};
    Pipeline { workers, docker: false, on_event: &quiet }.run(jobs)
}

pub(crate) fn tar_of(recipe: &Recipe) -> Vec<u8> {
    let mut tar = Vec::new();
    recipe.write_to(&mut tar).unwrap();
    tar
}
