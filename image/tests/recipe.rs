//! Layers from real directories.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt, net::UnixListener},
    path::{Path, PathBuf},
};

use common::{OWNER, tar_of, tree};
use image::{Owner, Recipe};

struct Seen {
    name: String,
    kind: u8,
    mode: u32,
    uid: u64,
    gid: u64,
    link: Option<String>,
    content: Vec<u8>,
}

fn entries(tar: &[u8]) -> Vec<Seen> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut archive = tar::Archive::new(tar);
    let read = |entry: io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().mtime().unwrap(), 315_532_801);
        assert_eq!(entry.header().username_bytes(), Some(&b""[..]));
        let records: Vec<(String, String)> = entry.pax_extensions().unwrap().map_or(Vec::new(), |records| {
            records.map(|r| r.unwrap()).map(|r| (text(r.key_bytes()), text(r.value_bytes()))).collect()
        });
        let number = |key: &str| records.iter().find(|(k, _)| k == key).map(|(_, v)| v.parse().unwrap());
        let mut content = Vec::new();
        let header = entry.header().clone();
        let seen = Seen {
            name: text(&entry.path_bytes()),
            kind: header.entry_type().as_byte(),
            mode: header.mode().unwrap(),
            uid: number("uid").unwrap_or(header.uid().unwrap()),
            gid: number("gid").unwrap_or(header.gid().unwrap()),
            link: entry.link_name_bytes().map(|link| text(&link)),
            content: Vec::new(),
        };
        entry.read_to_end(&mut content).unwrap();
        Seen { content, ..seen }
    };
    archive.entries().unwrap().map(read).collect()
}

fn names(tar: &[u8], below: &Path) -> Vec<String> {
    let below = format!("{}/", below.display());
    entries(tar).into_iter().filter_map(|e| e.name.strip_prefix(&below).map(str::to_owned)).collect()
}

#[test]
fn a_directory_in_walk_order_with_its_parents() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path());
    let app = temp.path().join("app");
    let recipe = Recipe::dir(&app, OWNER).unwrap();
    let tar = tar_of(&recipe);
    assert_eq!(recipe.tar_size().unwrap(), tar.len() as u64);
    assert_eq!(tar.len() % 512, 0);
    assert!(tar.ends_with(&[0; 1024]));

    let long = "n".repeat(255);
    let expected = ["a", "a/f", "a-b", "block", "d", "d/e", "empty", "link", &long, "noise", "text", "ünïcode"];
    let mut sorted = expected;
    sorted.sort_by(|a, b| a.split('/').map(str::as_bytes).cmp(b.split('/').map(str::as_bytes)));
    assert_eq!(sorted.map(str::to_owned).to_vec(), names(&tar, &app));

    let parents: Vec<PathBuf> = app.ancestors().skip(1).map(Path::to_owned).collect();
    for entry in entries(&tar) {
        let on_disk = fs::symlink_metadata(&entry.name).unwrap();
        let is_parent = parents.contains(&PathBuf::from(&entry.name));
        let owner = if is_parent { (on_disk.uid().into(), on_disk.gid().into()) } else { (OWNER.uid, OWNER.gid) };
        assert_eq!((entry.uid, entry.gid), owner, "{}", entry.name);
        assert_eq!(entry.mode, on_disk.mode() & 0o7777, "{}", entry.name);
        match entry.kind {
            b'0' => assert_eq!(entry.content, fs::read(&entry.name).unwrap(), "{}", entry.name),
            b'2' => assert_eq!(entry.link.as_deref(), Some("../nowhere")),
            kind => assert_eq!(kind, b'5', "{}", entry.name),
        }
        assert_ne!(entry.name, "/");
    }
}

#[test]
fn files_are_sorted_by_all_their_bytes() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path());
    let app = temp.path().join("app");
    let paths = ["a/f", "a", "a-b"].map(|name| app.join(name));
    // One that was looked at before, others that were not.
    let seen = fs::symlink_metadata(app.join("a/f")).unwrap().file_type();
    let known = |path: PathBuf| (path.clone(), Some(seen).filter(|_| path.ends_with("a/f")));
    let all = paths.iter().cloned().chain([app.clone()]).map(known).collect();
    let tar = tar_of(&Recipe::files(&app, all, OWNER).unwrap());
    assert_eq!(names(&tar, &app), ["a", "a-b", "a/f"]);
    let first = entries(&tar).remove(0).name;
    assert_eq!(Path::new(&first).parent(), Some(Path::new("/")), "parents come first");
}

#[test]
fn no_file_is_an_empty_tar() {
    let recipe = Recipe::files(Path::new("/somewhere"), Vec::new(), OWNER).unwrap();
    assert_eq!(tar_of(&recipe), [0; 1024]);
    assert_eq!(recipe.tar_size().unwrap(), 1024);
}

#[test]
fn sockets_are_left_out_and_fifos_are_not() {
    let temp = tempfile::tempdir().unwrap();
    let _socket = UnixListener::bind(temp.path().join("socket")).unwrap();
    nix::unistd::mkfifo(&temp.path().join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let recipe = Recipe::dir(temp.path(), OWNER).unwrap();
    let tar = tar_of(&recipe);
    assert_eq!(names(&tar, temp.path()), ["fifo"]);
    assert_eq!(entries(&tar).pop().unwrap().kind, b'6');
    assert_eq!(recipe.tar_size().unwrap(), tar.len() as u64);
}

#[test]
fn a_symlink_as_the_directory_itself_stays_one() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path());
    let link = temp.path().join("current");
    std::os::unix::fs::symlink("app", &link).unwrap();
    let tar = tar_of(&Recipe::dir(&link, OWNER).unwrap());
    let last = entries(&tar).pop().unwrap();
    assert_eq!((last.kind, last.link.as_deref()), (b'2', Some("app")));
}

