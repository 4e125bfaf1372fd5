//! The cache in a volume: written by export, read by restore, and never half, whenever a build is killed.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{fs, path::Path};

use acceptance::tree::Entry;
use common::{World, files, logged, shown};
use phases::cache::{Cache, VolumeCache};
use platform_api::LayersMetadata;

const METADATA: &str = "io.buildpacks.lifecycle.cache.metadata";

fn open(world: &World) -> Cache {
    Cache::Volume(VolumeCache::open(&world.path("cache")).unwrap())
}

/// A world whose build has a cached layer, exported to image `app` and to the cache.
fn built(types: &str) -> World {
    let world = World::in_layout();
    world.layer("jdk", types, Some("java"));
    world.write(&[
        ("layers/sbom/cache/acme_jvm/jdk/sbom.cdx.json", Entry::File("{\"from\":\"cache\"}")),
        ("layers/sbom/launch/acme_jvm/jdk/sbom.cdx.json", Entry::File("{\"from\":\"launch\"}")),
    ]);
    world.export(&world.exporter("app"), &world.analyzed(), Some(open(&world))).unwrap();
    world
}

fn tars(dir: &Path) -> Vec<String> {
    files(dir).into_iter().filter(|name| Path::new(name).extension() == Some("tar".as_ref())).collect()
}

#[test]
fn export_writes_what_the_reference_reads() {
    let world = built("cache = true\nlaunch = true");
    let committed = world.path("cache/committed");
    assert_eq!(tars(&committed).len(), 2, "layer and SBOM");
    let label: serde_json::Value = serde_json::from_str(&world.text(&format!("cache/committed/{METADATA}"))).unwrap();
    let jdk = &label["buildpacks"][0]["layers"]["jdk"];
    assert_eq!(label["buildpacks"][0]["key"], "acme/jvm");
    assert_eq!(jdk["data"], serde_json::json!({"version": 7}));
    assert_eq!((&jdk["cache"], &jdk["launch"], &jdk["build"]), (&true.into(), &true.into(), &false.into()));
    for sha in [&jdk["sha"], &label["sbom"]["sha"]] {
        assert!(committed.join(format!("{}.tar", sha.as_str().unwrap())).is_file(), "{sha}");
    }
    assert!(!world.exists("cache/staging") && !world.exists("cache/committed-backup"));
}

#[test]
fn restore_reads_what_export_wrote() {
    let world = built("cache = true\nlaunch = true");
    world.clear_layers();
    let analyzed = world.analyze("app");
    let (result, lines) = logged(|| world.restore(&analyzed.metadata, Some(&open(&world))));
    result.unwrap();
    assert_eq!(
        shown(&lines),
        [
            "Restoring metadata for \"acme/jvm:jdk\" from app image",
            "Restoring data for \"acme/jvm:jdk\" from cache",
            "Restoring data for SBOM from cache",
        ]
    );
    assert_eq!(world.text("layers/acme_jvm/jdk/bin/tool"), "java");
    assert_eq!(world.text("layers/acme_jvm/jdk.toml"), "[metadata]\nversion = 7\n");
    assert_eq!(world.text("layers/acme_jvm/jdk.sbom.cdx.json"), "{\"from\":\"launch\"}", "launch wins");
    assert!(!world.exists("layers/sbom"));
}

#[test]
fn a_second_build_reuses_the_cache_by_link() {
    use std::os::unix::fs::MetadataExt;
    let world = built("cache = true");
    let tar = world.path("cache/committed").join(&tars(&world.path("cache/committed"))[0]);
    let inode = fs::metadata(&tar).unwrap().ino();
    let directory = world.inode("cache/committed");
    let (result, lines) = logged(|| world.export(&world.exporter("app"), &world.analyzed(), Some(open(&world))));
    result.unwrap();
    assert!(lines.iter().any(|line| line == "Reusing cache layer 'acme/jvm:jdk'"), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("Adding cache layer")), "{lines:?}");
    assert_eq!(fs::metadata(&tar).unwrap().ino(), inode);
    assert_eq!(world.inode("cache/committed"), directory, "nothing new, nothing written");
    assert!(!world.exists("cache/staging"));
    // Metadata alone changed: the layer is linked.
    fs::write(world.path("layers/acme_jvm/jdk.toml"), "[types]\ncache = true\n[metadata]\nversion = 8\n").unwrap();
    world.export(&world.exporter("app"), &world.analyzed(), Some(open(&world))).unwrap();
    assert_ne!(world.inode("cache/committed"), directory);
    assert_eq!(fs::metadata(&tar).unwrap().ino(), inode);
    assert!(world.text(&format!("cache/committed/{METADATA}")).contains("\"version\":8"));
    // A changed layer replaces the old one.
    world.layer("jdk", "cache = true", Some("newer"));
    let (result, lines) = logged(|| world.export(&world.exporter("app"), &world.analyzed(), Some(open(&world))));
    result.unwrap();
    assert!(lines.iter().any(|line| line == "Adding cache layer 'acme/jvm:jdk'"), "{lines:?}");
    assert_eq!(tars(&world.path("cache/committed")).len(), 2);
}

