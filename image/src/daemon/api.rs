//! What requests to Docker's Engine API are made of, and what its answers say of failures.

use std::io;

use serde::Deserialize;
use serde_json::Value;

use super::http::Answer;
use crate::{Error, Result};

/// No answer but a saved image is longer.
pub(super) const MAX_ANSWER: u64 = 64 << 20;

/// Major and minor number of a version of the API.
pub(super) fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim_start_matches('v').split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The error, and which image it is about.
pub(super) fn in_image(name: &str, error: &Error) -> Error {
    let text = format!("image {name}: {error}");
    match error {
        Error::NotFound(_) => Error::NotFound(text),
        Error::Unauthorized(_) => Error::Unauthorized(text),
        Error::Corrupt(_) => Error::Corrupt(text),
        _ => Error::Remote(text),
    }
}

/// An error where the status says so, in the daemon's words.
pub(super) fn check(answer: &mut Answer<'_>) -> Result<()> {
    #[derive(Deserialize)]
    struct Failed {
        message: String,
    }
    if answer.status < 400 {
        return Ok(());
    }
    let body = answer.read_all(MAX_ANSWER).unwrap_or_default();
    let message = serde_json::from_slice(&body).map(|failed: Failed| failed.message);
    let message = message.unwrap_or_else(|_| String::from_utf8_lossy(&body).trim().to_owned());
    let text = format!("the daemon answers {}: {message}", answer.status);
    Err(match answer.status {
        401 | 403 => Error::Unauthorized(text),
        404 => Error::NotFound(text),
        _ => Error::Remote(text),
    })
}

/// What came of loading an image is a stream of messages; one of them may be an error.
pub(super) fn check_stream(answer: &mut Answer<'_>) -> Result<()> {
    for message in serde_json::Deserializer::from_reader(io::BufReader::new(answer)).into_iter::<Value>() {
        let message = message.map_err(|e| Error::Remote(format!("parsing daemon response: {e}")))?;
        let text = message.pointer("/errorDetail/message").or(message.get("error")).and_then(Value::as_str);
        if let Some(text) = text {
            return Err(Error::Remote(format!("embedded daemon response: {text}")));
        }
    }
    Ok(())
}

/// For a query.
pub(super) fn encode(text: &str) -> String {
    encode_but(text, b"")
}

/// For a path: names of images keep their shape.
pub(super) fn encode_path(text: &str) -> String {
    encode_but(text, b"/:@")
}

pub(super) fn encode_but(text: &str, kept: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            let digit = |n: u8| char::from_digit(n.into(), 16).unwrap_or_default().to_ascii_uppercase();
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_requests() {
        assert_eq!(encode_path("a.io:5/b/c:d@sha256:0 ?#\r\né"), "a.io:5/b/c:d@sha256:0%20%3F%23%0D%0A%C3%A9");
        assert_eq!(encode("docker.io/a b"), "docker.io%2Fa%20b");
        assert_eq!(
            [parse_version("1.41"), parse_version("v1.9"), parse_version("1")],
            [Some((1, 41)), Some((1, 9)), None]
        );
    }
}
