//! Restores without a cache, of what the previous image says, and what must not happen.

mod common;

use acceptance::tree::Entry;
use common::{World, group, logged, shown};
use phases::cache::{Cache, VolumeCache};
use platform_api::{Analyzed, ExitCode, Failure, LayersMetadata, PlatformApi, RunImage, RunImageMirrors, RunImages};

#[test]
fn metadata_of_launch_layers_and_the_store_come_back() {
    let world = World::in_layout();
    world.layer("jre", "launch = true", Some("java"));
    world.layer("kept", "launch = true\ncache = true", Some("x"));
    world.layer("both", "launch = true\nbuild = true", Some("x"));
    world.write(&[("layers/acme_jvm/store.toml", Entry::File("[metadata]\nn = 1\n"))]);
    world.export_new("app");
    let metadata = world.analyze("app").metadata;
    world.clear_layers();
    let (result, lines) = logged(|| world.restore(&metadata, None));
    result.unwrap();
    assert_eq!(shown(&lines), ["Restoring metadata for \"acme/jvm:jre\" from app image"]);
    assert_eq!(world.text("layers/acme_jvm/jre.toml"), "[metadata]\nversion = 7\n");
    assert!(!world.exists("layers/acme_jvm/kept.toml") && !world.exists("layers/acme_jvm/both.toml"));
    assert_eq!(world.text("layers/acme_jvm/store.toml").replace("  ", ""), "[metadata]\nn = 1\n");
}

#[test]
fn skip_layers_restores_the_store_only() {
    let world = World::in_layout();
    world.layer("jre", "launch = true", Some("java"));
    world.write(&[("layers/acme_jvm/store.toml", Entry::File("[metadata]\nn = 1\n"))]);
    world.export_new("app");
    let metadata = world.analyze("app").metadata;
    world.clear_layers();
    let mut i = world.restorer();
    i.skip_layers = true;
    let (result, lines) = logged(|| phases::restore::restore(&i, &group(), &metadata, None, &|_| {}));
    result.unwrap();
    assert_eq!(shown(&lines), ["Skipping buildpack layer analysis"]);
    assert!(world.exists("layers/acme_jvm/store.toml") && !world.exists("layers/acme_jvm/jre.toml"));
}

#[test]
fn other_contents_in_the_cache_are_not_restored() {
    let world = World::in_layout();
    let cache = || Cache::Volume(VolumeCache::open(&world.path("cache")).unwrap());
    world.layer("jdk", "launch = true\ncache = true", Some("java"));
    world.export_new("app");
    world.layer("jdk", "launch = true\ncache = true", Some("newer"));
    world.export(&world.exporter("other"), &world.analyzed(), Some(cache())).unwrap();
    let metadata = world.analyze("app").metadata;
    let (result, lines) = logged(|| world.restore(&metadata, Some(&cache())));
    result.unwrap();
    assert_eq!(shown(&lines), ["Removing \"acme/jvm:jdk\", wrong sha"]);
    assert!(!world.exists("layers/acme_jvm/jdk") && !world.exists("layers/acme_jvm/jdk.toml"));
}

#[test]
fn names_of_layers_lead_nowhere_else() {
    let world = World::in_layout();
    let mut metadata: LayersMetadata = serde_json::from_str(
        r#"{"buildpacks":[{"key":"acme/jvm","version":"1","layers":{"../../escaped":{"sha":"x","launch":true}}}]}"#,
    )
    .unwrap();
    let (result, lines) = logged(|| world.restore(&metadata, None));
    result.unwrap();
    assert!(lines.iter().any(|line| line.contains("not a name a layer can have")), "{lines:?}");
    assert!(!world.exists("escaped.toml"));
    metadata.buildpacks[0].key = "other/bp".into();
    world.restore(&metadata, None).unwrap();
    assert!(!world.exists("layers/other_bp"), "not of this group");
}

#[test]
fn a_tar_of_another_layers_directory_is_left_alone() {
    let world = World::in_layout();
    let cache = || Cache::Volume(VolumeCache::open(&world.path("cache")).unwrap());
    world.layer("jdk", "cache = true", Some("java"));
    world.export(&world.exporter("app"), &world.analyzed(), Some(cache())).unwrap();
    std::fs::rename(world.path("layers"), world.path("elsewhere")).unwrap();
    world.write(&[("layers", Entry::Dir)]);
    std::fs::remove_file(world.path("elsewhere/acme_jvm/jdk/bin/tool")).unwrap();
    let mut i = world.restorer();
    i.layers = world.path("elsewhere");
    let (result, lines) =
        logged(|| phases::restore::restore(&i, &group(), &LayersMetadata::default(), Some(&cache()), &|_| {}));
    result.unwrap();
    assert!(lines.iter().any(|line| line.contains("Skipping restore for layer acme/jvm:jdk: ")), "{lines:?}");
    assert!(!world.exists("elsewhere/acme_jvm/jdk.toml") && !world.exists("layers/acme_jvm"));
}

