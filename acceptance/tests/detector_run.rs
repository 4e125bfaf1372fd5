//! How detector calls `bin/detect`, and what it says about it.
//! buildpack.md "Detection"; platform.md "Logging".

mod build_dirs;

use acceptance::{
    run::{BUILDPACK_APIS, PLATFORM_APIS, as_root, at_least, command, may_differ, run},
    tree::Entry::{Bytes, File, Link, Mode},
};
use build_dirs::BuildDirs;

/// Writes the variables the call came with to `<app>/env-<name>`, with NUL behind each.
const RECORD: &str = "cat /proc/$$/environ >env-${0##*/}";

/// What [`RECORD`] wrote.
fn recorded(dirs: &BuildDirs, name: &str) -> Vec<String> {
    dirs.read(&format!("app/env-{name}")).split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn arguments_directory_and_input() {
    for api in BUILDPACK_APIS {
        let dirs = BuildDirs::new();
        let script = "ls /proc/$$/fd >fds\n{ pwd -P; echo \"$#\"; echo \"$0\"; echo \"$1\"; ls -l \"$2\" | cut -c1-10; wc -c \
                      <\"$2\"; cat; readlink /proc/self/fd/0; } >said; echo \"$2\" >plan";
        dirs.buildpack("acme/a", api, "", script, "");
        dirs.order(&["acme/a"]);
        run(&mut dirs.detector("0.12")).ok();
        let (app, root, platform) = (dirs.text("app"), dirs.text("buildpacks/acme_a/1.0.0"), dirs.text("platform"));
        let expected = format!("{app}\n2\n{root}/bin/detect\n{platform}\n-rw-------\n0\n/dev/null\n");
        assert_eq!(dirs.read("app/said"), expected, "at {api}");
        // Of the numbers that are free when detector starts; 10 is the shell's own.
        let fds = dirs.read("app/fds");
        assert!(fds.lines().all(|fd| !("3"..="9").contains(&fd) || fd.len() > 1), "at {api}: {fds}");
        let plan = dirs.read("app/plan");
        assert!(plan.trim().ends_with("plan.toml") && !std::path::Path::new(plan.trim()).exists(), "{plan}");
        assert!(dirs.list("tmp").is_empty());
    }
}

#[test]
fn variables() {
    for platform_api in ["0.7", "0.11", "0.12", "0.15"] {
        for api in BUILDPACK_APIS {
            let dirs = BuildDirs::new();
            dirs.buildpack("a", api, "", &format!("echo \"$2\" >plan; {RECORD}"), "");
            dirs.order(&["a"]);
            let target = "[run-image]\nreference = \"x\"\n[run-image.target]\nos = \"linux\"\narch = \
                          \"arm\"\narch-variant = \"v7\"\n[run-image.target.distro]\nname = \"ubuntu\"\nversion = \"22.04\"";
            dirs.write(&[
                ("layers/analyzed.toml", File(target)),
                ("platform/env/USERS", File("of the user\n")),
                ("platform/env/PATH", File("/users")),
                ("config/env/OPERATORS", File("of the operator")),
            ]);
            let mut call = dirs.detector(platform_api);
            call.env("CNB_REGISTRY_AUTH", "{\"secret\": 1}").env("LANG", "C").env("DOCKER_CONFIG", "/secret");
            call.env("HOME", "/home").env("CNB_STACK_ID", "stack").env("HTTPS_PROXY", "proxy").env("no_proxy", "none");
            call.env("USERS", "overridden").env("CNB_EXEC_ENV", "test").env("OTHER", "x").env("HOSTNAME", "host");
            run(&mut call).ok();
            let mut expected = vec![
                format!("CNB_BUILDPACK_DIR={}", dirs.text("buildpacks/a/1.0.0")),
                "CNB_STACK_ID=stack".into(),
                "HOME=/home".into(),
                "HOSTNAME=host".into(),
                "HTTPS_PROXY=proxy".into(),
                "OPERATORS=of the operator".into(),
                "PATH=/users:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
                "USERS=of the user\n".into(),
                "no_proxy=none".into(),
            ];
            if at_least(api, "0.8") {
                expected.push(format!("CNB_BUILD_PLAN_PATH={}", dirs.read("app/plan").trim()));
                expected.push(format!("CNB_PLATFORM_DIR={}", dirs.text("platform")));
            }
            if at_least(api, "0.10") {
                expected.extend(
                    ["OS=linux", "ARCH=arm", "ARCH_VARIANT=v7", "DISTRO_NAME=ubuntu", "DISTRO_VERSION=22.04"]
                        .map(|rest| format!("CNB_TARGET_{rest}")),
                );
            }
            if at_least(api, "0.12") {
                expected.push("CNB_EXEC_ENV=test".into());
            }
            expected.sort();
            let mut found = recorded(&dirs, "detect");
            found.sort();
            assert_eq!(found, expected, "platform {platform_api}, buildpack {api}");
        }
    }
}

#[test]
fn clear_env_keeps_the_user_s_variables_away() {
    let dirs = BuildDirs::new();
    dirs.buildpack("clear", "0.10", "clear-env = true", RECORD, "");
    dirs.order(&["clear"]);
    dirs.write(&[
        ("platform/env/USERS", File("x")),
        ("platform/env/PATH", File("/users")),
        ("config/env/OPERATORS", File("x")),
    ]);
    run(&mut dirs.detector("0.12")).ok();
    let found = recorded(&dirs, "detect");
    assert!(found.contains(&"OPERATORS=x".to_owned()), "{found:?}");
    assert!(!found.iter().any(|v| v.contains("users") || v.starts_with("USERS=")), "{found:?}");
}

#[test]
fn user_variables_are_files_of_any_bytes() {
    let dirs = BuildDirs::new();
    dirs.buildpack("a", "0.10", "", RECORD, "");
    dirs.order(&["a"]);
    dirs.write(&[
        ("platform/env/BYTES", Bytes(b"\xff\xfe\n x ")),
        ("platform/env/with.dots.append", File("whole name")),
        ("platform/env/EMPTY", File("")),
        ("platform/env/dir/FILE", File("not this")),
        ("platform/env/LINK", Link("../../cnb/linked")),
        ("cnb/linked", File("linked to")),
        ("platform/env/LIBRARY_PATH", File("/lib-of-user")),
        ("platform/env/CPATH", File("/c")),
    ]);
    run(dirs.detector("0.12").env("LIBRARY_PATH", "/had")).ok();
    let found = recorded(&dirs, "detect");
    for variable in ["EMPTY=", "LINK=linked to", "LIBRARY_PATH=/lib-of-user:/had", "CPATH=/c"] {
        assert!(found.contains(&variable.to_owned()), "no {variable} in {found:?}");
    }
    assert!(found.contains(&"with.dots.append=whole name".to_owned()), "{found:?}");
    assert!(found.iter().any(|v| v.starts_with("BYTES=") && v.ends_with("\n x ")), "{found:?}");
    assert!(!found.iter().any(|v| v.contains("not this")), "{found:?}");
}

#[test]
fn what_is_said_on_success() {
    let dirs = BuildDirs::new();
    dirs.buildpack("a", "0.10", "", "echo out; echo err >&2; printf %s 'no newline %d%s'", "");
    dirs.buildpack("acme/long", "0.10", "", "exit 100", "");
    dirs.buildpack("broken", "0.10", "", "echo why; exit 7", "");
    dirs.order(&["acme/long", "a acme/long? broken?"]);
    dirs.write(&[("layers/analyzed.toml", File("[run-image]\nreference = \"x\"\n"))]);
    for api in PLATFORM_APIS {
        let outcome = run(&mut dirs.detector(api)).ok();
        // Told at info: that a buildpack is broken, and the result.
        let out =
            outcome.stdout().replace("target distro name/version labels not found, reading /etc/os-release file\n", "");
        assert_eq!(
            out,
            "======== Output: broken@1.0.0 ========\nwhy\nerr:  broken@1.0.0 (7)\n1 of 3 buildpacks participating\na 1.0.0\n",
            "at {api}"
        );
        assert_eq!(outcome.stderr(), "", "at {api}");
    }
    let debug = run(dirs.detector("0.11").env("CNB_LOG_LEVEL", "debug")).ok().all();
    let mut at = 0;
    for line in [
        "Starting detector...",
        "Timer: Detector started at ",
        "======== Results ========",
        "fail: acme/long@1.0.0",
        "======== Output: a@1.0.0 ========\nout\nerr\nno newline %d%s\n",
        "======== Output: broken@1.0.0 ========\nwhy\n",
        "======== Results ========",
        "pass: a@1.0.0",
        "skip: acme/long@1.0.0",
        "err:  broken@1.0.0 (7)",
        "Resolving plan... (try #1)",
        "a 1.0.0\n",
        "Timer: Detector ran for ",
    ] {
        if line.contains("%d") && may_differ("the reference takes output for a format") {
            continue;
        }
        match debug[at..].find(line) {
            Some(found) => at += found,
            // Timers may be told before or after what detection says.
            None if line.starts_with("Timer") => assert!(debug.contains(line), "{line}\n{debug}"),
            None => panic!("no '{line}' in its place in\n{debug}"),
        }
    }
    let quiet = run(dirs.detector("0.12").env("CNB_LOG_LEVEL", "error")).ok();
    assert_eq!(quiet.all(), "");
}

#[test]
fn ids_are_told_in_columns() {
    let dirs = BuildDirs::new();
    dirs.buildpack("a", "0.10", "", "", "");
    dirs.buildpack("acme/long", "0.10", "", "", "");
    dirs.order(&["a acme/long"]);
    dirs.write(&[("layers/analyzed.toml", File("[run-image]\nreference = \"x\"\n"))]);
    let out = run(&mut dirs.detector("0.11")).ok().stdout();
    assert!(out.ends_with("a         1.0.0\nacme/long 1.0.0\n") && !out.contains("participating"), "{out}");
}

#[test]
fn what_is_said_on_failure() {
    let dirs = BuildDirs::new();
    dirs.buildpack("fails", "0.10", "", "echo why not; exit 100", "");
    dirs.buildpack("broken", "0.10", "", "echo oh no; exit 3", "");
    dirs.buildpack("wants", "0.10", "", "printf '[[requires]]\\nname = \"x\"\\n' >\"$2\"", "");
    dirs.buildpack("gives", "0.10", "", "printf '[[provides]]\\nname = \"y\"\\n' >\"$2\"", "");
    dirs.buildpack("passes", "0.10", "", "", "");
    dirs.order(&["fails", "passes wants", "passes gives", "fails?"]);
    for api in PLATFORM_APIS {
        let outcome = run(&mut dirs.detector(api)).exits(20);
        for line in [
            "======== Output: fails@1.0.0 ========\nwhy not\n",
            "======== Results ========\n",
            "fail: fails@1.0.0\n",
            "pass: passes@1.0.0\npass: wants@1.0.0\n",
            "Resolving plan... (try #1)\n",
            "fail: wants@1.0.0 requires x\n",
            "fail: gives@1.0.0 provides unused y\n",
            "skip: fails@1.0.0\n",
            "fail: no viable buildpacks in group\n",
            "No buildpack groups passed detection.\n",
            "Please check that you are running against the correct path.\n",
            "ERROR: failed to detect: no buildpacks participating\n",
        ] {
            assert!(outcome.all().contains(line), "no '{line}' at {api} in\n{}", outcome.all());
        }
        if !may_differ("the reference writes errors to stdout, where platform.md wants stderr") {
            let said = "ERROR: No buildpack groups passed detection.\nERROR: Please check that you are running against the \
                        correct path.\nERROR: failed to detect: no buildpacks participating\n";
            assert!(outcome.stderr().ends_with(said), "{}", outcome.stderr());
        }
    }
    dirs.order(&["passes broken"]);
    let all = run(&mut dirs.detector("0.12")).exits(21).all();
    let lines = [
        "======== Output: broken@1.0.0 ========\noh no\n",
        "err:  broken@1.0.0 (3)\n",
        "ERROR: No buildpack groups passed detection.\n",
        "ERROR: failed to detect: buildpack(s) failed with err\n",
    ];
    for line in lines {
        assert!(all.contains(line), "no '{line}' in\n{all}");
    }
    for level in ["warn", "error"] {
        let all = run(dirs.detector("0.12").env("CNB_LOG_LEVEL", level)).exits(21).all();
        for line in lines {
            assert!(all.contains(line), "no '{line}' at {level} in\n{all}");
        }
    }
    dirs.order(&["wants?", "passes? wants? gives?"]);
    run(&mut dirs.detector("0.12")).ok();
    let debug = run(dirs.detector("0.12").env("CNB_LOG_LEVEL", "debug")).ok().all();
    assert!(debug.contains("skip: wants@1.0.0 requires x\n"), "{debug}");
    assert!(debug.contains("skip: gives@1.0.0 provides unused y\n"), "{debug}");
}

#[test]
fn colours_go_where_they_are_unwanted() {
    let dirs = BuildDirs::new();
    let red = "printf '\\033[31mred\\033[0m\\n'; printf '\\033[1mbold\\033[0m\\n' >&2";
    dirs.buildpack("a", "0.10", "", &format!("{red}; exit 100"), red);
    dirs.order(&["a"]);
    run(&mut dirs.detector("0.12")).exits(20).says("\nred\nbold\n");
    run(dirs.detector("0.12").env_remove("CNB_NO_COLOR")).exits(20).says("\x1b[31mred\x1b[0m\n");
    // What the command line itself lacks, too.
    for args in [&["superfluous"][..], &["-log-level", "loud"]] {
        let all = run(dirs.detector("0.12").args(args)).all();
        assert!(all.contains("ERROR: ") && !all.contains('\x1b'), "{all}");
        run(dirs.detector("0.12").args(args).env_remove("CNB_NO_COLOR")).says("\x1b[31;1mERROR: \x1b[0m");
    }

    dirs.group(&[("a", "0.10")], "");
    run(&mut dirs.builder("0.12")).ok().says("red\nbold\n");
    run(dirs.builder("0.12").env_remove("CNB_NO_COLOR")).ok().says("\x1b[31mred\x1b[0m\n\x1b[1mbold\x1b[0m\n");
}

#[test]
fn a_detect_is_waited_for_where_ended_children_are_ignored() {
    let dirs = BuildDirs::new();
    dirs.buildpack("a", "0.10", "", "", "echo built");
    dirs.order(&["a"]);
    for call in [dirs.detector("0.12"), dirs.builder("0.12")] {
        let mut ignoring = command("env");
        ignoring.arg("--ignore-signal=CHLD").arg(call.get_program()).args(call.get_args());
        ignoring.envs(call.get_envs().filter_map(|(name, value)| Some((name, value?))));
        dirs.as_build_user(&mut ignoring);
        run(&mut ignoring).ok();
    }
}

/// In a container it is the first process, from which the kernel keeps the default action of signals.
#[test]
fn a_first_process_ends_when_it_is_told_to() {
    if !as_root() {
        return;
    }
    let dirs = BuildDirs::new();
    let tell = |signal: &str| format!("kill -{signal} 1; sleep 60");
    for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129), ("QUIT", 131)] {
        dirs.buildpack("a", "0.10", "", &tell(signal), "");
        dirs.order(&["a"]);
        let call = dirs.detector("0.12");
        let mut first = command("env");
        // What runs in the background of a script ignores some of them, and stays so.
        first.args([
            "--default-signal",
            "unshare",
            "--pid",
            "--fork",
            "setpriv",
            "--reuid=1000",
            "--regid=1000",
            "--clear-groups",
        ]);
        first.arg(call.get_program()).envs(call.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let outcome = run(&mut first);
        let code = if may_differ("Go's runtime ends with 2") { 2 } else { code };
        assert_eq!(outcome.code(), code, "{signal}: {}", outcome.all());
    }
}

