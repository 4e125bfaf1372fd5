//! Tar headers with the bytes Go's archive/tar writes: USTAR where it can hold the entry, else PAX with the fewest
//! records. Two builders of one layer agree on its diff ID only where they agree on every byte here.

use std::{borrow::Cow, collections::BTreeMap};

/// Bytes of a tar block.
pub(crate) const BLOCK: usize = 512;
/// 1980-01-01T00:00:01Z: every entry's time.
const MTIME: u64 = 315_532_801;
const NAME: usize = 100;
const PREFIX: usize = 155;

pub(crate) const REGULAR: u8 = b'0';
pub(crate) const SYMLINK: u8 = b'2';
pub(crate) const CHAR: u8 = b'3';
pub(crate) const BLOCK_DEVICE: u8 = b'4';
pub(crate) const DIRECTORY: u8 = b'5';
pub(crate) const FIFO: u8 = b'6';
const EXTENDED: u8 = b'x';

/// PAX records, sorted by their keys.
pub(crate) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// One entry. User and group names are never written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header<'a> {
    pub(crate) name: &'a [u8],
    /// A symlink's target.
    pub(crate) link: &'a [u8],
    pub(crate) kind: u8,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Bytes of a regular file.
    pub(crate) size: u64,
    /// Major and minor number of a device.
    pub(crate) device: (u64, u64),
}

impl Default for Header<'_> {
    fn default() -> Self {
        Self { name: b"", link: b"", kind: REGULAR, mode: 0, uid: 0, gid: 0, size: 0, device: (0, 0) }
    }
}

impl Header<'_> {
    /// Appends the header's blocks: one, or three and more where PAX records are needed.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let records = self.pax_records();
        let split = split_ustar(self.name);
        // A long name alone is no reason for PAX where USTAR can split it.
        let only_path = records.len() == 1 && records.contains_key(&b"path"[..]);
        if records.is_empty() || split.is_some() && only_path {
            let (prefix, name) = split.unwrap_or((b"", self.name));
            self.write_block(name, self.link, prefix, out);
        } else {
            self.write_pax(&records, out);
        }
    }

    /// Appends the header in PAX form, with records beside those it needs.
    pub(crate) fn write_with(&self, mut records: Records, out: &mut Vec<u8>) {
        records.extend(self.pax_records());
        self.write_pax(&records, out);
    }

    fn write_pax(&self, records: &Records, out: &mut Vec<u8>) {
        if !records.is_empty() {
            let body: Vec<u8> = records.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
            write_pax_header(self.name, body.len() as u64, out);
            out.extend_from_slice(&body);
            pad(out);
        }
        self.write_block(&ascii(self.name), &ascii(self.link), b"", out);
    }

    /// What USTAR cannot hold.
    fn pax_records(&self) -> Records {
        let mut records = Records::new();
        for (key, number, width) in [("gid", self.gid, 8), ("size", self.size, 12), ("uid", self.uid, 8)] {
            if !fits_octal(number, width) {
                records.insert(key.into(), number.to_string().into_bytes());
            }
        }
        for (key, text) in [("linkpath", self.link), ("path", self.name)] {
            if text.len() > NAME || !text.is_ascii() {
                records.insert(key.into(), text.to_vec());
            }
        }
        records
    }

    fn write_block(&self, name: &[u8], link: &[u8], prefix: &[u8], out: &mut Vec<u8>) {
        let mut block = [0; BLOCK];
        text(&mut block[..100], name);
        octal(&mut block[100..108], u64::from(self.mode));
        octal(&mut block[108..116], self.uid);
        octal(&mut block[116..124], self.gid);
        octal(&mut block[124..136], self.size);
        octal(&mut block[136..148], MTIME);
        block[156] = self.kind;
        text(&mut block[157..257], link);
        octal(&mut block[329..337], self.device.0);
        octal(&mut block[337..345], self.device.1);
        text(&mut block[345..500], prefix);
        seal(&mut block);
        out.extend_from_slice(&block);
    }
}