#[test]
fn entries_that_are_not_on_disk() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("binary");
    fs::write(&source, "program").unwrap();
    let root = Owner::default();
    let mut recipe = Recipe::default();
    recipe.push_dir("/cnb", 0o755, root);
    recipe.push_dir("/cnb/process", 0o755, root);
    recipe.push_symlink("/cnb/process/web", "/cnb/lifecycle/launcher", root);
    recipe.push_file("/cnb/lifecycle/launcher", &source, 0o755, root).unwrap();
    let tar = tar_of(&recipe);
    assert_eq!(recipe.tar_size().unwrap(), tar.len() as u64);
    let seen: Vec<(String, u8, u32)> = entries(&tar).into_iter().map(|e| (e.name, e.kind, e.mode)).collect();
    let entry = |name: &str, kind| (name.to_owned(), kind, 0o755);
    assert_eq!(
        seen,
        [
            entry("/cnb", b'5'),
            entry("/cnb/process", b'5'),
            entry("/cnb/process/web", b'2'),
            entry("/cnb/lifecycle/launcher", b'0'),
        ]
    );
    assert!(recipe.push_file("/x", &temp.path().join("absent"), 0o755, root).is_err());
}

/// Does something to a file when the first bytes of the tar come, and fails the test if the tar comes out whole.
fn disturbed(file: &Path, size: usize, disturb: impl Fn()) -> String {
    struct Out<F: Fn()>(Option<F>);
    impl<F: Fn()> Write for Out<F> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(disturb) = self.0.take() {
                disturb();
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    fs::write(file, vec![0; size]).unwrap();
    let recipe = Recipe::dir(file.parent().unwrap(), OWNER).unwrap();
    recipe.write_to(&mut Out(Some(disturb))).unwrap_err().to_string()
}

#[test]
fn files_that_change_while_they_are_read_are_errors() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("victim");
    let longer = || fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(&[1; 4096]).unwrap();
    let shorter = || fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(1).unwrap();
    for (disturb, what) in [(&longer as &dyn Fn(), "became longer"), (&shorter, "became shorter")] {
        let error = disturbed(&file, 1 << 20, disturb);
        assert!(error.contains(what) && error.contains("/victim"), "{error}");
    }
}

#[test]
fn files_that_vanish_or_turn_into_something_else_are_errors() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("victim");
    for turn in [&(|| ()) as &dyn Fn(), &|| std::os::unix::fs::symlink("/etc/passwd", &file).unwrap(), &|| {
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR).unwrap();
    }] {
        fs::write(&file, "here").unwrap();
        let recipe = Recipe::dir(temp.path(), OWNER).unwrap();
        fs::remove_file(&file).unwrap();
        turn();
        let error = recipe.write_to(&mut io::sink()).unwrap_err().to_string();
        assert!(error.contains("/victim"), "{error}");
        let _ = fs::remove_file(&file);
    }
}

#[test]
fn names_that_are_not_utf_8_are_kept() {
    let temp = tempfile::tempdir().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"bad\xff\xfe");
    fs::write(temp.path().join(name), "x").unwrap();
    fs::write(temp.path().join("new\nline"), "y").unwrap();
    let tar = tar_of(&Recipe::dir(temp.path(), OWNER).unwrap());
    let mut archive = tar::Archive::new(&tar[..]);
    let names: Vec<Vec<u8>> = archive.entries().unwrap().map(|e| e.unwrap().path_bytes().into_owned()).collect();
    assert!(names.iter().any(|n| n.ends_with(b"/bad\xff\xfe")));
    assert!(names.iter().any(|n| n.ends_with(b"/new\nline")));
}

/// What an extension's layer holds comes out with everything but times and user names.
#[test]
fn another_tar_is_taken_over() {
    let temp = tempfile::tempdir().unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o4711);
    header.set_uid(7);
    header.set_mtime(1_700_000_000);
    header.set_username("root").unwrap();
    header.set_size(3);
    builder.append_pax_extensions([("SCHILY.xattr.security.capability", &b"\x01\0\x02"[..])]).unwrap();
    builder.append_data(&mut header, "usr/bin/tool", &b"abc"[..]).unwrap();
    header.set_entry_type(tar::EntryType::Link);
    header.set_size(0);
    builder.append_link(&mut header, "usr/bin/same", "usr/bin/tool").unwrap();
    let plain = builder.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    for (name, bytes) in [("plain", plain), ("gzip", gzip.finish().unwrap())] {
        let path = temp.path().join(name);
        fs::write(&path, bytes).unwrap();
        let recipe = Recipe::tar(&path);
        let tar = tar_of(&recipe);
        assert_eq!(recipe.tar_size().unwrap(), tar.len() as u64);
        let seen = entries(&tar);
        assert_eq!((seen[0].name.as_str(), seen[0].mode, seen[0].uid), ("usr/bin/tool", 0o4711, 7));
        assert_eq!(seen[0].content, b"abc");
        assert_eq!((seen[1].kind, seen[1].link.as_deref()), (b'1', Some("usr/bin/tool")));
        assert!(tar.windows(32).any(|w| w == b"SCHILY.xattr.security.capability"));
    }
}
