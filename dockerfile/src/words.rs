//! Variables, quotes and escapes in a Dockerfile's words, as Docker resolves them.

use std::collections::BTreeSet;

use image::Glob;

use crate::{Error, Result};

/// How words are resolved.
pub(crate) struct Expansion<'a> {
    pub(crate) escape: char,
    pub(crate) lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl Expansion<'_> {
    /// Puts variables in and takes quotes and escapes away.
    ///
    /// # Errors
    /// A malformed `${…}`, an unfinished quote, a `${name?…}` that is not set.
    pub(crate) fn word(&self, word: &str) -> Result<String> {
        let mut reader = Reader { rest: word, how: self, raw_quotes: false };
        reader.until(None).map_err(|e| Error::new(format!("failed to process {word:?}: {e}")))
    }

    /// Puts variables in; quotes stay: for here-documents.
    pub(crate) fn text(&self, text: &str) -> Result<String> {
        Reader { rest: text, how: self, raw_quotes: true }.until(None)
    }

    /// Takes quotes and escapes away; variables are unknown here, and stay.
    pub(crate) fn unquote(&self, word: &str) -> String {
        let mut out = String::new();
        let mut quote = None;
        let mut chars = word.chars();
        while let Some(c) = chars.next() {
            match quote {
                Some(q) if c == q => quote = None,
                None if matches!(c, '\'' | '"') => quote = Some(c),
                _ if c == self.escape && quote != Some('\'') => out.extend(chars.next()),
                _ => out.push(c),
            }
        }
        out
    }
}

struct Reader<'a, 'b> {
    rest: &'a str,
    how: &'b Expansion<'b>,
    raw_quotes: bool,
}

impl Reader<'_, '_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// Up to the end, or to the brace that closes what is being read.
    fn until(&mut self, end: Option<char>) -> Result<String> {
        let mut out = String::new();
        while let Some(c) = self.next() {
            match c {
                c if Some(c) == end => return Ok(out),
                '\'' if !self.raw_quotes => self.single(&mut out)?,
                '"' if !self.raw_quotes => self.double(&mut out)?,
                '$' => out.push_str(&self.variable()?),
                c if c == self.how.escape => match self.next() {
                    // In here-documents an escape stands for itself, but before what it can escape.
                    Some(next) if self.raw_quotes && next != '$' && next != self.how.escape => out.extend([c, next]),
                    Some(next) => out.push(next),
                    None if self.raw_quotes => out.push(c),
                    None => {}
                },
                c => out.push(c),
            }
        }
        match end {
            Some(end) => Err(Error::new(format!("syntax error: missing '{end}'"))),
            None => Ok(out),
        }
    }

    fn single(&mut self, out: &mut String) -> Result<()> {
        loop {
            match self.next() {
                Some('\'') => return Ok(()),
                Some(c) => out.push(c),
                None => return Err(Error::new("unexpected end of statement while looking for matching single-quote")),
            }
        }
    }

    fn double(&mut self, out: &mut String) -> Result<()> {
        loop {
            match self.next() {
                Some('"') => return Ok(()),
                Some('$') => out.push_str(&self.variable()?),
                Some(c) if c == self.how.escape => match self.next() {
                    Some(next) if next == '"' || next == '$' || next == c => out.push(next),
                    Some(next) => out.extend([c, next]),
                    None => {}
                },
                Some(c) => out.push(c),
                None => return Err(Error::new("unexpected end of statement while looking for matching double-quote")),
            }
        }
    }

    /// What stands after `$`.
    fn variable(&mut self) -> Result<String> {
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(if name.is_empty() { "$".to_owned() } else { self.value(&name).unwrap_or_default() });
        }
        self.next();
        let name = self.name();
        if name.is_empty() {
            return Err(Error::new("bad substitution"));
        }
        let value = self.value(&name);
        let colon = self.peek() == Some(':');
        if colon {
            self.next();
        }
        // With the colon an empty value is as good as none.
        let set = value.clone().filter(|v| !colon || !v.is_empty());
        match self.next() {
            Some('}') if !colon => Ok(value.unwrap_or_default()),
            Some('-') => {
                let word = self.until(Some('}'))?;
                Ok(set.unwrap_or(word))
            }
            Some('+') => {
                let word = self.until(Some('}'))?;
                Ok(set.map_or(String::new(), |_| word))
            }
            Some('?') => {
                let word = self.until(Some('}'))?;
                let why = if word.is_empty() { "is not allowed to be unset" } else { &word };
                set.ok_or_else(|| Error::new(format!("{name}: {why}")))
            }
            Some(end @ ('#' | '%')) if !colon => {
                let greedy = self.peek() == Some(end);
                if greedy {
                    self.next();
                }
                let pattern = self.until(Some('}'))?;
                Ok(trimmed(&value.unwrap_or_default(), &pattern, end == '#', greedy))
            }
            Some('/') if !colon => self.replacement(&value.unwrap_or_default()),
            Some(c) => Err(Error::new(format!("unsupported modifier ({c}) in substitution"))),
            None => Err(Error::new("syntax error: missing '}'")),
        }
    }

    /// `${name/pattern/text}` and `${name//pattern/text}`, from the pattern on.
    fn replacement(&mut self, value: &str) -> Result<String> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.until(Some('/'))?;
        let by = self.until(Some('}'))?;
        Ok(replaced(value, &pattern, &by, all))
    }

    /// The name of a variable, or of a parameter that a shell would have and nobody has here.
    fn name(&mut self) -> String {
        let is_digit = |c: char| c.is_ascii_digit();
        let end = match self.peek() {
            // One character is the whole name of a special parameter, `$$` too.
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            // A positional one has digits only.
            Some(c) if is_digit(c) => self.rest.find(|c| !is_digit(c)).unwrap_or(self.rest.len()),
            _ => self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len()),
        };
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name.to_owned()
    }

    fn value(&self, name: &str) -> Option<String> {
        (self.how.lookup)(name)
    }
}