/// The header of the entry that holds the records of the next one.
fn write_pax_header(name: &[u8], size: u64, out: &mut Vec<u8>) {
    let (dir, base) = name.iter().rposition(|b| *b == b'/').map_or((&b""[..], name), |i| name.split_at(i + 1));
    let full = clean(&[dir, b"/PaxHeaders.0/", base].concat(), name.first() == Some(&b'/'));
    let full = ascii(&full);
    let cut = &full[..full.len().min(NAME)];
    let cut = &cut[..cut.len() - cut.iter().rev().take_while(|b| **b == b'/').count()];
    let mut block = [0; BLOCK];
    text(&mut block[..100], cut);
    for field in [100..108, 108..116, 116..124, 136..148] {
        octal(&mut block[field], 0);
    }
    octal(&mut block[124..136], size);
    block[156] = EXTENDED;
    seal(&mut block);
    out.extend_from_slice(&block);
}

/// Magic and checksum.
fn seal(block: &mut [u8; BLOCK]) {
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    octal(&mut block[148..155], sum);
}

/// Zeros up to a whole block.
pub(crate) fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits.
    let mut length = rest + digits(rest);
    length = rest + digits(length);
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

fn fits_octal(value: u64, width: usize) -> bool {
    value >> ((width - 1) * 3) == 0
}

/// Zero-padded, NUL-terminated; zero where it does not fit (the PAX record has it then).
fn octal(field: &mut [u8], value: u64) {
    let mut value = if fits_octal(value, field.len()) { value } else { 0 };
    let last = field.len() - 1;
    for byte in field[..last].iter_mut().rev() {
        *byte = b'0' + (value & 7) as u8;
        value >>= 3;
    }
    field[last] = 0;
}

/// Cut where it is too long; a cut that ends in a slash would make readers take a file for a directory.
fn text(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
    if value.len() > field.len() && field.last() == Some(&b'/') {
        let end = field.iter().rposition(|b| *b != b'/').map_or(0, |i| i + 1);
        field[end] = 0;
    }
}

/// Without what is not ASCII.
fn ascii(value: &[u8]) -> Cow<'_, [u8]> {
    if value.is_ascii() {
        Cow::Borrowed(value)
    } else {
        Cow::Owned(value.iter().copied().filter(u8::is_ascii).collect())
    }
}

/// Prefix and name, where a long name can be split at a slash.
fn split_ustar(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME || !name.is_ascii() {
        return None;
    }
    let mut length = name.len().min(PREFIX + 1);
    if length == name.len() && name.last() == Some(&b'/') {
        length -= 1;
    }
    let slash = name[..length].iter().rposition(|b| *b == b'/')?;
    let rest = &name[slash + 1..];
    (slash > 0 && !rest.is_empty() && rest.len() <= NAME).then(|| (&name[..slash], rest))
}

