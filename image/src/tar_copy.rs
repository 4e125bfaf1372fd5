//! Another tar's entries, normalised: times, user and group names; everything else stays, extended attributes too.
//! Entries of GNU's format come out in USTAR or PAX.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};

use crate::{
    tar_header::{BLOCK_DEVICE, CHAR, Header, REGULAR, Records},
    tar_stream::{TarStream, on_path},
};

const MTIME: &[u8] = b"315532801";
const GNU_SPARSE: u8 = b'S';

/// Streams the entries of the tar at `path`, gzipped or not.
pub(crate) fn copy(tar: &mut TarStream<'_>, path: &Path) -> io::Result<()> {
    for_each(path, &mut |header, entry| {
        tar.bytes(header)?;
        let size = entry.size();
        tar.content(entry, size).map_err(|e| e.on(path))
    })
}

/// Bytes those entries take.
pub(crate) fn size(path: &Path) -> io::Result<u64> {
    let mut size = 0;
    for_each(path, &mut |header, entry| {
        size += header.len() as u64 + entry.size().next_multiple_of(512);
        Ok(())
    })?;
    Ok(size)
}

type Source<'a> = Entry<'a, Box<dyn Read>>;

fn for_each(path: &Path, entry: &mut dyn FnMut(&[u8], &mut Source<'_>) -> io::Result<()>) -> io::Result<()> {
    let failed = |e: io::Error| on_path("read", path, &e);
    let mut file = BufReader::with_capacity(128 << 10, File::open(path).map_err(failed)?);
    let gzipped = file.fill_buf().map_err(failed)?.starts_with(&[0x1f, 0x8b]);
    let content: Box<dyn Read> = if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut archive = Archive::new(content);
    for found in archive.entries().map_err(failed)? {
        let mut found = found.map_err(failed)?;
        if found.header().entry_type() == EntryType::XGlobalHeader {
            continue;
        }
        let header = header(&mut found).map_err(failed)?;
        entry(&header, &mut found)?;
    }
    Ok(())
}

fn header(entry: &mut Source<'_>) -> io::Result<Vec<u8>> {
    let found: Option<Records> = match entry.pax_extensions()? {
        Some(records) => Some(
            records
                .map(|record| record.map(|record| (record.key_bytes().to_vec(), record.value_bytes().to_vec())))
                .collect::<io::Result<_>>()?,
        ),
        None => None,
    };
    let name = entry.path_bytes().into_owned();
    let link = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
    // No path of a file system has one, and no reader takes a tar that says so.
    if name.contains(&0) || link.contains(&0) {
        return Err(io::Error::other(format!("entry {:?}: a zero byte in its name", String::from_utf8_lossy(&name))));
    }
    let raw = entry.header();
    let kind = match raw.entry_type().as_byte() {
        // A sparse file comes out in full, and "contiguous" means nothing to a file system.
        0 | b'7' | GNU_SPARSE => REGULAR,
        kind @ b'0'..=b'6' => kind,
        // Another format's notes about the next entry, if anything: here they would be taken for a file.
        kind => return Err(io::Error::other(format!("unknown file type in tar {kind}"))),
    };
    let number = |key: &str, field: &[u8], plain: io::Result<u64>| -> io::Result<u64> {
        let text = found.as_ref().and_then(|records| records.get(key.as_bytes()));
        match text.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()) {
            Some(number) => Ok(number),
            // Some writers leave a zero out.
            None if field.iter().all(|b| matches!(b, 0 | b' ')) => Ok(0),
            None => plain,
        }
    };
    let device = if matches!(kind, CHAR | BLOCK_DEVICE) {
        (raw.device_major()?.unwrap_or_default().into(), raw.device_minor()?.unwrap_or_default().into())
    } else {
        (0, 0)
    };
    let uid = number("uid", &raw.as_old().uid, raw.uid())?;
    let gid = number("gid", &raw.as_old().gid, raw.gid())?;
    let header =
        Header { name: &name, link: &link, kind, mode: raw.mode()? & 0o7777, uid, gid, size: entry.size(), device };
    let mut out = Vec::new();
    match found {
        None => header.write(&mut out),
        Some(mut records) => {
            records.retain(|key, value| keeps(&header, key, value));
            header.write_with(records, &mut out);
        }
    }
    Ok(out)
}

/// Records of a field stay where they say what the entry has; those of other tools stay as they are.
fn keeps(header: &Header<'_>, key: &[u8], value: &[u8]) -> bool {
    let is = |number: u64| value == number.to_string().as_bytes();
    match key {
        b"path" => value == header.name,
        b"linkpath" => value == header.link,
        b"uid" => is(header.uid),
        b"gid" => is(header.gid),
        b"size" => is(header.size),
        b"mtime" => value == MTIME,
        b"uname" | b"gname" => false,
        key => !key.starts_with(b"GNU.sparse."),
    }
}

#[cfg(test)]
mod tests {
    use tar::{EntryType, Header};

    use super::*;
    use crate::tar_stream::WriterSink;

    fn taken_over(header: &mut Header, content: &[u8]) -> io::Result<Vec<u8>> {
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        let mut tar = tar::Builder::new(Vec::new());
        tar.append(header, content)?;
        taken_over_tar(&tar.into_inner()?)
    }

    fn taken_over_tar(tar: &[u8]) -> io::Result<Vec<u8>> {
        let path = tempfile::NamedTempFile::new()?;
        std::fs::write(&path, tar)?;
        let mut out = Vec::new();
        let mut sink = WriterSink::new(&mut out);
        let mut stream = TarStream::new(&mut sink);
        copy(&mut stream, path.path())?;
        stream.finish()?;
        Ok(out)
    }

    #[test]
    fn types_of_entries() {
        for (kind, expected) in [(b'0', Some(b'0')), (0, Some(b'0')), (b'7', Some(b'0')), (b'5', Some(b'5'))] {
            let mut header = Header::new_ustar();
            header.set_path("name").unwrap();
            header.set_entry_type(EntryType::new(kind));
            let content = if kind == b'5' { &b""[..] } else { b"abc" };
            let tar = taken_over(&mut header, content).unwrap();
            assert_eq!(tar.get(156).copied(), expected, "{kind}");
        }
        // Found by fuzzing: GNU's types in a header that is not GNU's.
        for kind in [b'L', b'K', b'V', b'D', b'8'] {
            let mut header = Header::new_old();
            header.set_path("@LongLink").unwrap();
            header.set_entry_type(EntryType::new(kind));
            let error = taken_over(&mut header, b"a long name").unwrap_err();
            assert!(error.to_string().contains("unknown file type in tar"), "{error}");
        }
    }

    /// Found by fuzzing: a name that the next reader would not take.
    #[test]
    fn names_hold_no_zero_byte() {
        for record in [("path", &b"a\0b"[..]), ("linkpath", b"\0")] {
            let mut tar = tar::Builder::new(Vec::new());
            tar.append_pax_extensions([record]).unwrap();
            let mut header = Header::new_ustar();
            header.set_path("name").unwrap();
            header.set_mode(0o644);
            header.set_size(0);
            header.set_cksum();
            tar.append(&header, &b""[..]).unwrap();
            let error = taken_over_tar(&tar.into_inner().unwrap()).unwrap_err();
            assert!(error.to_string().contains("a zero byte in its name"), "{error}");
        }
    }
}
