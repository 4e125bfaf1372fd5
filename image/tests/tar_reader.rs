//! What a tar's reader finds, beside what others find in it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    io::{Cursor, Read},
    os::unix::fs::symlink,
    process::Command,
};

use image::{TarEntry, TarReader};
use tar::{EntryType, Header};

/// A tar of headers and records as they are given.
#[derive(Default)]
struct Made(Vec<u8>);

impl Made {
    fn add(&mut self, name: &str, kind: u8, size: u64, content: &[u8]) -> &mut Self {
        let mut header = Header::new_ustar();
        self.with(&mut header, name, kind, size, content)
    }

    fn gnu(&mut self, name: &str, kind: u8, content: &[u8]) -> &mut Self {
        self.with(&mut Header::new_gnu(), name, kind, content.len() as u64, content)
    }

    fn with(&mut self, header: &mut Header, name: &str, kind: u8, size: u64, content: &[u8]) -> &mut Self {
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[156] = kind;
        header.set_mode(0o644);
        header.set_size(size);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn records(&mut self, records: &[u8]) -> &mut Self {
        self.add("records", b'x', records.len() as u64, records)
    }

    /// Names, types and contents of its entries; or what is wrong. By reading, and by seeking.
    fn found(&self) -> Result<Vec<(String, u8, String)>, String> {
        let all = [self.0.as_slice(), &[0; 1024]].concat();
        let read = found(TarReader::new(&mut &*all)).map_err(|e| e.to_string());
        assert_eq!(found(TarReader::seeking(Cursor::new(&all))).map_err(|e| e.to_string()), read);
        read
    }
}

fn found(mut tar: TarReader<impl Read>) -> std::io::Result<Vec<(String, u8, String)>> {
    let mut found = Vec::new();
    while let Some(entry) = tar.next_entry()? {
        let mut content = String::new();
        // Every other content is left.
        if found.len() % 2 == 0 {
            tar.content(&entry).read_to_string(&mut content)?;
        }
        found.push((String::from_utf8_lossy(&entry.name).into_owned(), entry.kind.as_byte(), content));
    }
    Ok(found)
}

fn entry(name: &str, kind: u8, content: &str) -> (String, u8, String) {
    (name.into(), kind, content.into())
}

fn one(tar: &Made) -> TarEntry {
    TarReader::new(&*tar.0).next_entry().unwrap().unwrap()
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (rest + 1..rest + 4).find(|length| length.to_string().len() + rest == *length).unwrap();
    [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}

#[test]
fn values_of_records_hold_newlines() {
    let mut tar = Made::default();
    let name = b"a\n21 linkpath=/etc/evil\n";
    tar.records(&record("path", name)).add("short", b'2', 0, b"").add("next", b'0', 3, b"abc");
    let found = one(&tar);
    assert_eq!((found.name.as_slice(), found.link), (&name[..], None));
    assert_eq!(tar.found().unwrap()[1].0, "next");
    let mut tar = Made::default();
    let records = [record("SCHILY.xattr.security.capability", b"\x01\n\0"), record("SCHILY.xattr.user.a", b"b")];
    tar.records(&records.concat()).add("x", b'0', 0, b"");
    let found = one(&tar);
    let xattrs: Vec<_> = found.xattrs().collect();
    assert_eq!(xattrs, [(&b"security.capability"[..], &b"\x01\n\0"[..]), (b"user.a", b"b")]);
}

#[test]
fn records_say_more_than_headers() {
    let mut tar = Made::default();
    let records = [
        ("path", "none"),
        ("path", ""),
        ("uid", "1"),
        ("uid", "22"),
        ("gid", "4000000"),
        ("mtime", "12.75"),
        ("size", "3"),
    ];
    tar.records(&records.map(|(key, value)| record(key, value.as_bytes())).concat());
    tar.add("kept", b'0', 1, b"abc").add("next", b'0', 0, b"");
    let found = one(&tar);
    assert_eq!(
        (found.name.as_slice(), found.uid, found.gid, found.mtime, found.size),
        (&b"kept"[..], 22, 4_000_000, 12, 3)
    );
    assert_eq!(tar.found().unwrap(), [entry("kept", b'0', "abc"), entry("next", b'0', "")]);
    let mut tar = Made::default();
    tar.records(&record("mtime", b"-1.5")).add("old", b'0', 0, b"");
    assert_eq!(one(&tar).mtime, 0);
}

#[test]
fn what_tells_of_an_entry_is_of_the_next_file() {
    // Records lie before a long name or after it, and a global header says nothing.
    for order in [[b'x', b'L', b'g'], [b'L', b'g', b'x'], [b'g', b'x', b'L']] {
        let mut tar = Made::default();
        for kind in order {
            match kind {
                b'L' => tar.gnu("././@LongLink", b'L', b"long\0rest"),
                kind => {
                    let size = if kind == b'x' { b"2" } else { b"7" };
                    let records = [record("size", size), record("path", b"pax")].concat();
                    tar.add("records", kind, records.len() as u64, &records)
                }
            };
        }
        tar.add("short", b'0', 600, b"ab").add("next", b'0', 0, b"");
        assert_eq!(tar.found().unwrap(), [entry("long", b'0', "ab"), entry("next", b'0', "")], "{order:?}");
    }
}

#[test]
fn types_without_content() {
    let mut tar = Made::default();
    for kind in b'1'..=b'6' {
        tar.add("empty", kind, 600, b"");
    }
    tar.add("dir/", 0, 600, b"").add("file", 0, 1, b"a").add("file", b'7', 1, b"b").add("dir/", b'0', 1, b"c");
    let found = tar.found().unwrap();
    assert_eq!(found.iter().map(|(_, kind, _)| *kind).collect::<Vec<_>>(), b"1234565000");
    assert_eq!(found[8], entry("file", b'0', "b"), "the one before it was passed over");
}

#[test]
fn malformed_tars() {
    type Make = fn(&mut Made) -> &mut Made;
    let table: [(&str, Make); 14] = [
        ("malformed pax extension", |t| t.records(b"99 path=x\n").add("x", b'0', 0, b"")),
        ("malformed pax extension", |t| t.records(b"10 path=xy\n").add("x", b'0', 0, b"")),
        ("malformed pax extension", |t| t.records(b"+9 path=x\n").add("x", b'0', 0, b"")),
        ("malformed pax extension", |t| t.records(b"5 =x\n").add("x", b'0', 0, b"")),
        ("malformed pax extension", |t| t.records(b"0 path=x\n").add("x", b'0', 0, b"")),
        ("the record size is \"-1\" and no number", |t| t.records(&record("size", b"-1")).add("x", b'0', 0, b"")),
        ("a size that no tar has", |t| t.records(&record("size", b"18446744073709551615")).add("x", b'0', 0, b"")),
        ("a zero byte in its name", |t| t.records(&record("path", b"a\0b")).add("x", b'0', 0, b"")),
        ("a zero byte in its name", |t| t.records(&record("linkpath", b"\0")).add("x", b'2', 0, b"")),
        ("told of twice", |t| t.records(b"9 path=x\n").records(b"9 path=y\n").add("x", b'0', 0, b"")),
        ("told of twice", |t| t.gnu("l", b'L', b"x").gnu("l", b'L', b"y").add("x", b'0', 0, b"")),
        ("it ends after what tells of the next entry", |t| t.records(b"9 path=x\n")),
        ("records or names of more than 1 MiB", |t| t.add("x", b'x', (1 << 20) + 1, b"")),
        ("GNU's PAX formats", |t| t.records(&record("GNU.sparse.major", b"1")).add("x", b'0', 0, b"")),
    ];
    for (why, make) in table {
        let mut tar = Made::default();
        make(&mut tar);
        let error = tar.found().unwrap_err();
        assert!(error.contains(why), "{why}: {error}");
    }
    let mut tar = Made::default();
    tar.add("x", b'0', 0, b"");
    tar.0[0] = b'y';
    assert!(tar.found().unwrap_err().contains("checksum"));
    let mut tar = Made::default();
    tar.add("x", b'0', 600, &[b'x'; 600]);
    for length in [100, 600, 1100] {
        assert!(found(TarReader::new(&tar.0[..length])).is_err(), "{length}");
    }
}

/// Whatever format `tar` writes, its files are found: long names, newlines, holes, links.
#[test]
fn formats_of_gnu_tar() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let long = "n".repeat(90);
    fs::create_dir_all(dir.join(&long).join(&long)).unwrap();
    for name in ["plain".into(), format!("{long}/{long}/f"), format!("new\nline{long}")] {
        fs::write(dir.join(&name), name.repeat(9)).unwrap();
    }
    symlink(format!("new\nline{long}"), dir.join("link")).unwrap();
    fs::hard_link(dir.join("plain"), dir.join("second")).unwrap();
    let sparse = fs::File::create(dir.join("sparse")).unwrap();
    for at in 0..30 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", at * 100_000).unwrap();
    }
    sparse.set_len(4_000_000).unwrap();
    for options in ["--format=gnu", "--format=gnu -S", "--format=oldgnu -S", "--format=posix", "--format=pax"] {
        let tar =
            Command::new("tar").args(["c", "--sort=name"]).args(options.split(' ')).arg(".").current_dir(dir).output();
        let tar = tar.unwrap().stdout;
        let mut reader = TarReader::new(&*tar);
        let mut files = 0;
        while let Some(entry) = reader.next_entry().unwrap() {
            let name = String::from_utf8(entry.name.clone()).unwrap();
            let path = dir.join(&name);
            let mut content = Vec::new();
            reader.content(&entry).read_to_end(&mut content).unwrap();
            match entry.kind {
                EntryType::Regular => assert!(content == fs::read(&path).unwrap(), "{options}: {name}"),
                EntryType::Directory => assert!(path.is_dir() && content.is_empty(), "{options}: {name}"),
                EntryType::Symlink => {
                    assert_eq!(entry.link.as_deref().unwrap(), format!("new\nline{long}").as_bytes(), "{options}");
                }
                EntryType::Link => assert_eq!(entry.link.as_deref().unwrap(), b"./plain", "{options}"),
                other => panic!("{options}: {name}: {other:?}"),
            }
            assert_eq!(entry.is_whole(), !(options.contains("-S") && name == "./sparse"), "{options}: {name}");
            files += 1;
        }
        assert_eq!(files, 9, "{options}");
    }
    let tar =
        Command::new("tar").args(["c", "--format=posix", "-S", "sparse"]).current_dir(dir).output().unwrap().stdout;
    assert!(found(TarReader::new(&*tar)).unwrap_err().to_string().contains("GNU's PAX formats"));
}