/// The value without the shortest (or longest) start or end that fits the pattern.
fn trimmed(value: &str, pattern: &str, start: bool, greedy: bool) -> String {
    let glob = Glob::text(pattern);
    let mut cuts: Vec<usize> = value.char_indices().map(|(i, _)| i).chain([value.len()]).collect();
    if start == greedy {
        cuts.reverse();
    }
    for cut in cuts {
        let (before, after) = value.split_at(cut);
        let (part, rest) = if start { (before, after) } else { (after, before) };
        if glob.matches(part) {
            return rest.to_owned();
        }
    }
    value.to_owned()
}

/// The value with something else in the place of what fits the pattern: the first such part, or all. A part begins as
/// early as it can and is as long as it can be.
fn replaced(value: &str, pattern: &str, by: &str, all: bool) -> String {
    let pattern: Vec<char> = pattern.chars().collect();
    let mut out = String::new();
    let mut rest = value;
    // Nothing, where it fits, is not replaced right behind a part that was.
    let mut behind = false;
    loop {
        let end = longest_start(rest, &pattern).filter(|end| *end > 0 || !behind);
        if let Some(end) = end {
            out.push_str(by);
            rest = rest.get(end..).unwrap_or_default();
            if !all {
                return out + rest;
            }
        }
        behind = end.is_some_and(|end| end > 0);
        if behind {
            continue;
        }
        let mut chars = rest.chars();
        let Some(c) = chars.next() else { return out };
        out.push(c);
        rest = chars.as_str();
    }
}

