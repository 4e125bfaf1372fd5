//! Exports to a real registry: layers shared by image and cache, cache images that do not grow, several names.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeSet;

use common::{World, logged};
use phases::cache::{Cache, ImageCache};
use platform_api::{LayersMetadata, PlatformApi};

fn open(world: &World) -> Cache {
    Cache::Image(ImageCache::open(&world.name("cache:latest"), &world.registry, world.api).unwrap())
}

#[test]
fn image_and_cache_are_there_and_repeat() {
    let mut world = World::in_registry();
    world.layer("jdk", "launch = true\ncache = true", Some("java"));
    world.layer("deps", "cache = true", Some("jars"));
    let mut i = world.exporter("app:v1");
    i.output_images.push(world.name("app:v2"));
    let report = world.export(&i, &world.analyzed(), Some(open(&world))).unwrap();
    let digest = report.image.digest.clone().unwrap();
    assert_eq!(report.image.tags, i.output_images);
    assert!(report.image.manifest_size.unwrap() > 0);
    world.renew();
    for name in ["app:v1", "app:v2"] {
        let image = world.find(name);
        assert!(image.id.as_ref().unwrap().to_string().ends_with(&digest));
        assert_eq!(world.registry.missing_blob(&image.layers).unwrap(), None);
    }
    let cache = world.find("cache:latest");
    assert_eq!(cache.layers.len(), 2);
    assert_eq!(cache.config.created.as_deref(), Some("1980-01-01T00:00:01Z"));
    let blobs = |image: &image::Image| -> BTreeSet<_> {
        image.layers.iter().map(|l| l.blob.as_ref().unwrap().digest.clone()).collect()
    };
    assert_eq!(blobs(&cache).intersection(&blobs(&world.find("app:v1"))).count(), 1, "one blob for both");

    // Again, with the previous image and the cache: the same image, and no larger cache.
    let (report, lines) = logged(|| world.export(&i, &world.analyze("app:v1"), Some(open(&world))));
    assert_eq!(report.unwrap().image.digest, Some(digest));
    for line in
        ["Reusing layer 'acme/jvm:jdk'", "Reusing cache layer 'acme/jvm:deps'", "Reusing cache layer 'acme/jvm:jdk'"]
    {
        assert!(lines.iter().any(|l| l == line), "{line}: {lines:?}");
    }
    assert!(!lines.iter().any(|line| line.starts_with("Adding cache layer")), "{lines:?}");
    world.renew();
    assert_eq!(world.find("cache:latest").id, cache.id);

    world.clear_layers();
    world.restore(&world.analyze("app:v1").metadata, Some(&open(&world))).unwrap();
    assert_eq!(world.text("layers/acme_jvm/jdk/bin/tool"), "java");
    assert_eq!(world.text("layers/acme_jvm/deps/bin/tool"), "jars");
}

#[test]
fn an_empty_cache_has_one_empty_layer() {
    let mut world = World::in_registry();
    let (report, lines) = logged(|| world.export(&world.exporter("app"), &world.analyzed(), Some(open(&world))));
    report.unwrap();
    assert!(lines.iter().any(|line| line == "Layer cache not found"), "{lines:?}");
    world.renew();
    assert_eq!(world.find("cache:latest").layers.len(), 1);
    world.restore(&LayersMetadata::default(), Some(&open(&world))).unwrap();
}

#[test]
fn a_replaced_cache_is_deleted_before_api_0_13() {
    for (api, kept) in [(PlatformApi::V0_12, false), (PlatformApi::V0_13, true)] {
        let mut world = World::in_registry();
        world.api = api;
        world.layer("deps", "cache = true", Some("one"));
        world.export(&world.exporter("app"), &world.analyzed(), Some(open(&world))).unwrap();
        let old = world.find("cache:latest").id.unwrap().to_string();
        world.renew();
        world.layer("deps", "cache = true", Some("two"));
        world.export(&world.exporter("app"), &world.analyzed(), Some(open(&world))).unwrap();
        world.renew();
        assert_eq!(world.images.find(&old).unwrap().is_some(), kept, "{api}");
        world.find("cache:latest");
    }
}

#[test]
fn a_cache_that_lost_a_blob_begins_anew() {
    let mut world = World::in_registry();
    world.layer("deps", "cache = true", Some("one"));
    world.export(&world.exporter("app"), &world.analyzed(), Some(open(&world))).unwrap();
    let digest = world.find("cache:latest").layers[0].blob.clone().unwrap().digest;
    let hex = digest.hex();
    std::fs::remove_dir_all(world.storage().join(format!("docker/registry/v2/blobs/sha256/{}/{hex}", &hex[..2])))
        .unwrap();
    world.renew();
    let (cache, lines) = logged(|| open(&world));
    assert!(lines.iter().any(|line| line.starts_with("Ignoring cache image ")), "{lines:?}");
    world.export(&world.exporter("app"), &world.analyzed(), Some(cache)).unwrap();
    world.renew();
    let cache = world.find("cache:latest");
    assert_eq!(world.registry.missing_blob(&cache.layers).unwrap(), None);
}

#[test]
fn a_registry_that_refuses_the_cache_fails_no_export() {
    let world = World::in_registry();
    world.layer("deps", "cache = true", Some("one"));
    let cache = open(&world);
    // A file where the registry would make the repository's directory.
    std::fs::write(world.storage().join("docker/registry/v2/repositories/cache"), "").unwrap();
    let (report, lines) = logged(|| world.export(&world.exporter("app"), &world.analyzed(), Some(cache)));
    report.unwrap();
    assert!(lines.iter().any(|line| line.starts_with("Warning: Failed to export cache: ")), "{lines:?}");
    world.find("app");
}
