//! Image extensions in detector: detection, `bin/generate`, and the files it leaves for extender.
//! `image_extension.md`; platform.md "detector".

mod build_dirs;

use acceptance::{
    run::{PLATFORM_APIS, at_least, may_differ, run},
    tree::Entry::File,
};
use build_dirs::{BuildDirs, ids};

const BUILD_DOCKERFILE: &str = "ARG base_image\nFROM ${base_image}\nRUN true\n";
const RUN_DOCKERFILE: &str = "FROM registry.test/other\n";
const ANALYZED: &str = "[run-image]\nreference = \"registry.test/run@sha256:1\"\nimage = \"registry.test/run\"\n";

/// The APIs at which a detector knows extensions.
fn apis() -> impl Iterator<Item = &'static str> {
    PLATFORM_APIS.into_iter().filter(|api| at_least(api, "0.10"))
}

/// A generate script that writes these files of its output.
fn generates(files: &[(&str, &str)]) -> String {
    let write = |(name, text): &(&str, &str)| format!("cat >\"$1/{name}\" <<'END'\n{text}\nEND\n");
    files.iter().map(write).collect()
}

/// An app whose one buildpack passes, with this extension in the order.
fn with_extension(detect: &str, generate: &str) -> BuildDirs {
    let dirs = BuildDirs::new();
    dirs.buildpack("bp", "0.10", "", "", "");
    dirs.extension("acme/ext", "0.10", "", detect, generate);
    dirs.order_with_extensions(&["acme/ext"], &["bp"]);
    dirs.write(&[("layers/analyzed.toml", File(ANALYZED))]);
    dirs
}

/// The call with extensions allowed where they are experimental.
fn detector(dirs: &BuildDirs, api: &str) -> std::process::Command {
    let mut call = dirs.detector(api);
    call.env("CNB_EXPERIMENTAL_MODE", "warn");
    call
}

#[test]
fn before_0_13_extensions_are_experimental() {
    let dirs = with_extension("", "");
    for api in apis() {
        for (mode, code, says) in [
            (None, 1, "Platform requested experimental feature 'Dockerfiles'\n"),
            (Some("error"), 1, "experimental features are disabled by CNB_EXPERIMENTAL_MODE=error\n"),
            (Some("warn"), 0, "Platform requested experimental feature 'Dockerfiles'\n"),
            (Some("quiet"), 0, ""),
        ] {
            let mut call = dirs.detector(api);
            let outcome = run(mode.iter().fold(&mut call, |call, mode| call.env("CNB_EXPERIMENTAL_MODE", mode)));
            if at_least(api, "0.13") {
                assert!(!outcome.ok().all().contains("experimental"), "{mode:?} at {api}");
            } else {
                let outcome = outcome.exits(code).says(says);
                assert_eq!(outcome.all().contains("experimental"), !says.is_empty(), "{mode:?} at {api}");
            }
        }
    }
}

#[test]
fn an_extension_takes_part_when_what_it_provides_is_wanted() {
    let provides = "printf '[[provides]]\\nname = \"tool\"\\n' >\"$2\"";
    for api in apis() {
        let dirs = with_extension(provides, "");
        run(&mut detector(&dirs, api)).ok();
        assert_eq!(ids(dirs.toml("layers/group.toml").get("group-extensions")), "", "nobody wants its tool");
        dirs.buildpack("bp", "0.10", "", "printf '[[requires]]\\nname = \"tool\"\\n' >\"$2\"", "");
        let out = run(&mut detector(&dirs, api)).ok().stdout();
        assert!(out.contains("acme/ext 1.0.0\nbp       1.0.0\n"), "{out}");
        let expected = "[[group]]\nid = \"bp\"\nversion = \"1.0.0\"\napi = \"0.10\"\n[[group-extensions]]\nid = \
                        \"acme/ext\"\nversion = \"1.0.0\"\napi = \"0.10\"";
        assert_eq!(dirs.toml("layers/group.toml"), toml::from_str(expected).unwrap(), "at {api}");
        // What extensions provide is met: buildpacks do not see it.
        assert!(dirs.toml("layers/plan.toml").is_empty(), "at {api}");
    }
    // An extension alone makes no group, and may want nothing.
    let dirs = with_extension("", "");
    dirs.buildpack("bp", "0.10", "", "exit 100", "");
    run(&mut detector(&dirs, "0.13")).exits(20);
    let dirs = with_extension("printf '[[requires]]\\nname = \"x\"\\n' >\"$2\"", "");
    run(&mut detector(&dirs, "0.13")).ok();
    assert_eq!(ids(dirs.toml("layers/group.toml").get("group-extensions")), "");
    let debug = run(detector(&dirs, "0.13").env("CNB_LOG_LEVEL", "debug")).ok();
    debug.says("acme/ext outputs \"requires\" which is not allowed");
}

