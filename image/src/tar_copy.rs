//! Another tar's entries, normalised: times, user and group names; everything else stays, extended attributes too.
//! Entries of GNU's format come out in USTAR or PAX.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

use crate::{
    tar_header::Header,
    tar_reader::{TarEntry, TarReader},
    tar_stream::{TarStream, on_path},
};

const MTIME: &[u8] = b"315532801";

/// Streams the entries of the tar at `path`, gzipped or not.
pub(crate) fn copy(tar: &mut TarStream<'_>, path: &Path) -> io::Result<()> {
    for_each(path, &mut |header, entry, from| {
        tar.bytes(header)?;
        tar.content(&mut from.content(entry), entry.size).map_err(|e| e.on(path))
    })
}

/// Bytes those entries take.
pub(crate) fn size(path: &Path) -> io::Result<u64> {
    let mut size = 0;
    for_each(path, &mut |header, entry, _| {
        size += header.len() as u64 + entry.size.next_multiple_of(512);
        Ok(())
    })?;
    Ok(size)
}

type Source = TarReader<Box<dyn Read>>;
/// Takes a header's bytes, and the entry they are of, to be read from the source.
type Each<'a> = dyn FnMut(&[u8], &TarEntry, &mut Source) -> io::Result<()> + 'a;

fn for_each(path: &Path, each: &mut Each<'_>) -> io::Result<()> {
    let failed = |e: io::Error| on_path("read", path, &e);
    let mut file = BufReader::with_capacity(128 << 10, File::open(path).map_err(failed)?);
    let gzipped = file.fill_buf().map_err(failed)?.starts_with(&[0x1f, 0x8b]);
    let content: Box<dyn Read> = if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut tar = TarReader::new(content);
    while let Some(mut found) = tar.next_entry().map_err(failed)? {
        let header = header(&mut found).map_err(failed)?;
        each(&header, &found, &mut tar)?;
    }
    Ok(())
}

fn header(entry: &mut TarEntry) -> io::Result<Vec<u8>> {
    let kind = match entry.kind.as_byte() {
        kind @ b'0'..=b'6' => kind,
        // Another format's notes about the next entry, if anything: here they would be taken for a file.
        kind => return Err(io::Error::other(format!("unknown file type in tar {kind}"))),
    };
    let mut records = std::mem::take(&mut entry.records);
    let header = Header {
        name: &entry.name,
        link: entry.link.as_deref().unwrap_or_default(),
        kind,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        size: entry.size,
        device: (entry.device.0.into(), entry.device.1.into()),
    };
    let mut out = Vec::new();
    if records.is_empty() {
        header.write(&mut out);
    } else {
        records.retain(|key, value| keeps(&header, key, value));
        header.write_with(records, &mut out);
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
        _ => true,
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

    /// Found by fuzzing: what begins after a newline was taken for another record.
    #[test]
    fn names_hold_newlines() {
        let name = format!("{}\n21 linkpath=/etc/evil\n", "long".repeat(30));
        let mut tar = Vec::new();
        crate::tar_header::Header { name: name.as_bytes(), mode: 0o644, ..Default::default() }.write(&mut tar);
        tar.resize(tar.len() + 1024, 0);
        assert_eq!(taken_over_tar(&tar).unwrap(), tar);
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
