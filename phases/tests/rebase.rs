//! Rebases of exported images, in a layout and in a registry.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{World, logged};
use image::Image;
use platform_api::{ExitCode, Failure, PlatformApi};

/// An app on image `run`, and another run image `run:new`.
fn built(world: World) -> World {
    world.layer("jdk", "launch = true", Some("java"));
    world.export_new("app");
    world.save_base("run:new", &[("etc/os", "3")]);
    world
}

fn label(image: &Image) -> serde_json::Value {
    serde_json::from_str(image.config.label("io.buildpacks.lifecycle.metadata").unwrap()).unwrap()
}

#[test]
fn the_new_run_image_is_below_the_app() {
    for world in [World::in_layout(), World::in_registry()] {
        let mut world = built(world);
        let before = world.find("app");
        let new = world.find("run:new");
        let mut i = world.rebaser("app", Some("run:new"));
        i.force = true;
        i.output_images.push(world.name("app:again"));
        let report = phases::rebase::rebase(&i, &world.images).unwrap();
        assert_eq!(report.image.tags, i.output_images);
        world.renew();
        let after = world.find("app");
        assert_eq!(report.image.digest.is_some(), after.id.as_ref().unwrap().to_string().contains("/app@sha256:"));
        assert_eq!(after.config.diff_ids[0], new.config.diff_ids[0]);
        assert_eq!(after.config.diff_ids[1..], before.config.diff_ids[2..]);
        assert_eq!(after.config.history[1..], before.config.history[2..]);
        assert_eq!(after.config.history[0].created_by.as_deref(), Some("base etc/os"));
        assert_eq!(after.config.entrypoint, before.config.entrypoint);
        let (old, rebased) = (label(&before), label(&after));
        assert_eq!(rebased["runImage"]["topLayer"], new.config.diff_ids[0].to_string());
        assert_eq!(rebased["runImage"]["reference"], new.id.unwrap().to_string());
        assert_eq!(rebased["stack"]["runImage"], serde_json::json!({"image": world.name("run:new")}));
        assert_eq!(rebased["buildpacks"], old["buildpacks"]);
        assert_eq!(world.find("app:again").config.diff_ids, after.config.diff_ids);
        // What was rebased can be rebased again, without force.
        phases::rebase::rebase(&world.rebaser("app", Some("run:new")), &world.images).unwrap();
    }
}

#[test]
fn the_label_names_the_run_image() {
    let world = built(World::in_registry());
    let before = world.find("app");
    let i = world.rebaser("app", None);
    phases::rebase::rebase(&i, &world.images).unwrap();
    assert_eq!(world.find("app").config.diff_ids, before.config.diff_ids);
}

#[test]
fn refused_before_anything_is_written() {
    let world = built(World::in_layout());
    let before = world.find("app").id;
    let (error, lines) = logged(|| phases::rebase::rebase(&world.rebaser("app", Some("run:new")), &world.images));
    let error = format!("{:#}", error.unwrap_err());
    assert!(
        error.starts_with(&format!(
            "rebase app image: new base image '{}' not found in existing run image metadata: {{",
            world.name("run:new")
        )) && error.ends_with("; please provide -force to override"),
        "{error}"
    );
    assert!(lines.iter().all(|line| !line.starts_with("Saving")), "{lines:?}");
    assert_eq!(world.find("app").id, before);
    world.save_base("empty", &[]);
    let empty = format!("image {}", world.name("empty"));

    for (i, code, text) in [
        (
            world.rebaser("none", Some("run")),
            ExitCode::Rebase,
            "failed to set app image: failed to access image to rebase",
        ),
        (world.rebaser("app", Some("none")), ExitCode::Rebase, "failed to access run image"),
        (
            world.rebaser("app", Some("empty")),
            ExitCode::Rebase,
            &*format!("failed to access run image: {empty} has no layers"),
        ),
        (
            world.rebaser("run", None),
            ExitCode::InvalidArgs,
            "failed to parse arguments: -run-image is required when there is no run image metadata available",
        ),
    ] {
        let error = phases::rebase::rebase(&i, &world.images).unwrap_err();
        let failure: &Failure = error.downcast_ref().unwrap();
        assert_eq!(failure.code, code);
        assert!(failure.text.starts_with(text), "{failure}");
    }
}

#[test]
fn an_image_of_an_old_platform_needs_its_stack() {
    let mut world = World::in_layout();
    world.api = PlatformApi::V0_9;
    let world = built(world);
    let error = phases::rebase::rebase(&world.rebaser("app", Some("run")), &world.images).unwrap_err();
    assert_eq!(error.to_string(), "stack not defined on app image");
}

#[test]
fn a_previous_image_is_not_written() {
    let world = built(World::in_layout());
    let before = world.find("app").id;
    let mut i = world.rebaser("other", Some("run"));
    i.previous_image = world.name("app");
    phases::rebase::rebase(&i, &world.images).unwrap();
    assert_eq!(world.find("app").id, before);
    world.find("other");
}
