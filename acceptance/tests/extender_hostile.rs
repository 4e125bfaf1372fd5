//! extender with Dockerfiles and contexts that ask for what must not be, and in a place where it must not run. Needs root,
//! docker and busybox.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests; they say what they leave out")]

mod engine;
mod extender_world;

use std::{fs, path::Path};

use acceptance::{
    run::{as_root, command, executable, run},
    tree::{
        Entry::{Bytes, File, Link},
        temp_dir, write_buildpack,
    },
};
use extender_world::{World, make_root};

/// A link, and a file through it.
fn evil_tar() -> Vec<u8> {
    let header = |kind, size| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    };
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_link(&mut header(tar::EntryType::Symlink, 0), "link", "/etc").unwrap();
    tar.append_data(&mut header(tar::EntryType::Regular, 1), "link/passwd", &b"x"[..]).unwrap();
    tar.into_inner().unwrap()
}

/// A context with what must not be taken from it.
fn hostile(name: &str) -> Option<World> {
    let world = World::new(name, "0.13")?;
    let context = "layers/generated/acme_one/context";
    world.write(&format!("{context}/file"), File("x"));
    world.write(&format!("{context}/out"), Link("../../../analyzed.toml"));
    world.write(&format!("{context}/up"), Link(".."));
    world.write(&format!("{context}/evil.tar"), Bytes(&evil_tar()));
    Some(world)
}

/// Dockerfiles that cannot be applied, and what is said of them.
const REFUSED: [(&str, &str); 16] = [
    ("RUN exit 3", "line 3: RUN exit 3: the command [\"/bin/sh\", \"-c\", \"exit 3\"] failed: exit status: 3"),
    ("RUM x", "line 3: unknown instruction: RUM"),
    ("FROM other\nRUN x", "line 3: multistage builds are not supported"),
    ("COPY ../../group.toml /", "forbidden path outside the build context"),
    ("COPY out /", "forbidden path outside the build context: out leads to"),
    ("COPY up/run.Dockerfile /", "forbidden path outside the build context: up/run.Dockerfile leads to"),
    ("ADD out /", "forbidden path outside the build context: out leads to"),
    ("COPY none /", "no such file in the build context"),
    ("COPY --from=other file /", "--from is not supported"),
    ("ADD evil.tar /", "leads through a symlink of the same archive"),
    ("ADD http://127.0.0.1:1/x /", "GET http://127.0.0.1:1/x: "),
    ("USER root\nRUN rm /bin/sh\nRUN echo", "line 5: RUN echo: start [\"/bin/sh\", \"-c\", \"echo\"]: no such file"),
    ("USER nobody\nRUN x", "unable to find user nobody"),
    ("RUN --mount=type=secret,id=x,required true", "type=secret is not supported"),
    // In the middle of what a mount needs, and of what is taken from the web.
    ("USER root\nRUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t touch /c/x && exit 4", "exit status: 4"),
    ("RUN sleep 1234 & exit 5", "exit status: 5"),
];

