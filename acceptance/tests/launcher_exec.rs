//! What the launched process inherits, and exec.d. platform.md, "launcher"; buildpack.md, "Exec.d".

mod launch_image;

use std::{fs, process::Command};

use acceptance::{
    run::{Outcome, PLATFORM_APIS, as_root, as_user, executable, may_differ, run},
    tree::Entry::{Dir, File, Link, Mode, Script},
};
use launch_image::{LaunchImage, buildpacks, process};

/// An image of one buildpack, `bp`, with a `web` process.
fn image_with(entries: &[(&str, acceptance::tree::Entry)]) -> LaunchImage {
    let image =
        LaunchImage::new(&(buildpacks(&[("bp", "0.9")]) + &process("bp", "web", r#"command = ["printenv", "V"]"#)));
    image.write(entries);
    image
}

/// Runs `script` in a shell, in which `"$0"` is the launcher, called by the image's environment.
fn in_shell(image: &LaunchImage, script: &str) -> Outcome {
    let mut call = Command::new("bash");
    call.arg("-c").arg(script).arg(executable("launcher"));
    image.environment(&mut call);
    run(&mut call)
}

#[test]
fn the_process_replaces_the_launcher() {
    let image = LaunchImage::new("");
    for command in ["-- sh -c 'echo $$'", "'echo $$'", "sh -c 'echo $$'"] {
        let stdout = in_shell(&image, &format!("echo $$; exec \"$0\" {command}")).ok().stdout();
        let pids: Vec<_> = stdout.lines().collect();
        assert!(pids.len() == 2, "{stdout}");
        if !command.starts_with("sh") {
            assert_eq!(pids[0], pids[1], "{command}");
        }
    }
}

#[test]
fn the_exit_code_is_that_of_the_process() {
    let image = LaunchImage::new("");
    for code in [0, 1, 82, 255] {
        run(&mut image.launcher(&["--", "sh", "-c", &format!("exit {code}")])).exits(code);
        run(&mut image.launcher(&[&format!("exit {code}")])).exits(code);
    }
    run(&mut image.launcher(&["--", "sh", "-c", "kill -TERM $$"])).exits(143);
    run(&mut image.launcher(&["kill -TERM $$"])).exits(143);
}

#[test]
fn a_broken_pipe_ends_the_process() {
    let image = LaunchImage::new("");
    for command in ["-- yes", "yes", "'yes | cat'"] {
        let stdout = in_shell(&image, &format!("\"$0\" {command} | head -n1; echo ${{PIPESTATUS[0]}}")).ok().stdout();
        assert_eq!(stdout, "y\n141\n", "{command}");
    }
}

#[test]
fn signals_are_ignored_and_blocked_as_they_were_before() {
    let image = image_with(&[("layers/bp/l/exec.d/1", Script(":"))]);
    let signals = |call: &str| -> Vec<u32> {
        let status = in_shell(&image, &format!("exec {call} cat /proc/self/status")).ok().stdout();
        // The classic 31; the real-time ones are the C libraries' own business.
        let of = |name: &str| {
            let mask = status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim();
            u32::try_from(u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff).unwrap()
        };
        vec![of("SigBlk:"), of("SigIgn:"), of("SigCgt:")]
    };
    assert_eq!(signals("\"$0\" --"), signals(""));
    assert_eq!(signals("\"$0\""), signals(""));
    if !may_differ("the Go runtime may unblock and reset signals") {
        for prefix in ["env --block-signal=USR1 --ignore-signal=HUP", "env --ignore-signal=CHLD"] {
            assert_ne!(signals(prefix), signals(""));
            assert_eq!(signals(&format!("{prefix} \"$0\" --")), signals(prefix));
        }
    }
}

#[test]
fn the_processs_descriptors_are_those_the_launcher_was_given() {
    let image = image_with(&[("layers/bp/l/exec.d/1", Script("echo 'V = \"set\"' >&3"))]);
    let listed = |script: &str| -> Vec<String> {
        let stdout = in_shell(&image, script).ok().stdout();
        let mut fds: Vec<_> = stdout.split_whitespace().map(str::to_owned).collect();
        fds.sort_unstable();
        fds
    };
    // Whatever the harness's own surroundings leak is there in both; `ls` opens one.
    let without = listed("exec ls /proc/self/fd");
    assert_eq!(listed("exec \"$0\" -- ls /proc/self/fd"), without);
    assert_eq!(listed("exec \"$0\" ls /proc/self/fd"), without);
    // Sockets that were passed on purpose (LISTEN_FDS) come through, number 3 among them, in spite of exec.d.
    let given = "exec 3</dev/null 7</dev/zero;";
    let passed = listed(&format!("{given} exec ls /proc/self/fd"));
    assert!(passed.contains(&"7".to_owned()));
    assert_eq!(listed(&format!("{given} exec \"$0\" -- ls /proc/self/fd")), passed);
    let target = in_shell(&image, &format!("{given} exec \"$0\" -- readlink /proc/self/fd/3")).ok().stdout();
    assert_eq!(target, "/dev/null\n");
}

#[test]
fn closed_standard_descriptors_are_the_null_device() {
    let image = image_with(&[("layers/bp/l/exec.d/1", Script("echo 'V = \"set\"' >&3"))]);
    for (closed, descriptor) in [("<&-", 0), ("2>&-", 2), ("<&- 2>&-", 0), ("<&- 2>&-", 2)] {
        let show = format!("exec \"$0\" -- sh -c 'readlink /proc/$$/fd/{descriptor}; echo $V' {closed}");
        assert_eq!(in_shell(&image, &show).ok().stdout(), "/dev/null\nset\n", "{show}");
    }
}

#[test]
fn exec_d_is_waited_for_where_ended_children_are_ignored() {
    let image = image_with(&[("layers/bp/l/exec.d/1", Script("echo 'V = \"set\"' >&3"))]);
    let output = in_shell(&image, "exec env --ignore-signal=CHLD \"$0\" -- printenv V").ok().stdout();
    assert_eq!(output, "set\n");
}

/// In a container it is the first process, from which the kernel keeps the default action of signals.
#[test]
fn a_first_process_ends_when_it_is_told_to() {
    if !as_root() {
        return;
    }
    let image = image_with(&[("layers/bp/l/exec.d/1", Script("kill -TERM 1; sleep 60"))]);
    let outcome = in_shell(&image, "exec unshare --pid --fork \"$0\" -- true");
    let code = if may_differ("Go's runtime ends with 2") { 2 } else { 143 };
    assert_eq!(outcome.code(), code, "{}", outcome.all());
}

#[test]
fn exec_d_that_is_no_program_is_an_error() {
    let image = image_with(&[("layers/bp/l/exec.d/1", Mode(0o755, "echo 'V = \"set\"' >&3"))]);
    run(&mut image.launcher(&["--", "printenv", "V"])).exits(82).says("exec format error");
}

#[test]
fn exec_d_sets_variables_one_after_the_other() {
    let image = LaunchImage::new(
        &(buildpacks(&[("acme/one", "0.9"), ("two", "0.9")])
            + &process("two", "web", r#"command = ["printenv", "V"]"#)
            + &process("two", "sh", "command = \"echo $V\"")),
    );
    let add = |text: &str| format!("printf 'V = \"%s %s\"\\n' \"$V\" {text} >&3");
    image.write(&[
        ("layers/acme_one/a/exec.d/2", Script(&add("one/a/2"))),
        ("layers/acme_one/a/exec.d/10", Script(&add("one/a/10"))),
        ("layers/acme_one/b/exec.d/x", Script(&add("one/b"))),
        ("layers/two/a/exec.d/x", Script(&add("two"))),
        ("layers/two/a/env/V", File("0")),
        ("layers/two/a/profile.d/p", File("V=\"$V then profile\"\n")),
    ]);
    for api in PLATFORM_APIS {
        let output = |name: &str| run(image.launch(name, &[]).env("CNB_PLATFORM_API", api)).ok().stdout();
        assert_eq!(output("web"), "0 one/a/10 one/a/2 one/b two\n", "{api}");
        assert_eq!(output("sh"), "0 one/a/10 one/a/2 one/b two then profile\n", "{api}");
    }
    image.write(&[
        ("layers/acme_one/a/exec.d/web/x", Script(&add("one/a/web"))),
        ("layers/two/a/exec.d/web/x", Script(&add("two/web"))),
    ]);
    assert_eq!(run(&mut image.launch("sh", &[])).ok().stdout(), "0 one/a/10 one/a/2 one/b two then profile\n");
    let user = run(&mut image.launcher(&["--", "printenv", "V"])).ok().stdout();
    assert_eq!(user, "0 one/a/10 one/a/2 one/b two\n");
    if !may_differ(
        "the reference takes plain and per-process executables layer by layer; the spec: all plain ones first",
    ) {
        let output = run(&mut image.launch("web", &[])).ok().stdout();
        assert_eq!(output, "0 one/a/10 one/a/2 one/b two one/a/web two/web\n");
    }
}

#[test]
fn exec_d_runs_in_the_launch_environment_with_working_directory_app() {
    let image = image_with(&[
        ("layers/bp/l/bin/tool", Script("echo from the layer")),
        ("layers/bp/l/env.launch/W", File("w")),
        (
            "layers/bp/l/exec.d/x",
            Script(
                "tool; echo \"$0\" $# \"$W\" \"$PWD\" \"${CNB_APP_DIR-unset}\"; cat; echo to stderr >&2; ls /proc/self/fd | wc -l",
            ),
        ),
    ]);
    let outcome = run(&mut image.launcher(&["--", "true"])).ok();
    let path = image.path("layers/bp/l/exec.d/x");
    // All that surrounds us has open, and number 3.
    let around = in_shell(&image, "ls /proc/self/fd | wc -l").ok().stdout().trim().parse::<usize>().unwrap();
    let want =
        format!("from the layer\n{} 0 w {} unset\n{}\n", path.display(), image.path("app").display(), around + 1);
    assert_eq!((outcome.stdout(), outcome.stderr()), (want, "to stderr\n".to_owned()));
}

#[test]
fn exec_d_failures_end_the_launch() {
    let rows = [
        ("exit 7", "7"),
        ("kill -9 $$", "signal: "),
        ("echo 'not toml' >&3", "toml"),
        ("echo 'V = 1' >&3", "exec.d"),
        ("printf 'V = [\"a\"]' >&3", "exec.d"),
        ("printf '[table]\\nV = \"a\"' >&3", "exec.d"),
    ];
    for (script, text) in rows {
        let image = image_with(&[("layers/bp/l/exec.d/x", Script(script))]);
        let outcome =
            run(&mut image.launcher(&["--", "echo", "ran"])).exits(82).says("ERROR: failed to launch: exec.d: ");
        let all = outcome.says("layers/bp/l/exec.d/x").says(text).all();
        assert!(!all.contains("ran\n"), "{script}: {all}");
    }
    for entry in [Mode(0o644, "#!/bin/sh\n"), Link("missing"), Mode(0o755, "#!/no/such/interpreter\n")] {
        let image = image_with(&[("layers/bp/l/exec.d/x", entry)]);
        run(&mut image.launcher(&["--", "true"])).exits(82).says("ERROR: failed to launch: exec.d: ").says("exec.d/x");
    }
    if !may_differ("the reference sets what cannot be a variable") {
        for line in ["\"A=B\" = \"x\"", "\"\" = \"x\"", "V = \"a\\u0000b\""] {
            let image = image_with(&[("layers/bp/l/exec.d/x", Script(&format!("echo '{line}' >&3")))]);
            run(&mut image.launcher(&["--", "true"])).exits(82).says("ERROR: failed to launch: exec.d: ");
        }
    }
}

#[test]
fn exec_d_output_may_be_empty_and_long() {
    let rows = [
        (":", "unset"),
        ("exec 3>&-", "unset"),
        ("echo '# only a comment' >&3", "unset"),
        ("printf 'V = \"' >&3; head -c 100000 /dev/zero | tr '\\0' x >&3; printf '\"' >&3", "100000"),
        (
            "i=0; while [ $i -lt 4000 ]; do echo \"LONG_NAME_$i = '0123456789012345678901234567890'\"; i=$((i+1)); done >&3",
            "unset",
        ),
    ];
    for (script, want) in rows {
        let image = image_with(&[("layers/bp/l/exec.d/x", Script(script))]);
        let check = "if [ -n \"$V\" ]; then echo ${#V}; else echo unset; fi";
        let stdout = run(&mut image.launcher(&["--", "sh", "-c", check])).ok().stdout();
        assert_eq!(stdout.trim(), want, "{script}");
    }
}

#[test]
fn a_process_that_exec_d_leaves_behind_does_not_stop_the_launch() {
    if may_differ("the reference waits until every holder of descriptor 3 is gone") {
        return;
    }
    let image = image_with(&[(
        "layers/bp/l/exec.d/x",
        Script("sleep 600 >/dev/null 2>&1 & printf 'V = \"set\"\\nBACKGROUND = \"%s\"' $! >&3"),
    )]);
    let stdout = run(&mut image.launcher(&["--", "sh", "-c", "kill $BACKGROUND && echo $V"])).ok().stdout();
    assert_eq!(stdout, "set\n", "launched while it still ran");
}

#[test]
fn an_executable_that_is_gone_leaves_no_zombie() {
    let image = image_with(&[("layers/bp/l/exec.d/x", Script("echo 'V = \"set\"' >&3"))]);
    // By a shell that starts nothing itself.
    let count = "n=0; for f in /proc/[0-9]*/status; do while read -r key value; do \
        [ \"$key $value\" = \"PPid: $$\" ] && n=$((n+1)); done <$f; done; echo $n";
    assert_eq!(run(&mut image.launcher(&["--", "sh", "-c", count])).ok().stdout(), "0\n");
}

#[test]
fn directories_and_their_links_are_not_executed() {
    let image = image_with(&[
        ("layers/bp/l/exec.d/other/never", Script("echo never; exit 1")),
        ("layers/bp/m/exec.d", File("not a directory")),
        ("layers/bp/n", File("not a layer")),
        ("layers/bp/o/profile.d", Dir),
    ]);
    if may_differ("the reference fails on an exec.d that is a file") {
        fs::remove_file(image.path("layers/bp/m/exec.d")).unwrap();
    }
    assert_eq!(run(&mut image.launcher(&["--", "echo", "ran"])).ok().all(), "ran\n");
}

#[test]
fn any_user_can_launch() {
    if !as_root() {
        return;
    }
    let image = image_with(&[("layers/bp/l/exec.d/x", Script("echo 'V = \"set\"' >&3"))]);
    // Where the executable is, this user may not be able to go.
    fs::copy(executable("launcher"), image.path("launcher")).unwrap();
    for (uid, gid) in [(1000, 1000), (12_345_678, 0)] {
        for args in [&["--", "sh", "-c", "id -u; id -g; echo $V"][..], &["id -u; id -g; echo $V"]] {
            let mut call = acceptance::run::command(image.path("launcher"));
            image.environment(&mut call);
            as_user(call.args(args).current_dir("/"), uid, gid);
            assert_eq!(run(&mut call).ok().stdout(), format!("{uid}\n{gid}\nset\n"));
        }
        // A layer that only root may read.
        let secret = image_with(&[("layers/bp/l/env/V", Mode(0o600, "secret"))]);
        let mut call = acceptance::run::command(image.path("launcher"));
        secret.environment(&mut call);
        as_user(call.args(["--", "true"]).current_dir("/"), uid, gid);
        run(&mut call)
            .exits(82)
            .says("ERROR: failed to launch: modify env: ")
            .says("layers/bp/l/env")
            .says("permission denied");
    }
}