/// Checksums are made of all layers, cached or not; by them the next export knows what it need not hash and send.
#[test]
fn layers_are_known_by_their_checksums() {
    let world = built("cache = true\nlaunch = true");
    let committed = world.path("cache/committed");
    let sums = || -> Vec<String> { files(&committed).into_iter().filter(|name| name.ends_with(".tar.sums")).collect() };
    let before = sums();
    let image = world.find("app");
    let base = world.find("run").config.diff_ids.len();
    let ours: Vec<String> = image.config.diff_ids[base..].iter().map(|id| format!("{id}.tar.sums")).collect();
    assert!(ours.len() > 4 && ours.iter().all(|name| before.contains(name)), "{ours:?} {before:?}");
    let export = || {
        let (result, lines) =
            logged(|| world.export(&world.exporter("app"), &world.analyze("app"), Some(open(&world))));
        result.unwrap();
        let added = |line: &&String| line.starts_with("Adding layer") || line.starts_with("Adding cache layer");
        (lines.iter().filter(added).count(), world.find("app").config.diff_ids)
    };
    let directory = world.inode("cache/committed");
    assert_eq!(export(), (0, image.config.diff_ids.clone()));
    assert_eq!(world.inode("cache/committed"), directory, "nothing new, nothing written");
    // None at all, as in a cache of the reference; damaged ones; those of other layers: the image is the same.
    let forget = |name: &String| fs::remove_file(committed.join(name)).unwrap();
    let damage = |name: &String| fs::write(committed.join(name), "BLAKE3 of blocks\n").unwrap();
    for harm in [&forget as &dyn Fn(&String), &damage] {
        before.iter().for_each(harm);
        assert_eq!(export(), (0, image.config.diff_ids.clone()));
        assert_eq!(sums(), before, "made again");
    }
    world.write(&[("app/changed", Entry::File("x"))]);
    let (_, changed) = export();
    assert_eq!(changed.iter().filter(|diff_id| !image.config.diff_ids.contains(diff_id)).count(), 1);
    assert_eq!(sums().len(), before.len());
}

