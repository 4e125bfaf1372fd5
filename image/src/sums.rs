//! Checksums of a tar's blocks, kept beside it: `<tar>.sums`. A SHA-256 is one stream, which one core works through;
//! blocks can be checked on all cores, in any order, and BLAKE3 takes a fraction of the time.
//!
//! No two tars have the same ones, so they stand for the tar's digest where both were made of the same bytes in memory.
//! They guard against damage (bits that changed, writes that were lost), not against whoever can write the tar and so
//! them too. Sums that are themselves damaged fit no tar.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use blake3::{Hash, Hasher};

use crate::{Digest, temp::TempFile};

/// Bytes of tar in one block: they fit a core's own cache, and file systems that keep large pages are given enough.
pub(crate) const BLOCK: usize = 512 << 10;

/// The checksums of one tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSums {
    /// Bytes of the tar.
    size: u64,
    sums: Vec<Hash>,
}

impl BlockSums {
    /// Where the checksums of a tar lie.
    pub fn path(tar: &Path) -> PathBuf {
        let mut path = tar.as_os_str().to_owned();
        path.push(".sums");
        path.into()
    }

    /// Those of a tar of this size; `None` where there are none, or they are not of such a tar.
    pub fn read(tar: &Path, size: u64) -> Option<Self> {
        Self::parse(&fs::read_to_string(Self::path(tar)).ok()?).filter(|sums| sums.size == size)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let head = lines.next()?;
        let size = head.rsplit(' ').nth(3)?.parse().ok()?;
        let sums: Vec<Hash> = lines.map(sum).collect::<Option<_>>()?;
        (head == Self::head(size) && sums.len() as u64 == size.div_ceil(BLOCK as u64)).then_some(Self { size, sums })
    }

    /// Puts them beside the tar: whole, or not at all.
    ///
    /// # Errors
    /// Naming the file that cannot be written.
    pub fn write(&self, tar: &Path) -> io::Result<()> {
        let mut text = Self::head(self.size);
        for sum in &self.sums {
            text.push('\n');
            text.push_str(&sum.to_hex());
        }
        text.push('\n');
        TempFile::put(&Self::path(tar), text.as_bytes())
    }

    fn head(size: u64) -> String {
        format!("BLAKE3 of blocks of {BLOCK} bytes, {size} bytes in all")
    }

    /// Bytes of the tar.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether the block of this number is what it was.
    pub(crate) fn fits(&self, number: usize, block: &[u8]) -> bool {
        self.sums.get(number).is_some_and(|sum| *sum == blake3::hash(block))
    }
}

fn sum(line: &str) -> Option<Hash> {
    Hash::from_hex(line).ok()
}

/// Layers by the checksums of their tars' blocks: those that a cache remembers.
#[derive(Clone, Debug, Default)]
pub struct KnownLayers(Vec<(Digest, BlockSums)>);

impl KnownLayers {
    /// Those whose checksums lie in a directory, named as [`BlockSums::path`] names those of `<diff id>.tar`. What cannot
    /// be read is not known.
    pub fn read(dir: &Path) -> Self {
        let entries = dir.read_dir().into_iter().flatten().flatten();
        Self(entries.filter_map(|entry| known(&entry.path())).collect())
    }

    /// The sizes of those of these that are known.
    pub(crate) fn sizes(&self, wanted: impl Fn(&Digest) -> bool) -> impl Iterator<Item = u64> {
        self.0.iter().filter(move |(diff_id, _)| wanted(diff_id)).map(|(_, sums)| sums.size)
    }

    /// The diff ID of the tar with these checksums.
    pub(crate) fn find(&self, sums: &BlockSums) -> Option<&Digest> {
        self.0.iter().find(|(_, known)| known == sums).map(|(diff_id, _)| diff_id)
    }

    /// Whether exactly this is known of the layer.
    pub fn has(&self, diff_id: &Digest, sums: &BlockSums) -> bool {
        self.0.iter().any(|(id, known)| id == diff_id && known == sums)
    }