/// The length of the longest start of a text that fits a pattern of `*`, `?` and other characters. Whatever the
/// pattern may go on with is kept together, so that it takes no longer than the lengths of both times each other.
fn longest_start(text: &str, pattern: &[char]) -> Option<usize> {
    // `*` may be nothing, so what follows it may come next, too.
    let with_stars = |at: usize| {
        let stars = pattern.iter().skip(at).take_while(|c| **c == '*').count();
        at..=at + stars
    };
    let mut next: BTreeSet<usize> = with_stars(0).collect();
    let mut longest = None;
    let ends = text.char_indices().map(|(at, c)| (at, Some(c))).chain([(text.len(), None)]);
    for (end, c) in ends {
        if next.contains(&pattern.len()) {
            longest = Some(end);
        }
        let Some(c) = c.filter(|_| !next.is_empty()) else { break };
        let advance = |at: &usize| match pattern.get(*at) {
            Some('*') => Some(with_stars(*at)),
            Some(expected) if *expected == '?' || *expected == c => Some(with_stars(at + 1)),
            _ => None,
        };
        next = next.iter().filter_map(advance).flatten().collect();
    }
    longest
}

/// Words between white space; quotes and escapes keep a word together, and stay in it.
pub(crate) fn split_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        word.push(c);
        match quote {
            Some(q) if c == q => quote = None,
            None if matches!(c, '\'' | '"') => quote = Some(c),
            _ if c == escape && quote != Some('\'') => word.extend(chars.next()),
            _ => {}
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(word: &str) -> Result<String> {
        let lookup = |name: &str| match name {
            "a" => Some("A".to_owned()),
            "e" => Some(String::new()),
            "p" => Some("foo.tar.gz".to_owned()),
            "s" => Some("x/A/".to_owned()),
            _ => None,
        };
        Expansion { escape: '\\', lookup: &lookup }.word(word)
    }

    #[test]
    fn as_docker_resolves_them() {
        for (word, expected) in [
            ("x$a.y", "xA.y"),
            ("${a}b$none$", "Ab$"),
            ("'$a'", "$a"),
            (r#""$a b\"\$\n""#, r#"A b"$\n"#),
            (r"\$a\\\x", r"$a\x"),
            ("${a:-x}${e:-y}${n:-z}", "Ayz"),
            ("${a-x}${e-y}${n-z}", "Az"),
            ("${a:+x}${e:+y}${n:+z}|${e+y}", "x|y"),
            ("${n:-${a}}", "A"),
            ("${n:-'a b'}", "a b"),
            ("${p#*.}|${p##*.}|${p%.*}|${p%%.*}", "tar.gz|gz|foo.tar|foo"),
            ("${p#*******************************x}", "foo.tar.gz"),
            ("a=$a=b", "a=A=b"),
            ("pa$$word|$?|x$-y|$$a|$@$*$#$!|$0", "paword||xy|a||"),
            ("$12|${12}|${?}|${$}|$1a|${12:-x}", "||||a|x"),
            ("${p/o/0}|${p//o/0}|${p//./}|${p/none/x}|${n//a/b}", "f0o.tar.gz|f00.tar.gz|footargz|foo.tar.gz|"),
            ("${p/o*r/-}|${p//?o/$a}|${p/.*/'/}'}|${p//*/x}|${p///x}", "f-.gz|Ao.tar.gz|foo/}|x|xfxoxox.xtxaxrx.xgxzx"),
            (r"${e/x/y}|${e//*/y}|${s/\//-}|${s//\//-}|${s/${a}/b}", "|y|x-A/|x-A-|x/b/"),
            ("${p/oo***************************************z/}", "f"),
        ] {
            assert_eq!(expand(word).unwrap(), expected, "{word}");
        }
    }

    #[test]
    fn malformed_ones() {
        for (word, expected) in [
            ("${a", "missing '}'"),
            ("${}", "bad substitution"),
            ("${a:x}", "unsupported modifier (x)"),
            ("${a/x}", "missing '/'"),
            ("${a/x/y", "missing '}'"),
            ("${a:/x/y}", "unsupported modifier (/)"),
            ("'a", "single-quote"),
            ("\"a", "double-quote"),
            ("${n:?no}", "n: no"),
        ] {
            let error = expand(word).unwrap_err().to_string();
            assert!(error.contains(expected), "{word}: {error}");
        }
    }

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(split_words(r#" a="b c" d\ e 'f "g' "#, '\\'), [r#"a="b c""#, r"d\ e", r#"'f "g'"#]);
    }
}
