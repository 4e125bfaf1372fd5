//! Dockerfiles applied to real directories: busybox in a root of its own. Needs root, for owners and devices.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test panics where something is wrong")]

mod world;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
};

use image::{Digest, Image, TarReader};
use world::{World, entries, tar_of};

#[test]
fn a_layer_holds_what_an_instruction_changed() {
    let Some(world) = World::new() else { return };
    let image = world
        .apply(
            "RUN rm -r /data/old && mkdir -m 700 /new && echo x >/new/file && ln /new/file /new/hard \\\n\
             && ln -s file /new/soft && chown 7:8 /new/file && chmod 4755 /new/file && mknod /new/dev c 1 3 \\\n\
             && mkfifo /new/pipe && mkdir /ignored && echo >/ignored/x && touch /proc/x && echo h >'/new/é h'\n\
             RUN test -e /new/file\nRUN echo two >/data/two",
            &[],
        )
        .unwrap();
    assert_eq!(image.layers.len(), 2);
    let history: Vec<_> = image.config.history.iter().map(|h| h.created_by.clone().unwrap()).collect();
    assert!(history[0].starts_with("RUN rm -r /data/old &&") && history[1] == "RUN echo two >/data/two", "{history:?}");
    let found = entries(&image.layers[0]);
    let expected = [
        ("data/", (b'5', 0o755, 0, 0, "")),
        ("data/.wh.old", (b'0', 0, 0, 0, "")),
        ("new/", (b'5', 0o700, 0, 0, "")),
        ("new/dev", (b'3', 0o644, 0, 0, "")),
        ("new/file", (b'0', 0o4755, 7, 8, "")),
        ("new/hard", (b'1', 0o4755, 7, 8, "new/file")),
        ("new/pipe", (b'6', 0o644, 0, 0, "")),
        ("new/soft", (b'2', 0o777, 0, 0, "file")),
        ("new/é h", (b'0', 0o644, 0, 0, "")),
    ];
    let expected = expected.map(|(n, (k, m, u, g, l))| (n.to_owned(), (k, m, u, g, l.to_owned())));
    assert_eq!(found, BTreeMap::from(expected));
    assert_eq!(entries(&image.layers[1]).into_keys().collect::<Vec<_>>(), ["data/", "data/two"]);
}

#[test]
fn variables_user_shell_and_directory() {
    let Some(world) = World::new() else { return };
    let image = world
        .apply(
            r#"ARG a=1
ARG given=no
ARG b=${a}2
ENV a=env e="$a $b"
ENV a=again c=$a
LABEL "x y"="$given" z=$e
ARG twice=1
ARG twice
RUN echo "$a|$b|$c|$e|$given|$FROM_BASE|$HOME|$twice" >/out
WORKDIR /w
WORKDIR sub
USER cnb
WORKDIR own
RUN id -u >/tmp/id; id -g >>/tmp/id; id -G >>/tmp/id; echo "$HOME $PWD" >>/tmp/id
USER 0
SHELL ["/bin/sh", "-e", "-c"]
RUN ["/bin/sh", "-c", "echo '$a' $0 >/exec"]
RUN <<E
echo here >/here
echo $a >>/here
echo here >/here
echo $a >>/here
E
RUN cat <<A >/doc1 && cat >/doc2 <<B
one $a
A
two
B
RUN <<E
#!/bin/cat
script
E
CMD x y
HEALTHCHECK --interval=3s --retries=2 CMD ok $a
ARG more="81 5000-5002/UDP"
EXPOSE 80 ${none:-90/udp} $more $none
STOPSIGNAL ${stop:-quit}
"#,
            &[("given", "by caller"), ("unknown", "x")],
        )
        .unwrap();
    let config = &image.config;
    assert_eq!(world.read("out"), "again|12|env|1 12|by caller|yes|/root|\n");
    assert_eq!(world.read("tmp/id"), "1000\n1001\n1001 4\n/home/cnb /w/sub/own\n");
    assert_eq!(world.read("exec"), "$a /bin/sh\n");
    assert_eq!(world.read("here"), "here\nagain\n");
    assert_eq!((world.read("doc1").as_str(), world.read("doc2").as_str()), ("one again\n", "two\n"));
    assert_eq!(config.label("x y"), Some("by caller"));
    assert_eq!(config.label("z"), Some("1 12"));
    assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("0", "/w/sub/own"));
    assert_eq!(config.cmd, ["/bin/sh", "-e", "-c", "x y"]);
    assert_eq!(
        config.rest_of_config["ExposedPorts"],
        serde_json::json!({"80/tcp": {}, "81/tcp": {}, "90/udp": {}, "5000/udp": {}, "5001/udp": {}, "5002/udp": {}})
    );
    assert_eq!(config.rest_of_config["StopSignal"], "quit");
    assert_eq!(
        config.rest_of_config["Healthcheck"],
        serde_json::json!({"Test": ["CMD-SHELL", "ok $a"], "Interval": 3_000_000_000_u64, "Retries": 2})
    );
    assert_eq!(world.root().join("w/sub/own").metadata().unwrap().uid(), 1000);
    assert!(!config.env.iter().any(|e| e.starts_with("b=")), "{:?}", config.env);
}

