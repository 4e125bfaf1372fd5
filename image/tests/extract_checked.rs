//! Layers on the file system, unpacked by several threads that check each block.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use common::{OWNER, tar_of, tree};
use image::{
    BlockSums, Recipe, Summing,
    extract::{extract, extract_checked},
};
use tar::{EntryType, Header};

/// Bytes of a block.
const BLOCK: usize = 512 << 10;

const DIR: EntryType = EntryType::Directory;
const FILE: EntryType = EntryType::Regular;
const LINK: EntryType = EntryType::Symlink;
const HARD: EntryType = EntryType::Link;

/// Entries: name, type, content or link, mode; names are taken as they are.
type Entries<'a> = &'a [(&'a str, EntryType, &'a str, u32)];

fn tar(entries: Entries<'_>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, text, mode) in entries {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        let content = if *kind == FILE { text.as_bytes() } else { b"" };
        header.as_old_mut().linkname[..text.len() - content.len()].copy_from_slice(&text.as_bytes()[content.len()..]);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn sums(tar: &[u8]) -> BlockSums {
    let mut summing = Summing::new();
    summing.add(tar);
    summing.finish()
}

/// Unpacks a tar that is a file, with these checksums.
fn unpack_with(sums: &BlockSums, tar: &[u8], root: &Path, within: &Path) -> image::Result<()> {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(tar, 0).unwrap();
    let read = AtomicU64::new(0);
    let result = extract_checked(&file, sums, root, &[within], &|done| {
        read.fetch_max(done, Ordering::Relaxed);
    });
    assert!(result.is_err() || read.into_inner() >= tar.len() as u64, "all of it is read");
    result
}

fn unpack(tar: &[u8], root: &Path) -> image::Result<()> {
    unpack_with(&sums(tar), tar, root, Path::new("/layers"))
}

/// All that is below a directory: modes, and contents or links; hard links by the first of their names.
fn listing(root: &Path) -> BTreeMap<PathBuf, (u32, String, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        let mut paths: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let meta = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().to_owned();
            let first = if meta.is_file() {
                inodes.entry(meta.ino()).or_insert_with(|| name.clone()).clone()
            } else {
                name.clone()
            };
            let content = match () {
                () if meta.is_dir() => Vec::new(),
                () if meta.is_file() => fs::read(&path).unwrap(),
                () => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            };
            found.insert(name, (meta.mode(), first.to_str().unwrap().to_owned(), content));
            if meta.is_dir() {
                dirs.push(path);
            }
        }
    }
    found
}

/// Unpacks a tar both ways, and compares.
fn same_both_ways(tar: &[u8], within: &Path) -> BTreeMap<PathBuf, (u32, String, Vec<u8>)> {
    let temp = tempfile::tempdir().unwrap();
    let (one, other) = (temp.path().join("one"), temp.path().join("other"));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&other).unwrap();
    extract(&mut &tar[..], &one, &[within]).unwrap();
    unpack_with(&sums(tar), tar, &other, within).unwrap();
    let (expected, found) = (listing(&one), listing(&other));
    assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
    for (path, entry) in &expected {
        assert!(found.get(path) == Some(entry), "{}", path.display());
    }
    found
}

/// Such names are kept in records, and other readers end a record at a newline.
#[test]
fn names_with_newlines() {
    let temp = tempfile::tempdir().unwrap();
    let app = temp.path().join("app");
    fs::create_dir(&app).unwrap();
    let names = ["é\nx".to_owned(), format!("{}\n17 linkpath=evil\n", "n".repeat(120)), "z".to_owned()];
    for name in &names {
        fs::write(app.join(name), name).unwrap();
        std::os::unix::fs::symlink(name, app.join(format!("{name}.link"))).unwrap();
    }
    let found = same_both_ways(&tar_of(&Recipe::dir(&app, OWNER).unwrap()), &app);
    for name in &names {
        let path = app.strip_prefix("/").unwrap().join(name);
        assert_eq!(found[&path].2, name.as_bytes());
        assert_eq!(found[&path.with_file_name(format!("{name}.link"))].2, name.as_bytes());
    }
}

