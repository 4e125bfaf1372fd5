//! The entries of a tar as docker and Go's archive/tar see them: whoever reads another's tar must find the files the
//! others find. PAX records are read by the lengths they begin with, since their values (names, capabilities) may hold
//! newlines; `tar`'s own reader splits at these, and so loses records or takes a value's end for one.

mod records;

use std::io::{self, Read, Seek};

use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use self::records::{digits, seconds};
use crate::{
    fill,
    tar_header::{BLOCK, Records},
};

/// What the names of extended attributes begin with, as the keys of PAX records.
pub const XATTR: &str = "SCHILY.xattr.";
/// Bytes that records or a long name may take, as in Go.
const LONGEST: u64 = 1 << 20;
/// Parts that a sparse file may have.
const REGIONS: usize = 1 << 20;

/// A tar that is read from its beginning to its end.
#[derive(Debug)]
pub struct TarReader<R> {
    from: R,
    /// Bytes read or skipped.
    at: u64,
    /// Where the next header is.
    next: u64,
    skip: fn(&mut R, u64) -> io::Result<()>,
}

/// What the headers of an entry say.
#[derive(Debug)]
pub struct TarEntry {
    /// As it stands in the tar: absolute or relative, with `..` or not, never with a zero byte.
    pub name: Vec<u8>,
    /// Target of a symlink or hard link; `None`: it has none.
    pub link: Option<Vec<u8>>,
    /// A regular file is always [`EntryType::Regular`], whatever it was called.
    pub kind: EntryType,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// The user it belongs to.
    pub uid: u64,
    /// The group it belongs to.
    pub gid: u64,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Bytes of a regular file's content, with its holes; 0 for all others.
    pub size: u64,
    /// Where the content begins in the tar.
    pub position: u64,
    /// All PAX records, also those of the fields above.
    pub(crate) records: Records,
    /// Offsets and lengths of what a sparse file's tar has of it; `None`: everything.
    regions: Option<Vec<(u64, u64)>>,
}

impl TarEntry {
    /// The extended attributes that are kept in PAX records, by their names.
    pub fn xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.records.iter().filter_map(|(key, value)| Some((key.strip_prefix(XATTR.as_bytes())?, value.as_slice())))
    }

    /// Whether the content lies in the tar as it is in the file.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.regions.is_none()
    }
}

impl<R: Read> TarReader<R> {
    /// Of a stream.
    pub fn new(from: R) -> Self {
        Self { from, at: 0, next: 0, skip: read_over }
    }

    /// What is left of the stream.
    pub fn into_inner(self) -> R {
        self.from
    }

    /// The next entry; `None` at the tar's end.
    ///
    /// # Errors
    /// The tar is malformed or cannot be read. Nothing more can be read then.
    pub fn next_entry(&mut self) -> io::Result<Option<TarEntry>> {
        let mut about = About::default();
        loop {
            let Some(header) = self.header()? else {
                return if about.is_empty() {
                    Ok(None)
                } else {
                    malformed("it ends after what tells of the next entry")
                };
            };
            let known = header.as_gnu().is_some() || header.as_ustar().is_some();
            match header.entry_type() {
                EntryType::XHeader if known => set(&mut about.records, records::parse(&self.special(&header)?)?)?,
                EntryType::GNULongName if known => set(&mut about.name, text(self.special(&header)?))?,
                EntryType::GNULongLink if known => set(&mut about.link, text(self.special(&header)?))?,
                // What they say of all entries no builder of images heeds.
                EntryType::XGlobalHeader => drop(self.special(&header)?),
                _ => return self.entry(&header, about).map(Some),
            }
        }
    }

    /// The content of the entry that [`Self::next_entry`] returned last; once.
    pub fn content<'a>(&'a mut self, entry: &'a TarEntry) -> impl Read + 'a {
        Content { reader: self, entry, at: 0, region: 0 }
    }