#[test]
fn an_image_without_a_path_gets_one() {
    let Some(mut world) = World::new() else { return };
    let usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    for (env, expected) in [(&[][..], usual), (&["A=b"], usual), (&["PATH=/bin"], "/bin"), (&["PATH="], "")] {
        world.image.config.env = env.iter().map(|&entry| entry.to_owned()).collect();
        let image = world.apply("ENV path=$PATH:/own", &[]).unwrap();
        assert_eq!(image.config.env_var("PATH"), Some(expected), "{env:?}");
        assert_eq!(image.config.env_var("path"), Some(format!("{expected}:/own").as_str()), "{env:?}");
    }
    world.image.config.env.clear();
    let image = world.apply("ARG PATH=/none\nRUN echo $PATH >/path", &[]).unwrap();
    assert_eq!((world.read("path"), image.config.env_var("PATH")), (format!("{usual}\n"), Some(usual)));
}

/// As Docker makes it: root's, whoever runs there.
#[test]
fn a_working_directory_that_is_missing_is_made() {
    let Some(mut world) = World::new() else { return };
    world.image.config.working_dir = "/none/there".to_owned();
    let text = "USER cnb\nRUN echo $PWD >/tmp/one\nUSER root\nWORKDIR /opt/q\nRUN rm -r /opt/q\n\
                RUN echo $PWD >/tmp/two\nWORKDIR /m/sub\nRUN rm -r /m\n\
                RUN --mount=type=tmpfs,target=/m echo $PWD >/tmp/three";
    world.apply(text, &[]).unwrap();
    let seen = ["one", "two", "three"].map(|name| world.read(&format!("tmp/{name}")));
    assert_eq!(seen, ["/none/there\n", "/opt/q\n", "/m/sub\n"]);
    let made = world.root().join("none/there").metadata().unwrap();
    assert_eq!((made.uid(), made.mode() & 0o7777), (0, 0o755));
    assert!(world.root().join("opt/q").is_dir() && !world.root().join("m").exists());
}

#[test]
fn patterns_may_name_nothing() {
    let Some(world) = World::new() else { return };
    world.context("a.txt", "a");
    let image =
        world.apply("COPY a.txt yarn.lock* /x/\nCOPY nosuch* /y/\nCOPY dir/* /y/\nADD nosuch* /y", &[]).unwrap();
    assert_eq!(world.read("x/a.txt"), "a");
    assert_eq!((image.layers.len(), world.root().join("y").exists()), (1, false));
}

