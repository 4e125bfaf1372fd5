//! Detection over real directories, with buildpacks that are shell scripts.

mod build_support;

use build_support::{World, code, order};
use phases::detect::{Detected, Transcript, detect};
use platform_api::{ExitCode, OrderFile, System, TargetData, inputs::LogLevel};

const PASS: &[(&str, &str)] = &[("detect", "exit 0"), ("build", "")];
const FAIL: &[(&str, &str)] = &[("detect", "exit 100"), ("build", "")];

fn run(world: &World, api: &str, buildpacks: &str, extensions: &str) -> (anyhow::Result<Detected>, Transcript) {
    let file = OrderFile { order: order(buildpacks), order_extensions: order(extensions) };
    run_with(world, api, &file, &System::default())
}

fn run_with(world: &World, api: &str, file: &OrderFile, system: &System) -> (anyhow::Result<Detected>, Transcript) {
    let mut out = Transcript::default();
    let target = TargetData::default();
    (detect(&world.detector(api), file, system, Some(&target), &mut out), out)
}

fn names(detected: &Detected) -> String {
    let extensions = detected.group.extensions.iter().map(|e| format!("+{}", e.id));
    extensions.chain(detected.group.buildpacks.iter().map(|b| b.id.to_string())).collect::<Vec<_>>().join(" ")
}