    /// The block where the next header has to be; `None`: nothing or zeros are there.
    fn header(&mut self) -> io::Result<Option<Header>> {
        (self.skip)(&mut self.from, self.next - self.at)?;
        self.at = self.next;
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        match fill(&mut self.from, block)? {
            0 => return Ok(None),
            BLOCK => {}
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        self.passed(BLOCK as u64)?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        let own: u32 = block[148..156].iter().map(|byte| u32::from(*byte)).sum();
        if header.cksum()? != sum - own + 8 * u32::from(b' ') {
            return malformed("the checksum of a header is not that of its bytes");
        }
        Ok(Some(header))
    }

    fn passed(&mut self, bytes: u64) -> io::Result<()> {
        self.at = self.at.checked_add(bytes).ok_or_else(too_long)?;
        self.next = self.at;
        Ok(())
    }

    /// What comes after the `size` bytes that follow, and their padding.
    fn until(&self, size: u64) -> io::Result<u64> {
        size.checked_next_multiple_of(BLOCK as u64).and_then(|size| self.at.checked_add(size)).ok_or_else(too_long)
    }

    /// The content of an entry that tells of the next one.
    fn special(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let size = number(&header.as_old().size, header.entry_size())?;
        if size > LONGEST {
            return malformed("records or names of more than 1 MiB");
        }
        let mut content = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        self.from.read_exact(&mut content)?;
        self.next = self.until(size)?;
        self.at += size;
        Ok(content)
    }

    fn entry(&mut self, header: &Header, about: About) -> io::Result<TarEntry> {
        let records = about.records.unwrap_or_default();
        if records.keys().any(|key| key.starts_with(b"GNU.sparse.")) {
            return malformed("a sparse file in GNU's PAX formats, which are not supported");
        }
        let record = |key: &str| records.get(key.as_bytes()).filter(|value| !value.is_empty());
        let decimal = |key: &str| record(key).map(|value| digits(key, value)).transpose();
        let old = header.as_old();
        let name = about.name.or_else(|| record("path").cloned()).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = about.link.or_else(|| record("linkpath").cloned());
        let link = link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let kind = kind(header, &name);
        let stored = match decimal("size")? {
            Some(size) => size,
            None => number(&old.size, header.entry_size())?,
        };
        // The size of others says nothing, and nothing follows them.
        let stored = if has_content(kind) { stored } else { 0 };
        let mut entry = TarEntry {
            name,
            link,
            kind,
            mode: number(&old.mode, header.mode())? & 0o7777,
            uid: decimal("uid")?.map_or_else(|| number(&old.uid, header.uid()), Ok)?,
            gid: decimal("gid")?.map_or_else(|| number(&old.gid, header.gid()), Ok)?,
            mtime: record("mtime").map_or_else(|| number(&old.mtime, header.mtime()), |value| seconds(value))?,
            device: if matches!(kind, EntryType::Char | EntryType::Block) { device(header)? } else { (0, 0) },
            size: stored,
            position: self.at,
            records,
            regions: None,
        };
        if entry.name.contains(&0) || entry.link.as_ref().is_some_and(|link| link.contains(&0)) {
            return malformed(&format!("entry {:?}: a zero byte in its name", String::from_utf8_lossy(&entry.name)));
        }
        if kind == EntryType::GNUSparse {
            self.sparse(header, &mut entry)?;
        }
        self.next = self.until(stored)?;
        Ok(entry)
    }

    /// Reads where the parts of a sparse file belong.
    fn sparse(&mut self, header: &Header, entry: &mut TarEntry) -> io::Result<()> {
        let Some(gnu) = header.as_gnu() else { return malformed("a sparse file in a header that is not GNU's") };
        let mut map = Map { regions: Vec::new(), end: 0, left: entry.size };
        map.add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            self.from.read_exact(block.as_mut_bytes())?;
            self.passed(BLOCK as u64)?;
            map.add(&block.sparse)?;
            more = block.is_extended();
        }
        if map.end != gnu.real_size()? || map.left != 0 {
            return malformed("a sparse file whose parts do not make up its size");
        }
        entry.kind = EntryType::Regular;
        entry.position = self.at;
        entry.size = map.end;
        entry.regions = Some(map.regions);
        Ok(())
    }
}