#[test]
fn what_goes_wrong_is_exit_code_102_and_leaves_nothing() {
    let Some(world) = hostile("hostile") else { return };
    for kind in ["run", "build"] {
        let says = format!("Dockerfile /layers/generated/acme_one/{kind}.Dockerfile");
        for (text, expected) in REFUSED {
            world.dockerfile("one", kind, text);
            let outcome = world.extend(kind).exits(102).says(expected);
            let parses = outcome.stderr().contains(&format!("parse /layers/generated/acme_one/{kind}.Dockerfile"));
            assert!(parses || outcome.stderr().contains(&says), "{}", outcome.stderr());
            assert_eq!(outcome.stderr().matches("ERROR: ").count(), 1, "{}", outcome.stderr());
            world.has_no_result(text);
        }
        // Later ones: what was made for the first is there, and nothing else.
        world.dockerfile("one", kind, "USER root\nRUN echo whole >/whole\nUSER 1000");
        world.dockerfile("two", kind, "RUN touch /tmp/x\nRUN exit 6");
        let says =
            format!("applying Dockerfile /layers/generated/acme_two/{kind}.Dockerfile to image: line 4: RUN exit 6");
        world.extend(kind).exits(102).says(&says);
        world.has_no_result("RUN exit 6");
        world.dockerfile("two", kind, "RUN touch /tmp/x");
        world.extend(kind).ok().says("Using caching version of cmd: RUN touch /tmp/x");
        // Another base than the one it is applied to; the first of a run image may have switched it, none else.
        world.write(&format!("layers/generated/acme_two/{kind}.Dockerfile"), File("FROM other.example/base\nRUN x\n"));
        world.clear();
        world.extend(kind).exits(102).says("FROM other.example/base: it is applied to the image before it");
        world.has_no_result("FROM other.example/base");
        fs::remove_file(world.path(&format!("layers/generated/acme_two/{kind}.Dockerfile"))).unwrap();
    }
    world.extend("none").exits(3);
    world.dockerfile("one", "run", "USER root\nRUN touch /x");
    world.extend("run").exits(102).says("the final user ID is root (root); please add another extension");
    world.dockerfile("one", "run", "USER 0");
    world.extend("run").exits(102).says("the final user ID is 0 (root)");
    world.has_no_result("USER 0");
    fs::remove_dir_all(world.path("kaniko/cache/base")).unwrap();
    for kind in ["run", "build"] {
        world.extend(kind).exits(102).says(&format!("getting {kind} image to extend: there is no image in /kaniko"));
        world.has_no_result("no base");
    }
}

/// As it is with Docker. Packages' scripts start daemons, and gpg its agent: that is no reason to fail.
#[test]
fn what_a_run_leaves_running_is_ended_before_its_layer_is_made() {
    let Some(world) = World::new("background", "0.13") else { return };
    let daemon = "(trap '' TERM HUP INT; while :; do echo line >>/log; done)";
    let text = format!(
        "USER root\nRUN {daemon} & echo $! >/pid; while ! test -s /log; do :; done\nRUN cat /log >/copy\nUSER 1000"
    );
    let build = r#"test ! -e /proc/$(cat /pid)/stat && test "$(cat /log)" = "$(cat /copy)" && echo ended"#;
    write_buildpack(&world.path("cnb/buildpacks"), ("acme/bp", "1.0.0", "0.10"), "", "exit 0", build);
    for kind in ["run", "build"] {
        world.dockerfile("one", kind, &text);
        world.clear();
        let outcome = world.extend(kind).ok().says("left running were ended");
        world.holds_nothing_half(kind);
        if kind == "build" {
            outcome.says("\nended\n");
            continue;
        }
        let image = world.extended();
        let content = |layer: usize, name: &str| {
            let found = image.layer(layer).into_iter().find(|entry| entry.path == name);
            String::from_utf8(found.unwrap_or_else(|| panic!("no {name}")).content).unwrap()
        };
        assert_eq!(content(1, "log"), content(2, "copy"));
    }
}

/// In a root file system of its own that is no container's: a tmpfs, with nothing that an engine would leave there.
#[test]
fn outside_of_a_container_it_refuses() {
    if !as_root() || !Path::new("/bin/busybox").exists() {
        return;
    }
    let dir = temp_dir();
    make_root(&dir.path().join("root"));
    fs::copy(executable("extender"), dir.path().join("root/bin/extender")).unwrap();
    let script = r#"mount -t tmpfs box "$1/mnt" && cp -a "$1/root/." "$1/mnt" && mount -t proc proc "$1/mnt/proc" || exit 77
        exec unshare --root="$1/mnt" /bin/extender -kind run"#;
    fs::create_dir(dir.path().join("mnt")).unwrap();
    for (allowed, expected) in [("", "should only be run inside of a container"), ("true", "group.toml")] {
        let mut call = command("unshare");
        call.args(["--mount", "--pid", "--fork", "--cgroup", "sh", "-c", script, "sh"]).arg(dir.path());
        call.env("CNB_PLATFORM_API", "0.13").env("CNB_EXTEND_OUTSIDE_CONTAINER", allowed);
        let outcome = run(call.env("CNB_USER_ID", "1000").env("CNB_GROUP_ID", "1000"));
        if outcome.code() == 77 || outcome.stderr().contains("unshare failed") {
            eprintln!("skipped: no mounts here: {}", outcome.stderr());
            return;
        }
        assert!(outcome.code() != 0);
        outcome.says(expected);
    }
}