#[test]
fn what_a_recipe_packs_comes_back() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path());
    let app = temp.path().join("app");
    let packed = tar_of(&Recipe::dir(&app, OWNER).unwrap());
    let found = same_both_ways(&packed, &app);
    assert!(found.len() > 10);
}

#[test]
fn files_of_every_size_and_many_directories() {
    let big: String = (0..700_000_u64).map(|n| char::from(b'a' + u8::try_from(n * n % 23).unwrap())).collect();
    let names: Vec<(String, &str)> = (0..1500)
        .map(|i| (format!("/layers/d{}/e{}/f{i}", i % 211, i % 7), &big[..(i * 37) % 1300]))
        .chain([("/layers/big".into(), &*big), ("/layers/d1/bigger".into(), &big[1..]), ("/layers/none".into(), "")])
        .chain((0..40).map(|i| (format!("/layers/blocks/{i}"), &big[..BLOCK - 512 * (i % 3)])))
        .collect();
    let mut entries: Vec<(&str, EntryType, &str, u32)> = vec![("/layers", DIR, "", 0o750)];
    // A hard link, and a link to that, before and after most of the files; directories whose modes come late.
    entries.push(("/layers/first", FILE, "first", 0o4711));
    entries.push(("/layers/hard", HARD, "/layers/first", 0o644));
    entries.push(("/layers/harder", HARD, "/layers/hard", 0o644));
    entries.extend(names.iter().map(|(name, content)| (name.as_str(), FILE, *content, 0o664)));
    entries.push(("/layers/hardest", HARD, "/layers/big", 0o644));
    entries.push(("/layers/symlink", LINK, "../../nowhere", 0o777));
    entries.push(("/layers/d3/e3", DIR, "", 0o555));
    entries.push(("/layers/d3", DIR, "", 0o500));
    let found = same_both_ways(&tar(&entries), Path::new("/layers"));
    assert!(found.len() > 1500 + 211);
    assert!(found[Path::new("layers/big")].2 == big.as_bytes());
    assert_eq!(found[Path::new("layers/hardest")].1, "layers/big");
    assert_eq!(found[Path::new("layers/harder")].1, "layers/first");
    assert_eq!(found[Path::new("layers/d3")].0 & 0o7777, 0o500);
}

#[test]
fn one_bit_anywhere_is_an_error() {
    let content = "x".repeat(BLOCK);
    let good = tar(&[("/layers/a", FILE, &content, 0o644), ("/layers/b", FILE, &content, 0o644)]);
    let sums = sums(&good);
    let temp = tempfile::tempdir().unwrap();
    let unpack = |tar: &[u8]| {
        let root = tempfile::tempdir_in(temp.path()).unwrap();
        unpack_with(&sums, tar, root.path(), Path::new("/layers"))
    };
    unpack(&good).unwrap();
    for at in [0, 600, BLOCK - 1, BLOCK, BLOCK + 700, 2 * BLOCK + 1, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(unpack(&bad).is_err(), "{at}");
    }
    for length in [0, 700, BLOCK, good.len() - 512] {
        assert!(unpack(&good[..length]).is_err(), "{length} bytes");
    }
    let longer = [good.clone(), vec![0; BLOCK]].concat();
    assert!(unpack_with(&self::sums(&longer), &good, temp.path(), Path::new("/layers")).is_err());
}

#[test]
fn a_file_that_is_longer_than_its_tar() {
    let mut tar = tar(&[("/layers/x", FILE, &"x".repeat(5000), 0o644)]);
    tar.truncate(3000);
    let temp = tempfile::tempdir().unwrap();
    let error = unpack(&tar, temp.path()).unwrap_err().to_string();
    assert!(error.contains("/layers/x") && error.contains("the tar ends before it"), "{error}");
}

