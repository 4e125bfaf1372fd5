//! TOML as the reference's builder prints it, byte for byte. `metadata.toml` is a layer of the app image: with the same
//! bytes it is reused whichever lifecycle built the image before.
//!
//! Values of a table come before its tables, keys in the order given; what lies deeper is indented by two spaces.

use std::fmt::Write as _;

use toml::Value;

/// What a key has.
pub(crate) enum Node {
    /// Printed already.
    Value(String),
    Table(Fields),
    /// One `[[key]]` for each.
    Tables(Vec<Fields>),
}

/// The keys of a table, in order.
pub(crate) type Fields = Vec<(String, Node)>;

/// The text of a file.
pub(crate) fn print(file: &Fields) -> String {
    let mut text = String::new();
    print_table(&mut text, "", 0, file);
    text
}

fn print_table(text: &mut String, path: &str, depth: usize, fields: &Fields) {
    let indent = "  ".repeat(depth);
    let below = |key: &str| if path.is_empty() { print_key(key) } else { format!("{path}.{}", print_key(key)) };
    for (key, node) in fields {
        if let Node::Value(value) = node {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{indent}{} = {value}", print_key(key));
        }
    }
    for (key, node) in fields {
        let (tables, open, close) = match node {
            Node::Value(_) => continue,
            Node::Table(table) => (std::slice::from_ref(table), "[", "]"),
            Node::Tables(tables) => (tables.as_slice(), "[[", "]]"),
        };
        for table in tables {
            if !text.is_empty() && (depth == 0 || open == "[[") {
                text.push('\n');
            }
            let path = below(key);
            let _ = writeln!(text, "{indent}{open}{path}{close}");
            print_table(text, &path, depth + 1, table);
        }
    }
}

fn print_key(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { quoted(key) }
}

/// A string.
pub(crate) fn quoted(string: &str) -> String {
    let mut text = String::with_capacity(string.len() + 2);
    text.push('"');
    for c in string.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\u{8}' => text.push_str("\\b"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\u{c}' => text.push_str("\\f"),
            '\r' => text.push_str("\\r"),
            '\0'..='\u{1f}' | '\u{7f}' => escape(&mut text, c),
            _ => text.push(c),
        }
    }
    text.push('"');
    text
}

/// A string of a command, which is escaped as Go's JSON is.
pub(crate) fn quoted_command(string: &str) -> String {
    let mut text = String::with_capacity(string.len() + 2);
    for c in quoted(string).chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escape(&mut text, c),
            _ => text.push(c),
        }
    }
    text
}

fn escape(text: &mut String, c: char) {
    let _ = write!(text, "\\u{:04x}", u32::from(c));
}

/// Values in brackets.
pub(crate) fn array(values: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", values.into_iter().collect::<Vec<_>>().join(", "))
}

/// Strings in brackets.
pub(crate) fn strings(strings: &[String]) -> String {
    array(strings.iter().map(|string| quoted(string)))
}

/// A table that buildpacks filled; its keys are sorted.
pub(crate) fn table(table: &toml::Table) -> Fields {
    table.iter().map(|(key, value)| (key.clone(), node(value))).collect()
}

fn node(value: &Value) -> Node {
    match value {
        Value::Table(inner) => Node::Table(table(inner)),
        Value::Array(array) if is_table(value) => {
            Node::Tables(array.iter().filter_map(Value::as_table).map(table).collect())
        }
        _ => Node::Value(inline(value)),
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(string) => quoted(string),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => float(*number),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(time) => time.to_string(),
        Value::Array(values) => array(values.iter().map(inline)),
        Value::Table(table) => {
            let (tables, values): (Vec<_>, Vec<_>) = table.iter().partition(|(_, value)| is_table(value));
            let all = values.into_iter().chain(tables);
            let all: Vec<_> = all.map(|(key, value)| format!("{} = {}", print_key(key), inline(value))).collect();
            format!("{{{}}}", all.join(", "))
        }
    }
}

/// Whether it stands under a head of its own: a table, or several.
fn is_table(value: &Value) -> bool {
    match value {
        Value::Table(_) => true,
        Value::Array(array) => !array.is_empty() && array.iter().all(Value::is_table),
        _ => false,
    }
}

/// The fewest digits that read as the same number; with an exponent where four zeros would lead them, or more than six
/// digits stand before the point.
fn float(number: f64) -> String {
    if number.is_nan() {
        return if number.is_sign_negative() { "-nan" } else { "nan" }.to_owned();
    }
    if number.is_infinite() {
        return if number.is_sign_negative() { "-inf" } else { "inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        let text = number.to_string();
        return if text.contains('.') { text } else { text + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_follow_values_and_are_indented() {
        let file: toml::Table = toml::from_str(
            "z = 1\n[[bom]]\nname = 'a'\n[bom.metadata]\n'odd key' = [1, 2]\nz = [{ a = 1, b = 'c' }, {}]\nl = [[{ x = 1 }], []]\n\
             mixed = [1, { b = [], a = { c = 1 } }]\nnone = []\n[bom.metadata.sub.deep]\nq = true\n[[bom]]\n[last.'']\nx = ''\n",
        )
        .unwrap();
        let text = r#"z = 1

[[bom]]
  name = "a"
  [bom.metadata]
    l = [[{x = 1}], []]
    mixed = [1, {b = [], a = {c = 1}}]
    none = []
    "odd key" = [1, 2]
    [bom.metadata.sub]
      [bom.metadata.sub.deep]
        q = true

    [[bom.metadata.z]]
      a = 1
      b = "c"

    [[bom.metadata.z]]

[[bom]]

[last]
  [last.""]
    x = ""
"#;
        assert_eq!(print(&table(&file)), text);
        assert_eq!(toml::from_str::<toml::Table>(text).unwrap(), file, "it means the same");
    }

    #[test]
    fn strings_stay_on_one_line() {
        let all = "\0\u{1}\u{8}\t\n\u{b}\u{c}\r\u{1f}\u{7f}\"\\'<>&\u{2028}\u{2029}\u{e9}\u{1f600}";
        let text = quoted(all);
        assert_eq!(
            text,
            "\"\\u0000\\u0001\\b\\t\\n\\u000b\\f\\r\\u001f\\u007f\\\"\\\\'<>&\u{2028}\u{2029}\u{e9}\u{1f600}\""
        );
        let command = quoted_command(all);
        assert!(command.ends_with("'\\u003c\\u003e\\u0026\\u2028\\u2029\u{e9}\u{1f600}\""), "{command}");
        for text in [text, command] {
            let file: toml::Table = toml::from_str(&format!("x = {text}")).unwrap();
            assert_eq!(file["x"].as_str(), Some(all));
        }
    }

    #[test]
    fn floats_are_go_s() {
        for (number, text) in [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (-2.5, "-2.5"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.25e-7, "1.25e-07"),
            (999_999.0, "999999.0"),
            (1e6, "1e+06"),
            (123_456_789.0, "1.23456789e+08"),
            (1.5e22, "1.5e+22"),
            (1e300, "1e+300"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(float(number), text);
            assert!(toml::from_str::<toml::Table>(&format!("x = {text}")).is_ok());
        }
    }
}
