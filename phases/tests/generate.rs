//! Generation over real directories, with extensions that are shell scripts.

mod build_support;

use std::fs;

use build_support::{World, code, entry};
use buildpack_api::{Kind, Require};
use phases::{detect::Detected, generate::generate};
use platform_api::{
    Analyzed, ExitCode, Group, Plan, PlanEntry, Provider, RunImage, RunImageMirrors, RunImages, TargetData,
};

const EXTENDS: &str = "ARG base_image\nFROM ${base_image}\nRUN true\n";
const STAYS: &str = "FROM ${base_image}\n";

/// Extensions `a`, `b`, … with these run.Dockerfiles and, behind a `&`, build.Dockerfiles.
fn extensions(world: &World, dockerfiles: &[&str]) -> Group {
    let mut group = Group::default();
    for (name, text) in ["a", "b/c", "d"].iter().zip(dockerfiles) {
        let (run, build) = text.split_once('&').unwrap_or((text, ""));
        let cat = |file: &str, text: &str| match text {
            "" => String::new(),
            text => format!("cat > $1/{file} <<'END'\n{text}\nEND\n"),
        };
        let body = cat("run.Dockerfile", run) + &cat("build.Dockerfile", build);
        world.extension(name, "", &[("generate", &body)]);
        group.extensions.push(entry(name));
    }
    group
}

fn analyzed() -> Analyzed {
    let run_image = RunImage {
        reference: "old@sha256:1".to_owned(),
        image: Some("old".to_owned()),
        extend: false,
        target: Some(TargetData::default()),
    };
    Analyzed { run_image: Some(run_image), ..Analyzed::default() }
}

fn run(world: &World, api: &str, group: Group) -> anyhow::Result<(Detected, Analyzed)> {
    let known = RunImageMirrors { image: "new".to_owned(), mirrors: Vec::new() };
    let detected = Detected { group, plan: Plan::default() };
    generate(&world.detector(api), detected, analyzed(), &RunImages { images: vec![known] })
}

#[test]
fn the_run_image_that_extensions_choose() {
    let old = |extend| ("old@sha256:1", "old", extend, true);
    let new = |extend| ("new", "new", extend, false);
    let switch = "FROM new";
    let switch_and_extend = "FROM new\nRUN x";
    for (dockerfiles, expected, ignored) in [
        (&[][..], old(false), &[][..]),
        (&[""], old(false), &[]),
        (&[STAYS], old(false), &[]),
        (&[STAYS, EXTENDS], old(true), &[]),
        (&[switch], new(false), &[]),
        (&[switch_and_extend], new(true), &[]),
        // what comes before the last switch has no effect
        (&[EXTENDS, switch], new(false), &["a"]),
        (&["FROM other", EXTENDS, switch], new(false), &["a", "b_c"]),
        (&[EXTENDS, switch, EXTENDS], new(true), &["a"]),
        // the same name is no switch, but what comes before it is without effect all the same
        (&[EXTENDS, "FROM old"], old(false), &["a"]),
    ] {
        let world = World::new();
        let (_, analyzed) = run(&world, "0.13", extensions(&world, dockerfiles)).unwrap();
        let image = analyzed.run_image.unwrap();
        let found = (image.reference.as_str(), image.image.as_deref().unwrap(), image.extend, image.target.is_some());
        assert_eq!(found, expected, "{dockerfiles:?}");
        for name in ["a", "b_c", "d"] {
            let aside = world.exists(&format!("generated/{name}/run.Dockerfile.ignore"));
            assert_eq!(aside, ignored.contains(&name), "{name} of {dockerfiles:?}");
            assert!(!aside || !world.exists(&format!("generated/{name}/run.Dockerfile")));
        }
    }
}

#[test]
fn whether_the_build_image_is_extended_is_recorded() {
    let world = World::new();
    let dockerfile = format!("&{EXTENDS}");
    let (_, analyzed) = run(&world, "0.13", extensions(&world, &[&dockerfile])).unwrap();
    assert!(analyzed.build_image.unwrap().extend);
    assert_eq!(world.read("generated/a/build.Dockerfile"), format!("{EXTENDS}\n"));
    let world = World::new();
    assert_eq!(run(&world, "0.13", extensions(&world, &[STAYS])).unwrap().1.build_image, None);
    let world = World::new();
    let (_, analyzed) = run(&world, "0.12", extensions(&world, &[&dockerfile])).unwrap();
    assert_eq!(analyzed.build_image, None, "came with Platform API 0.13");
}

#[test]
fn before_platform_api_0_13_files_are_copied_by_kind() {
    let world = World::new();
    let both = format!("{EXTENDS}&{EXTENDS}");
    let group = extensions(&world, &[&both, "FROM new"]);
    world.extension("b/c", "", &[("generate", "echo FROM new > $1/run.Dockerfile; touch $1/extend-config.toml")]);
    let (_, analyzed) = run(&world, "0.12", group).unwrap();
    assert_eq!(analyzed.run_image.unwrap().reference, "new");
    let mut files: Vec<_> = ["run", "build"]
        .iter()
        .flat_map(|kind| fs::read_dir(world.path(&format!("generated/{kind}"))).unwrap())
        .flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path().strip_prefix(world.path("generated")).unwrap().display().to_string())
        .collect();
    files.sort();
    let expected =
        ["build/a/Dockerfile", "run/a/Dockerfile.ignore", "run/b_c/Dockerfile", "run/b_c/extend-config.toml"];
    assert_eq!(files, expected);
    assert!(!world.exists("generated/.output"));
}

