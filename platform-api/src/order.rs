//! order.toml. Spec: platform.md, "order.toml".

use buildpack_api::{Order, ParseError, parse_toml};
use serde::Deserialize;

/// The orders of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderFile {
    /// Groups of buildpacks.
    pub order: Order,
    /// Every element is optional, whatever the file says.
    pub order_extensions: Order,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct OrderKeys {
    #[serde(default)]
    order: Order,
    #[serde(default)]
    order_extensions: Order,
}

impl OrderFile {
    /// # Errors
    /// Malformed TOML, or an element without an ID.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut keys: OrderKeys = parse_toml(text)?;
        for element in keys.order_extensions.0.iter_mut().flat_map(|group| &mut group.group) {
            element.optional = true;
        }
        Ok(Self { order: keys.order, order_extensions: keys.order_extensions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_optional() {
        let file = OrderFile::parse(
            "[[order]]\n[[order.group]]\nid='a'\nversion='1'\n[[order.group]]\nid='b'\nversion='1'\noptional=true\n\
             [[order]]\n[[order-extensions]]\n[[order-extensions.group]]\nid='e'\nversion='1'\noptional=false",
        )
        .unwrap();
        let optional: Vec<_> = file.order.0[0].group.iter().map(|element| element.optional).collect();
        assert_eq!(optional, [false, true]);
        assert!(file.order.0[1].group.is_empty());
        assert!(file.order_extensions.0[0].group[0].optional);
        assert_eq!(OrderFile::parse("").unwrap(), OrderFile::default());
    }

    #[test]
    fn errors_tell_the_line() {
        for text in ["[[order]]\n[[order.group]]\nversion='1'", "order = 1", "[[order"] {
            assert!(OrderFile::parse(text).unwrap_err().0.starts_with("toml: line "), "{text}");
        }
    }
}