#[test]
fn a_detect_that_cannot_run_is_an_error() {
    let dirs = BuildDirs::new();
    dirs.write(&[
        (
            "buildpacks/none/1.0.0/buildpack.toml",
            File("api = \"0.10\"\n[buildpack]\nid = \"none\"\nversion = \"1.0.0\""),
        ),
        (
            "buildpacks/mode/1.0.0/buildpack.toml",
            File("api = \"0.10\"\n[buildpack]\nid = \"mode\"\nversion = \"1.0.0\""),
        ),
        ("buildpacks/mode/1.0.0/bin/detect", Mode(0o644, "#!/bin/sh\n")),
        (
            "buildpacks/shell/1.0.0/buildpack.toml",
            File("api = \"0.10\"\n[buildpack]\nid = \"shell\"\nversion = \"1.0.0\""),
        ),
        ("buildpacks/shell/1.0.0/bin/detect", Mode(0o755, "#!/no/such/shell\n")),
    ]);
    dirs.buildpack("killed", "0.10", "", "kill -9 $$", "");
    for (name, text) in [
        ("none", "bin/detect: no such file or directory"),
        ("mode", "bin/detect: permission denied"),
        ("shell", "bin/detect: no such file or directory"),
        ("killed", "signal: killed"),
    ] {
        dirs.order(&[name]);
        let outcome = run(&mut dirs.detector("0.12")).exits(21).says(&format!("err:  {name}@1.0.0"));
        if name != "killed" || !may_differ("the reference says only the exit code -1") {
            outcome.says(text);
        }
    }
}

