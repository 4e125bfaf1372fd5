//! JSON as Go's encoding/json writes it: fields in a given order, `<`, `>` and `&` escaped.

use serde::Serialize;
use serde_json::Value;

/// An object while it is being written.
#[derive(Debug, Default)]
pub(crate) struct Object {
    out: String,
}

impl Object {
    pub(crate) fn field<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) {
        self.raw(key, &text(value));
    }

    pub(crate) fn field_if<T: Serialize + ?Sized>(&mut self, condition: bool, key: &str, value: &T) {
        if condition {
            self.field(key, value);
        }
    }

    /// A value that is JSON already.
    pub(crate) fn raw(&mut self, key: &str, value: &str) {
        self.out.push(if self.out.is_empty() { '{' } else { ',' });
        self.out.push_str(&text(key));
        self.out.push(':');
        self.out.push_str(value);
    }

    pub(crate) fn end(mut self) -> String {
        if self.out.is_empty() {
            self.out.push('{');
        }
        self.out.push('}');
        self.out
    }
}

pub(crate) fn text<T: Serialize + ?Sized>(value: &T) -> String {
    // Maps with keys that are no strings cannot occur: every type written here is ours.
    escaped_like_go(serde_json::to_string(value).unwrap_or_default())
}

/// JSON with the characters escaped that Go's `encoding/json` escapes. They can only stand inside strings, so they may be
/// replaced wherever they are.
pub fn escaped_like_go(json: String) -> String {
    if !json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 64);
    for c in json.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out
}

/// What Go's `omitempty` leaves out.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_i64() == Some(0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}
