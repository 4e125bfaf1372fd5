//! Layers on the file system.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    fs,
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use common::{OWNER, tar_of, tree};
use image::{Recipe, extract::extract};
use tar::{EntryType, Header};

/// A tar of entries (name, type, content or link, mode), names taken as they are.
fn tar(entries: &[(&str, EntryType, &str, u32)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, text, mode) in entries {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        let content = if *kind == EntryType::Regular { text.as_bytes() } else { b"" };
        header.as_old_mut().linkname[..text.len() - content.len()].copy_from_slice(&text.as_bytes()[content.len()..]);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

const DIR: EntryType = EntryType::Directory;
const FILE: EntryType = EntryType::Regular;
const LINK: EntryType = EntryType::Symlink;

fn unpack(entries: &[(&str, EntryType, &str, u32)], root: &Path) -> image::Result<()> {
    extract(&mut &tar(entries)[..], root, &[Path::new("/layers")])
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

#[test]
fn what_a_recipe_packs_comes_back() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path());
    let app = temp.path().join("app");
    let packed = tar_of(&Recipe::dir(&app, OWNER).unwrap());
    let root = temp.path().join("root");
    fs::create_dir(&root).unwrap();
    extract(&mut &packed[..], &root, &[&app]).unwrap();
    let back = root.join(app.strip_prefix("/").unwrap());
    for name in ["", "a", "a/f", "a-b", "d", "d/e", "empty", "block", "noise", "text", "ünïcode"] {
        let (from, to) = (app.join(name), back.join(name));
        assert_eq!(mode(&from), mode(&to), "{name}");
        if from.is_file() {
            assert!(fs::read(from).unwrap() == fs::read(to).unwrap(), "{name}");
        }
    }
    assert_eq!(fs::read_link(back.join("link")).unwrap(), Path::new("../nowhere"));
}

#[test]
fn modes() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir_all(temp.path().join("layers/old")).unwrap();
    fs::set_permissions(temp.path().join("layers/old"), fs::Permissions::from_mode(0o744)).unwrap();
    unpack(
        &[
            ("/layers", DIR, "", 0o700),
            ("/layers/old", DIR, "", 0o755),
            ("/layers/ro/sub", DIR, "", 0o500),
            ("/layers/ro/sub/file", FILE, "x", 0o444),
            ("/layers/ro", DIR, "", 0o555),
            ("/layers/implicit/file", FILE, "x", 0o666),
            ("layers/relative", FILE, "x", 0o4755),
        ],
        temp.path(),
    )
    .unwrap();
    let mode = |name: &str| mode(&temp.path().join("layers").join(name));
    assert_eq!(mode("old"), 0o744, "a directory that was there keeps its mode");
    assert_eq!((mode("ro"), mode("ro/sub"), mode("ro/sub/file")), (0o555, 0o500, 0o444));
    assert_eq!(mode("implicit/file"), 0o666, "the umask takes nothing away");
    assert_eq!(mode("relative"), 0o4755);
    assert_eq!(mode("implicit") | 0o022, 0o777, "the umask holds for what no entry tells of");
}

#[test]
fn what_is_there_is_replaced_but_directories_are_not() {
    let temp = tempfile::tempdir().unwrap();
    let layers = temp.path().join("layers");
    fs::create_dir_all(layers.join("dir")).unwrap();
    let precious = temp.path().join("precious");
    fs::write(&precious, "untouched").unwrap();
    symlink(&precious, layers.join("link")).unwrap();
    fs::hard_link(&precious, layers.join("hard")).unwrap();
    symlink("old", layers.join("symlink")).unwrap();
    unpack(
        &[
            ("/layers/link", FILE, "new", 0o644),
            ("/layers/hard", FILE, "new", 0o644),
            ("/layers/symlink", LINK, "new", 0o777),
            ("/layers/same", EntryType::Link, "/layers/hard", 0o644),
        ],
        temp.path(),
    )
    .unwrap();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "untouched");
    assert_eq!(fs::read_to_string(layers.join("link")).unwrap(), "new");
    assert_eq!(fs::read_link(layers.join("symlink")).unwrap(), Path::new("new"));
    assert_eq!(fs::metadata(layers.join("same")).unwrap().ino(), fs::metadata(layers.join("hard")).unwrap().ino());
    assert!(unpack(&[("/layers/dir", FILE, "x", 0o644)], temp.path()).is_err());
    assert!(unpack(&[("/layers/hard", DIR, "", 0o755)], temp.path()).is_err());
}