#[test]
fn how_generate_is_called() {
    let script = "{ pwd -P; echo \"$#\"; echo \"$0\"; echo \"$2\"; cat \"$3\"; cat; } >said; echo \"$1\" >output; echo \"$3\" \
                  >plan\ncat /proc/$$/environ >env; echo to stdout; echo to stderr >&2";
    for api in apis() {
        let dirs = with_extension("printf '[[provides]]\\nname = \"tool\"\\n' >\"$2\"", script);
        let wants = "printf '[[requires]]\\nname = \"tool\"\\n[requires.metadata]\\nn = 1\\n' >\"$2\"";
        dirs.buildpack("bp", "0.10", "", wants, "");
        dirs.write(&[("platform/env/USERS", File("user's")), ("config/env/OPERATORS", File("operator's"))]);
        let mut call = detector(&dirs, api);
        call.env("CNB_REGISTRY_AUTH", "secret").env("HOME", "/home");
        assert!(run(&mut call).ok().stdout().contains("to stdout\nto stderr\n"), "at {api}");
        let (output, plan) = (dirs.read("app/output").trim().to_owned(), dirs.read("app/plan").trim().to_owned());
        let root = dirs.text("extensions/acme_ext/1.0.0");
        let expected = format!(
            "{}\n3\n{root}/bin/generate\n{}\n[[entries]]\nname = \"tool\"\n\n[entries.metadata]\nn = 1\n",
            dirs.text("app"),
            dirs.text("platform")
        );
        let said = dirs.read("app/said");
        // The texts of TOML are not compared, only the lines.
        let lines = |text: &str| text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("\n");
        assert_eq!(lines(&said), lines(&expected), "at {api}");
        if at_least(api, "0.13") {
            assert_eq!(output, dirs.text("layers/generated/acme_ext"));
        } else {
            assert!(output.ends_with("/acme_ext") && !std::path::Path::new(&output).exists(), "{output}");
        }
        let variables = dirs.read("app/env");
        let mut variables: Vec<&str> = variables.split_terminator('\0').collect();
        variables.retain(|v| !v.starts_with("CNB_TARGET_DISTRO") && !v.starts_with("PATH="));
        variables.sort_unstable();
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let expected = [
            format!("CNB_BP_PLAN_PATH={plan}"),
            format!("CNB_EXTENSION_DIR={root}"),
            format!("CNB_OUTPUT_DIR={output}"),
            format!("CNB_PLATFORM_DIR={}", dirs.text("platform")),
            format!("CNB_TARGET_ARCH={arch}"),
            "CNB_TARGET_OS=linux".to_owned(),
            "HOME=/home".to_owned(),
            "OPERATORS=operator's".to_owned(),
            "USERS=user's".to_owned(),
        ];
        assert_eq!(variables, expected, "at {api}");
        assert!(dirs.list("tmp").is_empty(), "{:?}", dirs.list("tmp"));
    }
}

