//! What analyze finds, in a layout and in a registry.

mod common;

use acceptance::tree::Entry;
use common::{World, logged, shown};
use platform_api::{ExitCode, PlatformApi, RunImageMirrors, RunImages};

#[test]
fn nothing_built_before() {
    for world in [World::in_layout(), World::in_registry()] {
        let (analyzed, lines) = logged(|| world.analyze("app"));
        assert_eq!(analyzed.previous_image, None);
        assert_eq!(shown(&lines), [format!("Image with name \"{}\" not found", world.name("app"))]);
        let run = analyzed.run_image.unwrap();
        assert_eq!(run.reference, world.find("run").id.unwrap().to_string());
        assert!(lines.contains(&format!("debug: Found image with identifier \"{}\"", run.reference)), "{lines:?}");
        assert_eq!(run.image, Some(world.name("run")));
        let target = run.target.unwrap();
        assert_eq!((target.id.as_deref(), target.target.os.as_str()), (Some("acme"), "linux"));
    }
}

#[test]
fn the_previous_image_and_its_sbom() {
    let mut world = World::in_layout();
    world.layer("jdk", "launch = true", Some("java"));
    world.write(&[("layers/sbom/launch/acme_jvm/jdk/sbom.cdx.json", Entry::File("{}"))]);
    world.export_new("app");
    world.clear_layers();
    let (analyzed, lines) = logged(|| world.analyze("app"));
    assert!(lines.iter().any(|line| line == "Restoring data for SBOM from previous image"), "{lines:?}");
    assert!(world.exists("layers/sbom/launch/acme_jvm/jdk/sbom.cdx.json"));
    assert_eq!(analyzed.previous_image, world.find("app").id.map(|id| id.to_string()));
    assert!(analyzed.metadata.buildpacks[0].layers["jdk"].launch);

    std::fs::remove_dir_all(world.path("layers/sbom")).unwrap();
    let mut i = world.analyzer("app");
    i.skip_layers = true;
    world.try_analyze(&i, "run").unwrap();
    world.api = PlatformApi::V0_7;
    let old = world.analyze("app");
    assert!(!world.exists("layers/sbom"), "neither with -skip-layers nor before Platform API 0.8");
    let run = old.run_image.unwrap();
    assert_eq!((run.image, run.target), (None, None));
}

#[test]
fn an_image_whose_label_is_broken_has_no_past() {
    let world = World::in_layout();
    let mut image = world.find("run");
    image.config.labels.insert("io.buildpacks.lifecycle.metadata".into(), "{".into());
    world.images.save(&image, &[world.name("app")]).unwrap();
    let (analyzed, lines) = logged(|| world.analyze("app"));
    assert_eq!(analyzed.previous_image, None);
    assert!(lines.iter().any(|line| line.starts_with("Warning: Ignoring the metadata of image ")), "{lines:?}");
}

#[test]
fn an_image_that_lost_a_blob_is_ignored() {
    let mut world = World::in_registry();
    world.layer("jdk", "launch = true", Some("java"));
    world.export_new("app");
    let layer = world.find("app").layers[2].blob.clone().unwrap().digest;
    let hex = layer.hex();
    std::fs::remove_dir_all(world.storage().join(format!("docker/registry/v2/blobs/sha256/{}/{hex}", &hex[..2])))
        .unwrap();
    world.renew();
    let (analyzed, lines) = logged(|| world.analyze("app"));
    assert_eq!(analyzed.previous_image, None);
    let line = format!("Ignoring image \"{}\" because it was corrupt", world.name("app"));
    assert!(lines.contains(&line), "{lines:?}");
}

#[test]
fn access_is_checked_first() {
    let world = World::in_registry();
    let mut i = world.analyzer("app");
    // Nobody listens on port 1.
    i.tags = vec!["127.0.0.1:1/app".into()];
    let error = format!("{:#}", world.try_analyze(&i, "run").unwrap_err());
    assert!(
        error.starts_with(
            "validating registry write access: failed to ensure registry read/write access to 127.0.0.1:1/app: "
        ),
        "{error}"
    );
    i.tags.clear();
    i.previous_image = "127.0.0.1:1/app".into();
    let error = format!("{:#}", world.try_analyze(&i, "run").unwrap_err());
    assert!(
        error
            .starts_with("validating registry read access: failed to ensure registry read access to 127.0.0.1:1/app: "),
        "{error}"
    );
}

#[test]
fn the_run_image_is_the_best_offer() {
    let world = World::in_registry();
    let resolve = |asked: Option<&str>, offered: &RunImages, api| {
        phases::run_image::resolve(asked, offered, &world.name("app"), &world.images, api)
    };
    let offer = |image: &str, mirrors: &[String]| RunImages {
        images: vec![RunImageMirrors { image: image.to_owned(), mirrors: mirrors.to_vec() }],
    };
    let new = PlatformApi::V0_12;
    let run = world.name("run");
    assert_eq!(resolve(Some("x"), &offer("y", &[]), new).unwrap(), "x");
    assert_eq!(resolve(None, &offer("127.0.0.1:1/run", std::slice::from_ref(&run)), new).unwrap(), run);
    assert_eq!(
        resolve(None, &offer(&world.name("none"), std::slice::from_ref(&run)), new).unwrap(),
        run,
        "one that exists"
    );
    for (offered, api, text) in [
        (RunImages::default(), new, "-run-image is required when there is no run metadata available"),
        (RunImages::default(), PlatformApi::V0_11, "missing run image metadata (-run-image)"),
        (
            offer("127.0.0.1:1/run", &[]),
            new,
            "failed to find accessible run image: 127.0.0.1:1/run: GET http://127.0.0.1:1/v2/",
        ),
    ] {
        let failure = resolve(None, &offered, api).unwrap_err();
        assert_eq!(failure.code, ExitCode::InvalidArgs);
        assert!(failure.text.starts_with(&format!("failed to resolve inputs: {text}")), "{}", failure.text);
    }
}