/// What a Dockerfile leaves for those that begin with its image.
#[test]
fn triggers_of_the_base() {
    let Some(mut world) = World::new() else { return };
    world.context("a.txt", "a");
    let text =
        "ARG x=1\nONBUILD RUN echo $x >/triggered\nONBUILD COPY a.txt /\nONBUILD USER cnb\nRUN test ! -e /triggered";
    world.image = world.apply(text, &[]).unwrap();
    assert_eq!(world.image.config.rest_of_config["OnBuild"].as_array().unwrap().len(), 3);
    let image = world.apply("RUN id -u >/tmp/id", &[]).unwrap();
    assert_eq!((world.read("triggered"), world.read("a.txt")), ("\n".to_owned(), "a".to_owned()));
    assert_eq!((world.read("tmp/id").as_str(), image.config.user.as_str()), ("1000\n", "cnb"));
    let history: Vec<_> = image.config.history.iter().filter_map(|h| h.created_by.as_deref()).collect();
    assert_eq!(history, ["RUN echo $x >/triggered", "COPY a.txt /", "RUN id -u >/tmp/id"]);
    assert_eq!(image.config.rest_of_config.get("OnBuild"), None);
    // Not ours to have parsed.
    world.image.config.rest_of_config.insert("OnBuild".to_owned(), serde_json::json!(["RUM x"]));
    let error = world.apply("RUN true", &[]).unwrap_err().to_string();
    assert_eq!(error, "line 2: FROM ${base_image}: ONBUILD RUM x: unknown instruction: RUM");
}

#[test]
fn files_of_the_context() {
    let Some(world) = World::new() else { return };
    for (name, content) in
        [("a.txt", "a"), ("b.txt", "b"), ("d/e/f", "f"), ("d/skip", "s"), (".dockerignore", "d/skip\n")]
    {
        world.context(name, content);
    }
    symlink("e", world.dir.path().join("context/d/link")).unwrap();
    let mut tar = tar::Builder::new(File::create(world.dir.path().join("context/x.tar")).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o640);
    header.set_uid(9);
    header.set_gid(9);
    header.set_mtime(0);
    tar.append_data(&mut header, "in/tar", &b"ok"[..]).unwrap();
    tar.finish().unwrap();
    let image = world
        .apply(
            "WORKDIR /work\nCOPY *.txt here/\nCOPY --chown=cnb --chmod=600 a.txt renamed\nCOPY d /tree\n\
             ADD x.tar /unpacked/\nCOPY x.tar /kept.tar\nCOPY --chown=5:6 <<one <<'two' /docs/\n$PATH\none\n$PATH\ntwo\n",
            &[],
        )
        .unwrap();
    assert_eq!((world.read("work/here/a.txt"), world.read("work/here/b.txt")), ("a".into(), "b".into()));
    let renamed = world.root().join("work/renamed").metadata().unwrap();
    assert_eq!((renamed.uid(), renamed.gid(), renamed.mode() & 0o777), (1000, 1001, 0o600));
    assert_eq!(world.read("tree/e/f"), "f");
    assert_eq!(world.read("tree/link/f"), "f");
    assert!(!world.root().join("tree/skip").exists());
    assert_eq!(world.read("unpacked/in/tar"), "ok");
    assert_eq!(world.root().join("unpacked/in/tar").metadata().unwrap().uid(), 9);
    assert!(world.root().join("kept.tar").is_file());
    assert_eq!((world.read("docs/one"), world.read("docs/two")), ("/bin\n".into(), "$PATH\n".into()));
    assert_eq!(world.root().join("docs/one").metadata().unwrap().gid(), 6);
    assert_eq!(image.layers.len(), 7);
    // A file beside the Dockerfile is looked at instead.
    fs::write(world.dir.path().join("Dockerfile.dockerignore"), "a.txt\n").unwrap();
    world.apply("COPY . /all/", &[]).unwrap();
    assert_eq!(world.read("all/d/skip"), "s");
    assert!(!world.root().join("all/a.txt").exists());
}

