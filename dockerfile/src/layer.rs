//! Changes as a layer's tar, uncompressed: who reads it next would only have to unpack it again.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use image::{Digest, tar_reader::XATTR};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::{Error, Result, snapshot::Changes};

/// A layer's tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayerTar {
    pub(crate) digest: Digest,
    /// Bytes.
    pub(crate) size: u64,
}

/// Where whiteouts and names that are too long for a plain header begin.
const WHITEOUT: &[u8] = b".wh.";
const NAME: usize = 100;

/// Writes the changes into a new file: whiteouts, then what is there, sorted.
pub(crate) fn write(root: &Path, changes: &Changes, to: &Path) -> Result<LayerTar> {
    let file = File::create(to).map_err(|e| Error::at("create", to, &e))?;
    let out = Hashing { out: io::BufWriter::with_capacity(1 << 20, file), hash: Sha256::new(), size: 0 };
    let mut tar = Builder::new(out);
    for path in &changes.removed {
        put_whiteout(&mut tar, path).map_err(|e| Error::at("write whiteout of", path, &e))?;
    }
    let mut links = HashMap::new();
    for path in &changes.present {
        put(&mut tar, root, path, &mut links).map_err(|e| Error::at("write to a layer", &root.join(path), &e))?;
    }
    let finish = || -> io::Result<LayerTar> {
        let mut out = tar.into_inner()?;
        out.out.flush()?;
        Ok(LayerTar { digest: Digest::from_hasher(out.hash), size: out.size })
    };
    finish().map_err(|e| Error::at("write", to, &e))
}

struct Hashing {
    out: io::BufWriter<File>,
    hash: Sha256,
    size: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(bytes.get(..n).unwrap_or_default());
        self.size += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A header with a number in every field for one.
fn blank() -> Header {
    let mut header = Header::new_ustar();
    header.set_size(0);
    header.set_mode(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn put_whiteout(tar: &mut Builder<Hashing>, path: &Path) -> io::Result<()> {
    let name = [WHITEOUT, path.file_name().unwrap_or_default().as_bytes()].concat();
    let path = path.with_file_name(OsStr::from_bytes(&name));
    let mut header = blank();
    header.set_entry_type(EntryType::Regular);
    append(tar, &mut header, &path, None, Vec::new(), &mut io::empty())
}

/// One file as it is now. One that is gone again is left out.
fn put(
    tar: &mut Builder<Hashing>,
    root: &Path,
    path: &Path,
    links: &mut HashMap<(u64, u64), PathBuf>,
) -> io::Result<()> {
    let full = root.join(path);
    let metadata = match full.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    let kind = metadata.file_type();
    let mut header = blank();
    header.set_mode(metadata.mode() & 0o7777);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or_default());
    let mut records = Vec::new();
    for (key, id) in [("uid", metadata.uid()), ("gid", metadata.gid())] {
        if id >> 21 != 0 {
            records.push((key.to_owned(), id.to_string().into_bytes()));
        } else if key == "uid" {
            header.set_uid(id.into());
        } else {
            header.set_gid(id.into());
        }
    }
    records.extend(xattrs(&full)?);
    let mut link = None;
    let mut content: Box<dyn Read> = Box::new(io::empty());
    if kind.is_dir() {
        header.set_entry_type(EntryType::Directory);
    } else if kind.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        link = Some(fs::read_link(&full)?);
    } else if kind.is_file() {
        if metadata.nlink() > 1 {
            let first = links.entry((metadata.dev(), metadata.ino())).or_insert_with(|| path.to_owned());
            link = (first != path).then(|| first.clone());
        }
        if link.is_some() {
            header.set_entry_type(EntryType::Link);
        } else {
            header.set_entry_type(EntryType::Regular);
            set_size(&mut header, metadata.size(), &mut records);
            let file = File::open(&full)?;
            content = Box::new(Exactly { inner: file, left: metadata.size() });
        }
    } else if kind.is_fifo() {
        header.set_entry_type(EntryType::Fifo);
    } else if kind.is_char_device() || kind.is_block_device() {
        header.set_entry_type(if kind.is_char_device() { EntryType::Char } else { EntryType::Block });
        header.set_device_major(rustix::fs::major(metadata.rdev()))?;
        header.set_device_minor(rustix::fs::minor(metadata.rdev()))?;
    } else {
        return Ok(());
    }
    append(tar, &mut header, path, link.as_deref(), records, &mut content)
}

type Records = Vec<(String, Vec<u8>)>;

fn set_size(header: &mut Header, size: u64, records: &mut Records) {
    header.set_size(size);
    if size >> 33 != 0 {
        records.push(("size".to_owned(), size.to_string().into_bytes()));
    }
}

/// A file that grows or shrinks while it is read must not break the tar.
struct Exactly {
    inner: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        if most == 0 {
            return Ok(0);
        }
        let buf = &mut buf[..most];
        let n = self.inner.read(buf)?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file shrank while it was read"));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

fn append(
    tar: &mut Builder<Hashing>,
    header: &mut Header,
    path: &Path,
    link: Option<&Path>,
    mut records: Records,
    content: &mut dyn Read,
) -> io::Result<()> {
    let mut name = path.as_os_str().as_bytes().to_vec();
    if header.entry_type() == EntryType::Directory {
        name.push(b'/');
    }
    let link = link.map(|link| link.as_os_str().as_bytes()).unwrap_or_default();
    for (key, text) in [("path", name.as_slice()), ("linkpath", link)] {
        if text.len() > NAME || !text.is_ascii() {
            records.push((key.to_owned(), text.to_vec()));
        }
    }
    let old = header.as_old_mut();
    for (field, text) in [(&mut old.name, name.as_slice()), (&mut old.linkname, link)] {
        let length = text.len().min(field.len());
        field[..length].copy_from_slice(&text[..length]);
    }
    if !records.is_empty() {
        tar.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))?;
    }
    header.set_cksum();
    tar.append(header, content)
}

/// Those of the file itself, file capabilities among them.
fn xattrs(path: &Path) -> io::Result<Records> {
    let mut names = vec![0; 4096];
    let names = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => &names[..length],
        Err(rustix::io::Errno::NOTSUP) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut records = Vec::new();
    for name in names.split(|b| *b == 0).filter(|name| keeps(name)) {
        let mut value = vec![0; 64 << 10];
        match rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value) {
            Ok(length) => value.truncate(length),
            // Gone, or readable only to the kernel.
            Err(_) => continue,
        }
        records.push((format!("{XATTR}{}", String::from_utf8_lossy(name)), value));
    }
    records.sort();
    Ok(records)
}

/// What belongs to the machine (security labels, the marks of overlay file systems) is not the image's.
fn keeps(name: &[u8]) -> bool {
    !name.is_empty()
        && name != b"security.selinux"
        && !name.starts_with(b"trusted.")
        && !name.starts_with(b"system.nfs")
}
