//! Archives that `ADD` unpacks: tars, plain or compressed by gzip, bzip2 or xz, told by what is in them.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek},
    path::Path,
};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

use crate::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packed {
    Not,
    Gzip,
    Bzip2,
    Xz,
}

/// The tar in a file; `None`: it is another file, and to be copied.
///
/// # Errors
/// The file cannot be read, or is compressed in a way that we do not know.
pub(crate) fn tar_in(path: &Path) -> Result<Option<Box<dyn Read>>> {
    let failed = |e: io::Error| Error::at("read", path, &e);
    let mut start = Vec::new();
    File::open(path).and_then(|file| file.take(512).read_to_end(&mut start)).map_err(failed)?;
    if start.starts_with(b"\x28\xb5\x2f\xfd") {
        return Err(Error::new("ADD cannot unpack zstd: use COPY, and RUN to unpack it"));
    }
    let magics: [(&[u8], Packed); 3] =
        [(b"\x1f\x8b", Packed::Gzip), (b"BZh", Packed::Bzip2), (b"\xfd7zXZ\0", Packed::Xz)];
    let packed = magics.iter().find(|(magic, _)| start.starts_with(magic)).map_or(Packed::Not, |(_, packed)| *packed);
    let open = || -> io::Result<Box<dyn Read>> {
        let mut file = BufReader::with_capacity(128 << 10, File::open(path)?);
        file.rewind()?;
        Ok(match packed {
            Packed::Not => Box::new(file),
            Packed::Gzip => Box::new(MultiGzDecoder::new(file)),
            Packed::Bzip2 => Box::new(MultiBzDecoder::new(file)),
            Packed::Xz => Box::new(XzReader::new(file, true)),
        })
    };
    let mut block = [0; 512];
    // What cannot be unpacked is no tar, whatever it begins with.
    let is_tar = open().map_err(failed)?.read_exact(&mut block).is_ok() && block.get(257..262) == Some(b"ustar");
    if is_tar { open().map(Some).map_err(failed) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[test]
    fn compressed_tars_are_known_by_their_content() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut builder = tar::Builder::new(File::create(at("plain")).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        builder.append_data(&mut header, "file", &b"hello"[..]).unwrap();
        builder.finish().unwrap();
        fs::write(at("text"), "BZh? no, it only begins so\n").unwrap();
        for tool in ["gzip", "bzip2", "xz"] {
            for file in ["plain", "text"] {
                let packed = Command::new(tool).arg("-c").arg(at(file)).output();
                let Ok(packed) = packed else { continue };
                // Twice, as `cat a.xz b.xz` makes it: the end of one is not the end of all.
                let more = Command::new(tool).arg("-c").arg("/dev/null").output().unwrap().stdout;
                fs::write(at(&format!("{file}.{tool}")), [packed.stdout, more].concat()).unwrap();
            }
        }
        fs::write(at("zstd"), b"\x28\xb5\x2f\xfd rest").unwrap();
        let files = ["plain", "plain.gzip", "plain.bzip2", "plain.xz"].map(at);
        for file in files.iter().filter(|file| file.exists()) {
            let mut content = Vec::new();
            tar_in(file).unwrap().unwrap().read_to_end(&mut content).unwrap();
            assert_eq!(content, fs::read(at("plain")).unwrap(), "{}", file.display());
        }
        for name in ["text", "text.gzip", "text.bzip2", "text.xz"].map(at).iter().filter(|file| file.exists()) {
            assert!(tar_in(name).unwrap().is_none(), "{}", name.display());
        }
        assert!(tar_in(&at("zstd")).err().unwrap().to_string().contains("cannot unpack zstd"));
    }
}