#[test]
fn sixty_buildpacks_cost_little_more_than_their_scripts() {
    let dirs = BuildDirs::new();
    let ids: Vec<String> = (0..60).map(|n| format!("b{n}")).collect();
    for id in &ids {
        dirs.buildpack(id, "0.10", "", "exit 0", "");
    }
    dirs.order(&[&ids.join(" ")]);
    let seconds = |program: &[&str]| -> f64 {
        let mut call = dirs.detector("0.12");
        let mut timed = command("bash");
        timed.envs(call.get_envs().filter_map(|(name, value)| Some((name, value?))));
        timed.args(["-c", "TIMEFORMAT='%U %S'; { time \"$@\" >/dev/null 2>&1; } 2>&1", "bash"]).args(program);
        timed.current_dir(dirs.path("buildpacks"));
        dirs.as_build_user(&mut timed);
        call = timed;
        run(&mut call).ok().stdout().split_whitespace().map(|s| s.parse::<f64>().unwrap()).sum()
    };
    // The processors' time, for other tests want the processors, too. Both by turns, the best of each, and more rounds
    // where the machine is so busy that these came out wrong.
    // Mostly what starting processes costs; running each script twice, or a shell around it, would be too much.
    let limit = |hand: f64| hand * 3.5 + 0.03;
    let (mut hand, mut detector) = (f64::MAX, f64::MAX);
    for round in 0..40 {
        hand = hand.min(seconds(&["sh", "-c", "for b in */1.0.0/bin/detect; do $b & done; wait"]));
        detector = detector.min(seconds(&[acceptance::run::executable("detector").to_str().unwrap()]));
        if round >= 4 && detector < limit(hand) {
            break;
        }
    }
    assert!(detector < limit(hand), "{detector} s, by hand {hand} s");
}

/// The kernel starts no text file that names no interpreter, and no shell is asked to guess.
#[test]
fn what_the_kernel_cannot_start_is_an_error() {
    let dirs = BuildDirs::new();
    dirs.buildpack("acme/a", "0.10", "", "", "");
    dirs.write(&[("buildpacks/acme_a/1.0.0/bin/detect", Mode(0o755, "exit 0\n"))]);
    dirs.order(&["acme/a"]);
    let outcome = run(&mut dirs.detector("0.12")).exits(21);
    assert!(outcome.all().to_lowercase().contains("exec format error"), "{}", outcome.all());
}
