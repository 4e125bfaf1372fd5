//! The launcher, from outside: what it refuses, and which process it chooses, with which arguments.
//! platform.md, "launcher"; buildpack.md, "Launch".

mod launch_image;

use std::os::unix::process::CommandExt;

use acceptance::run::{BUILDPACK_APIS, PLATFORM_APIS, at_least, command, executable, may_differ, run};
use launch_image::{LaunchImage, buildpacks, process};

#[test]
fn platform_api_must_be_one_of_ours() {
    let image = LaunchImage::new("");
    let rows = [
        ("", "please set 'CNB_PLATFORM_API'"),
        (" ", "please set 'CNB_PLATFORM_API'"),
        ("bad", "failed to parse platform API 'bad'"),
        ("0.6", "failed to set platform API: platform API version '0.6' is incompatible with the lifecycle"),
        ("0.16", "failed to set platform API: platform API version '0.16' is incompatible with the lifecycle"),
        ("1.0", "failed to set platform API: platform API version '1.0' is incompatible with the lifecycle"),
    ];
    for (api, text) in rows {
        run(image.launcher(&["--", "true"]).env("CNB_PLATFORM_API", api)).exits(11).says(text);
    }
    run(image.launcher(&["--", "true"]).env_remove("CNB_PLATFORM_API")).exits(11).says("CNB_PLATFORM_API");
    for api in PLATFORM_APIS {
        run(image.launcher(&["--", "true"]).env("CNB_PLATFORM_API", api)).ok();
    }
    // Before anything else is looked at.
    run(image.launcher(&["--", "true"]).env("CNB_PLATFORM_API", "0.6").env("CNB_LAYERS_DIR", "/nowhere")).exits(11);
}

#[test]
fn metadata_must_be_readable() {
    let image = LaunchImage::new("[[processes]\n");
    run(&mut image.launcher(&["--", "true"])).exits(1).says("ERROR: failed to read metadata: ");
    run(image.launcher(&["--", "true"]).env("CNB_LAYERS_DIR", "/nowhere"))
        .exits(1)
        .says("failed to read metadata: open /nowhere/config/metadata.toml: no such file or directory");
}

#[test]
fn buildpack_apis_must_be_ours() {
    for api in BUILDPACK_APIS {
        let image = LaunchImage::new(&buildpacks(&[("acme/one", api)]));
        run(&mut image.launcher(&["--", "true"])).ok();
    }
    for api in ["0.6", "0.13", "1.0"] {
        let image = LaunchImage::new(&buildpacks(&[("acme/good", "0.12"), ("acme/bad", api)]));
        run(&mut image.launcher(&["--", "true"])).exits(12).says("buildpack 'acme/bad'").says(&format!(
            "failed to set API for buildpack 'acme/bad': buildpack API version '{api}' is incompatible with the lifecycle"
        ));
    }
    let image = LaunchImage::new(&buildpacks(&[("acme/bad", "x")]));
    run(&mut image.launcher(&["--", "true"])).exits(12).says("acme/bad");
}

#[test]
fn errors_are_one_line_on_stderr_with_colour_unless_told_not() {
    let image = LaunchImage::new("");
    let plain = run(&mut image.launcher(&[])).exits(82);
    let line =
        "ERROR: failed to launch: determine start command: when there is no default process a command is required\n";
    assert_eq!(plain.all(), line);
    for word in ["1", "t", "true", "TRUE"] {
        assert_eq!(run(image.launcher(&[]).env("CNB_NO_COLOR", word)).all(), line, "{word}");
    }
    for word in ["", "0", "false", "no"] {
        let coloured = run(image.launcher(&[]).env("CNB_NO_COLOR", word));
        assert_eq!(coloured.all(), line.replace("ERROR: ", "\x1b[31;1mERROR: \x1b[0m"), "{word}");
    }
    if !may_differ("the reference writes errors to stdout, where platform.md wants stderr") {
        assert_eq!((plain.stdout(), plain.stderr()), (String::new(), line.to_owned()));
    }
}

