//! Patterns of file names as Go's `filepath.Match` has them: `*`, `?`, classes, and `\\` before what is meant literally.

use std::ffi::OsStr;

use anyhow::{Context as _, bail};

/// One part of a pattern, between two slashes, as Go's `filepath.Match` has it.
#[derive(Debug)]
pub(super) struct Glob(Vec<Token>);

#[derive(Debug)]
enum Token {
    Star,
    Any,
    Literal(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => Token::Literal(escaped(&mut chars)?),
                '[' => class(&mut chars)?,
                c => Token::Literal(c),
            });
        }
        Ok(Self(tokens))
    }

    pub(super) fn matches(&self, name: &OsStr) -> bool {
        let name: Vec<char> = name.to_string_lossy().chars().collect();
        matches(&self.0, &name)
    }
}

fn escaped(chars: &mut std::str::Chars<'_>) -> anyhow::Result<char> {
    chars.next().context("syntax error in pattern")
}

/// What follows `[`, up to `]`.
fn class(chars: &mut std::str::Chars<'_>) -> anyhow::Result<Token> {
    let mut ranges = Vec::new();
    let negated = chars.as_str().starts_with('^');
    if negated {
        chars.next();
    }
    loop {
        if chars.as_str().starts_with(']') && !ranges.is_empty() {
            chars.next();
            return Ok(Token::Class { negated, ranges });
        }
        let from = class_char(chars)?;
        let to = if chars.as_str().starts_with('-') {
            chars.next();
            class_char(chars)?
        } else {
            from
        };
        ranges.push((from, to));
    }
}

fn class_char(chars: &mut std::str::Chars<'_>) -> anyhow::Result<char> {
    match chars.next() {
        Some('\\') => escaped(chars),
        None | Some('-' | ']') => bail!("syntax error in pattern"),
        Some(c) => Ok(c),
    }
}

/// A star takes as little as it can, and more when what follows it does not match: linear but for the last star.
fn matches(tokens: &[Token], name: &[char]) -> bool {
    let (mut t, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let fits = match (tokens.get(t), name.get(n)) {
            (None, None) => return true,
            (Some(Token::Star), _) => {
                star = Some((t + 1, n));
                t += 1;
                continue;
            }
            (Some(token), Some(c)) => token.fits(*c),
            _ => false,
        };
        if fits {
            (t, n) = (t + 1, n + 1);
            continue;
        }
        match &mut star {
            Some((after, taken)) if *taken < name.len() => {
                *taken += 1;
                (t, n) = (*after, *taken);
            }
            _ => return false,
        }
    }
}

impl Token {
    fn fits(&self, c: char) -> bool {
        match self {
            Self::Star => false,
            Self::Any => true,
            Self::Literal(literal) => *literal == c,
            Self::Class { negated, ranges } => ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_go_s() {
        for (pattern, name, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("?", "ü", true),
            ("a[b-d]e", "ace", true),
            ("a[^b-d]e", "ace", false),
            ("a[^b-d]e", "axe", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("[\\]a]", "]", true),
            ("*x", "xxx", true),
            (".*", ".profile", true),
            ("*", ".profile", true),
        ] {
            assert_eq!(Glob::parse(pattern).unwrap().matches(OsStr::new(name)), expected, "{pattern} {name}");
        }
        for bad in ["[", "[]a]", "[-]", "[x-]", "[a-", "\\", "[a"] {
            assert!(Glob::parse(bad).is_err(), "{bad}");
        }
    }
}