#[test]
fn an_extension_without_generate_brings_its_output_along() {
    for (api, dockerfile) in [("0.13", "generated/a/run.Dockerfile"), ("0.12", "generated/run/a/Dockerfile")] {
        let world = World::new();
        world.extension("a", "", &[]);
        world.write("extensions/a/1/generate/run.Dockerfile", "FROM new");
        world.write("extensions/a/1/generate/context.run/dir/file", "f");
        let group = Group { extensions: vec![entry("a")], ..Group::default() };
        let (_, analyzed) = run(&world, api, group).unwrap();
        assert_eq!(analyzed.run_image.unwrap().reference, "new");
        assert_eq!(world.read(dockerfile), "FROM new");
        if api == "0.13" {
            assert_eq!(world.read("generated/a/context.run/dir/file"), "f");
        }
    }
}

#[test]
fn dockerfiles_may_have_any_encoding() {
    let world = World::new();
    world.extension("a", "", &[("generate", r"printf 'FROM new\n# caf\351\nRUN x\n' > $1/run.Dockerfile")]);
    let group = Group { extensions: vec![entry("a")], ..Group::default() };
    let (_, analyzed) = run(&world, "0.13", group).unwrap();
    assert!(analyzed.run_image.unwrap().extend);
    assert_eq!(fs::read(world.path("generated/a/run.Dockerfile")).unwrap(), b"FROM new\n# caf\xe9\nRUN x\n");
}

#[test]
fn the_plan_loses_what_extensions_provide() {
    let world = World::new();
    let seen = world.path("seen");
    world.extension("a", "", &[("generate", &format!("cp $CNB_BP_PLAN_PATH {0}; env >> {0}", seen.display()))]);
    let provider = |name: &str, kind| Provider { id: entry(name).id, version: "1".to_owned(), kind };
    let of = |name: &str, providers: Vec<Provider>| PlanEntry {
        providers,
        requires: vec![Require { name: name.to_owned(), metadata: None }],
    };
    let plan = Plan {
        entries: vec![
            of("x", vec![provider("a", Kind::Extension), provider("b", Kind::Buildpack)]),
            of("y", vec![provider("a", Kind::Buildpack)]),
        ],
    };
    let group = Group { extensions: vec![entry("a")], buildpacks: vec![entry("a"), entry("b")] };
    let detected = Detected { group: group.clone(), plan };
    let (after, _) = generate(&world.detector("0.13"), detected, analyzed(), &RunImages::default()).unwrap();
    assert_eq!(after.group, group);
    let names: Vec<_> = after.plan.entries.iter().map(|e| e.requires[0].name.as_str()).collect();
    assert_eq!(names, ["y"]);
    let seen = world.read("seen");
    assert!(seen.contains("name = \"x\"") && !seen.contains("name = \"y\""), "{seen}");
    let output = world.path("generated/a");
    assert!(seen.contains(&format!("CNB_OUTPUT_DIR={}\n", output.display())), "{seen}");
    assert!(!seen.contains("SECRET"), "the environment is an allow-list: {seen}");
}

#[test]
fn what_breaks_the_spec_is_refused() {
    for (body, sentence, expected) in [
        ("exit 3", "exit status 3", Some(ExitCode::ExtensionGenerate)),
        (
            "echo FROM x > $1/build.Dockerfile",
            "failed to parse build.Dockerfile for extension a: build.Dockerfile did not start with required ARG command",
            None,
        ),
        ("mkfifo $1/run.Dockerfile", "a/run.Dockerfile: not a regular file", None),
        (
            "mkdir $1/context $1/context.run",
            "image-specific context dir is provided together with a shared context",
            None,
        ),
        (
            "printf '[[run.args]]\nname = \"user_id\"' > $1/extend-config.toml",
            "validating extend config: invalid content: arg with name \"user_id\" is not allowed",
            None,
        ),
        ("echo '[[[' > $1/extend-config.toml", "reading extend config: ", None),
        ("rmdir $1; ln -s / $1", "a is a symbolic link", None),
        ("rmdir $1", "a is gone", None),
    ] {
        let world = World::new();
        let mut group = extensions(&world, &[EXTENDS, EXTENDS]);
        world.extension("a", "", &[("generate", body)]);
        group.extensions.reverse();
        for api in ["0.12", "0.13"] {
            let error = run(&world, api, group.clone()).unwrap_err();
            assert_eq!(code(&error), expected, "{body}: {error:#}");
            assert!(format!("{error:#}").contains(sentence), "{body}: {error:#}");
            // Nor of the one that did well.
            let left: Vec<_> = fs::read_dir(world.path("generated")).unwrap().map(|e| e.unwrap().path()).collect();
            assert!(left.is_empty(), "{body}: {left:?}");
        }
    }
}

#[test]
fn what_an_earlier_build_left_is_gone() {
    for (api, files) in
        [("0.12", ["run/a/Dockerfile", "build/a/extend-config.toml"]), ("0.13", ["a/run.Dockerfile", "a/context/file"])]
    {
        let world = World::new();
        for file in files {
            world.write(&format!("generated/{file}"), "FROM old");
        }
        world.write("generated/not/ours", "");
        run(&world, api, extensions(&world, &[""])).unwrap();
        for file in files {
            assert!(!world.exists(&format!("generated/{file}")), "{file}");
        }
        assert!(world.exists("generated/not/ours"));
    }
}