    /// How many layers are known.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn known(path: &Path) -> Option<(Digest, BlockSums)> {
    let diff_id = Digest::parse(path.file_name()?.to_str()?.strip_suffix(".tar.sums")?).ok()?;
    Some((diff_id, BlockSums::parse(&fs::read_to_string(path).ok()?)?))
}

/// Checksums in the making.
pub struct Summing {
    size: u64,
    sums: Vec<Hash>,
    /// Of the block that is not full yet.
    hash: Hasher,
    filled: usize,
}

impl Summing {
    /// Of a tar that begins here.
    pub fn new() -> Self {
        Self { size: 0, sums: Vec::new(), hash: Hasher::new(), filled: 0 }
    }

    /// Takes the tar's next bytes.
    pub fn add(&mut self, mut bytes: &[u8]) {
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
            self.hash.update(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == BLOCK {
                self.end_block();
            }
        }
    }

    fn end_block(&mut self) {
        self.sums.push(self.hash.finalize());
        self.hash.reset();
        self.filled = 0;
    }

    /// The tar ends here.
    pub fn finish(mut self) -> BlockSums {
        if self.filled > 0 {
            self.end_block();
        }
        BlockSums { size: self.size, sums: self.sums }
    }
}

impl Default for Summing {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(bytes: &[u8], piece: usize) -> BlockSums {
        let mut summing = Summing::new();
        bytes.chunks(piece).for_each(|piece| summing.add(piece));
        summing.finish()
    }

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect()
    }

    #[test]
    fn blocks_are_the_same_however_the_bytes_come() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7] {
            let bytes = bytes(length);
            let once = sums(&bytes, usize::MAX);
            assert_eq!(once, sums(&bytes, 1000));
            assert_eq!(once, sums(&bytes, BLOCK));
            assert_eq!((once.size(), once.sums.len()), (length as u64, length.div_ceil(BLOCK)));
            assert!(bytes.chunks(BLOCK).enumerate().all(|(number, block)| once.fits(number, block)));
            assert!(!once.fits(once.sums.len(), &[]));
        }
    }

    #[test]
    fn one_bit_is_noticed_and_so_is_another_place() {
        let good = bytes(2 * BLOCK);
        let sums = sums(&good, BLOCK);
        let mut bad = good[..BLOCK].to_vec();
        bad[BLOCK / 2] ^= 1;
        assert!(!sums.fits(0, &bad));
        assert!(!sums.fits(0, &good[..BLOCK - 1]));
        assert!(!sums.fits(2, &good[..BLOCK]));
    }

    #[test]
    fn what_is_written_is_read_and_anything_else_is_none() {
        let temp = tempfile::tempdir().unwrap();
        let tar = temp.path().join("sha256:1.tar");
        assert_eq!(BlockSums::read(&tar, 0), None);
        let sums = sums(&bytes(BLOCK + 5), BLOCK);
        sums.write(&tar).unwrap();
        let size = BLOCK as u64 + 5;
        assert_eq!(BlockSums::read(&tar, size), Some(sums));
        assert_eq!(BlockSums::read(&tar, size - 1), None, "a tar of another size");
        let text = fs::read_to_string(BlockSums::path(&tar)).unwrap();
        for damaged in [
            String::new(),
            text.replace("BLAKE3", "BLAKE4"),
            text.replace("524288", "524289"),
            text[..text.len() - 2].to_owned(),
            text[..text.len() - 65].to_owned(),
            format!("{text}{}\n", "0".repeat(64)),
            format!("{text}\n"),
            text.replacen('\n', "\n+", 1),
        ] {
            fs::write(BlockSums::path(&tar), &damaged).unwrap();
            assert_eq!(BlockSums::read(&tar, size), None, "{damaged}");
        }
        fs::write(BlockSums::path(&tar), b"\xff\n").unwrap();
        assert_eq!(BlockSums::read(&tar, size), None);
    }
}
