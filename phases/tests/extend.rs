//! Extension of a base image without any file, in a root of its own. Needs root, to give files to root.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test panics where something is wrong")]

mod build_support;

use std::fs;

use build_support::{World, entry};
use image::{Config, Image, Layout};
use phases::extend::extend;
use platform_api::{
    Analyzed, BuildImage, Flags, Group, Parsed, PlatformApi, RunImage,
    inputs::{ExtendKind, ExtenderInputs},
};

/// `None`, with a sentence, where the test cannot run.
fn world() -> Option<World> {
    let world = World::new();
    fs::create_dir(world.path("root")).unwrap();
    if std::os::unix::fs::chown(world.path("root"), Some(1), Some(1)).is_err() {
        eprintln!("skipped: needs root");
        return None;
    }
    Some(world)
}

fn inputs(world: &World, kind: ExtendKind) -> ExtenderInputs {
    let Parsed::Inputs(inputs) = ExtenderInputs::from_flags(&Flags::default(), PlatformApi::V0_13).unwrap() else {
        panic!()
    };
    let builder = world.builder("0.13");
    let (generated, extended) = (world.path("generated"), world.path("extended"));
    ExtenderInputs { kind, builder, generated, extended, kaniko: world.path("kaniko"), ..inputs }
}

/// Extends a base with this user by one extension that has files in its output directory.
fn run(world: &World, kind: ExtendKind, user: &str) -> anyhow::Result<Config> {
    let config =
        Config { os: "linux".to_owned(), architecture: "amd64".to_owned(), user: user.to_owned(), ..Config::default() };
    let image = Image { config, ..Image::default() };
    let digest = Layout::digest_of(&image).unwrap();
    Layout::put(&image, &world.path("kaniko/cache/base").join(digest.as_str()), None).unwrap();
    let reference = format!("example.com/base@{digest}");
    let analyzed = Analyzed {
        build_image: Some(BuildImage { reference: reference.clone(), ..BuildImage::default() }),
        run_image: Some(RunImage { reference, image: None, extend: true, target: None }),
        ..Analyzed::default()
    };
    let group = Group { extensions: vec![entry("a")], ..Group::default() };
    let inputs = inputs(world, kind);
    extend(&inputs, &group, &analyzed, &world.path("root"))?;
    if kind == ExtendKind::Build {
        return Ok(Config::default());
    }
    let mut made = fs::read_dir(world.path("extended/run")).unwrap();
    Ok(Layout::open(&made.next().unwrap().unwrap().path()).unwrap().unwrap().config)
}

#[test]
fn a_dockerfile_brings_its_own_dockerignore_and_encoding() {
    let Some(world) = world() else { return };
    for (file, text) in [("app/a.txt", "a"), ("app/b.txt", "b"), ("app/.dockerignore", "b.txt\n")] {
        world.write(file, text);
    }
    world.write("generated/a/run.Dockerfile.dockerignore", "a.txt\n");
    let text = b"ARG base_image\nFROM ${base_image}\n# caf\xe9\nARG TARGETARCH\nENV ARCH=$TARGETARCH\nCOPY *.txt /x/\n";
    fs::write(world.path("generated/a/run.Dockerfile"), text).unwrap();
    let config = run(&world, ExtendKind::Run, "1000").unwrap();
    assert_eq!(config.env_var("ARCH"), Some("amd64"));
    assert!(world.exists("root/x/b.txt") && !world.exists("root/x/a.txt"));
}

/// The build has a user of its own; an image that is started has not.
#[test]
fn a_user_that_is_nobody() {
    for (line, base, refused_for_run) in [
        ("USER ${user_id}", "", true),
        ("USER ${user_id}:${group_id}", "", true),
        ("USER :1001", "1000", true),
        ("ENV a=b", "", false),
    ] {
        let Some(world) = world() else { return };
        for kind in ["build", "run"] {
            let text = format!("ARG base_image\nFROM ${{base_image}}\n{line}\n");
            world.write(&format!("generated/a/{kind}.Dockerfile"), &text);
        }
        run(&world, ExtendKind::Build, base).unwrap();
        let extended = run(&world, ExtendKind::Run, base);
        assert_eq!(extended.is_err(), refused_for_run, "{line}");
        if let Err(error) = extended {
            assert!(format!("{error:#}").contains("it names nobody, so it would be root"), "{error:#}");
        }
    }
}

#[test]
fn root_by_any_name_is_not_the_user_of_a_run_image() {
    for (user, root) in [
        ("root", true),
        ("root:1001", true),
        ("0", true),
        ("00", true),
        ("0:1001", true),
        ("toor", true),
        ("toor:1001", true),
        ("cnb", false),
        ("none", false),
        ("10", false),
        ("1000:0", false),
    ] {
        let Some(world) = world() else { return };
        world.write("app/passwd", "toor:x:0:0::/:/bin/sh\ncnb:x:1000:1000::/:/bin/sh\n");
        let text = format!("FROM ${{base_image}}\nCOPY passwd /etc/\nUSER {user}\n");
        world.write("generated/a/run.Dockerfile", &format!("ARG base_image\n{text}"));
        // The second time the file is in a layer of the cache.
        for _ in 0..2 {
            let extended = run(&world, ExtendKind::Run, "1000");
            assert_eq!(extended.is_err(), root, "{user}");
            if let Err(error) = extended {
                assert!(format!("{error:#}").contains("the final user ID is "), "{error:#}");
            }
            fs::remove_dir_all(world.path("root")).unwrap();
            fs::create_dir(world.path("root")).unwrap();
        }
    }
    // A base may be root's from the beginning.
    let Some(world) = world() else { return };
    world.write("generated/a/run.Dockerfile", "ARG base_image\nFROM ${base_image}\nENV a=b\n");
    let error = run(&world, ExtendKind::Run, ":1001").unwrap_err();
    assert!(format!("{error:#}").contains("the final user ID is :1001 (root);"), "{error:#}");
}
