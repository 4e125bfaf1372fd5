//! Tables that buildpacks and platforms wrote, on their way between TOML and JSON.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess, Visitor},
    ser::{Error as _, SerializeMap as _, SerializeSeq as _},
};
use toml::{Table, Value, value::Datetime};

/// Any table that a buildpack or a platform wrote. Read from JSON or TOML, nulls dropped; written with datetimes as
/// strings (RFC 3339), integers as integers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Data(pub toml::Table);

impl Serialize for Data {
    /// # Errors
    /// A `nan` or `inf`, which JSON has no word for.
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        serialize_table(&self.0, s)
    }
}

fn serialize_table<S: Serializer>(table: &Table, s: S) -> Result<S::Ok, S::Error> {
    let mut map = s.serialize_map(Some(table.len()))?;
    for (key, value) in table {
        map.serialize_entry(key, &Json(value))?;
    }
    map.end()
}

/// A value as JSON has it. TOML's own serialisation would make an object of a datetime.
struct Json<'a>(&'a Value);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::String(text) => s.serialize_str(text),
            Value::Integer(number) => s.serialize_i64(*number),
            Value::Float(number) if number.is_finite() => s.serialize_f64(*number),
            Value::Float(number) => Err(S::Error::custom(format!("the number {number} cannot be written as JSON"))),
            Value::Boolean(truth) => s.serialize_bool(*truth),
            Value::Datetime(datetime) => s.serialize_str(&datetime.to_string()),
            Value::Array(items) => {
                let mut seq = s.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(&Json(item))?;
                }
                seq.end()
            }
            Value::Table(table) => serialize_table(table, s),
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match Any::deserialize(d)?.0 {
            Some(Value::Table(table)) => Ok(Self(table)),
            _ => Err(de::Error::custom("expected a table")),
        }
    }
}

/// Any value at all; `None` for null.
pub(crate) struct Any(pub(crate) Option<Value>);

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(AnyVisitor).map(Self)
    }
}

struct AnyVisitor;

/// How the toml crate hands a datetime to a deserializer: as a table of one key.
const DATETIME_KEY: &str = "$__toml_private_datetime";

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_any(self)
    }
    fn visit_bool<E>(self, truth: bool) -> Result<Self::Value, E> {
        Ok(Some(Value::Boolean(truth)))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(Value::Integer(number)))
    }
    #[allow(clippy::cast_precision_loss)] // What TOML's integers cannot hold is kept as nearly as its floats can.
    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(i64::try_from(number).map_or_else(|_| Value::Float(number as f64), Value::Integer)))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Some(Value::Float(number)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Value::String(text.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Any(item)) = seq.next_element()? {
            items.extend(item);
        }
        Ok(Some(Value::Array(items)))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut table = Table::new();
        while let Some((key, Any(value))) = map.next_entry::<String, Any>()? {
            if let Some(value) = value {
                table.insert(key, value);
            }
        }
        let datetime = match table.get(DATETIME_KEY) {
            Some(Value::String(text)) if table.len() == 1 => text.parse::<Datetime>().ok(),
            _ => None,
        };
        Ok(Some(datetime.map_or(Value::Table(table), Value::Datetime)))
    }
}

/// Null as the default value, wherever Go writes null for an empty list or a missing struct.
pub(crate) fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(d).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_becomes_json() {
        let toml = "i = 1\nf = 1.5\nwhole = 2.0\nb = true\ns = '<&>'\nl = [1, 'x']\nd = 1979-05-27T07:32:00Z\n\
                    o = 1979-05-27T00:32:00.999-07:00\nlocal = 1979-05-27\n[t]\nu = { v = 1987-07-05T17:45:00Z }\n";
        let json = serde_json::to_value(Data(toml::from_str(toml).unwrap())).unwrap();
        let expected = serde_json::json!({
            "i": 1, "f": 1.5, "whole": 2.0, "b": true, "s": "<&>", "l": [1, "x"], "d": "1979-05-27T07:32:00Z",
            "o": "1979-05-27T00:32:00.999-07:00", "local": "1979-05-27", "t": {"u": {"v": "1987-07-05T17:45:00Z"}},
        });
        assert_eq!(json, expected);
        assert!(json["i"].is_i64() && json["whole"].is_f64());
    }

    #[test]
    fn what_json_cannot_say_is_an_error() {
        for number in ["nan", "inf", "-inf"] {
            let data = Data(toml::from_str(&format!("x = {number}")).unwrap());
            let error = serde_json::to_string(&data).unwrap_err().to_string();
            assert!(error.contains("cannot be written as JSON"), "{error}");
        }
    }

    #[test]
    fn json_becomes_toml() {
        let json = r#"{"i":1,"f":1.0,"big":18446744073709551615,"n":null,"l":[1,null,"x"],"t":{"n":null}}"#;
        let Data(table) = serde_json::from_str(json).unwrap();
        assert_eq!(table["i"], Value::Integer(1));
        assert_eq!(table["f"], Value::Float(1.0));
        assert!(table["big"].is_float());
        assert_eq!(table["l"], Value::Array(vec![Value::Integer(1), "x".into()]));
        assert!(!table.contains_key("n") && table["t"].as_table().unwrap().is_empty());
        for other in ["1", "[]", "\"x\"", "null", "true"] {
            assert!(serde_json::from_str::<Data>(other).is_err(), "{other}");
        }
    }

    #[test]
    fn toml_keeps_its_datetimes() {
        let text = "d = 1979-05-27T07:32:00Z\n";
        let data: Data = toml::from_str(text).unwrap();
        assert_eq!(data.0, toml::from_str::<Table>(text).unwrap());
    }
}
