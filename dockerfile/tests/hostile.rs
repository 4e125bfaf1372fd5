//! Dockerfiles and contexts that ask for what must not be, and what a `RUN` must not leave behind. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test panics where something is wrong")]

mod world;

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
};

use world::{World, entries};

#[test]
fn mounts_are_in_no_layer() {
    let Some(mut world) = World::new() else { return };
    let mounts = "--mount=type=cache,target=/data/old,uid=1000,mode=0700 --mount=type=tmpfs,target=/new/tmp";
    for (n, expected) in [(1, "1\n"), (2, "1\n2\n")] {
        world.fresh_root();
        let command =
            format!("echo {n} >>/data/old/n; touch /new/tmp/x /new/y; cat /data/old/n >/seen-{n}; ls -a /data >>/all");
        let image = world.apply(&format!("RUN {mounts} {command}\nRUN touch /last"), &[]).unwrap();
        // What an earlier build put there is there again, and what the image has is not.
        assert_eq!(world.read(&format!("seen-{n}")), expected);
        assert_eq!(world.read("data/old/file"), "old");
        let names: Vec<String> = entries(&image.layers[0]).into_keys().collect();
        let files = names.iter().filter(|name| !name.ends_with('/')).map(String::as_str).collect::<Vec<_>>();
        assert_eq!(files, ["all", "new/y", format!("seen-{n}").as_str()]);
        assert!(!world.root().join("new/tmp").exists());
    }
    world.context("file", "1");
    let mounts = fs::read_dir(world.dir.path().join("mounts")).unwrap().count();
    assert_eq!(mounts, 1);
    for (text, expected) in [
        ("RUN --mount=type=cache,target=/etc/passwd true", "/etc/passwd: it is no directory"),
        ("RUN --mount=type=cache,target=/ true", "target=/ is the image itself"),
        ("RUN --mount=type=cache,target=/x,uid=a true", "uid=a is no number"),
        ("RUN --mount=type=secret,id=x,required=true true", "type=secret is not supported"),
        ("RUN --mount=type=secret,id=x,required true", "type=secret is not supported"),
        ("RUN --mount=type=cache,from=other,target=/x true", "from is not supported"),
        ("RUN --mount=type=cache true", "RUN --mount=type=cache: it needs a target"),
        ("RUN --mount=type=other,target=/x true", "type=other is not supported"),
        ("RUN --mount=type=tmpfs,targte=/x true", "unexpected key \"targte\""),
        ("RUN --mount=target=/x,source=none true", "stat none: no such file in the build context"),
        ("RUN --mount=target=/x,source=n* true", "n* is no file at all"),
        ("RUN --mount=target=/x,source=../x true", "forbidden path outside the build context"),
        ("RUN --mount=target=/data,source=file true", "/data: it is a directory, and what is bound is none"),
        ("RUN --mount=target=/etc/passwd true", "/etc/passwd: it is no directory"),
        ("RUN --often true", "unknown flag: --often"),
    ] {
        let error = world.apply(text, &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn bad_ones_are_refused() {
    let Some(world) = World::new() else { return };
    world.context("file", "1");
    fs::write(world.dir.path().join("secret"), "s").unwrap();
    symlink("../secret", world.dir.path().join("context/out")).unwrap();
    let mut tar = tar::Builder::new(File::create(world.dir.path().join("context/evil.tar")).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    tar.append_link(&mut header, "link", "/data").unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    tar.append_data(&mut header, "link/evil", &b"x"[..]).unwrap();
    tar.finish().unwrap();
    // Names that no tool for tars would write.
    for (file, kind, name, link) in
        [("up.tar", tar::EntryType::Regular, "../../up", ""), ("hard.tar", tar::EntryType::Link, "hard", "/etc/shadow")]
    {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        let tar = [header.as_bytes().as_slice(), &[0; 1024]].concat();
        fs::write(world.dir.path().join("context").join(file), tar).unwrap();
    }
    fs::write(world.dir.path().join("context/bad.tar.zst"), b"\x28\xb5\x2f\xfdrest").unwrap();
    for (text, expected) in [
        ("RUN exit 7", "line 3: RUN exit 7: the command [\"/bin/sh\", \"-c\", \"exit 7\"] failed: exit status: 7"),
        ("RUN [\"/none\"]", "start [\"/none\"]: No such file"),
        ("RUN rm /bin/sh\nRUN echo", "line 4: RUN echo: start"),
        ("USER nobody\nRUN echo", "unable to find user nobody"),
        ("COPY ../secret /", "forbidden path outside the build context"),
        ("COPY out /", "forbidden path outside the build context: out leads to"),
        ("COPY none /", "line 3: COPY none /: stat none: no such file"),
        ("COPY --from=other a /", "--from is not supported"),
        ("ADD evil.tar /", "leads through a symlink of the same archive"),
        ("ADD bad.tar.zst /", "ADD cannot unpack zstd"),
        ("ADD https://example.com/x.git#main /", "only files can be added, by http or https"),
        ("ADD git@example.com:x /", "only files can be added"),
        ("ADD http://127.0.0.1:1/x /", "GET http://127.0.0.1:1/x: "),
        ("COPY http://127.0.0.1:1/x /", "no such file in the build context"),
        ("ADD --checksum=sha256:1 file /", "--checksum=sha256:1"),
        ("COPY file bad.tar.zst /one", "must be a directory"),
        ("FROM other", "multistage builds are not supported"),
        ("EXPOSE abc", "line 3: EXPOSE abc: invalid port: abc"),
        ("EXPOSE 80/icmp", "invalid protocol: icmp"),
        ("EXPOSE 90-80", "invalid port: 90-80"),
        ("EXPOSE 65536", "invalid port: 65536"),
        ("EXPOSE 80:", "invalid port: 80:"),
        ("STOPSIGNAL NOPE", "invalid signal: NOPE"),
        ("STOPSIGNAL 0", "invalid signal: 0"),
        ("ADD up.tar /data/", "leads upwards"),
        ("ADD hard.tar /data/", "No such file"),
    ] {
        let error = world.apply(text, &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        if text.starts_with("RUN rm /bin/sh") {
            symlink("busybox", world.root().join("bin/sh")).unwrap();
        }
    }
    assert!(!world.root().join("data/evil").exists());
}

#[test]
fn nothing_outlives_a_run() {
    let Some(world) = World::new() else { return };
    let text = "RUN setsid sh -c 'echo $$ >/pid; (sleep 1234 & echo $! >/pid2); sleep 1234' & while ! test -s /pid2; do :; done";
    world.apply(text, &[]).unwrap();
    for file in ["pid", "pid2"] {
        let pid = world.read(file);
        let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        assert!(state.is_err(), "{file}: {state:?}");
    }
}

#[test]
fn what_is_bound_is_seen_by_one_run_only() {
    let Some(mut world) = World::new() else { return };
    for (name, content) in [("d/a", "a"), ("d/skip", "s"), ("list", "1"), (".dockerignore", "d/skip")] {
        world.context(name, content);
    }
    let text = "WORKDIR /w\n\
                RUN --mount=source=d,target=/data/old --mount=type=bind,src=list,dst=list,ro --mount=target=/all \\\n\
                cat /data/old/a list /all/list >/seen; ls /data/old >>/seen; echo x >list; touch /data/old/b\n\
                RUN ls /w /data/old >/last";
    let image = world.apply(text, &[]).unwrap();
    assert_eq!(world.read("seen"), "a11a\n");
    assert_eq!(world.read("last"), "/data/old:\nfile\n\n/w:\n");
    assert!(!world.root().join("all").exists());
    let files = |image: &image::Image, n: usize| -> Vec<String> {
        entries(&image.layers[n]).into_keys().filter(|name| !name.ends_with('/')).collect()
    };
    assert_eq!(files(&image, 1), ["seen"]);
    // The context is untouched, and what it has counts for the cache.
    assert_eq!(fs::read_to_string(world.dir.path().join("context/list")).unwrap(), "1");
    world.fresh_root();
    fs::remove_file(world.root().join("bin/sh")).unwrap();
    world.apply(text, &[]).unwrap();
    world.fresh_root();
    world.context("list", "2");
    world.apply(text, &[]).unwrap();
    assert_eq!(world.read("seen"), "a22a\n");
}

#[test]
fn an_archive_does_not_replace_links_by_directories() {
    let Some(world) = World::new() else { return };
    fs::create_dir(world.root().join("usr")).unwrap();
    fs::rename(world.root().join("data"), world.root().join("usr/data")).unwrap();
    symlink("usr/data", world.root().join("data")).unwrap();
    let mut tar = tar::Builder::new(File::create(world.dir.path().join("context/x.tar")).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    tar.append_data(&mut header, "data/", &b""[..]).unwrap();
    header.set_entry_type(tar::EntryType::Regular);
    tar.append_data(&mut header, "data/new", &b""[..]).unwrap();
    tar.finish().unwrap();
    world.apply("ADD x.tar /", &[]).unwrap();
    assert_eq!(world.read("data/old/file"), "old");
    assert!(world.root().join("usr/data/new").exists());
}