#[test]
fn nothing_leads_outside() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    fs::create_dir_all(root.join("layers")).unwrap();
    let outside = temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let away = outside.to_str().unwrap();
    symlink(&outside, root.join("layers/there-before")).unwrap();
    for entries in [
        &[("/layers/../etc/passwd", FILE, "x", 0o644)][..],
        &[("../x", FILE, "x", 0o644)],
        &[("/etc/passwd", FILE, "x", 0o644)],
        &[("/layers2/x", FILE, "x", 0o644)],
        &[("/layers", FILE, "x", 0o644)],
        &[("/layers", LINK, away, 0o777)],
        &[("/layers/l", LINK, away, 0o777), ("/layers/l/x", FILE, "x", 0o644)],
        &[("/layers/l", LINK, away, 0o777), ("/layers/l/d", DIR, "", 0o755)],
        &[("/layers/l", LINK, away, 0o777), ("/layers/l", DIR, "", 0o700)],
        &[("/layers/l", LINK, away, 0o777), ("/layers/l/s", LINK, "x", 0o777)],
        &[("/layers/d", DIR, "", 0o755), ("/layers/d/l", LINK, "..", 0o777), ("/layers/d/l/x/y", FILE, "", 0o644)],
        &[("/layers/there-before/x", FILE, "x", 0o644)],
        &[("/layers/h", EntryType::Link, "/etc/passwd", 0o644)],
        &[("/layers/h", EntryType::Link, "/layers/there-before/x", 0o644)],
    ] {
        let error = unpack(entries, &root).expect_err(entries[0].0).to_string();
        assert!(error.contains("extract entry"), "{error}");
        assert_eq!(outside.read_dir().unwrap().count(), 0, "{}", entries[0].0);
        assert!(!temp.path().join("x").exists() && !root.join("etc").exists());
    }
}

#[test]
fn types_no_layer_has() {
    let temp = tempfile::tempdir().unwrap();
    for (kind, number) in [(EntryType::Fifo, 54), (EntryType::Char, 51), (EntryType::Block, 52)] {
        let error = unpack(&[("/layers/x", kind, "", 0o644)], temp.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("unknown file type in tar {number}")), "{error}");
    }
    let mut sparse = Header::new_gnu();
    sparse.set_path("layers/x").unwrap();
    sparse.set_entry_type(EntryType::GNUSparse);
    sparse.as_gnu_mut().unwrap().set_real_size(0);
    sparse.set_mode(0o644);
    sparse.set_size(0);
    sparse.set_cksum();
    let error = extract(&mut &sparse.as_bytes()[..], temp.path(), &[Path::new("/layers")]).unwrap_err().to_string();
    assert!(error.contains("a sparse file, which no layer has"), "{error}");
    unpack(&[("pax_global_header", EntryType::XGlobalHeader, "", 0)], temp.path()).unwrap();
}

#[test]
fn a_tar_that_is_cut_off_is_an_error_and_one_read_whole_is_read_whole() {
    let temp = tempfile::tempdir().unwrap();
    let mut whole = tar(&[("/layers/x", FILE, &"x".repeat(5000), 0o644)]);
    assert!(extract(&mut &whole[..3000], temp.path(), &[Path::new("/layers")]).is_err());
    whole.extend_from_slice(&[0; 9000]);
    let mut rest = &whole[..];
    extract(&mut rest as &mut dyn Read, temp.path(), &[Path::new("/layers")]).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn many_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..200).map(|i| format!("/layers/d{}/f{i}", i % 7)).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), FILE, "content", 0o600)).collect();
    std::thread::scope(|scope| {
        for i in 0..4 {
            let root = temp.path().join(i.to_string());
            let entries = &entries;
            scope.spawn(move || {
                fs::create_dir(&root).unwrap();
                unpack(entries, &root).unwrap();
            });
        }
    });
    for name in &names {
        assert_eq!(fs::read_to_string(temp.path().join("3").join(&name[1..])).unwrap(), "content");
    }
}
