//! How the command of a process is found and started: directly or by a shell, and in which directory.
//! platform.md, "launcher"; buildpack.md, "Launch".

mod launch_image;

use std::process::Command;

use acceptance::{
    run::{PLATFORM_APIS, executable, may_differ, run},
    tree::Entry::{Dir, File, Mode, Script},
};
use launch_image::{LaunchImage, buildpacks, process};

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