#[test]
fn where_dockerfiles_go() {
    let config = "[[build.args]]\nname = \"x\"\nvalue = \"y\"";
    let script = generates(&[
        ("build.Dockerfile", BUILD_DOCKERFILE),
        ("run.Dockerfile", "ARG base_image\nFROM ${base_image}\nRUN true\n"),
        ("extend-config.toml", config),
    ]);
    for api in apis() {
        let dirs = with_extension("", &script);
        run(&mut detector(&dirs, api)).ok();
        let expected: &[&str] = if at_least(api, "0.13") {
            &["acme_ext/build.Dockerfile", "acme_ext/extend-config.toml", "acme_ext/run.Dockerfile"]
        } else {
            &[
                "build/acme_ext/Dockerfile",
                "build/acme_ext/extend-config.toml",
                "run/acme_ext/Dockerfile",
                "run/acme_ext/extend-config.toml",
            ]
        };
        let root = dirs.path("layers/generated");
        let found: Vec<String> = build_dirs::snapshot(&root)
            .into_iter()
            .map(|(path, _)| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(found, expected, "at {api}");
        let run_image = &dirs.toml("layers/analyzed.toml")["run-image"];
        assert_eq!(run_image["image"].as_str(), Some("registry.test/run"), "at {api}");
        // To extend run images came with 0.12.
        if at_least(api, "0.12") {
            assert_eq!(run_image.get("extend").and_then(toml::Value::as_bool), Some(true), "at {api}");
        }
    }
    if !may_differ("the reference leaves files that an extension brings along where they are") {
        let dirs = with_extension("", "");
        dirs.write(&[("extensions/acme_ext/1.0.0/generate/build.Dockerfile", File(BUILD_DOCKERFILE))]);
        run(&mut detector(&dirs, "0.13")).ok();
        assert_eq!(dirs.read("layers/generated/acme_ext/build.Dockerfile"), BUILD_DOCKERFILE);
    }
}

#[test]
fn an_extension_switches_the_run_image() {
    for api in apis() {
        let dirs = with_extension("", &generates(&[("run.Dockerfile", RUN_DOCKERFILE)]));
        dirs.extension(
            "late",
            "0.10",
            "",
            "",
            &generates(&[("run.Dockerfile", "FROM registry.test/late\nRUN true\n")]),
        );
        dirs.order_with_extensions(&["acme/ext late"], &["bp"]);
        let outcome = run(&mut detector(&dirs, api)).ok();
        if at_least(api, "0.12") {
            outcome.says("Warning: new runtime base image 'registry.test/late' not found in run metadata\n");
        }
        let run_image = &dirs.toml("layers/analyzed.toml")["run-image"];
        assert_eq!(run_image["reference"].as_str(), Some("registry.test/late"), "at {api}");
        if at_least(api, "0.12") {
            assert_eq!(run_image["image"].as_str(), Some("registry.test/late"), "at {api}");
            assert_eq!(run_image["extend"].as_bool(), Some(true), "at {api}");
        }
        // What an earlier extension wanted of another image does not count.
        let ignored =
            if at_least(api, "0.13") { "acme_ext/run.Dockerfile.ignore" } else { "run/acme_ext/Dockerfile.ignore" };
        assert_eq!(dirs.read(&format!("layers/generated/{ignored}")), format!("{RUN_DOCKERFILE}\n"), "at {api}");
        assert!(!dirs.exists(&format!("layers/generated/{}", ignored.trim_end_matches(".ignore"))), "at {api}");
    }
}

/// An extension that switches the run image, and then this one.
fn after_one_that_does_well(generate: &str) -> BuildDirs {
    let dirs = with_extension("", generate);
    dirs.extension("first", "0.10", "", "", &generates(&[("run.Dockerfile", RUN_DOCKERFILE)]));
    dirs.order_with_extensions(&["first acme/ext"], &["bp"]);
    dirs
}

/// Neither files of extensions nor the run image that one of them wants.
fn nothing_is_left(dirs: &BuildDirs) {
    assert_eq!(dirs.read("layers/analyzed.toml"), ANALYZED);
    if !may_differ("the reference leaves what extensions that failed have made") {
        assert_eq!(dirs.list("layers/generated"), [""; 0]);
    }
}

#[test]
fn what_generate_must_not_leave() {
    let rows: &[(&[(&str, &str)], &str)] = &[
        (&[("build.Dockerfile", "FROM ${base_image}\nRUN true")], "did not start with required ARG command"),
        (
            &[("build.Dockerfile", "ARG base_image\nFROM scratch")],
            "did not contain required FROM ${base_image} command",
        ),
        (
            &[("build.Dockerfile", "ARG base_image\nFROM ${base_image}\nFROM ${base_image}")],
            "build.Dockerfile is not permitted to use multistage build",
        ),
        (&[("run.Dockerfile", "FROM a\nFROM b")], "run.Dockerfile is not permitted to use multistage build"),
        (
            &[("extend-config.toml", "[[build.args]]\nname = \"build_id\"\nvalue = \"x\"")],
            "arg with name \"build_id\" is not allowed",
        ),
        (
            &[("extend-config.toml", "[[run.args]]\nname = \"user_id\"\nvalue = \"x\"")],
            "arg with name \"user_id\" is not allowed",
        ),
        (&[("extend-config.toml", "[[")], "extend-config.toml"),
        (&[("build.Dockerfile", "not a Dockerfile")], "build.Dockerfile"),
    ];
    for (files, text) in rows {
        for api in apis() {
            let dirs = after_one_that_does_well(&generates(files));
            let outcome = run(&mut detector(&dirs, api)).exits(92).says("ERROR: failed to build: ");
            nothing_is_left(&dirs);
            if *text != "extend-config.toml" || !may_differ("the reference does not say which file is malformed") {
                outcome.says(text);
            }
        }
    }
    let dirs = with_extension("", &generates(&[("build.Dockerfile", &format!("{BUILD_DOCKERFILE}EXPOSE 80"))]));
    run(&mut detector(&dirs, "0.13")).ok().says("build.Dockerfile command EXPOSE on line 4 is not recommended");
    let dirs = with_extension("", "mkdir \"$1/context\" \"$1/context.run\"");
    let text = "image-specific context dir is provided together with a shared context";
    run(&mut detector(&dirs, "0.13")).exits(92).says(text);
}

#[test]
fn a_generate_that_fails_has_a_code_of_its_own() {
    for api in apis() {
        let dirs =
            after_one_that_does_well(&format!("{}echo why; exit 9", generates(&[("run.Dockerfile", RUN_DOCKERFILE)])));
        let outcome = run(&mut detector(&dirs, api)).exits(91).says("why\n").says("failed to build: exit status 9\n");
        assert_eq!(outcome.all().matches("ERROR: ").count(), 1, "{}", outcome.all());
        nothing_is_left(&dirs);
        assert!(dirs.list("tmp").is_empty(), "{:?}", dirs.list("tmp"));
    }
    // An extension's API is checked like a buildpack's.
    let dirs = with_extension("", "");
    dirs.extension("acme/ext", "0.13", "", "", "");
    run(&mut detector(&dirs, "0.13")).exits(12).says(
        "failed to set API for Extension 'acme/ext@1.0.0': buildpack API version '0.13' is incompatible with the lifecycle",
    );
}

#[test]
fn an_extension_without_detect_brings_its_plan() {
    let dirs = with_extension("", "");
    dirs.buildpack("bp", "0.10", "", "printf '[[requires]]\\nname = \"tool\"\\n' >\"$2\"", "");
    run(&mut detector(&dirs, "0.13")).exits(20);
    dirs.write(&[("extensions/acme_ext/1.0.0/detect/plan.toml", File("[[provides]]\nname = \"tool\"\n"))]);
    run(&mut detector(&dirs, "0.13")).ok();
    assert_eq!(ids(dirs.toml("layers/group.toml").get("group-extensions")), "acme/ext");
}