#[test]
fn cnb_process_type_is_warned_about_and_ignored() {
    let image = LaunchImage::new(&(buildpacks(&[("bp", "0.9")]) + &process("bp", "web", r#"command = ["true"]"#)));
    for api in PLATFORM_APIS {
        run(image.launcher(&[]).env("CNB_PLATFORM_API", api).env("CNB_PROCESS_TYPE", "web"))
            .exits(82)
            .says(&format!("Warning: CNB_PROCESS_TYPE is not supported in Platform API {api}\n"))
            .says("Warning: Run with ENTRYPOINT 'web' to invoke the 'web' process type\n")
            .says("ERROR: failed to launch: determine start command: when there is no default process a command is required");
        let silent = run(image.launch("web", &[]).env("CNB_PLATFORM_API", api).env("CNB_PROCESS_TYPE", "")).ok();
        assert_eq!(silent.all(), "");
    }
}

#[test]
fn the_last_element_of_the_name_chooses_the_process() {
    let image = LaunchImage::new(
        &(buildpacks(&[("bp", "0.9")])
            + &process("bp", "web", r#"command = ["echo", "the web"]"#)
            + &process("bp", "a.b_c-1", r#"command = ["echo", "the other"]"#)),
    );
    for name in ["/cnb/process/web", "web", "./web", "/elsewhere/web"] {
        assert_eq!(run(image.launcher(&[]).arg0(name)).ok().stdout(), "the web\n", "{name}");
    }
    assert_eq!(run(&mut image.launch("a.b_c-1", &[])).ok().stdout(), "the other\n");
    // No such type: a user-provided process.
    assert_eq!(run(&mut image.launch("worker", &["--", "echo", "mine"])).ok().stdout(), "mine\n");
    run(&mut image.launch("worker", &[])).exits(82).says("a command is required");
    run(image.launcher(&[]).arg0("web/launcher")).exits(82).says("a command is required");
}

#[test]
fn from_0_15_a_process_must_be_eligible_for_the_execution_environment() {
    let image = LaunchImage::new(
        &(buildpacks(&[("bp", "0.12")])
            + &process("bp", "any", r#"command = ["echo", "ran"]"#)
            + &process("bp", "all", "command = [\"echo\", \"ran\"]\nexec-env = [\"*\"]")
            + &process("bp", "prod", "command = [\"echo\", \"ran\"]\nexec-env = [\"x\", \"production\"]")
            + &process("bp", "test", "command = [\"echo\", \"ran\"]\nexec-env = [\"test\"]")
            + &process("bp", "both", "command = [\"echo\", \"for test\"]\nexec-env = [\"test\"]")
            + &process("bp", "both", "command = [\"echo\", \"for production\"]\nexec-env = [\"production\"]")),
    );
    for api in PLATFORM_APIS {
        let filters = at_least(api, "0.15");
        let rows = [
            ("any", None, true),
            ("all", None, true),
            ("prod", None, true),
            ("prod", Some(""), true),
            ("test", None, !filters),
            ("test", Some("test"), true),
            ("prod", Some("test"), !filters),
            ("prod", Some("*"), !filters),
        ];
        for (name, exec_env, runs) in rows {
            let mut call = image.launch(name, &["echo", "ran"]);
            call.env("CNB_PLATFORM_API", api).envs(exec_env.map(|value| ("CNB_EXEC_ENV", value)));
            let outcome = run(&mut call);
            if runs {
                outcome.ok().says("ran");
            } else {
                outcome.exits(82).says(&format!("process type {name} was not found"));
            }
        }
        let both = run(image.launch("both", &[]).env("CNB_PLATFORM_API", api)).ok().stdout();
        assert_eq!(both, if filters { "for production\n" } else { "for test\n" }, "{api}");
    }
}

#[test]
fn arguments_of_the_user_follow_or_replace() {
    let processes = |buildpack: &str| {
        process(buildpack, "text", "command = \"printf\"\nargs = [\"[%s]\", \"default\"]")
            + &process(buildpack, "one", "command = [\"printf\"]\nargs = [\"[%s]\", \"default\"]")
            + &process(buildpack, "two", "command = [\"printf\", \"[%s]\"]\nargs = [\"default\"]")
            + &process(buildpack, "none", "command = [\"printf\", \"[%s]\", \"always\"]")
    };
    for buildpack_api in BUILDPACK_APIS {
        let image = LaunchImage::new(&(buildpacks(&[("bp", buildpack_api)]) + &processes("bp")));
        for api in PLATFORM_APIS {
            let output =
                |name: &str, args: &[&str]| run(image.launch(name, args).env("CNB_PLATFORM_API", api)).ok().stdout();
            let may_replace = at_least(api, "0.10");
            let replaced = may_replace && at_least(buildpack_api, "0.9");
            let what = format!("Platform API {api}, Buildpack API {buildpack_api}");
            for name in ["text", "one"] {
                assert_eq!(output(name, &[]), "[default]", "{what}");
                let want = if replaced { "{mine}" } else { "[default][{%s}][mine]" };
                assert_eq!(output(name, &["{%s}", "mine"]), want, "{what}");
            }
            assert_eq!(output("two", &[]), "[default]", "{what}");
            assert_eq!(output("two", &["my", "own"]), if may_replace { "[my][own]" } else { "[default][my][own]" });
            assert_eq!(output("none", &[]), "[always]", "{what}");
            assert_eq!(output("none", &["mine"]), "[always][mine]", "{what}");
        }
    }
}

#[test]
fn a_process_without_its_buildpack_takes_no_arguments() {
    let image = LaunchImage::new(&process("gone", "web", r#"command = ["echo"]"#));
    for api in PLATFORM_APIS {
        run(image.launch("web", &[]).env("CNB_PLATFORM_API", api)).ok();
        let code = if at_least(api, "0.10") { 82 } else { 0 };
        run(image.launch("web", &["x"]).env("CNB_PLATFORM_API", api)).exits(code);
    }
}

#[test]
fn a_user_provided_process_is_direct_after_two_dashes() {
    let image = LaunchImage::new("");
    for api in PLATFORM_APIS {
        let output = |args: &[&str]| run(image.launcher(args).env("CNB_PLATFORM_API", api).env("V", "a  b")).stdout();
        assert_eq!(output(&["--", "echo", "$V", "a  b"]), "$V a  b\n");
        // What stands in an argument is split into words before it is expanded, and joined by single blanks.
        assert_eq!(output(&["echo", "$V", "c  d"]), "a  b c d\n");
        assert_eq!(output(&["echo $V | tr a-z A-Z"]), "A B\n");
        run(&mut image.launcher(&["--"])).exits(2).says("bash");
    }
}

#[test]
fn the_launcher_is_a_static_executable() {
    let path = executable("launcher");
    if path.parent().is_some_and(|dir| dir.ends_with("debug")) {
        // cargo's debug build is linked as the machine links everything.
        return;
    }
    let headers = run(command("readelf").arg("-lW").arg(&path)).ok().stdout();
    assert!(!headers.contains("INTERP"), "{headers}");
    let size = std::fs::metadata(path).unwrap().len();
    if !may_differ("the size is ours to keep") {
        assert!(size <= 1_400_000, "{size} bytes");
    }
}
