//! The launcher, from outside. platform.md, "launcher"; buildpack.md, "Launch", "Environment" and "Exec.d".
//!
//! What the launched process gets (its environment, arguments, descriptors, signals) is what the tests look at.

mod launch_image;

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, os::unix::process::CommandExt, process::Command};

use acceptance::{
    run::{BUILDPACK_APIS, PLATFORM_APIS, at_least, command, executable, may_differ, run},
    tree::Entry::{Bytes, Dir, File, Link, Mode, Script},
};
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
fn the_app_directory_is_the_working_directory() {
    let image = LaunchImage::new(
        &(buildpacks(&[("bp", "0.8")])
            + &process("bp", "app", "command = \"pwd\"\ndirect = true")
            + &process("bp", "abs", "command = \"pwd\"\ndirect = true\nworking-dir = \"/usr\"")
            + &process("bp", "rel", "command = \"pwd\"\ndirect = true\nworking-dir = \"sub\"")
            + &process("bp", "gone", "command = \"pwd\"\ndirect = true\nworking-dir = \"/gone\"")
            + &process("bp", "app-sh", "command = \"pwd\"")
            + &process("bp", "abs-sh", "command = \"pwd\"\nworking-dir = \"/usr\"")
            + &process("bp", "rel-sh", "command = \"pwd\"\nworking-dir = \"sub\"")
            + &process("bp", "gone-sh", "command = \"echo ran\"\nworking-dir = \"/gone\"")
            + &process("bp", "here", "command = \"./tool\"\ndirect = true\nworking-dir = \"sub\"")),
    );
    image.write(&[("app/sub/tool", Script("echo from sub")), ("app/.profile", File("cd /"))]);
    let app = image.path("app");
    let app = app.to_str().unwrap();
    for (name, want) in [("app", app), ("abs", "/usr"), ("rel", &format!("{app}/sub"))] {
        assert_eq!(run(&mut image.launch(name, &[])).ok().stdout(), format!("{want}\n"));
        // The profile's change of directory is undone, a relative one is taken from there.
        let name = format!("{name}-sh");
        if name != "rel-sh" {
            assert_eq!(run(&mut image.launch(&name, &[])).ok().stdout(), format!("{want}\n"));
        }
    }
    image.write(&[("app/.profile", File(""))]);
    assert_eq!(run(&mut image.launch("rel-sh", &[])).ok().stdout(), format!("{app}/sub\n"));
    assert_eq!(run(&mut image.launcher(&["--", "pwd"])).ok().stdout(), format!("{app}\n"));
    run(&mut image.launch("gone", &[])).exits(82).says("failed to launch: change directory: chdir /gone: no such file");
    run(image.launcher(&["--", "pwd"]).env("CNB_APP_DIR", "/gone"))
        .exits(82)
        .says("ERROR: failed to launch: change to app directory: chdir /gone: no such file or directory");
    if !may_differ(
        "the reference looks for a relative command in the app directory, then executes it in the working one",
    ) {
        assert_eq!(run(&mut image.launch("here", &[])).ok().stdout(), "from sub\n");
    }
    if !may_differ("the reference runs a shell process in the app directory where its working directory is missing") {
        let outcome = run(&mut image.launch("gone-sh", &[])).exits(82).says("/gone");
        assert_eq!(outcome.stdout(), "");
    }
}

#[test]
fn relative_directories_are_taken_from_where_the_launcher_starts() {
    if may_differ("the reference takes a relative layers directory from the app directory") {
        return;
    }
    let image = LaunchImage::new(&buildpacks(&[("bp", "0.9")]));
    image.write(&[("layers/bp/layer/env/V", File("set")), ("layers/bp/layer/bin/tool", Script("echo $V; pwd"))]);
    let mut call = image.launcher(&["--", "tool"]);
    call.current_dir(image.path("")).env("CNB_LAYERS_DIR", "layers").env("CNB_APP_DIR", "app");
    assert_eq!(run(&mut call).ok().stdout(), format!("set\n{}\n", image.path("app").display()));
}

