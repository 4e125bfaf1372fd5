//! What programs print, without colours.

/// Takes terminal escape sequences out of what passes: `ESC [` up to a letter or `@`, or `ESC` and another byte.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Plain {
    #[default]
    Text,
    /// After an `ESC`.
    Escape,
    /// After `ESC [`.
    Sequence,
}

impl Plain {
    /// What is left of the next bytes.
    pub(crate) fn strip(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut left = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            *self = match (*self, byte) {
                (Self::Text, b'\x1b') => Self::Escape,
                (Self::Text, _) => {
                    left.push(byte);
                    Self::Text
                }
                (Self::Escape, b'[') => Self::Sequence,
                (Self::Escape, _) | (Self::Sequence, b'a'..=b'z' | b'A'..=b'Z' | b'@') => Self::Text,
                (Self::Sequence, _) => Self::Sequence,
            };
        }
        left
    }
}

/// The text without terminal escape sequences.
pub fn without_colours(text: &str) -> String {
    String::from_utf8_lossy(&Plain::default().strip(text.as_bytes())).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_taken_out_wherever_output_is_cut() {
        let text = "\x1b[31;1mred\x1b[0m and \x1b]plain\x1b[2J\x1b[@.\u{e9}\x1b[";
        assert_eq!(without_colours(text), "red and plain.\u{e9}");
        for cut in 0..=text.len() {
            let (start, end) = text.as_bytes().split_at(cut);
            let mut plain = Plain::default();
            assert_eq!([plain.strip(start), plain.strip(end)].concat(), "red and plain.\u{e9}".as_bytes(), "{cut}");
        }
    }
}
