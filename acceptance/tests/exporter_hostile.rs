//! exporter, from outside: an app and layers of the worst kind, and little memory whatever their size.
//! buildpack.md "Layer Types"; what is not said there is what Go's archive/tar does in the reference.
#![allow(clippy::unwrap_used, reason = "clippy takes only functions marked as tests for tests")]

mod image_world;

use std::{
    ffi::OsStr,
    fs::{self, File as StdFile},
    io::{Read, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, net::UnixListener},
    path::Path,
    process::Command,
    time::Duration,
};

use acceptance::{
    run::{Outcome, as_root, may_differ, run, run_limited},
    tree::Entry::{Dir, File},
};
use image_world::{World, in_tar, storage};

fn ready() -> World {
    let world = World::new();
    world.analyzed();
    world
}

/// The raw path of every entry of a layer that begins with `dir`, with its kind.
fn raw_entries(world: &World, image: &str, layer: usize, dir: &Path) -> Vec<(Vec<u8>, u8)> {
    let image = world.image(image);
    let digest = image.manifest["layers"][layer]["digest"].as_str().unwrap();
    let file = StdFile::open(storage::blob(&world.registry.storage(), digest)).unwrap();
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(file));
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        if let Some(path) = entry.path_bytes().strip_prefix(dir.as_os_str().as_bytes()) {
            found.push((path.strip_prefix(b"/").unwrap_or(path).to_vec(), entry.header().entry_type().as_byte()));
        }
    }
    found
}

