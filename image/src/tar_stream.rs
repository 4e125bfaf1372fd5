//! The tar of a recipe as a stream of blocks: files are read straight into the buffers that are hashed and compressed.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use nix::fcntl::OFlag;

use crate::{
    recipe::{Kind, Owner},
    tar_header::{BLOCK, BLOCK_DEVICE, CHAR, DIRECTORY, FIFO, Header, REGULAR, SYMLINK},
};

/// Where the blocks of a tar go.
pub(crate) trait Sink {
    /// An empty buffer and how many of its bytes to fill.
    fn buffer(&mut self) -> io::Result<(Vec<u8>, usize)>;
    /// A buffer whose first `length` bytes are the next of the tar; all of them but for the last one.
    fn full(&mut self, buffer: Vec<u8>, length: usize) -> io::Result<()>;
}

/// A tar while it is being streamed.
pub(crate) struct TarStream<'a> {
    sink: &'a mut dyn Sink,
    /// Empty until there is something to put in.
    buffer: Vec<u8>,
    limit: usize,
    used: usize,
    scratch: Vec<u8>,
}

impl<'a> TarStream<'a> {
    pub(crate) fn new(sink: &'a mut dyn Sink) -> Self {
        Self { sink, buffer: Vec::new(), limit: 0, used: 0, scratch: Vec::with_capacity(4 * BLOCK) }
    }

    /// Room for at least one byte.
    fn space(&mut self) -> io::Result<&mut [u8]> {
        if self.used == self.limit {
            if self.limit > 0 {
                self.sink.full(std::mem::take(&mut self.buffer), self.used)?;
            }
            (self.buffer, self.limit) = self.sink.buffer()?;
            self.used = 0;
        }
        Ok(&mut self.buffer[self.used..self.limit])
    }

    pub(crate) fn bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let space = self.space()?;
            let n = space.len().min(bytes.len());
            space[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            self.used += n;
        }
        Ok(())
    }

    pub(crate) fn header(&mut self, header: &Header<'_>) -> io::Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        header.write(&mut scratch);
        let written = self.bytes(&scratch);
        self.scratch = scratch;
        written
    }

    /// Exactly `size` bytes, padded; neither less nor more may be there.
    pub(crate) fn content(&mut self, content: &mut dyn Read, size: u64) -> Result<(), ContentError> {
        let mut left = size;
        let mut at_end = size == 0;
        while left > 0 {
            let space = self.space()?;
            // One byte more than is left, where there is room: so the end shows in the same call.
            let want = usize::try_from(left.saturating_add(1)).unwrap_or(usize::MAX).min(space.len());
            let n = match content.read(&mut space[..want]) {
                Ok(0) => return Err(ContentError::Shrank),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(ContentError::Source(e)),
            };
            if n as u64 > left {
                return Err(ContentError::Grew);
            }
            self.used += n;
            left -= n as u64;
            at_end = n < want;
        }
        if !at_end && content.read(&mut [0]).map_err(ContentError::Source)? > 0 {
            return Err(ContentError::Grew);
        }
        Ok(self.padding(size)?)
    }

    pub(crate) fn padding(&mut self, size: u64) -> io::Result<()> {
        let missing = size.next_multiple_of(BLOCK as u64) - size;
        let missing = usize::try_from(missing).unwrap_or_default();
        self.bytes(&[0; BLOCK][..missing])
    }

    /// Two empty blocks end a tar.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.bytes(&[0; 2 * BLOCK])?;
        self.flush()
    }

    /// Hands over what is in the buffer: nothing may follow.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.limit = 0;
        self.sink.full(std::mem::take(&mut self.buffer), std::mem::take(&mut self.used))
    }
}

/// Why a file's content could not be streamed.
pub(crate) enum ContentError {
    Shrank,
    Grew,
    Source(io::Error),
    Sink(io::Error),
}

impl From<io::Error> for ContentError {
    fn from(error: io::Error) -> Self {
        Self::Sink(error)
    }
}

impl ContentError {
    pub(crate) fn on(self, path: &Path) -> io::Error {
        let changed = |how| io::Error::other(format!("{} {how} while it was read", path.display()));
        match self {
            Self::Shrank => changed("became shorter"),
            Self::Grew => changed("became longer"),
            Self::Source(e) => on_path("read", path, &e),
            Self::Sink(e) => e,
        }
    }
}

/// The error with the path it is about.
pub(crate) fn on_path(doing: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{doing} {}: {error}", path.display()))
}

/// An entry as it is on disk.
pub(crate) fn from_disk(tar: &mut TarStream<'_>, name: &[u8], kind: Kind, owner: Owner) -> io::Result<()> {
    let path = Path::new(OsStr::from_bytes(name));
    match kind {
        Kind::File => file(tar, name, path, None, owner),
        Kind::Symlink => symlink(tar, name, path, owner),
        Kind::Parent => {
            let found = path.metadata().map_err(|e| on_path("read", path, &e))?;
            let owner = Owner { uid: found.uid().into(), gid: found.gid().into() };
            tar.header(&header(name, DIRECTORY, &found, owner))
        }
        Kind::Dir | Kind::Any | Kind::Made => {
            let found = path.symlink_metadata().map_err(|e| on_path("read", path, &e))?;
            match tar_type(&found) {
                None => Ok(()),
                Some(REGULAR) => file(tar, name, path, None, owner),
                Some(SYMLINK) => symlink(tar, name, path, owner),
                Some(tar_type) => tar.header(&header(name, tar_type, &found, owner)),
            }
        }
    }
}