fn text(out: &Transcript) -> String {
    out.0.iter().map(|line| line.1.as_str()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_first_group_that_passes_wins() {
    let world = World::new();
    world.buildpack("no/fit", "0.10", "", FAIL);
    world.buildpack("some/jdk", "0.10", "", &[("detect", "echo '[[provides]]\nname = \"jdk\"' > $2")]);
    world.buildpack(
        "long",
        "0.11",
        "",
        &[("detect", "printf '[[requires]]\nname = \"jdk\"\n[requires.metadata]\nv = 1' > $2")],
    );
    let (detected, out) = run(&world, "0.12", "some/jdk no/fit | some/jdk no/fit? long | long", "");
    let detected = detected.unwrap();
    assert_eq!(names(&detected), "some/jdk long");
    let entry = &detected.group.buildpacks[0];
    assert_eq!((entry.version.as_str(), entry.api.as_str()), ("1", "0.10"));
    assert_eq!(entry.homepage.as_deref(), Some("of some/jdk"));
    assert!(!entry.optional);
    let plan = detected.plan.to_toml();
    assert!(plan.contains("id = \"some/jdk\"") && plan.contains("name = \"jdk\"") && plan.contains("v = 1"), "{plan}");
    let last: Vec<_> = out.0.iter().rev().take(3).map(|l| (l.0, l.1.as_str())).collect();
    let info = LogLevel::Info;
    assert_eq!(last, [(info, "long     1"), (info, "some/jdk 1"), (info, "2 of 3 buildpacks participating")]);
}

#[test]
fn each_detect_runs_once() {
    let world = World::new();
    let log = world.path("log");
    let say = |code: u8| format!("echo $CNB_BUILDPACK_DIR >> {}\nexit {code}", log.display());
    world.buildpack("a", "0.10", "", &[("detect", &say(0))]);
    world.buildpack("b", "0.10", "", &[("detect", &say(100))]);
    world.buildpack("never", "0.10", "", &[("detect", &say(0))]);
    world.write("buildpacks/meta/1/buildpack.toml", "api = \"0.10\"\n[buildpack]\nid = \"meta\"\nversion = \"1\"\n[[order]]\n[[order.group]]\nid = \"a\"\nversion = \"1\"\n[[order.group]]\nid = \"b\"\nversion = \"1\"\n");
    let (detected, _) = run(&world, "0.12", "a b | meta | b a | meta? a | never", "");
    assert_eq!(names(&detected.unwrap()), "a");
    let mut lines: Vec<_> = world.read("log").lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["a", "b"].map(|id| world.path(&format!("buildpacks/{id}/1")).display().to_string()));
}

#[test]
fn a_group_runs_at_once_and_is_told_in_order() {
    let world = World::new();
    let pipe = world.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Each waits for the other: one after the other neither would end.
    let pipe = pipe.display();
    world.buildpack("a", "0.10", "", &[("detect", &format!("timeout 60 cat {pipe}"))]);
    world.buildpack("b", "0.10", "", &[("detect", &format!("timeout 60 sh -c 'echo of b > {pipe}'; echo 100%d"))]);
    let (detected, out) = run(&world, "0.12", "a b", "");
    assert_eq!(names(&detected.unwrap()), "a b");
    let text = text(&out);
    assert!(text.contains("======== Output: a@1 ========\nof b\n"), "{text}");
    assert!(text.find("Output: a@1").unwrap() < text.find("Output: b@1 ========\n100%d").unwrap(), "{text}");
}

#[test]
fn no_group_passes() {
    let world = World::new();
    world.buildpack("fail", "0.10", "", FAIL);
    world.buildpack("bad", "0.10", "", &[("detect", "echo trouble >&2; exit 3")]);
    let (error, out) = run(&world, "0.12", "fail", "");
    let error = error.unwrap_err();
    assert_eq!(code(&error), Some(ExitCode::NoDetection));
    assert_eq!(error.to_string(), "no buildpacks participating");
    let end = "fail: fail@1\nNo buildpack groups passed detection.\nPlease check that you are running against the correct path.";
    assert!(text(&out).ends_with(end), "{}", text(&out));

    let (error, out) = run(&world, "0.12", "bad | fail", "");
    let error = error.unwrap_err();
    assert_eq!(code(&error), Some(ExitCode::DetectionErrored));
    assert_eq!(error.to_string(), "buildpack(s) failed with err");
    assert!(text(&out).contains("Output: bad@1 ========\ntrouble"), "{}", text(&out));
    assert!(out.0.contains(&(LogLevel::Info, "err:  bad@1 (3)".to_owned())));
}

#[test]
fn apis_are_checked_of_every_element_that_is_reached() {
    let world = World::new();
    world.buildpack("old", "0.2", "", PASS);
    world.buildpack("odd", "x", "", PASS);
    world.buildpack("a", "0.10", "", FAIL);
    world.write("buildpacks/meta/1/buildpack.toml", "api = \"0.10\"\n[buildpack]\nid = \"meta\"\nversion = \"1\"\n[[order]]\n[[order.group]]\nid = \"old\"\nversion = \"1\"\n");
    for (order, sentence) in [
        (
            "a | old",
            "failed to set API for Buildpack 'old@1': buildpack API version '0.2' is incompatible with the lifecycle",
        ),
        (
            "a | meta",
            "failed to set API for Buildpack 'old@1': buildpack API version '0.2' is incompatible with the lifecycle",
        ),
        ("a | odd", "failed to parse buildpack API "),
    ] {
        let error = run(&world, "0.12", order, "").0.unwrap_err();
        assert_eq!(code(&error), Some(ExitCode::BuildpackApi), "{order}");
        assert!(error.to_string().contains(sentence), "{order}: {error:#}");
    }
    let error = run(&world, "0.12", "a | gone", "").0.unwrap_err();
    assert_eq!(code(&error), None);
    assert!(format!("{error:#}").contains("buildpacks/gone/1/buildpack.toml"), "{error:#}");
}

#[test]
fn targets() {
    let world = World::new();
    let other = "[[targets]]\nos = \"plan9\"\n";
    world.buildpack("a", "0.10", "", PASS);
    world.buildpack("other", "0.10", other, PASS);
    let (error, out) = run(&world, "0.12", "a other", "");
    assert_eq!(code(&error.unwrap_err()), Some(ExitCode::DetectionErrored));
    assert!(text(&out).contains("Error: other@1 ========\nunable to satisfy target os/arch constraints; run image: {"));

    // The same one is fine where it is optional, before and after it was not.
    let (detected, out) = run(&world, "0.12", "other a | a other?", "");
    assert_eq!(names(&detected.unwrap()), "a", "{}", text(&out));
    let (detected, _) = run(&world, "0.11", "a other", "");
    assert_eq!(names(&detected.unwrap()), "a other", "targets came with Platform API 0.12");
}

#[test]
fn execution_environments() {
    let world = World::new();
    world.buildpack("a", "0.12", "", PASS);
    world.buildpack("test-only", "0.12", "exec-env = [\"test\"]\n", PASS);
    world.buildpack("table", "0.12", "[[buildpack.exec-env]]\nname = \"test\"\n", PASS);
    world.buildpack("any", "0.12", "exec-env = [\"test\", \"*\"]\n", PASS);
    world.buildpack("old", "0.11", "exec-env = [\"test\"]\n", PASS);
    let (detected, out) = run(&world, "0.15", "test-only | table a | a", "");
    assert_eq!(names(&detected.unwrap()), "a", "{}", text(&out));
    assert!(text(&out).contains("fail: no viable buildpacks in group"), "an empty group fails");
    let (detected, _) = run(&world, "0.15", "a any old", "");
    assert_eq!(names(&detected.unwrap()), "a any old");
    let (detected, _) = run(&world, "0.14", "a test-only", "");
    assert_eq!(names(&detected.unwrap()), "a test-only", "came with Platform API 0.15");

    let file = "[[order]]\n[[order.group]]\nid = \"any\"\nversion = \"1\"\nexec-env = [\"test\"]\n[[order.group]]\nid = \"a\"\nversion = \"1\"\n";
    let (detected, _) = run_with(&world, "0.15", &OrderFile::parse(file).unwrap(), &System::default());
    assert_eq!(names(&detected.unwrap()), "a", "an element of an order may say so, too");
}

#[test]
fn system_buildpacks() {
    let world = World::new();
    for id in ["a", "pre", "post"] {
        world.buildpack(id, "0.10", "", PASS);
    }
    world.buildpack("maybe", "0.10", "", FAIL);
    let system = System { pre: order("pre a").0.remove(0).group, post: order("maybe? post").0.remove(0).group };
    let file = OrderFile { order: order("a"), ..OrderFile::default() };
    assert_eq!(names(&run_with(&world, "0.15", &file, &system).0.unwrap()), "pre a post");
    assert_eq!(names(&run_with(&world, "0.14", &file, &system).0.unwrap()), "a");
}

#[test]
fn extensions() {
    let world = World::new();
    world.buildpack("a", "0.10", "", &[("detect", "echo '[[requires]]\nname = \"x\"' > $2")]);
    world.extension("x", "", &[("detect", "echo '[[provides]]\nname = \"x\"' > $2")]);
    world.extension("unused", "", &[("detect", "echo '[[provides]]\nname = \"y\"' > $2")]);
    world.extension("greedy", "", &[("detect", "echo '[[requires]]\nname = \"x\"' > $2")]);
    let (detected, out) = run(&world, "0.13", "a", "unused x");
    let detected = detected.unwrap();
    assert_eq!(names(&detected), "+x a", "{}", text(&out));
    assert!(detected.plan.to_toml().contains("extension = true"));
    let (error, out) = run(&world, "0.13", "a", "greedy");
    assert_eq!(code(&error.unwrap_err()), Some(ExitCode::NoDetection));
    assert!(text(&out).contains("extension greedy outputs \"requires\" which is not allowed"), "{}", text(&out));
}
