//! TOML text to values.

use buildpack_api::ParseError;
use serde::de::DeserializeOwned;

/// Parses a whole file; an error begins `toml: line N: `.
pub(crate) fn from_toml<T: DeserializeOwned>(text: &str) -> Result<T, ParseError> {
    toml::from_str(text).map_err(|e| {
        let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        ParseError(format!("toml: line {line}: {}", e.message().trim().replace('\n', ", ")))
    })
}

/// Prints a file. Values made of our types can always be printed; should one not be, the text is no TOML, so that
/// its reader is told.
pub(crate) fn to_toml<T: serde::Serialize>(value: &T) -> String {
    toml::to_string(value).unwrap_or_else(|e| format!("{e}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_tell_the_line() {
        let error = from_toml::<toml::Table>("a = 1\nb = [\"x\"\nc = 2\n").unwrap_err();
        assert!(error.0.starts_with("toml: line 3: ") || error.0.starts_with("toml: line 2: "), "{error}");
        let error = from_toml::<toml::Table>("bad data").unwrap_err();
        assert!(error.0.starts_with("toml: line 1: "), "{error}");
        assert!(!error.0.contains('\n'));
    }
}