#[test]
fn the_cache_brings_back_what_was_made() {
    let Some(mut world) = World::new() else { return };
    world.context("file", "1");
    let text = "ARG build_id\nARG x\nRUN rm -r /data/old; echo $x >/made; chown 3:4 /made; mkdir /d; ln /made /d/hard; touch /count.$x\n\
                COPY file /file\nRUN echo $build_id >/id\nRUN cat /file /id >/last";
    let first = world.apply(text, &[("build_id", "b1"), ("x", "1")]).unwrap();
    assert_eq!(first.layers.len(), 4);

    // All but what mentions the build's ID, and what follows, comes from the cache.
    world.fresh_root();
    let second = world.apply(text, &[("build_id", "b2"), ("x", "1")]).unwrap();
    let ids = |image: &Image| image.layers.iter().map(|l| l.diff_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&first)[..2], ids(&second)[..2]);
    assert_eq!(
        (world.read("made"), world.read("id"), world.read("last")),
        ("1\n".into(), "b2\n".into(), "1b2\n".into())
    );
    let made = world.root().join("made").metadata().unwrap();
    assert_eq!((made.uid(), made.nlink()), (3, 2));
    assert!(!world.root().join("data/old").exists());

    // The same again: nothing runs, for there is no shell.
    world.fresh_root();
    fs::remove_file(world.root().join("bin/sh")).unwrap();
    let third = world.apply(text, &[("build_id", "b2"), ("x", "1")]).unwrap();
    assert_eq!(ids(&third), ids(&second));
    assert_eq!(world.read("last"), "1b2\n");

    // Another argument, another content: made anew.
    world.fresh_root();
    let fourth = world.apply(text, &[("build_id", "b2"), ("x", "2")]).unwrap();
    assert_eq!(world.read("made"), "2\n");
    assert!(ids(&fourth)[0] != ids(&first)[0]);
    world.fresh_root();
    world.context("file", "other");
    world.apply(text, &[("build_id", "b2"), ("x", "1")]).unwrap();
    assert_eq!(world.read("last"), "otherb2\n");
}

#[test]
fn destinations_are_where_links_lead() {
    let Some(world) = World::new() else { return };
    world.context("a.txt", "a");
    world.context("d/b.txt", "b");
    world.context("d/file", "new");
    for (link, to) in
        [("file", "data/old/file"), ("none", "/data/none"), ("dir", "/data/./old/.."), ("no-dir", "data/x")]
    {
        symlink(to, world.root().join(link)).unwrap();
    }
    symlink("/data/old/file", world.root().join("data/file")).unwrap();
    symlink("loop", world.root().join("loop")).unwrap();
    let text = "COPY a.txt /file\nCOPY a.txt /none\nCOPY a.txt /dir\nCOPY a.txt /no-dir/sub/\nWORKDIR /dir/w\nCOPY a.txt .\n\
                COPY a.txt ../up\nCOPY a.txt /name/.\nCOPY d /dir";
    world.apply(text, &[]).unwrap();
    for file in ["data/old/file", "data/none", "data/a.txt", "data/x/sub/a.txt", "data/w/a.txt", "data/up", "name"] {
        assert_eq!(world.read(file), "a", "{file}");
    }
    for link in ["file", "none", "dir", "no-dir"] {
        assert!(world.root().join(link).is_symlink(), "{link}");
    }
    // What goes into a directory takes the place of a link there.
    assert_eq!((world.read("data/file"), world.read("data/b.txt")), ("new".into(), "b".into()));
    assert!(!world.root().join("data/file").is_symlink());
    let error = world.apply("COPY a.txt /loop/x", &[]).unwrap_err().to_string();
    assert!(error.contains("follow /loop/x: too many levels of symbolic links"), "{error}");
}

/// A web server for as many requests as there are answers (head and body); what was asked for comes back at the end.
fn serve(answers: Vec<(String, &'static [u8])>) -> (u16, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = move |(head, body): (String, &[u8])| {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
        let first = request.next().unwrap();
        request.find(String::is_empty).unwrap();
        let head = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        first.split(' ').nth(1).unwrap().to_owned()
    };
    (port, std::thread::spawn(move || answers.into_iter().map(answer).collect()))
}