/// A file under another name and mode; here symlinks to it are followed.
pub(crate) fn made_file(
    tar: &mut TarStream<'_>,
    name: &[u8],
    source: &Path,
    mode: u32,
    owner: Owner,
) -> io::Result<()> {
    file(tar, name, source, Some(mode), owner)
}

/// Symlinks have mode 0777 on Linux, always.
fn symlink(tar: &mut TarStream<'_>, name: &[u8], path: &Path, owner: Owner) -> io::Result<()> {
    let target = fs::read_link(path).map_err(|e| on_path("read", path, &e))?.into_os_string().into_vec();
    tar.header(&Header {
        name,
        link: &target,
        kind: SYMLINK,
        mode: 0o777,
        uid: owner.uid,
        gid: owner.gid,
        ..Header::default()
    })
}

fn file(tar: &mut TarStream<'_>, name: &[u8], path: &Path, mode: Option<u32>, owner: Owner) -> io::Result<()> {
    let mut flags = OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    if mode.is_none() {
        flags |= OFlag::O_NOFOLLOW;
    }
    let opened = File::options().read(true).custom_flags(flags.bits()).open(path);
    let mut opened = opened.map_err(|e| on_path("read", path, &e))?;
    let found = opened.metadata().map_err(|e| on_path("read", path, &e))?;
    if !found.is_file() {
        return Err(io::Error::other(format!("{} is no file any more", path.display())));
    }
    let mut header = header(name, REGULAR, &found, owner);
    header.mode = mode.unwrap_or(header.mode);
    tar.header(&header)?;
    tar.content(&mut opened, found.len()).map_err(|e| e.on(path))
}

fn header<'a>(name: &'a [u8], kind: u8, found: &Metadata, owner: Owner) -> Header<'a> {
    let device = if matches!(kind, CHAR | BLOCK_DEVICE) {
        (nix::sys::stat::major(found.rdev()), nix::sys::stat::minor(found.rdev()))
    } else {
        (0, 0)
    };
    let size = if kind == REGULAR { found.len() } else { 0 };
    let mode = found.mode() & 0o7777;
    Header { name, link: b"", kind, mode, uid: owner.uid, gid: owner.gid, size, device }
}

/// `None`: a socket, which no layer can hold.
fn tar_type(found: &Metadata) -> Option<u8> {
    let file_type = found.file_type();
    if file_type.is_socket() {
        None
    } else if file_type.is_dir() {
        Some(DIRECTORY)
    } else if file_type.is_symlink() {
        Some(SYMLINK)
    } else if file_type.is_fifo() {
        Some(FIFO)
    } else if file_type.is_char_device() {
        Some(CHAR)
    } else if file_type.is_block_device() {
        Some(BLOCK_DEVICE)
    } else {
        Some(REGULAR)
    }
}

/// Bytes of a header with its PAX records.
pub(crate) fn header_size(header: &Header<'_>) -> u64 {
    let mut blocks = Vec::with_capacity(4 * BLOCK);
    header.write(&mut blocks);
    blocks.len() as u64
}

/// Bytes of an entry, header and padded content.
pub(crate) fn size_on_disk(name: &[u8], path: &Path, follow: bool, owner: Owner) -> io::Result<u64> {
    let found = if follow { path.metadata() } else { path.symlink_metadata() };
    let found = found.map_err(|e| on_path("read", path, &e))?;
    let Some(kind) = tar_type(&found) else { return Ok(0) };
    let mut header = header(name, kind, &found, owner);
    let target;
    if kind == SYMLINK {
        target = fs::read_link(path).map_err(|e| on_path("read", path, &e))?.into_os_string().into_vec();
        header.link = &target;
    }
    Ok(header_size(&header) + header.size.next_multiple_of(BLOCK as u64))
}

/// A tar into a writer.
pub(crate) struct WriterSink<'a> {
    out: &'a mut dyn Write,
    spare: Vec<u8>,
}

/// Large enough that a call costs nothing beside what it moves, small enough for a core's own cache.
const WRITE_SIZE: usize = 256 << 10;

impl<'a> WriterSink<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, spare: vec![0; WRITE_SIZE] }
    }
}

impl Sink for WriterSink<'_> {
    fn buffer(&mut self) -> io::Result<(Vec<u8>, usize)> {
        Ok((std::mem::take(&mut self.spare), WRITE_SIZE))
    }

    fn full(&mut self, buffer: Vec<u8>, length: usize) -> io::Result<()> {
        self.out.write_all(&buffer[..length])?;
        self.spare = buffer;
        Ok(())
    }
}
