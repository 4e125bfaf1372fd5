//! The environment of the launched process. platform.md, "launcher"; buildpack.md, "Environment".

mod launch_image;

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, os::unix::process::CommandExt};

use acceptance::{
    run::{PLATFORM_APIS, run},
    tree::Entry::{Bytes, Dir, File, Link, Script},
};
use launch_image::{LaunchImage, buildpacks, process};

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
