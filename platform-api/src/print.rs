//! Values to TOML text.

/// Prints a file. Values made of our types can always be printed; should one not be, the text is no TOML, so that
/// its reader is told.
pub(crate) fn to_toml<T: serde::Serialize>(value: &T) -> String {
    toml::to_string(value).unwrap_or_else(|e| format!("{e}\n"))
}