#[test]
fn the_process_inherits_the_environment_without_the_lifecycles_own() {
    let image = LaunchImage::new("");
    for api in PLATFORM_APIS {
        let mut call = image.launcher(&["--", "env"]);
        call.env("CNB_PLATFORM_API", api)
            .env("CNB_PROCESS_TYPE", "x")
            .env("CNB_DEPRECATION_MODE", "quiet")
            .env("CNB_EXEC_ENV", "test")
            .env("CNB_OTHER", "kept")
            .env("EMPTY", "")
            .env("MULTI", "a\nb=c")
            .env("PATH", "/cnb/process:/cnb/lifecycle:/usr/bin:/bin:/cnb/other");
        let stdout = run(&mut call).ok().stdout();
        let mut lines: Vec<_> =
            stdout.lines().filter(|l| !l.starts_with("Warning") && !l.starts_with("CNB_NO_COLOR")).collect();
        lines.sort_unstable();
        let want = ["CNB_EXEC_ENV=test", "CNB_OTHER=kept", "EMPTY=", "MULTI=a", "PATH=/usr/bin:/bin:/cnb/other", "b=c"];
        assert_eq!(lines, want, "{api}");
    }
    let none = run(image.launcher(&["--", "/usr/bin/env"]).env_remove("PATH")).ok().stdout();
    assert_eq!(none, "CNB_NO_COLOR=true\n");
}

#[test]
fn bytes_that_are_not_utf8_pass_through() {
    let odd = OsStr::from_bytes(b"a\xff\xfeb");
    let image = LaunchImage::new(&buildpacks(&[("bp", "0.9")]));
    image.write(&[("layers/bp/layer/env/FILE", Bytes(b"\xff\n"))]);
    let outcome = run(image.launcher(&["--", "printf", "%s"]).arg(odd)).ok();
    assert_eq!(outcome.stdout, b"a\xff\xfeb");
    let outcome = run(image.launcher(&["--", "printenv", "V"]).env("V", odd)).ok();
    assert_eq!(outcome.stdout, b"a\xff\xfeb\n");
    let outcome = run(&mut image.launcher(&["--", "printenv", "FILE"])).ok();
    assert_eq!(outcome.stdout, b"\xff\n\n");
    image.write(&[("layers/bp/layer/env/FILE", Bytes(b"a\0b"))]);
    run(&mut image.launcher(&["--", "true"])).exits(82);
    image.write(&[("layers/bp/layer/env/FILE", File(""))]);
    let outcome = run(image.launcher(&["printf", "%s"]).arg(odd)).ok();
    assert_eq!(outcome.stdout, b"a\xff\xfeb");
    run(image.launcher(&["--", "true"]).arg0(OsStr::from_bytes(b"/cnb/process/\xff"))).ok();
}

