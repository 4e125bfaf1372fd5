//! Equality of TOML values, with NaN the same as NaN.

use toml::{Table, Value};

pub fn tables(a: &Table, b: &Table) -> bool {
    a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| values(a, b)))
}

fn values(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a == b || a.is_nan() && b.is_nan(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| values(a, b)),
        (Value::Table(a), Value::Table(b)) => tables(a, b),
        (a, b) => a == b,
    }
}
