//! What an exec.d executable writes.

use std::collections::BTreeMap;

use crate::{ParseError, parse_toml};

/// Parses a flat table of strings: variables to set, in the order of their names.
/// # Errors
/// Malformed TOML, a value that is no string, and what no environment can hold.
pub fn parse_exec_d_output(text: &str) -> Result<Vec<(String, String)>, ParseError> {
    let variables: BTreeMap<String, String> = parse_toml(text)?;
    for (name, value) in &variables {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(ParseError(format!("'{}' is not the name of a variable", name.escape_debug())));
        }
        if value.contains('\0') {
            return Err(ParseError(format!("the value of '{name}' contains a NUL byte")));
        }
    }
    Ok(variables.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_table_of_strings() {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<_> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        for (text, variables) in [
            ("", pairs(&[])),
            ("B = 'x'\nA = \"y\\nz\"", pairs(&[("A", "y\nz"), ("B", "x")])),
            ("EMPTY = ''", pairs(&[("EMPTY", "")])),
            ("\"quoted.name\" = 'x'", pairs(&[("quoted.name", "x")])),
        ] {
            assert_eq!(parse_exec_d_output(text).unwrap(), variables);
        }
        for text in ["A = 1", "[A]\nB = 'x'", "A.B = 'x'", "A", "\"\" = 'x'", "\"A=B\" = 'x'", "A = \"\\u0000\""] {
            assert!(parse_exec_d_output(text).is_err(), "{text}");
        }
    }
}