fn with_run_image(name: String) -> Analyzed {
    Analyzed { run_image: Some(RunImage { image: Some(name), ..RunImage::default() }), ..Analyzed::default() }
}

#[test]
fn the_run_image_s_target_is_completed() {
    let mut world = World::in_registry();
    let resolve = |world: &World, analyzed, offered: &RunImages| {
        let i = world.restorer();
        phases::restore::resolve_images(&i, &group(), analyzed, offered, &world.images, &world.registry)
    };
    let found = resolve(&world, with_run_image(world.name("run")), &RunImages::default()).unwrap().run_image.unwrap();
    assert_eq!(found.reference, world.find("run").id.unwrap().to_string());
    assert_eq!(found.target.unwrap().target.os, "linux");

    world.api = PlatformApi::V0_11;
    let kept = resolve(&world, with_run_image(world.name("run")), &RunImages::default()).unwrap();
    assert_eq!(kept, with_run_image(world.name("run")), "known to no platform before 0.12");

    world.api = PlatformApi::V0_14;
    // Nobody listens on port 1.
    let gone = "127.0.0.1:1/run".to_owned();
    let offered = RunImages { images: vec![RunImageMirrors { image: gone.clone(), mirrors: vec![world.name("run")] }] };
    let chosen = resolve(&world, with_run_image(gone.clone()), &offered).unwrap().run_image.unwrap();
    assert_eq!(chosen.image, Some(world.name("run")));
    let none = RunImages { images: vec![RunImageMirrors { image: gone.clone(), mirrors: vec![] }] };
    let error = resolve(&world, with_run_image(gone.clone()), &none).unwrap_err();
    let failure: &Failure = error.downcast_ref().unwrap();
    assert_eq!(failure.code, ExitCode::Failed);
    assert_eq!(failure.text, format!("selected run image '{gone}' is not accessible"));
}

#[test]
fn the_build_image_is_recorded_by_digest() {
    let world = World::in_registry();
    let mut i = world.restorer();
    i.build_image = Some(world.name("run"));
    let resolve = |i: &platform_api::inputs::RestorerInputs| {
        let none = RunImages::default();
        phases::restore::resolve_images(i, &group(), Analyzed::default(), &none, &world.images, &world.registry)
    };
    let reference = resolve(&i).unwrap().build_image.unwrap().reference;
    assert_eq!(reference, world.find("run").id.unwrap().to_string());
    i.build_image = Some(world.name("none"));
    let error = resolve(&i).unwrap_err();
    let failure: &Failure = error.downcast_ref().unwrap();
    assert!(failure.text.starts_with(&format!("failed to pull builder image {}", world.name("none"))), "{failure}");
}

#[test]
fn images_to_extend_are_kept_for_the_extender() {
    let world = World::in_registry();
    let mut analyzed = with_run_image(world.name("run"));
    analyzed.run_image.as_mut().unwrap().extend = true;
    let mut i = world.restorer();
    i.build_image = Some(world.name("run"));
    let none = RunImages::default();
    let resolve = |i: &platform_api::inputs::RestorerInputs| {
        phases::restore::resolve_images(i, &group(), analyzed.clone(), &none, &world.images, &world.registry).unwrap()
    };
    let found = resolve(&i);
    let run_image = found.run_image.unwrap();
    assert_eq!(run_image.target.unwrap().target.os, "linux");
    for reference in [run_image.reference, found.build_image.unwrap().reference] {
        let (_, digest) = reference.split_once('@').unwrap();
        let dir = i.kaniko.join("cache/base").join(digest);
        let kept = image::Layout::open(&dir).unwrap().unwrap();
        assert!(kept.id.unwrap().to_string().ends_with(digest), "the manifest as it is");
        assert_eq!(kept.config.diff_ids, world.find("run").config.diff_ids);
        let blobs = std::fs::read_dir(dir.join("blobs/sha256")).unwrap().count();
        assert_eq!(blobs, 2, "manifest and config; no layer was fetched");
    }

    // Run images are extended from Platform API 0.12 on.
    let mut old = world.restorer();
    old.api = PlatformApi::V0_11;
    old.kaniko = world.path("not-made");
    resolve(&old);
    assert!(!world.exists("not-made"));
}