#[test]
fn layer_paths_are_prepended() {
    let image = LaunchImage::new(&buildpacks(&[("acme/one", "0.9"), ("acme/none", "0.9"), ("two", "0.9")]));
    image.write(&[
        ("layers/acme_one/a/bin/tool", Script("echo one a")),
        ("layers/acme_one/b/bin/tool", Script("echo one b")),
        ("layers/acme_one/b/lib", Dir),
        ("layers/two/c/lib", Dir),
        ("layers/two/c/include", Dir),
        ("layers/two/c.toml", File("[types]\nlaunch = true")),
        ("layers/not-there/x/bin", Dir),
    ]);
    let stdout = run(&mut image.launcher(&["--", "env"])).ok().stdout();
    let layers = image.path("layers");
    let layers = layers.display();
    let line = |name: &str| stdout.lines().find_map(|l| l.strip_prefix(&format!("{name}="))).map(str::to_owned);
    assert_eq!(
        line("PATH").unwrap(),
        format!(
            "{layers}/acme_one/b/bin:{layers}/acme_one/a/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        )
    );
    assert_eq!(line("LD_LIBRARY_PATH").unwrap(), format!("{layers}/two/c/lib:{layers}/acme_one/b/lib"));
    assert_eq!(line("CPATH"), None);
    // And the command is looked up there.
    assert_eq!(run(&mut image.launcher(&["--", "tool"])).ok().stdout(), "one b\n");
    assert_eq!(run(&mut image.launcher(&["tool"])).ok().stdout(), "one b\n");
}

#[test]
fn environment_variable_modification_rules() {
    let metadata = buildpacks(&[("one", "0.9"), ("two", "0.9")])
        + &process("two", "web", r#"command = ["env"]"#)
        + &process("two", "job", r#"command = ["env"]"#);
    let image = LaunchImage::new(&metadata);
    image.write(&[
        ("layers/one/a/env/BARE", File("one")),
        ("layers/one/a/env/OVERRIDE.override", File("one")),
        ("layers/two/a/env/BARE", File("two")),
        ("layers/one/a/env/DEFAULT.default", File("one")),
        ("layers/two/a/env/DEFAULT.default", File("two")),
        ("layers/one/a/env/SET.default", File("buildpack")),
        ("layers/one/a/env/EMPTY.default", File("buildpack")),
        ("layers/one/a/env/APPEND.append", File("1")),
        ("layers/one/b/env/APPEND.append", File("2")),
        ("layers/one/b/env/APPEND.delim", File("; ")),
        ("layers/two/a/env.launch/APPEND.append", File("3")),
        ("layers/two/a/env.launch/web/APPEND.append", File("4")),
        ("layers/two/a/env.launch/job/APPEND.append", File("5")),
        ("layers/two/a/env.build/APPEND.append", File("never")),
        ("layers/one/a/env/PREPEND.prepend", File("1")),
        ("layers/two/a/env/PREPEND.prepend", File("2")),
        ("layers/two/a/env/PREPEND.delim", File(":")),
        ("layers/one/a/env/NEW.append", File("alone")),
        ("layers/one/a/env/NEW.delim", File(":")),
        ("layers/one/a/env/UNKNOWN.suffix", File("never")),
        ("layers/one/a/env/TRAILING", File("as it is\n")),
        ("layers/one/a/env/LINKED", Link("BARE")),
    ]);
    let variables = |name: &str| {
        let mut call = image.launch(name, &[]);
        if name == "launcher" {
            call.args(["--", "env"]);
        }
        call.env("SET", "user").env("EMPTY", "").env("APPEND", "0").env("PREPEND", "0").env("OVERRIDE", "user");
        run(&mut call).ok().stdout()
    };
    for (name, append) in [("web", "01; 234"), ("job", "01; 235"), ("launcher", "01; 23")] {
        let stdout = variables(name);
        let rows = [
            ("BARE", "two"),
            ("OVERRIDE", "one"),
            ("DEFAULT", "one"),
            ("SET", "user"),
            ("EMPTY", "buildpack"),
            ("APPEND", append),
            ("PREPEND", "2:10"),
            ("NEW", "alone"),
            ("TRAILING", "as it is"),
            ("LINKED", "one"),
        ];
        for (variable, want) in rows {
            assert!(stdout.lines().any(|l| l == format!("{variable}={want}")), "{name} {variable}: {stdout}");
        }
        assert!(!stdout.contains("UNKNOWN") && !stdout.contains("never"), "{stdout}");
        assert!(stdout.contains("TRAILING=as it is\n\n"), "the file's newline is part of the value: {stdout}");
    }
}

#[test]
fn env_directories_of_a_process_type_apply_to_that_type_only() {
    // A directory called like the type is no variable file.
    let metadata = buildpacks(&[("bp", "0.9")]) + &process("bp", "web", r#"command = ["printenv", "V"]"#);
    let image = LaunchImage::new(&metadata);
    image.write(&[("layers/bp/l/env.launch/V", File("plain")), ("layers/bp/l/env.launch/web/V", File("web"))]);
    assert_eq!(run(&mut image.launch("web", &[])).ok().stdout(), "web\n");
    assert_eq!(run(&mut image.launcher(&["--", "printenv", "V"])).ok().stdout(), "plain\n");
    run(&mut image.launcher(&["--", "printenv", "web"])).exits(1);
}

#[test]
fn a_direct_command_is_looked_up_in_the_new_path() {
    let image = LaunchImage::new(&buildpacks(&[("bp", "0.9")]));
    image.write(&[
        ("layers/bp/a/env/PATH", File("/elsewhere:/tmp/none:/usr/bin")),
        ("layers/bp/a/bin/hidden", Script("echo never")),
        ("app/tool", Script("echo \"$0\"")),
        ("app/plain", Mode(0o644, "")),
        ("app/dir", Dir),
        ("app/broken", Mode(0o755, "\x7fELF no program")),
    ]);
    let text = |args: &[&str]| run(&mut image.launcher(args)).exits(82).all();
    assert_eq!(
        text(&["--", "hidden"]),
        "ERROR: failed to launch: path lookup: exec: \"hidden\": executable file not found in $PATH\n"
    );
    assert!(text(&["--", ""]).contains("executable file not found in $PATH"));
    assert!(text(&["--", "./gone"]).starts_with("ERROR: failed to launch: path lookup: exec: \"./gone\": "));
    assert!(text(&["--", "./gone"]).ends_with("no such file or directory\n"));
    assert!(text(&["--", "./plain"]).ends_with("exec: \"./plain\": permission denied\n"));
    assert!(text(&["--", "./dir"]).ends_with("exec: \"./dir\": is a directory\n"));
    let broken = text(&["--", "./broken"]);
    assert!(broken.starts_with("ERROR: failed to launch: direct exec: ") && broken.ends_with("exec format error\n"));
    assert_eq!(run(&mut image.launcher(&["--", "./tool"])).ok().stdout(), "./tool\n");
    run(image.launcher(&["--", "ls"]).env_remove("PATH")).ok();
    let bare = LaunchImage::new("");
    run(bare.launcher(&["--", "ls"]).env_remove("PATH")).exits(82).says("executable file not found in $PATH");
    bare.write(&[("app/ls", Script("echo never"))]);
    run(bare.launcher(&["--", "ls"]).env("PATH", "").current_dir(bare.path("app"))).exits(82);
    run(bare.launcher(&["--", "ls"]).env("PATH", ".:relative")).exits(82);
}

#[test]
fn argv0_is_the_command_as_written() {
    let image = LaunchImage::new("");
    let line = run(&mut image.launcher(&["--", "cat", "/proc/self/cmdline"])).ok();
    assert_eq!(line.stdout, b"cat\0/proc/self/cmdline\0");
    let line = run(&mut image.launcher(&["--", "/usr/bin/cat", "/proc/self/cmdline", "/dev/null", "/dev/null"])).ok();
    assert_eq!(line.stdout, b"/usr/bin/cat\0/proc/self/cmdline\0/dev/null\0/dev/null\0");
}

#[test]
fn the_shell_evaluates_commands_and_arguments_of_processes_that_are_not_direct() {
    let image = LaunchImage::new(
        &(buildpacks(&[("bp", "0.8")])
            + &process("bp", "script", r#"command = "echo $V && echo \"$0\" | sed 's,.*/,,'""#)
            + &process(
                "bp",
                "words",
                "command = \"printf\"\nargs = [\"[%s]\", \"$V\", \"c  d\", \"$(echo x)\", \"\"]",
            )
            + &process("bp", "expanded", "command = \"$CMD\"\nargs = [\"[%s]\", \"it's\", \"a;b\", \"&&\"]")),
    );
    for api in PLATFORM_APIS {
        let output = |name: &str, args: &[&str]| {
            let mut call = image.launch(name, args);
            run(call.env("CNB_PLATFORM_API", api).env("V", "a  b").env("CMD", "printf")).ok().stdout()
        };
        assert_eq!(output("script", &[]), "a b\nbash\n");
        assert_eq!(output("words", &[]), "[a  b][c d][x][]");
        assert_eq!(output("words", &["$V", "e  f"]), "[a  b][c d][x][][a  b][e f]");
        assert_eq!(output("expanded", &[]), "[it's][a;b][&&]");
    }
}

#[test]
fn profiles_are_sourced_in_order_by_one_shell() {
    let metadata = buildpacks(&[("acme/one", "0.8"), ("two", "0.8")])
        + &process("two", "web", "command = \"echo $P\"")
        + &process("two", "job", "command = \"echo $P\"")
        + &process("two", "dir", "command = \"echo\"\nargs = [\"$P\"]\ndirect = true");
    let image = LaunchImage::new(&metadata);
    let add = |text: &str| format!("export P=\"$P {text}\"\n");
    image.write(&[
        ("layers/acme_one/a/profile.d/2.sh", File(&add("one/a/2"))),
        ("layers/acme_one/a/profile.d/10.sh", File(&add("one/a/10"))),
        ("layers/acme_one/b/profile.d/it's \"$P\".sh", File(&add("one/b"))),
        ("layers/two/a/profile.d/1.sh", File(&add("two/a"))),
        ("layers/two/a/profile.d/other/1.sh", File(&add("never"))),
        ("app/.profile", File(&add("app"))),
    ]);
    let output = |name: &str| run(&mut image.launch(name, &[])).ok().stdout();
    if !may_differ("the reference does not quote the names of profiles") {
        assert_eq!(output("web"), "one/a/10 one/a/2 one/b two/a app\n");
    }
    std::fs::remove_dir_all(image.path("layers/acme_one/b")).unwrap();
    assert_eq!(output("web"), "one/a/10 one/a/2 two/a app\n");
    assert_eq!(output("dir"), "$P\n");
    let user = run(&mut image.launcher(&["echo", "$P"])).ok().stdout();
    assert_eq!(user.trim(), "one/a/10 one/a/2 two/a app");

    image.write(&[
        ("layers/acme_one/a/profile.d/web/1.sh", File(&add("one/a/web"))),
        ("layers/two/a/profile.d/web/1.sh", File(&add("two/a/web"))),
    ]);
    assert_eq!(output("job"), "one/a/10 one/a/2 two/a app\n");
    if !may_differ("the reference takes plain and per-process profiles layer by layer; the spec: all plain ones first")
    {
        assert_eq!(output("web"), "one/a/10 one/a/2 two/a one/a/web two/a/web app\n");
    }
    // A directory is no profile.
    std::fs::remove_file(image.path("app/.profile")).unwrap();
    image.write(&[("app/.profile/x", File(""))]);
    assert_eq!(output("job"), "one/a/10 one/a/2 two/a\n");
    // In the app directory, with the launcher's name, in the process that becomes the command.
    std::fs::remove_dir_all(image.path("app/.profile")).unwrap();
    image.write(&[("app/.profile", File("export P=\"$PWD $0 $$\"\n"))]);
    let mut call = Command::new("sh");
    call.args(["-c", "echo $$; exec \"$0\" 'echo $P $$'"]).arg(executable("launcher"));
    image.environment(&mut call);
    let stdout = run(&mut call).ok().stdout();
    let pid = stdout.lines().next().unwrap();
    let want = format!("{pid}\n{} {} {pid} {pid}\n", image.path("app").display(), executable("launcher").display());
    assert_eq!(stdout, want);
}

#[test]
fn a_missing_shell_is_an_error() {
    let image = LaunchImage::new("");
    if let Some(mut call) = image.in_chroot(None) {
        run(call.arg("echo").arg("x")).exits(82).says("ERROR: failed to launch: bash exec: ");
    }
}

#[test]
fn direct_processes_run_in_a_root_with_nothing_else_as_any_user() {
    let image = LaunchImage::new(
        &(buildpacks(&[("bp", "0.9")]) + &process("bp", "web", r#"command = ["busybox", "id", "-u"]"#)),
    );
    image.write(&[("layers/bp/l/env/V", File("set"))]);
    for user in [None, Some("1000:1000"), Some("65534:65534")] {
        let Some(mut call) = image.in_chroot(user) else { return };
        run(call.args(["--", "busybox", "sh", "-c", "echo $V"])).ok().says("set\n");
        let Some(mut call) = image.in_chroot(user) else { return };
        // HOME and USER are not there, and nobody asks.
        let stdout = run(call.args(["--", "busybox", "env"])).ok().stdout();
        assert!(!stdout.contains("HOME=") && !stdout.contains("USER="), "{stdout}");
        let Some(mut call) = image.in_chroot(user) else { return };
        let launched = run(call.args(["--", "busybox", "id", "-u"])).ok().stdout();
        assert_eq!(launched.trim(), user.map_or("0", |u| u.split_once(':').unwrap().0));
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
