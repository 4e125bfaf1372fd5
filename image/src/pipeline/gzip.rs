//! A block of a tar as one gzip member (RFC 1952): the compressor, and where it is not worth using one.
//!
//! ISA-L's level 1 makes fewer bytes than the reference's compressor at a quarter of its time, and the same ones on all
//! processors of an architecture; its level 3 does not.

use isal::{Codec, CompressionLevel};

/// Magic, deflate, an extra field, no time; the fastest level, by no operating system in particular. Then the length of
/// the extra field and its one subfield: "CN", the number of bytes of the whole member. So members are found without
/// being inflated, and inflated side by side; every reader of gzip passes over subfields it does not know.
const HEADER: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 4, 255, 8, 0, b'C', b'N', 4, 0];
/// Where the compressed bytes begin: after the member's length.
const START: usize = HEADER.len() + 4;
/// Check sum and length of the content.
const TRAILER: usize = 8;
/// The most that one stored block of deflate can hold, and what each costs.
const STORED: usize = 0xffff;
const STORED_HEADER: usize = 5;

/// The most bytes that a member of `content` bytes has.
pub(super) const fn bound(content: usize) -> usize {
    START + content + (content / STORED + 1) * STORED_HEADER + TRAILER
}

/// Writes the content as a member to the front of `out`, which has room for [`bound`] bytes, and says how many it took.
pub(super) fn member(content: &[u8], out: &mut [u8]) -> usize {
    let body = &mut out[START..bound(content.len()) - TRAILER];
    let compressed = if looks_random(content) {
        None
    } else {
        // Fails where the output would not be smaller than what storing takes.
        isal::compress_into(content, body, CompressionLevel::One, Codec::Deflate).ok()
    };
    let end = START + compressed.unwrap_or_else(|| store(content, body));
    let length = end + TRAILER;
    out[..HEADER.len()].copy_from_slice(&HEADER);
    out[HEADER.len()..START].copy_from_slice(&low_bits(length));
    out[end..end + 4].copy_from_slice(&crc32fast::hash(content).to_le_bytes());
    out[end + 4..length].copy_from_slice(&low_bits(content.len()));
    length
}

/// Blocks are far smaller than 4 GiB.
fn low_bits(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

/// Deflate that compresses nothing (RFC 1951, 3.2.4).
fn store(content: &[u8], out: &mut [u8]) -> usize {
    let mut used = 0;
    let mut rest = content;
    loop {
        let (block, others) = rest.split_at(rest.len().min(STORED));
        rest = others;
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out[used] = u8::from(rest.is_empty());
        out[used + 1..used + 3].copy_from_slice(&length.to_le_bytes());
        out[used + 3..used + 5].copy_from_slice(&(!length).to_le_bytes());
        used += STORED_HEADER;
        out[used..used + block.len()].copy_from_slice(block);
        used += block.len();
        if rest.is_empty() {
            return used;
        }
    }
}

/// Bytes looked at in a row, and how far apart such rows are.
const SAMPLE: usize = 128;
const STRIDE: usize = 4096;

/// Whether every byte value is about as frequent as every other, as in what is compressed already (jars, archives,
/// images): compressing it again costs most and gains nothing. Whole numbers only, so that all machines agree.
fn looks_random(block: &[u8]) -> bool {
    // With few samples even random bytes are uneven.
    if block.len() < 64 * STRIDE {
        return false;
    }
    let mut counts = [0_u64; 256];
    let mut total = 0_u64;
    for row in block.chunks(STRIDE) {
        let row = &row[..row.len().min(SAMPLE)];
        total += row.len() as u64;
        for byte in row {
            counts[usize::from(*byte)] += 1;
        }
    }
    let squares: u64 = counts.iter().map(|n| n * n).sum();
    // Random bytes come to total²/256 + total; five per cent more is 7.9 bits per byte.
    squares * 256 * 100 < total * total * 105 + total * 256 * 100
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use sha2::{Digest as _, Sha256};

    use super::{super::blocks::BLOCK, *};

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32).to_le_bytes()[0]
            })
            .collect()
    }

    fn compress(content: &[u8]) -> Vec<u8> {
        let mut out = vec![0; bound(BLOCK)];
        let length = member(content, &mut out);
        out.truncate(length);
        out
    }

    #[test]
    fn members_say_their_length_and_hold_the_content() {
        let mixed: Vec<u8> = noise(BLOCK).iter().map(|b| b & 0x1f).collect();
        for content in [&b""[..], b"x", &vec![0; BLOCK], &mixed, &noise(BLOCK), &noise(STORED), &noise(1000)] {
            let member = compress(content);
            assert_eq!(member[..16], HEADER);
            assert_eq!(member[16..20], u32::try_from(member.len()).unwrap().to_le_bytes());
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&member[..]).read_to_end(&mut back).unwrap();
            assert_eq!(back, content);
        }
    }

    #[test]
    fn what_can_be_compressed_is() {
        let text = "all work and no play makes jack a dull boy\n".repeat(20_000);
        assert!(compress(text.as_bytes()).len() < text.len() / 10);
        let few_bits: Vec<u8> = noise(BLOCK).iter().map(|b| b & 0x0f).collect();
        assert!(compress(&few_bits).len() < BLOCK * 6 / 10);
    }

    #[test]
    fn only_random_bytes_look_random() {
        let random = noise(BLOCK);
        assert!(looks_random(&random));
        assert!(!looks_random(&random[..STRIDE]), "too few to tell");
        assert!(!looks_random(&vec![7; BLOCK]));
        let text: Vec<u8> = random.iter().map(|b| b & 0x7f).collect();
        assert!(!looks_random(&text));
        let mut half = random;
        half[..BLOCK / 2].fill(0);
        assert!(!looks_random(&half));
    }

    /// Other bytes would be other digests of blobs: no layer made before would be found in a registry by its digest.
    /// Another architecture's ISA-L finds other matches.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_bytes_are_the_same_on_all_processors_and_in_all_versions() {
        let lines: Vec<String> = (0..60_000).map(|n| format!("line {n} of {}\n", n * 7 % 1013)).collect();
        let text = lines.concat();
        let few_bits: Vec<u8> = noise(BLOCK).iter().map(|b| b & 0x37).collect();
        let made = [&text.as_bytes()[..BLOCK], &few_bits, &noise(BLOCK / 2)]
            .map(|content| format!("{:x}", Sha256::digest(compress(content))));
        let expected = [
            "08e0a3a2fb60a8e9c5135ad885731029fdd4bffa0883e261b519d7713dd9aef6",
            "77e1c62231b9f6a13acd8f0f2028c7ce7938fde48c9bfd36f94a3aa413e40b99",
            "b0def867e8a68b7e51610accae7e1eaae3a8620b70131841f21c443aad8d6136",
        ];
        assert_eq!(made, expected);
    }
}
