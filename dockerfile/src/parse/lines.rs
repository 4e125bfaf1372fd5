//! Lines of a Dockerfile: which belong together, which are none of its own, and the here-documents among them.

use super::Document;
use crate::{
    Error, Result,
    words::{Expansion, split_words},
};

/// The instruction with the lines that continue it. Comments and empty lines between do not end it.
pub(super) fn join<'a>(first: &str, escape: char, lines: &mut impl Iterator<Item = (&'a str, usize)>) -> String {
    let mut whole = first.to_owned();
    while let Some(without) = continued(&whole, escape) {
        whole = without.to_owned();
        match lines.find(|(next, _)| !is_skipped(next)) {
            Some((next, _)) => whole.push_str(next),
            None => break,
        }
    }
    whole
}

pub(super) fn is_skipped(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// The line without the escape that continues it. An escaped escape continues nothing.
fn continued(line: &str, escape: char) -> Option<&str> {
    let without = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!without.ends_with(escape)).then_some(without)
}

/// Of `# escape=` among the directives at the very top.
pub(super) fn escape_of(text: &str) -> char {
    for line in text.lines() {
        let Some((name, value)) = line.trim().strip_prefix('#').and_then(|comment| comment.split_once('=')) else {
            break;
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "escape" if value.trim() == "`" => return '`',
            "escape" | "syntax" | "check" => {}
            _ => break,
        }
    }
    '\\'
}

pub(super) fn full_text(line: &str, documents: &[Document]) -> String {
    documents.iter().fold(line.to_owned(), |text, d| format!("{text}\n{}{}", d.content, d.name))
}

/// The here-documents that a `RUN`, `COPY` or `ADD` announces, read from the lines after it.
pub(super) fn collect_documents<'a>(
    whole: &str,
    line: usize,
    escape: char,
    lines: &mut impl Iterator<Item = (&'a str, usize)>,
) -> Result<Vec<Document>> {
    let (keyword, rest) = whole.split_once(char::is_whitespace).unwrap_or((whole, ""));
    if !["RUN", "COPY", "ADD"].iter().any(|k| keyword.eq_ignore_ascii_case(k)) {
        return Ok(Vec::new());
    }
    let mut documents: Vec<Document> = split_words(rest, escape).iter().filter_map(|w| announced(w, escape)).collect();
    for document in &mut documents {
        loop {
            let Some((text, _)) = lines.next() else {
                return Err(Error::new(format!("line {line}: unterminated heredoc {}", document.name)));
            };
            let is_end = if document.chomp { text.trim_start_matches('\t') } else { text } == document.name;
            if is_end {
                break;
            }
            document.content.push_str(text);
            document.content.push('\n');
        }
    }
    Ok(documents)
}

/// `[n]<<[-]NAME`, the name quoted or not.
pub(super) fn announced(word: &str, escape: char) -> Option<Document> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (chomp, name) = rest.strip_prefix('-').map_or((false, rest), |name| (true, name));
    if name.is_empty() || name.contains('<') {
        return None;
    }
    let plain = Expansion { escape, lookup: &|_| None }.unquote(name);
    Some(Document { expand: plain == name, name: plain, chomp, content: String::new() })
}
