//! Patterns of names and paths: Go's `filepath.Match` for slices and `COPY`, with `**` for `.dockerignore`, and the
//! shell's for what `${name#pattern}` cuts off. All states a pattern can be in advance together, so that no pattern,
//! however many stars it has, takes longer than its length times that of the text.

use std::{ffi::OsStr, str::Chars};

/// A pattern.
#[derive(Clone, Debug)]
pub struct Glob(Vec<Token>);

#[derive(Clone, Debug)]
enum Token {
    /// Any number of characters; of slashes, too, or not.
    Many {
        slashes: bool,
    },
    /// Any one character.
    One {
        slash: bool,
    },
    /// Nothing, instead of the token after it.
    OrNothing,
    /// Any characters up to a slash, and that slash.
    Dirs,
    Literal(char),
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    /// Of a name or a path, as Go's `filepath.Match` has it: `*` and `?` match no slash, `[…]` is a class, and `\` makes
    /// what follows it literal. `None`: its syntax is wrong.
    pub fn name(pattern: &str) -> Option<Self> {
        Self::parse(pattern, false)
    }

    /// Of a path, as `.dockerignore` has it: the same, and `**` matches any directories.
    pub fn path(pattern: &str) -> Option<Self> {
        Self::parse(pattern, true)
    }

    /// Of any text: `*` and `?` match every character, and all others themselves.
    pub fn text(pattern: &str) -> Self {
        let token = |c| match c {
            '*' => Token::Many { slashes: true },
            '?' => Token::One { slash: true },
            c => Token::Literal(c),
        };
        Self(pattern.chars().map(token).collect())
    }

    fn parse(pattern: &str, deep: bool) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            let token = match c {
                '*' if deep && chars.as_str().starts_with('*') => {
                    let rest = chars.as_str().trim_start_matches('*');
                    chars = rest.strip_prefix('/').unwrap_or(rest).chars();
                    if chars.as_str().is_empty() {
                        Token::Many { slashes: true }
                    } else {
                        tokens.push(Token::OrNothing);
                        Token::Dirs
                    }
                }
                '*' => Token::Many { slashes: false },
                '?' => Token::One { slash: false },
                '\\' => Token::Literal(chars.next()?),
                '[' => class(&mut chars)?,
                c => Token::Literal(c),
            };
            tokens.push(token);
        }
        Some(Self(tokens))
    }

    /// Whether all of the name, path or text is what the pattern means.
    pub fn matches(&self, text: impl AsRef<OsStr>) -> bool {
        // The tokens that may come next; the last stands for the end.
        let mut now = vec![false; self.0.len() + 1];
        mark(&mut now, 0);
        for c in text.as_ref().to_string_lossy().chars() {
            self.skip(&mut now);
            let mut next = vec![false; now.len()];
            for (at, token) in self.0.iter().enumerate().filter(|(at, _)| now.get(*at) == Some(&true)) {
                match token {
                    Token::Many { slashes } if *slashes || c != '/' => mark(&mut next, at),
                    Token::Dirs => {
                        mark(&mut next, at);
                        if c == '/' {
                            mark(&mut next, at + 1);
                        }
                    }
                    token if token.fits(c) => mark(&mut next, at + 1),
                    _ => {}
                }
            }
            now = next;
        }
        self.skip(&mut now);
        now.last() == Some(&true)
    }

    /// Tokens that may match nothing let the next one come, too.
    fn skip(&self, now: &mut [bool]) {
        for (at, token) in self.0.iter().enumerate() {
            if now.get(at) != Some(&true) {
                continue;
            }
            match token {
                Token::Many { .. } => mark(now, at + 1),
                Token::OrNothing => {
                    mark(now, at + 1);
                    mark(now, at + 2);
                }
                _ => {}
            }
        }
    }
}

fn mark(states: &mut [bool], at: usize) {
    if let Some(state) = states.get_mut(at) {
        *state = true;
    }
}

impl Token {
    fn fits(&self, c: char) -> bool {
        match self {
            Self::Many { .. } | Self::OrNothing | Self::Dirs => false,
            Self::One { slash } => *slash || c != '/',
            Self::Literal(literal) => *literal == c,
            Self::Class { negated, ranges } => ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated,
        }
    }
}

/// What follows `[`, up to `]`.
fn class(chars: &mut Chars<'_>) -> Option<Token> {
    let mut ranges = Vec::new();
    let negated = chars.as_str().starts_with('^');
    if negated {
        chars.next();
    }
    loop {
        if chars.as_str().starts_with(']') && !ranges.is_empty() {
            chars.next();
            return Some(Token::Class { negated, ranges });
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

fn class_char(chars: &mut Chars<'_>) -> Option<char> {
    match chars.next() {
        Some('\\') => chars.next(),
        None | Some('-' | ']') => None,
        Some(c) => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

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
            ("a*/b", "a/c/b", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a?b", "a/b", false),
            ("a**b", "a/b", false),
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
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(Glob::name(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        }
        for bad in ["[", "[]a]", "[-]", "[x-]", "[a-", "\\", "[a", "**/["] {
            assert!(Glob::name(bad).is_none() && Glob::path(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn globs_of_paths_and_texts() {
        for (pattern, path, expected) in [
            ("*.go", "a.go", true),
            ("*.go", "d/a.go", false),
            ("**/*.go", "a.go", true),
            ("**/*.go", "d/e/a.go", true),
            ("d/**", "d/e/a", true),
            ("d/**", "d", false),
            ("**", "d/e", true),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/bz", false),
            ("**/a/**", "x/a/y/z", true),
            ("**/b", "ab", false),
            ("[a-c]x[^0-9]", "bxy", true),
            ("[a-c]x[^0-9]", "bx1", false),
        ] {
            assert_eq!(Glob::path(pattern).unwrap().matches(path), expected, "{pattern} {path}");
        }
        for (pattern, text, expected) in
            [("*.gz", "a/b.gz", true), ("?", "/", true), ("[a]", "a", false), ("[a]", "[a]", true), ("\\", "\\", true)]
        {
            assert_eq!(Glob::text(pattern).matches(text), expected, "{pattern} {text}");
        }
    }

    /// Whoever tries every way to divide a name among the stars does not come back from this.
    #[test]
    fn many_stars_end_at_once() {
        let name = "a".repeat(500);
        let started = Instant::now();
        for stars in ["*a", "**/a", "**", "*"] {
            let pattern = stars.repeat(100) + "b";
            for glob in [Glob::name(&pattern).unwrap(), Glob::path(&pattern).unwrap(), Glob::text(&pattern)] {
                assert!(!glob.matches(&name), "{pattern}");
            }
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}
