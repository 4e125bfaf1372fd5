//! What leaves buildpacks out of a group or puts them in it: targets (Platform API 0.12), execution environments and
//! system buildpacks (0.15). platform.md "detector"; buildpack.md "Targets".

mod build_dirs;

use acceptance::{
    run::{PLATFORM_APIS, at_least, may_differ, run},
    tree::Entry::File,
};
use build_dirs::BuildDirs;

/// analyzed.toml of a run image of this target.
fn run_image(target: &str) -> String {
    format!(
        "[run-image]\nreference = \"registry.test/run@sha256:1\"\nimage = \"registry.test/run\"\n[run-image.target]\n{target}"
    )
}

#[test]
fn a_required_buildpack_of_another_target_breaks_its_group() {
    let ubuntu = "os = \"linux\"\narch = \"arm64\"\narch-variant = \"v8\"\n[run-image.target.distro]\nname = \
                  \"ubuntu\"\nversion = \"22.04\"";
    let rows = [
        ("", true),
        ("[[targets]]\nos = \"linux\"", true),
        ("[[targets]]\nos = \"windows\"", false),
        ("[[targets]]\nos = \"windows\"\n[[targets]]\narch = \"arm64\"", true),
        ("[[targets]]\nos = \"linux\"\narch = \"amd64\"", false),
        ("[[targets]]\narch = \"arm64\"\nvariant = \"v8\"", true),
        ("[[targets]]\narch = \"arm64\"\n[[targets.distros]]\nname = \"ubuntu\"\nversion = \"22.04\"", true),
        ("[[targets]]\n[[targets.distros]]\nname = \"ubuntu\"\nversion = \"20.04\"", false),
        ("[[targets]]\n[[targets.distros]]\nname = \"debian\"\n[[targets.distros]]\nname = \"ubuntu\"", true),
        ("[[targets]]\n[[targets.distros]]\nname = \"debian\"\nversion = \"22.04\"", false),
        ("[[stacks]]\nid = \"*\"", true),
        // This stack is a target: linux/amd64 on ubuntu 18.04.
        ("[[stacks]]\nid = \"io.buildpacks.stacks.bionic\"", false),
    ];
    for (keys, fits) in rows {
        let dirs = BuildDirs::new();
        dirs.buildpack("a", "0.10", keys, "touch ran", "");
        dirs.buildpack("other", "0.10", "", "", "");
        dirs.write(&[("layers/analyzed.toml", File(&run_image(ubuntu)))]);
        dirs.order(&["a"]);
        for api in PLATFORM_APIS {
            let outcome = run(&mut dirs.detector(api));
            if fits || !at_least(api, "0.12") {
                assert_eq!(outcome.code(), 0, "{keys} at {api}: {}", outcome.all());
                dirs.remove("app/ran");
            } else {
                outcome.exits(21).says("unable to satisfy target os/arch constraints; run image: {").says("a@1.0.0");
                assert!(!dirs.exists("app/ran"), "{keys} at {api}");
            }
        }
        dirs.order(&["a? other"]);
        run(&mut dirs.detector("0.12")).ok();
        if fits {
            assert_eq!(dirs.detected(), "a other");
        } else if !may_differ("the reference runs an optional buildpack whatever its targets") {
            assert_eq!((dirs.detected().as_str(), dirs.exists("app/ran")), ("other", false), "{keys}");
        }
    }
}

#[test]
fn without_a_distribution_the_build_image_s_counts() {
    let Ok(os_release) = std::fs::read_to_string("/etc/os-release") else {
        eprintln!("skipped: needs /etc/os-release");
        return;
    };
    let id = os_release.lines().find_map(|line| line.strip_prefix("ID=")).expect("an ID").trim_matches('"');
    let dirs = BuildDirs::new();
    let distro = format!("[[targets]]\nos = \"linux\"\n[[targets.distros]]\nname = \"{id}\"\n");
    dirs.buildpack("a", "0.10", &distro, "", "");
    dirs.order(&["a"]);
    for analyzed in ["", &run_image("os = \"linux\"\narch = \"amd64\"")] {
        dirs.write(&[("layers/analyzed.toml", File(analyzed))]);
        run(&mut dirs.detector("0.12"))
            .ok()
            .says("target distro name/version labels not found, reading /etc/os-release file\n");
    }
}