#[test]
fn files_from_the_web() {
    let Some(mut world) = World::new() else { return };
    let dated = "200 OK\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT";
    let moved = || ("302 Found\r\nlocation: /there/x.tar".to_owned(), &b""[..]);
    let file = || (dated.to_owned(), &b"content"[..]);
    let missing = ("404 Not Found".to_owned(), &b""[..]);
    let (port, served) = serve(vec![moved(), file(), file(), missing, file(), file()]);
    let url = format!("http://127.0.0.1:{port}/a.tar?signed");
    // Twice the same: the second comes from the cache, but somebody had to ask whether it still is the same.
    let text = format!("ADD --chown=7 {url} /d/");
    for _ in 0..2 {
        world.fresh_root();
        let image = world.apply(&text, &[]).unwrap();
        assert_eq!(image.layers.len(), 1);
        assert_eq!(world.read("d/a.tar"), "content");
        let found = world.root().join("d/a.tar").metadata().unwrap();
        assert_eq!((found.mode() & 0o777, found.uid(), found.mtime()), (0o600, 7, 784_111_777));
        let mut left = fs::read_dir(world.dir.path().join(format!("work-{}", world.run))).unwrap();
        assert!(!left.any(|e| e.unwrap().file_name().to_string_lossy().starts_with("fetched")));
    }
    let error = world.apply(&text, &[]).unwrap_err().to_string();
    assert!(error.contains(&format!("GET http://127.0.0.1:{port}/a.tar: 404")), "{error}");
    let digest = Digest::of(b"content");
    let text = |digest: &Digest| format!("ADD --checksum={digest} {url} /one");
    let error = world.apply(&text(&Digest::of(b"other")), &[]).unwrap_err().to_string();
    assert!(error.contains(&format!("its digest is {digest}, not")), "{error}");
    // With a checksum nobody is asked again.
    for _ in 0..2 {
        world.fresh_root();
        world.apply(&text(&digest), &[]).unwrap();
        assert_eq!(world.read("one"), "content");
    }
    let asked = served.join().unwrap();
    assert_eq!(asked[..2], ["/a.tar?signed", "/there/x.tar"]);
    assert_eq!(asked.len(), 6);
}

/// What a file capability (`setcap cap_dac_override,cap_fowner=ep`) is: it holds a byte that is a newline elsewhere.
const CAPABILITY: (&str, &[u8]) = ("security.capability", b"\x01\0\0\x02\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");

#[test]
fn extended_attributes_are_kept() {
    let Some(mut world) = World::new() else { return };
    let probe = world.root().join("probe");
    fs::write(&probe, "").unwrap();
    if let Err(error) = rustix::fs::setxattr(&probe, CAPABILITY.0, CAPABILITY.1, rustix::fs::XattrFlags::empty()) {
        eprintln!("skipped: this file system takes no file capabilities: {error}");
        return;
    }
    let mut tar = tar::Builder::new(File::create(world.dir.path().join("context/x.tar")).unwrap());
    let key = format!("SCHILY.xattr.{}", CAPABILITY.0);
    tar.append_pax_extensions([(key.as_str(), CAPABILITY.1), ("SCHILY.xattr.user.note", b"n")]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    header.set_mode(0o755);
    header.set_uid(7);
    header.set_gid(7);
    header.set_mtime(0);
    tar.append_data(&mut header, "server", &b""[..]).unwrap();
    tar.finish().unwrap();
    let attribute = |path: &Path| {
        let mut value = vec![0; 64];
        let length = rustix::fs::getxattr(path, CAPABILITY.0, &mut value).unwrap();
        value.truncate(length);
        value
    };
    // From the archive, then from the cache.
    for _ in 0..2 {
        world.fresh_root();
        let image = world.apply("ADD x.tar /bin/", &[]).unwrap();
        assert_eq!(attribute(&world.root().join("bin/server")), CAPABILITY.1);
        let mut tar = TarReader::new(tar_of(&image.layers[0]).into_inner());
        let mut entries = std::iter::from_fn(|| tar.next_entry().unwrap());
        let file = entries.find(|entry| entry.kind == tar::EntryType::Regular).unwrap();
        assert!(file.xattrs().any(|xattr| xattr == (CAPABILITY.0.as_bytes(), CAPABILITY.1)));
    }
}