impl<R: Read + Seek> TarReader<R> {
    /// Of what need not be read to be skipped.
    pub fn seeking(from: R) -> Self {
        Self {
            skip: |from, bytes| from.seek_relative(i64::try_from(bytes).map_err(io::Error::other)?),
            ..Self::new(from)
        }
    }
}

fn read_over(from: &mut impl Read, bytes: u64) -> io::Result<()> {
    let skipped = io::copy(&mut from.take(bytes), &mut io::sink())?;
    if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// What came before an entry about it.
#[derive(Default)]
struct About {
    records: Option<Records>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl About {
    const fn is_empty(&self) -> bool {
        self.records.is_none() && self.name.is_none() && self.link.is_none()
    }
}

/// Readers differ in which of two they believe.
fn set<T>(place: &mut Option<T>, found: T) -> io::Result<()> {
    match place.replace(found) {
        None => Ok(()),
        Some(_) => malformed("an entry is told of twice"),
    }
}

/// The map of a sparse file.
struct Map {
    regions: Vec<(u64, u64)>,
    /// Where the last region ends, in the file.
    end: u64,
    /// Bytes of the tar that no region has taken yet.
    left: u64,
}

impl Map {
    fn add(&mut self, regions: &[GnuSparseHeader]) -> io::Result<()> {
        for region in regions.iter().filter(|region| !region.is_empty()) {
            let (offset, length) = (region.offset()?, region.length()?);
            let end = offset.checked_add(length).ok_or_else(too_long)?;
            let left = self.left.checked_sub(length).filter(|_| offset >= self.end);
            let Some(left) = left else { return malformed("a sparse file whose parts overlap or are not there") };
            (self.end, self.left) = (end, left);
            if length > 0 {
                self.regions.push((offset, length));
            }
            // A map is kept in memory.
            if self.regions.len() > REGIONS {
                return malformed("a sparse file of too many parts");
            }
        }
        Ok(())
    }
}

/// The content of one entry.
struct Content<'a, R> {
    reader: &'a mut TarReader<R>,
    entry: &'a TarEntry,
    at: u64,
    /// Of the sparse file's map, the one that is read or comes next.
    region: usize,
}

impl<R> Content<'_, R> {
    /// How many zeros come next, and how many of the tar's bytes then.
    fn ahead(&mut self) -> (u64, u64) {
        let Some(regions) = &self.entry.regions else { return (0, self.entry.size - self.at) };
        while let Some((offset, length)) = regions.get(self.region) {
            if self.at < offset + length {
                return (offset.saturating_sub(self.at), length - self.at.saturating_sub(*offset));
            }
            self.region += 1;
        }
        (self.entry.size - self.at, 0)
    }
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let (zeros, bytes) = self.ahead();
        let most = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(out.len());
        let n = if zeros > 0 {
            let n = most(zeros);
            out[..n].fill(0);
            n
        } else {
            let n = most(bytes);
            let n = if n == 0 { 0 } else { self.reader.from.read(&mut out[..n])? };
            if n == 0 && bytes > 0 && !out.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the tar ends before it"));
            }
            self.reader.at += n as u64;
            n
        };
        self.at += n as u64;
        Ok(n)
    }
}

fn malformed<T>(why: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a size that no tar has")
}

fn kind(header: &Header, name: &[u8]) -> EntryType {
    match header.as_old().linkflag[0] {
        // Tars of old end directories' names in a slash.
        0 if name.ends_with(b"/") => EntryType::Directory,
        // "Contiguous" means nothing to a file system.
        0 | b'7' => EntryType::Regular,
        _ => header.entry_type(),
    }
}

fn has_content(kind: EntryType) -> bool {
    !matches!(
        kind,
        EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo
    )
}

/// Some writers leave a zero out.
fn number<T: Default>(field: &[u8], number: io::Result<T>) -> io::Result<T> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(T::default()) } else { number }
}

fn device(header: &Header) -> io::Result<(u32, u32)> {
    let bytes = header.as_bytes();
    let part = |field, part: io::Result<Option<u32>>| number(field, part.map(Option::unwrap_or_default));
    Ok((part(&bytes[329..337], header.device_major())?, part(&bytes[337..345], header.device_minor())?))
}

/// Up to a zero byte, where GNU's names end.
fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}
