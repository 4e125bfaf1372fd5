//! Orders: in order.toml, and in a composite buildpack's buildpack.toml.

use crate::BuildpackId;

/// Groups to try, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Order(pub Vec<OrderGroup>);

/// One group of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OrderGroup {
    #[serde(default)]
    pub group: Vec<OrderElement>,
}

/// A reference to a buildpack or extension.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OrderElement {
    pub id: BuildpackId,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub optional: bool,
    /// Execution environments the element is for (see [`exec_env_applies`](crate::exec_env_applies)).
    #[serde(
        default,
        rename = "exec-env",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::exec_env::deserialize"
    )]
    pub exec_env: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct File {
        #[serde(default)]
        order: Order,
    }

    #[test]
    fn order_with_all_its_keys() {
        let text = r#"
            unknown = "ignored"
            [[order]]
            [[order.group]]
            id = "a/b"
            version = "1.2.3"
            unknown = 1
            [[order.group]]
            id = "c"
            version = "2"
            optional = true
            exec-env = ["test", "*"]
            [[order]]
        "#;
        let order = crate::parse_toml::<File>(text).unwrap().order;
        let element = |id: &str, version: &str, optional, exec_env: &[&str]| OrderElement {
            id: BuildpackId::try_from(id.to_owned()).unwrap(),
            version: version.to_owned(),
            optional,
            exec_env: exec_env.iter().map(ToString::to_string).collect(),
        };
        let group = vec![element("a/b", "1.2.3", false, &[]), element("c", "2", true, &["test", "*"])];
        assert_eq!(order, Order(vec![OrderGroup { group }, OrderGroup::default()]));
        assert_eq!(crate::parse_toml::<File>("").unwrap().order, Order::default());
    }

    #[test]
    fn elements_need_an_id() {
        let error = crate::parse_toml::<File>("[[order]]\n[[order.group]]\nversion = '1'").unwrap_err();
        assert_eq!(error.to_string(), "toml: line 2: missing field `id`");
    }
}
