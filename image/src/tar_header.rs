//! Tar headers with the bytes Go's archive/tar writes: USTAR where it can hold the entry, else PAX with the fewest
//! records. Two builders of one layer agree on its diff ID only where they agree on every byte here.

use std::borrow::Cow;

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
        let mut records = self.pax_records();
        let split = split_ustar(self.name);
        // A long name alone is no reason for PAX where USTAR can split it.
        if split.is_some() && records.len() == 1 && records[0].0 == "path" {
            records.clear();
        }
        if records.is_empty() {
            let (prefix, name) = split.unwrap_or((b"", self.name));
            self.write_block(name, self.link, prefix, out);
            return;
        }
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
        write_pax_header(self.name, body.len() as u64, out);
        out.extend_from_slice(&body);
        pad(out);
        self.write_block(&ascii(self.name), &ascii(self.link), b"", out);
    }

    /// What USTAR cannot hold, sorted by key.
    fn pax_records(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut records = Vec::new();
        let mut number = |key, value: u64, width| {
            if !fits_octal(value, width) {
                records.push((key, value.to_string().into_bytes()));
            }
        };
        number("gid", self.gid, 8);
        number("size", self.size, 12);
        number("uid", self.uid, 8);
        for (key, text) in [("linkpath", self.link), ("path", self.name)] {
            if text.len() > NAME || !text.is_ascii() {
                records.push((key, text.to_vec()));
            }
        }
        records.sort_unstable();
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

fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits.
    let mut length = rest + digits(rest);
    length = rest + digits(length);
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
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