#[test]
fn nothing_leads_outside_and_nothing_is_there_twice() {
    let temp = tempfile::tempdir().unwrap();
    let outside = temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let away = outside.to_str().unwrap();
    let rows: [Entries<'_>; 22] = [
        &[("/layers/../etc/passwd", FILE, "x", 0o644)],
        &[("../x", FILE, "x", 0o644)],
        &[("/etc/passwd", FILE, "x", 0o644)],
        &[("/layers2/x", FILE, "x", 0o644)],
        &[("/layers", FILE, "x", 0o644)],
        &[("/layers", LINK, away, 0o777)],
        &[("/layers/l", LINK, away, 0o777), ("/layers/l/x", FILE, "x", 0o644)],
        &[("/layers/l", LINK, away, 0o777), ("/layers/l", FILE, "x", 0o644)],
        &[("/layers/l", FILE, "x", 0o644), ("/layers/l", LINK, away, 0o777)],
        &[("/layers/l", LINK, away, 0o777), ("/layers/l/d", DIR, "", 0o755)],
        &[("/layers/l", LINK, away, 0o777), ("/layers/l", DIR, "", 0o700)],
        &[("/layers/d", DIR, "", 0o755), ("/layers/d/l", LINK, "..", 0o777), ("/layers/d/l/x/y", FILE, "", 0o644)],
        &[("/layers/h", HARD, "/etc/passwd", 0o644)],
        &[("/layers/h", HARD, "/layers/none", 0o644)],
        &[("/layers/f", FILE, "x", 0o644), ("/layers/h", HARD, "/layers/f", 0o644), ("/layers/h", FILE, "x", 0o644)],
        &[("/layers/l", LINK, away, 0o777), ("/layers/h", HARD, "/layers/l/x", 0o644)],
        &[("/layers/f", FILE, "x", 0o644), ("/layers/f", FILE, "y", 0o644)],
        &[("/layers/f", FILE, "x", 0o644), ("/layers/f", DIR, "", 0o755)],
        &[("/layers/f", FILE, "x", 0o644), ("/layers/f/g", FILE, "x", 0o644)],
        &[("/layers/d/f", FILE, "x", 0o644), ("/layers/d", FILE, "x", 0o644)],
        &[("/layers/p", EntryType::Fifo, "", 0o644)],
        &[("/layers/c", EntryType::Char, "", 0o644)],
    ];
    for (number, entries) in rows.iter().enumerate() {
        let root = temp.path().join(number.to_string());
        fs::create_dir(&root).unwrap();
        let error = unpack(&tar(entries), &root).expect_err(entries[0].0).to_string();
        assert!(error.contains("extract"), "{error}");
        assert_eq!(outside.read_dir().unwrap().count(), 0, "{}", entries[0].0);
        assert!(!temp.path().join("x").exists() && !root.join("etc").exists() && !root.join("layers2").exists());
    }
    let root = temp.path().join("there-before");
    fs::create_dir_all(root.join("layers")).unwrap();
    std::os::unix::fs::symlink(&outside, root.join("layers/link")).unwrap();
    fs::write(root.join("layers/file"), "untouched").unwrap();
    for name in ["/layers/link", "/layers/link/x", "/layers/file"] {
        assert!(unpack(&tar(&[(name, FILE, "x", 0o644)]), &root).is_err(), "{name}");
    }
    assert_eq!(outside.read_dir().unwrap().count(), 0);
    assert_eq!(fs::read_to_string(root.join("layers/file")).unwrap(), "untouched");
}

#[test]
fn directories_above_get_their_modes_even_after_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let entries: Entries<'_> =
        &[("/a", DIR, "", 0o711), ("/a/layers/f", FILE, "x", 0o644), ("/a/layers/f", FILE, "x", 0o644)];
    let tar = tar(entries);
    assert!(unpack_with(&sums(&tar), &tar, temp.path(), Path::new("/a/layers")).is_err());
    assert_eq!(fs::metadata(temp.path().join("a")).unwrap().permissions().mode() & 0o7777, 0o711);
}

#[test]
fn a_directory_instead_of_a_file_is_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let tar = tar(&[("/layers/f", FILE, "x", 0o644)]);
    let dir = File::open(temp.path()).unwrap();
    assert!(extract_checked(&dir, &sums(&tar), temp.path(), &[Path::new("/layers")], &|_| {}).is_err());
}