#[test]
fn execution_environments_choose_from_0_15() {
    let dirs = BuildDirs::new();
    dirs.buildpack("any", "0.12", "", "echo $CNB_EXEC_ENV >env", "");
    dirs.buildpack("all", "0.12", "exec-env = [\"*\"]", "", "");
    dirs.buildpack("prod", "0.12", "exec-env = [\"production\"]", "", "");
    dirs.buildpack("test", "0.12", "exec-env = [\"other\", \"test\"]", "", "");
    dirs.buildpack("old", "0.11", "exec-env = [\"test\"]", "", "");
    dirs.order(&["any all prod test old"]);
    for api in PLATFORM_APIS {
        for (value, given, expected) in [
            (None, "production", "any all prod old"),
            (Some(""), "production", "any all prod old"),
            (Some("test"), "test", "any all test old"),
            (Some("none"), "none", "any all old"),
        ] {
            let mut call = dirs.detector(api);
            run(value.iter().fold(&mut call, |call, value| call.env("CNB_EXEC_ENV", value))).ok();
            let expected = if at_least(api, "0.15") { expected } else { "any all prod test old" };
            assert_eq!(dirs.detected(), expected, "{value:?} at {api}");
            assert_eq!(dirs.read("app/env").trim(), given, "{value:?} at {api}");
        }
    }
    dirs.order(&["test", "prod"]);
    run(&mut dirs.detector("0.15")).ok();
    assert_eq!(dirs.detected(), "prod");
    dirs.order(&["test"]);
    run(&mut dirs.detector("0.15")).exits(20);
    if !may_differ("the reference knows no tables for exec-env, and none in the order") {
        dirs.buildpack("tables", "0.12", "[[buildpack.exec-env]]\nname = \"test\"", "", "");
        let order = "[[order]]\n[[order.group]]\nid = \"any\"\nversion = \"1.0.0\"\nexec-env = \
                     [\"test\"]\n[[order.group]]\nid = \"tables\"\nversion = \"1.0.0\"\n[[order.group]]\nid = \
                     \"all\"\nversion = \"1.0.0\"\n";
        dirs.write(&[("cnb/order.toml", File(order))]);
        run(&mut dirs.detector("0.15")).ok();
        assert_eq!(dirs.detected(), "all");
        run(dirs.detector("0.15").env("CNB_EXEC_ENV", "test")).ok();
        assert_eq!(dirs.detected(), "any tables all");
    }
}

#[test]
fn system_buildpacks_are_around_every_group_from_0_15() {
    let dirs = BuildDirs::new();
    for name in ["a", "b", "first", "second", "last"] {
        dirs.buildpack(name, "0.10", "", "", "");
    }
    dirs.buildpack("fails", "0.10", "", "exit 100", "");
    let entry = |list: &str, id: &str| format!("[[system.{list}.buildpacks]]\nid = \"{id}\"\nversion = \"1.0.0\"\n");
    let system = entry("pre", "first") + &entry("pre", "second") + &entry("post", "last") + &entry("post", "a");
    dirs.order(&["fails b", "a b"]);
    for api in PLATFORM_APIS {
        dirs.write(&[("cnb/system.toml", File(&system))]);
        let outcome = run(dirs.detector(api).env("CNB_LOG_LEVEL", "debug")).ok();
        if at_least(api, "0.15") {
            assert_eq!(dirs.detected(), "first second a b last", "at {api}");
            outcome
                .says("Prepending 2 system buildpack(s) to group\n")
                .says("Appending 1 system buildpack(s) to group\n");
        } else {
            assert_eq!(dirs.detected(), "a b", "at {api}");
        }
        // Without the file, nothing is added.
        dirs.remove("cnb/system.toml");
        run(&mut dirs.detector(api)).ok();
        assert_eq!(dirs.detected(), "a b", "at {api}");
    }
    dirs.write(&[("cnb/system.toml", File(&entry("pre", "fails")))]);
    run(&mut dirs.detector("0.15")).exits(20);
    if !may_differ("the reference takes every system buildpack as required") {
        dirs.write(&[("cnb/system.toml", File(&(entry("pre", "fails") + "optional = true")))]);
        run(&mut dirs.detector("0.15")).ok();
        assert_eq!(dirs.detected(), "a b");
    }
}
