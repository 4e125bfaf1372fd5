//! Checksums of blocks beside the tars of a cache volume: restore is quicker with them, and the same without.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{World, logged};
use phases::cache::{Cache, VolumeCache};
use platform_api::LayersMetadata;

/// Bytes of a block.
const BLOCK: usize = 512 << 10;

/// What happens to a file of the cache.
type Harm<'a> = &'a dyn Fn(&Path);

fn open(world: &World) -> Cache {
    Cache::Volume(VolumeCache::open(&world.path("cache")).unwrap())
}

/// The contents of a layer of several blocks.
fn content() -> String {
    (0..2_000_000_u64).map(|n| char::from_digit(u32::try_from(n * n % 9_973 % 10).unwrap(), 10).unwrap()).collect()
}

fn export(world: &World) -> Vec<String> {
    let (result, lines) = logged(|| world.export(&world.exporter("app"), &world.analyzed(), Some(open(world))));
    result.unwrap();
    lines
}

/// A world with such a layer, cached and gone.
fn cached() -> World {
    let world = World::in_layout();
    world.layer("jdk", "cache = true", Some(&content()));
    export(&world);
    world.clear_layers();
    world
}

fn restore(world: &World) -> Vec<String> {
    let (result, lines) = logged(|| world.restore(&LayersMetadata::default(), Some(&open(world))));
    result.unwrap();
    lines
}

/// The files of the cache in force that end so.
fn committed(world: &World, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(world.path("cache/committed")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_str().unwrap().ends_with(end)).collect()
}

fn only(mut paths: Vec<PathBuf>) -> PathBuf {
    assert_eq!(paths.len(), 1, "{paths:?}");
    paths.remove(0)
}

/// The checksums of the only tar; layers of the app image that are not cached have some too.
fn of_tar(world: &World) -> PathBuf {
    let mut sums = only(committed(world, ".tar")).into_os_string();
    sums.push(".sums");
    sums.into()
}

/// Whether restore took the quick way.
fn is_quick(lines: &[String]) -> bool {
    !lines.iter().any(|line| line.contains("once more"))
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_tar_has_one_for_each_of_its_blocks() {
    let world = World::in_layout();
    world.layer("jdk", "cache = true", Some(&content()));
    export(&world);
    let sums = of_tar(&world);
    let tar = PathBuf::from(sums.to_str().unwrap().strip_suffix(".sums").unwrap());
    let blocks = usize::try_from(fs::metadata(tar).unwrap().len()).unwrap().div_ceil(BLOCK);
    assert!(blocks > 3);
    assert_eq!(fs::read_to_string(&sums).unwrap().lines().count(), 1 + blocks);
    // They go when the tar goes.
    world.layer("jdk", "cache = true", Some("small"));
    export(&world);
    assert!(!sums.exists() && of_tar(&world).exists());
}

#[test]
fn sums_that_do_not_fit_cost_time_and_no_layer() {
    let edit = |sums: &Path, edit: &dyn Fn(String) -> String| {
        fs::write(sums, edit(fs::read_to_string(sums).unwrap())).unwrap();
    };
    let rows: [(&str, Harm<'_>, bool); 7] = [
        ("as they were", &|_| {}, true),
        ("none", &|sums| fs::remove_file(sums).unwrap(), true),
        ("empty", &|sums| fs::write(sums, "").unwrap(), true),
        ("no text", &|sums| fs::write(sums, [0xff; 99]).unwrap(), true),
        (
            "of a tar of another size",
            &|sums| edit(sums, &|text| text.replacen(" bytes in all", "0 bytes in all", 1)),
            true,
        ),
        ("cut off", &|sums| edit(sums, &|text| text[..text.len() - 40].to_owned()), true),
        ("of other blocks", &|sums| flip(sums, fs::read(sums).unwrap().len() - 2), false),
    ];
    for (name, harm, quick) in rows {
        let world = cached();
        let sums = of_tar(&world);
        let good = fs::read_to_string(&sums).unwrap();
        harm(&sums);
        let lines = restore(&world);
        assert_eq!(is_quick(&lines), quick, "{name}: {lines:?}");
        assert!(!lines.iter().any(|line| line.contains("Skipping")), "{name}: {lines:?}");
        assert!(world.text("layers/acme_jvm/jdk/bin/tool") == content(), "{name}");
        assert!(world.exists("layers/acme_jvm/jdk.toml"), "{name}");
        // Who read all of the tar leaves what spares the next one that.
        assert_eq!(fs::read_to_string(&sums).unwrap(), good, "{name}");
        world.clear_layers();
        let lines = restore(&world);
        assert!(is_quick(&lines), "{name}: {lines:?}");
    }
}

#[test]
fn a_damaged_tar_is_found_with_sums_as_without() {
    let shorten = |tar: &Path| {
        let length = fs::metadata(tar).unwrap().len();
        fs::File::options().write(true).open(tar).unwrap().set_len(length - BLOCK as u64).unwrap();
    };
    let lose = |tar: &Path| {
        let mut bytes = fs::read(tar).unwrap();
        bytes[BLOCK..2 * BLOCK].fill(0);
        fs::write(tar, bytes).unwrap();
    };
    let rows: [(&str, Harm<'_>); 5] = [
        ("a bit of a file", &|tar| flip(tar, 3 * BLOCK / 2)),
        ("a bit of a header", &|tar| flip(tar, 20)),
        ("a bit of the end", &|tar| flip(tar, fs::read(tar).unwrap().len() - 1)),
        ("a block that was never written", &lose),
        ("truncated", &shorten),
    ];
    for (name, harm) in rows {
        for with_sums in [true, false] {
            let world = cached();
            harm(&only(committed(&world, ".tar")));
            if !with_sums {
                fs::remove_file(of_tar(&world)).unwrap();
            }
            let lines = restore(&world);
            assert!(
                lines.iter().any(|line| line.starts_with("Warning: Skipping restore for layer acme/jvm:jdk: ")),
                "{name}: {lines:?}"
            );
            let left = |name: &str| world.exists(&format!("layers/acme_jvm/{name}"));
            assert!(!left("jdk") && !left("jdk.toml"), "{name}: neither contents nor description");
            // The next export makes it whole.
            world.layer("jdk", "cache = true", Some(&content()));
            export(&world);
            world.clear_layers();
            let lines = restore(&world);
            assert!(is_quick(&lines), "{name}: {lines:?}");
            assert!(world.text("layers/acme_jvm/jdk/bin/tool") == content(), "{name}");
        }
    }
}

/// The reference makes the next `committed/` of its own files.
#[test]
fn sums_of_a_tar_that_was_replaced_do_not_outlive_it() {
    let world = cached();
    let sums = of_tar(&world);
    let old = fs::read_to_string(&sums).unwrap();
    fs::remove_file(&sums).unwrap();
    restore(&world);
    assert_eq!(fs::read_to_string(&sums).unwrap(), old, "made of the same bytes");
}