/// The shortest path that means the same.
fn clean(path: &[u8], rooted: bool) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => {
                parts.pop();
            }
            b".." if rooted => {}
            part => parts.push(part),
        }
    }
    let mut out = if rooted { b"/".to_vec() } else { Vec::new() };
    out.extend_from_slice(&parts.join(&b'/'));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    fn blocks(header: &Header<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        header.write(&mut out);
        out
    }

    /// Lengths and hashes of what Go's archive/tar (1.26) writes for the same entries.
    #[test]
    fn same_bytes_as_go() {
        let a = |n: usize| "a".repeat(n).into_bytes();
        let name = |parts: &[&[u8]]| parts.concat();
        let long = name(&[b"/", &a(60), b"/", &a(60)]);
        let deep = name(&[b"/", &b"d/".repeat(120), &a(100)]);
        let deepest = name(&[b"/", &b"dd/".repeat(1300), b"f"]);
        let entry = |name: &[u8], link: &[u8], kind, mode| (name.to_vec(), link.to_vec(), kind, mode);
        let plain = |n: &[u8]| entry(n, b"", REGULAR, 0o644);
        let table = [
            (entry(b"/w", b"", DIRECTORY, 0o755), [0; 5], 512, "0b6f7ff7531a"),
            (plain(&name(&[b"/", &a(99)])), [0; 5], 512, "e7be24ecab3a"),
            (plain(&name(&[b"/", &a(100)])), [0; 5], 1536, "98ecd6aa95c3"),
            (plain(&name(&[b"/", &a(50), b"/", &a(50)])), [0; 5], 512, "88c07c7439e6"),
            (plain(&name(&[b"/", &a(154), b"/", &a(100)])), [0; 5], 512, "0a1c1291f1f2"),
            (plain(&name(&[b"/", &a(155), b"/", &a(100)])), [0; 5], 1536, "001904bd530a"),
            (plain(&name(&[b"/", &a(10), b"/", &a(101)])), [0; 5], 1536, "fb7e64b59f93"),
            (plain(&deep), [0; 5], 1536, "4b09635af775"),
            (entry(&deepest, b"", REGULAR, 0o600), [0; 5], 5120, "1df8f246571f"),
            (plain("/w/é".as_bytes()), [0; 5], 1536, "4a027b7089b1"),
            (plain(b"/w/\xff\xfe"), [0; 5], 1536, "e989e5713a7e"),
            (plain(&name(&["/w/日本/".as_bytes(), &a(120)])), [0; 5], 1536, "32e90727dd25"),
            (plain(b"/w/new\nline"), [0; 5], 512, "18dbc5e15bf2"),
            (entry(b"/w/l", &a(100), SYMLINK, 0o777), [0; 5], 512, "a1137f3a303c"),
            (entry(b"/w/l", &a(101), SYMLINK, 0o777), [0; 5], 1536, "c9436b3a19f6"),
            (entry(b"/w/l", "../ü".as_bytes(), SYMLINK, 0o777), [0; 5], 1536, "c78d5d99f6eb"),
            (entry(&long, &a(101), SYMLINK, 0o777), [0; 5], 1536, "ee9d485479af"),
            (entry(b"/w/u", b"", REGULAR, 0o4755), [2_097_151, 2_097_151, 0, 0, 0], 512, "d38002e9eb6c"),
            (entry(b"/w/u", b"", REGULAR, 0o6755), [2_097_152, 3_000_000_000, 0, 0, 0], 1536, "0e7d394106a6"),
            (entry(&long, b"", REGULAR, 0o1777), [4_294_967_294, 0, 0, 0, 0], 1536, "e948284cb752"),
            (plain(b"/w/s"), [0, 0, 8_589_934_591, 0, 0], 512, "d3df89e0467e"),
            (plain(b"/w/s"), [0, 0, 8_589_934_592, 0, 0], 1536, "6c5a08b1cf72"),
            (entry(b"/w/c", b"", CHAR, 0o666), [0, 0, 0, 4095, 1_048_575], 512, "0f71f242321d"),
            (entry(b"/w/b", b"", BLOCK_DEVICE, 0o660), [0, 0, 0, 7, 3], 512, "2bd9a0ff817b"),
            (entry(b"/w/p", b"", FIFO, 0o600), [0; 5], 512, "be4fc44385d0"),
            (plain(&name(&[b"/", &b"b".repeat(98), "/é".as_bytes()])), [0; 5], 1536, "c8fcaa1fc409"),
            (
                entry(&name(&[b"/", &b"b".repeat(96), b"/cc/", &a(130), "/é".as_bytes()]), b"", DIRECTORY, 0o755),
                [0; 5],
                1536,
                "678f45660afb",
            ),
        ];
        for ((name, link, kind, mode), [uid, gid, size, major, minor], length, hash) in &table {
            let (kind, mode, device) = (*kind, *mode, (*major, *minor));
            let written = blocks(&Header { name, link, kind, mode, uid: *uid, gid: *gid, size: *size, device });
            let shown = String::from_utf8_lossy(&name[..name.len().min(60)]);
            assert_eq!(written.len(), *length, "{shown}");
            assert_eq!(&Digest::of(&written).hex()[..12], *hash, "{shown}");
        }
    }

    #[test]
    fn record_lengths_count_themselves() {
        for (value, start) in [(90, "99 path="), (91, "101 path="), (0, "8 path="), (1, "9 path="), (2, "11 path=")] {
            let record = pax_record(b"path", &b"v".repeat(value));
            assert!(record.starts_with(start.as_bytes()), "{}", String::from_utf8_lossy(&record));
            assert_eq!(record.len().to_string(), start.split(' ').next().unwrap());
        }
    }
}
