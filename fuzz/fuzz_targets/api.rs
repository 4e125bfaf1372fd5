//! The Buildpack APIs, and how a target's input is split.

use buildpack_api::BuildpackApi;

/// The API that the first byte chooses, and the rest as text.
pub fn api_and_text(data: &[u8]) -> Option<(BuildpackApi, &str)> {
    let (first, rest) = data.split_first()?;
    let api = format!("0.{}", 7 + first % 6).parse().expect("a supported API");
    Some((api, std::str::from_utf8(rest).ok()?))
}