#[test]
fn names_of_any_bytes_and_length_survive() {
    let world = ready();
    let long = "d".repeat(250);
    let longest = "f".repeat(255);
    let deep = format!("app/{long}/{long}/{long}");
    fs::create_dir_all(world.path(&deep)).unwrap();
    let names: Vec<Vec<u8>> = vec![
        b"bytes-\xff\xfe".to_vec(),
        b"line\nbreak".to_vec(),
        b"tab\tand \"quote\" and \\".to_vec(),
        "umlaut-äöü".as_bytes().to_vec(),
        b" blanks ".to_vec(),
        b"-rf".to_vec(),
        b"*?[".to_vec(),
        b"a:b=c%d".to_vec(),
        longest.clone().into_bytes(),
    ];
    for name in &names {
        fs::write(world.path("app").join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::write(world.path(&deep).join(&longest), "deep").unwrap();
    std::os::unix::fs::symlink("t".repeat(300), world.path("app/long-target")).unwrap();
    let outcome = run(&mut world.exporter("0.12", &["app"]));
    if outcome.code() != 0 && may_differ("names that are no UTF-8 are no error in ours") {
        return;
    }
    outcome.ok();
    let found = raw_entries(&world, "app:latest", 2, &world.path("app"));
    let paths: Vec<&Vec<u8>> = found.iter().map(|(path, _)| path).collect();
    for name in &names {
        assert!(paths.contains(&name), "{:?} of {paths:?}", String::from_utf8_lossy(name));
    }
    let deepest = format!("{long}/{long}/{long}/{longest}").into_bytes();
    assert!(paths.contains(&&deepest));
    // The same again, from the same files.
    let digest = world.digest("app:latest");
    run(&mut world.exporter("0.12", &["app"])).ok();
    assert_eq!(world.digest("app:latest"), digest);
}

#[test]
fn special_files() {
    let world = ready();
    let _socket = UnixListener::bind(world.path("app/socket")).unwrap();
    let made = Command::new("mkfifo").arg(world.path("app/fifo")).status().unwrap();
    assert!(made.success());
    fs::hard_link(world.path("app/main.txt"), world.path("app/second.txt")).unwrap();
    let devices = image_world::is_root()
        && Command::new("mknod").arg(world.path("app/null")).args(["c", "1", "3"]).status().is_ok_and(|s| s.success());
    let mut call = world.exporter("0.12", &["app"]);
    call.env("LC_ALL", "C");
    let (outcome, _) = run_limited(&mut call, Duration::from_secs(60));
    outcome.ok();
    let found = raw_entries(&world, "app:latest", 2, &world.path("app"));
    let kind = |name: &str| found.iter().find(|(path, _)| path == name.as_bytes()).map(|(_, kind)| char::from(*kind));
    assert_eq!(kind("fifo"), Some('6'));
    assert_eq!(kind("socket"), None, "a socket is nothing to keep");
    assert_eq!((kind("main.txt"), kind("second.txt")), (Some('0'), Some('0')), "hard links are copies");
    if devices {
        assert_eq!(kind("null"), Some('3'));
    }
}

fn denied(outcome: &Outcome) {
    assert!(outcome.all().to_lowercase().contains("permission denied"), "{}", outcome.all());
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_with_its_name() {
    if !as_root() {
        return;
    }
    let world = ready();
    world.layer("jdk", "launch = true", Some(&[("closed", File("x"))]));
    let mut call = world.exporter("0.12", &["app"]);
    let closed = world.path("layers/acme_jvm/jdk/closed");
    std::os::unix::fs::chown(&closed, Some(0), Some(0)).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).unwrap();
    denied(&run(&mut call).exits(62).says(&in_tar(&closed)));
    assert_eq!(world.digest("app:latest"), None);
    assert!(!world.exists("layers/report.toml"));
    fs::remove_file(&closed).unwrap();
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let mut call = world.exporter("0.12", &["app"]);
    std::os::unix::fs::chown(&closed, Some(0), Some(0)).unwrap();
    denied(&run(&mut call).exits(62).says(&in_tar(&closed)));
}

#[test]
fn a_huge_file_needs_little_memory() {
    let world = ready();
    let bytes = 3 << 30;
    StdFile::create(world.path("app/huge")).unwrap().set_len(bytes).unwrap();
    let mut call = world.exporter("0.12", &["app"]);
    let (outcome, peak) = run_limited(&mut call, Duration::from_secs(500));
    outcome.ok();
    assert!(may_differ("memory is no part of the specification") || peak < 100 * 1024, "{peak} KiB");
    let image = world.image_unchecked("app:latest");
    let digest = image.manifest["layers"][2]["digest"].as_str().unwrap();
    let blob = StdFile::open(storage::blob(&world.registry.storage(), digest)).unwrap();
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(blob));
    let sizes: Vec<u64> = archive.entries().unwrap().map(|e| e.unwrap().size()).collect();
    assert!(sizes.contains(&bytes), "{sizes:?}");
}

/// Bytes that no compression makes smaller.
fn noise(path: &Path, mebibytes: usize) {
    let mut random = StdFile::open("/dev/urandom").unwrap().take(mebibytes as u64 * 1024 * 1024);
    let mut file = StdFile::create(path).unwrap();
    std::io::copy(&mut random, &mut file).unwrap();
    file.flush().unwrap();
}

#[test]
fn a_file_that_changes_while_it_is_read_gives_a_sound_image_or_an_error() {
    let world = ready();
    let path = world.path("app/busy");
    for grow in [true, false] {
        noise(&path, 24);
        let mut call = world.exporter("0.12", &["app"]);
        let done = std::sync::atomic::AtomicBool::new(false);
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut size: u64 = 24 << 20;
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    size = if grow { size + 4096 } else { size.saturating_sub(65_536).max(4096) };
                    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
                    file.set_len(size).unwrap();
                    std::thread::yield_now();
                }
            });
            let (outcome, _) = run_limited(&mut call, Duration::from_secs(120));
            done.store(true, std::sync::atomic::Ordering::SeqCst);
            outcome
        });
        if outcome.code() == 0 {
            // Digests, sizes and diff IDs fit what was read.
            world.image("app:latest");
            let _ = raw_entries(&world, "app:latest", 2, &world.path("app"));
        } else {
            assert_eq!(outcome.code(), 62, "{}", outcome.all());
            if !may_differ("it names another file, that it was to add next") {
                outcome.says("app/busy");
            }
        }
    }
}

#[test]
fn an_empty_app_and_a_link_as_app() {
    let world = ready();
    world.remove("app");
    world.write(&[("app", Dir)]);
    run(&mut world.exporter("0.12", &["app"])).ok();
    let entries = raw_entries(&world, "app:latest", 2, &world.path("app"));
    assert_eq!(entries, [(Vec::new(), b'5')]);
    world.remove("app");
    let outcome = run(&mut world.exporter("0.12", &["app"]));
    assert!(outcome.code() == 62 && outcome.all().contains("/app"), "{}: {}", outcome.code(), outcome.all());
}
