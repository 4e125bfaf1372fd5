//! PAX records: `length key=value\n`, one after another.

use std::io;

use super::malformed;
use crate::tar_header::Records;

/// Of two with one key the later one counts.
pub(super) fn parse(mut bytes: &[u8]) -> io::Result<Records> {
    let mut records = Records::new();
    while !bytes.is_empty() {
        let Some((key, value, rest)) = record(bytes) else { return malformed("malformed pax extension") };
        records.insert(key.to_vec(), value.to_vec());
        bytes = rest;
    }
    Ok(records)
}

fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(digits("", &bytes[..space]).ok()?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

/// A record's value as a number.
pub(super) fn digits(key: &str, value: &[u8]) -> io::Result<u64> {
    let number = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    number.and_then(|text| text.parse().ok()).map_or_else(
        || malformed(&format!("the record {key} is {:?} and no number", String::from_utf8_lossy(value))),
        Ok,
    )
}

/// Of a time with fractions, which may lie before 1970.
pub(super) fn seconds(value: &[u8]) -> io::Result<u64> {
    let whole = value.split(|byte| *byte == b'.').next().unwrap_or_default();
    if whole.first() == Some(&b'-') { digits("mtime", &whole[1..]).map(|_| 0) } else { digits("mtime", whole) }
}