#[test]
fn a_corrupt_layer_is_not_restored_and_not_reused() {
    let world = built("cache = true");
    for tar in tars(&world.path("cache/committed")) {
        let path = world.path("cache/committed").join(tar);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    world.clear_layers();
    let (result, lines) = logged(|| world.restore(&LayersMetadata::default(), Some(&open(&world))));
    result.unwrap();
    let skipped = |line: &&String| {
        line.starts_with("Warning: Skipping restore for layer acme/jvm:jdk: expected layer contents to have SHA '")
    };
    assert_eq!(lines.iter().filter(skipped).count(), 1, "{lines:?}");
    assert!(!world.exists("layers/acme_jvm/jdk") && !world.exists("layers/acme_jvm/jdk.toml"), "neither is left");

    world.layer("jdk", "cache = true", Some("java"));
    let (result, lines) = logged(|| world.export(&world.exporter("app"), &world.analyzed(), Some(open(&world))));
    result.unwrap();
    assert!(
        lines
            .iter()
            .any(|l| l
                .starts_with("Warning: Skipping reuse for layer acme/jvm:jdk: expected layer contents to have SHA '")),
        "{lines:?}"
    );
    assert!(lines.iter().any(|line| line == "Adding cache layer 'acme/jvm:jdk'"), "{lines:?}");
    world.clear_layers();
    world.restore(&LayersMetadata::default(), Some(&open(&world))).unwrap();
    assert_eq!(world.text("layers/acme_jvm/jdk/bin/tool"), "java");
}

/// What happens to a cached layer's tar between two builds, whether the second one may link to it, and whether it says
/// that it does not.
#[test]
fn a_layer_that_was_touched_since_the_commit_is_read_in_full() {
    use std::{fs::File, time::SystemTime};
    type Harm<'a> = &'a dyn Fn(&Path);

    let flip = |tar: &Path| {
        let mut bytes = fs::read(tar).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(tar, bytes).unwrap();
    };
    let age = |path: &Path, seconds: u64| {
        let time = SystemTime::now() - std::time::Duration::from_secs(seconds);
        File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
    };
    let shorten = |tar: &Path| File::options().write(true).open(tar).unwrap().set_len(512).unwrap();
    let rows: [(&str, Harm<'_>, bool); 6] = [
        ("nothing", &|_| {}, true),
        ("copied to another volume, so newer than the metadata", &|tar| age(tar, 10), true),
        ("modified in place, at the same size", &flip, false),
        (
            "modified in place, in the instant of the commit",
            &|tar| {
                flip(tar);
                age(tar, 60);
            },
            false,
        ),
        ("truncated", &shorten, false),
        (
            "truncated, and older than the metadata",
            &|tar| {
                shorten(tar);
                age(tar, 3600);
            },
            false,
        ),
    ];
    for (name, harm, reused) in rows {
        let world = built("cache = true");
        let committed = world.path("cache/committed");
        let instant = SystemTime::now() - std::time::Duration::from_secs(60);
        File::options().append(true).open(committed.join(METADATA)).unwrap().set_modified(instant).unwrap();
        for tar in tars(&committed) {
            harm(&committed.join(&tar));
            if name.contains("instant") {
                File::options().append(true).open(committed.join(tar)).unwrap().set_modified(instant).unwrap();
            }
        }
        let (result, lines) = logged(|| world.export(&world.exporter("app"), &world.analyzed(), Some(open(&world))));
        result.unwrap();
        let skipped = "Warning: Skipping reuse for layer acme/jvm:jdk: expected layer contents to have SHA '";
        assert_eq!(lines.iter().any(|line| line.starts_with(skipped)), !reused, "{name}: {lines:?}");
        let verb = if reused { "Reusing" } else { "Adding" };
        assert!(lines.contains(&format!("{verb} cache layer 'acme/jvm:jdk'")), "{name}: {lines:?}");
        world.clear_layers();
        world.restore(&LayersMetadata::default(), Some(&open(&world))).unwrap();
        assert_eq!(world.text("layers/acme_jvm/jdk/bin/tool"), "java", "{name}");
    }
}

/// A disk may lose bits without any file's time changing: restore finds out, and the next export has to know.
#[test]
fn a_layer_that_could_not_be_restored_is_cached_anew() {
    let world = built("cache = true");
    for tar in tars(&world.path("cache/committed")) {
        let path = world.path("cache/committed").join(tar);
        let (time, mut bytes) = (fs::metadata(&path).unwrap().modified().unwrap(), fs::read(&path).unwrap());
        bytes[600] ^= 1;
        fs::write(&path, bytes).unwrap();
        let long_ago = time - std::time::Duration::from_secs(60);
        fs::File::options().append(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    }
    world.clear_layers();
    world.restore(&LayersMetadata::default(), Some(&open(&world))).unwrap();
    assert!(!world.exists("layers/acme_jvm/jdk.toml"));
    world.layer("jdk", "cache = true", Some("java"));
    world.export(&world.exporter("app"), &world.analyzed(), Some(open(&world))).unwrap();
    world.clear_layers();
    world.restore(&LayersMetadata::default(), Some(&open(&world))).unwrap();
    assert_eq!(world.text("layers/acme_jvm/jdk/bin/tool"), "java");
}

#[test]
fn a_missing_layer_is_not_restored() {
    let world = built("cache = true");
    for tar in tars(&world.path("cache/committed")) {
        fs::remove_file(world.path("cache/committed").join(tar)).unwrap();
    }
    world.clear_layers();
    let (result, lines) = logged(|| world.restore(&LayersMetadata::default(), Some(&open(&world))));
    result.unwrap();
    assert!(
        lines.iter().any(|l| l.contains("acme/jvm:jdk: failed to find cache layer with SHA 'sha256:")),
        "{lines:?}"
    );
    assert!(!world.exists("layers/acme_jvm/jdk.toml"));
}

#[test]
fn a_layer_without_contents_is_not_cached() {
    let world = World::in_layout();
    world.layer("gone", "cache = true", None);
    let (result, lines) = logged(|| world.export(&world.exporter("app"), &world.analyzed(), Some(open(&world))));
    result.unwrap();
    let warning = "Warning: Failed to cache layer 'acme/jvm:gone' because it has no contents";
    assert!(lines.iter().any(|line| line == warning), "{lines:?}");
    let text = world.text(&format!("cache/committed/{METADATA}"));
    assert_eq!(
        text,
        "{\"sbom\":{\"sha\":\"\"},\"buildpacks\":[{\"key\":\"acme/jvm\",\"version\":\"1.0\",\"layers\":{}}]}\n"
    );
}

#[test]
fn a_cache_that_cannot_be_written_fails_no_export() {
    let world = World::in_layout();
    world.layer("jdk", "cache = true\nlaunch = true", Some("java"));
    let cache = open(&world);
    // In the place of the staging directory stands what cannot be one.
    fs::remove_dir_all(world.path("cache")).unwrap();
    fs::write(world.path("cache"), "").unwrap();
    let (result, lines) = logged(|| world.export(&world.exporter("app"), &world.analyzed(), Some(cache)));
    result.unwrap();
    assert!(lines.iter().any(|line| line.starts_with("Warning: Failed to export cache: ")), "{lines:?}");
    acceptance::image::LayoutImage::open(&world.layout("app")).validate();
}

#[test]
fn a_cache_that_cannot_be_understood_is_empty() {
    let world = built("cache = true");
    fs::write(world.path(&format!("cache/committed/{METADATA}")), "{").unwrap();
    world.clear_layers();
    world.restore(&LayersMetadata::default(), Some(&open(&world))).unwrap();
    assert!(!world.exists("layers/acme_jvm/jdk.toml"));
    assert!(VolumeCache::open(&world.path("no such directory")).is_err());
}

/// Every state of the directories that a kill can leave, in the order of a commit.
#[test]
fn a_kill_leaves_the_old_cache_or_the_new_one() {
    let world = built("cache = true");
    let (dir, keep) = (world.path("cache"), world.path("keep"));
    copy(&dir.join("committed"), &keep.join("old"));
    world.layer("jdk", "cache = true", Some("newer"));
    world.export(&world.exporter("app"), &world.analyzed(), Some(open(&world))).unwrap();
    copy(&dir.join("committed"), &keep.join("new"));

    for (why, state, expected) in [
        ("before anything", vec![("old", "committed")], "java"),
        ("while staging is filled", vec![("old", "committed"), ("half", "staging")], "java"),
        ("staging is full", vec![("old", "committed"), ("new", "staging")], "java"),
        ("between the renames", vec![("old", "committed-backup"), ("new", "staging")], "java"),
        ("after the renames", vec![("old", "committed-backup"), ("new", "committed")], "newer"),
        ("while the old one is removed", vec![("half", "committed-discarded"), ("new", "committed")], "newer"),
        ("at the end", vec![("new", "committed")], "newer"),
        ("taken back, and killed again", vec![("old", "committed"), ("new", "staging")], "java"),
    ] {
        fs::remove_dir_all(&dir).unwrap();
        fs::create_dir(&dir).unwrap();
        for (content, name) in state {
            match content {
                "half" => {
                    fs::create_dir(dir.join(name)).unwrap();
                    fs::write(dir.join(name).join("sha256:x.tar"), "half").unwrap();
                }
                content => copy(&keep.join(content), &dir.join(name)),
            }
        }
        world.clear_layers();
        world.restore(&LayersMetadata::default(), Some(&open(&world))).unwrap();
        assert_eq!(world.text("layers/acme_jvm/jdk/bin/tool"), expected, "{why}");
        // And the next build can save its cache.
        world.layer("jdk", "cache = true", Some("newest"));
        let (result, lines) = logged(|| world.export(&world.exporter("app"), &world.analyzed(), Some(open(&world))));
        result.unwrap();
        assert!(!lines.iter().any(|line| line.contains("Failed to export cache")), "{why}: {lines:?}");
        world.clear_layers();
        world.restore(&LayersMetadata::default(), Some(&open(&world))).unwrap();
        assert_eq!(world.text("layers/acme_jvm/jdk/bin/tool"), "newest", "{why}");
        let left = files(&dir).into_iter().filter(|name| !name.starts_with('.')).collect::<Vec<_>>();
        assert_eq!(left, ["committed"], "{why}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in files(from) {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

/// While one build fills the staging directory another waits, and takes over nothing half done.
#[test]
fn two_builds_share_a_volume() {
    let world = built("cache = true");
    let first = open(&world);
    let staging = first.stage().unwrap();
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let second = open(&world);
            // Reading is not held up by a build that prepares its cache.
            drop(second.lock_for_reading());
            done.send("read").unwrap();
            let staging = second.stage().unwrap();
            done.send("staged").unwrap();
            drop(staging);
        });
        assert_eq!(finished.recv().unwrap(), "read");
        assert!(finished.recv_timeout(std::time::Duration::from_millis(200)).is_err(), "the second build waits");
        drop(staging);
        assert_eq!(finished.recv().unwrap(), "staged");
    });
}
