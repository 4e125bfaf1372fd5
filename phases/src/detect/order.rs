//! Orders become groups to try: extensions in front, system buildpacks around, composite buildpacks replaced by each
//! of their groups, depth first and from left to right. Nothing is expanded before it is needed, and nothing is run.
//!
//! Spec: buildpack.md "Order Resolution"; platform.md "system.toml".

use std::rc::Rc;

use buildpack_api::{BuildpackId, Kind, Order, OrderElement};
use platform_api::System;

/// A member of an expanded group: a component buildpack or an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) kind: Kind,
    pub(super) id: BuildpackId,
    pub(super) version: String,
    pub(super) optional: bool,
}

impl Member {
    /// `<id>@<version>`
    pub(super) fn full_name(&self) -> String {
        format!("{}@{}", self.id, self.version)
    }
}

/// What an element of an order turns out to be.
pub(super) enum Found {
    /// It runs itself.
    Component,
    /// It stands for these groups.
    Composite(Rc<Order>),
    /// The group is as if it were not there (it is for another execution environment).
    Absent,
}

/// Puts system buildpacks around every group, but those whose ID the group already has.
pub(super) fn with_system(order: &Order, system: &System) -> Order {
    let mut order = order.clone();
    for group in &mut order.0 {
        let missing = |elements: &[OrderElement]| -> Vec<OrderElement> {
            elements.iter().filter(|el| group.group.iter().all(|known| known.id != el.id)).cloned().collect()
        };
        let (pre, post) = (missing(&system.pre), missing(&system.post));
        if !pre.is_empty() {
            tracing::debug!("Prepending {} system buildpack(s) to group", pre.len());
        }
        if !post.is_empty() {
            tracing::debug!("Appending {} system buildpack(s) to group", post.len());
        }
        group.group.splice(0..0, pre);
        group.group.extend(post);
    }
    order
}

/// Calls `visit` with one expanded group after the other, in the order they are to be tried, until it returns true.
/// `find` tells what an element is; it may be asked more than once for the same. Returns whether a visit was true.
///
/// # Errors
/// Those of `find` and `visit`, and a composite buildpack that contains itself.
pub(super) fn expand(
    order: &Order,
    extensions: &Order,
    mut find: impl FnMut(Kind, &OrderElement) -> anyhow::Result<Found>,
    mut visit: impl FnMut(&[Member]) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    let start = if extensions.0.is_empty() { None } else { Some(Item::Extensions) };
    // What is still to be tried; the next on top.
    let mut branches: Vec<Branch> = Vec::new();
    for group in order.0.iter().rev() {
        let mut branch = Branch::default();
        branch.put_in_front(Kind::Buildpack, &group.group, None);
        branch.rest.extend(start.clone());
        branches.push(branch);
    }
    while let Some(branch) = branches.pop() {
        match branch.advance(extensions, &mut find)? {
            Step::Group(members) => {
                if visit(&members)? {
                    return Ok(true);
                }
            }
            Step::Fork(alternatives) => branches.extend(alternatives.into_iter().rev()),
        }
    }
    Ok(false)
}

/// A group of which some is expanded.
#[derive(Clone, Default)]
struct Branch {
    done: Vec<Member>,
    /// The next element is the last.
    rest: Vec<Item>,
}

#[derive(Clone)]
enum Item {
    /// Stands for the order of extensions.
    Extensions,
    Element(Kind, Rc<OrderElement>, Option<Rc<Within>>),
}

/// The composite buildpacks around an element, innermost first.
struct Within {
    name: String,
    outer: Option<Rc<Within>>,
}

enum Step {
    /// It has no more composites.
    Group(Vec<Member>),
    /// It has; these take its place.
    Fork(Vec<Branch>),
}

impl Branch {
    fn put_in_front(&mut self, kind: Kind, elements: &[OrderElement], within: Option<&Rc<Within>>) {
        let items = elements.iter().rev().map(|el| Item::Element(kind, Rc::new(el.clone()), within.cloned()));
        self.rest.extend(items);
    }

    /// Expands up to the next element that stands for groups.
    fn advance(
        mut self,
        extensions: &Order,
        find: &mut impl FnMut(Kind, &OrderElement) -> anyhow::Result<Found>,
    ) -> anyhow::Result<Step> {
        while let Some(item) = self.rest.pop() {
            let Item::Element(kind, element, within) = item else {
                return Ok(self.fork(Kind::Extension, extensions, true, None));
            };
            // Whatever its version, a module takes part once: the first mention wins.
            if self.done.iter().any(|done| done.kind == kind && done.id == element.id) {
                continue;
            }
            match find(kind, &element)? {
                Found::Absent => {}
                Found::Component => self.done.push(Member {
                    kind,
                    id: element.id.clone(),
                    version: element.version.clone(),
                    // "Image extensions MUST always be optional during detection."
                    optional: element.optional || kind == Kind::Extension,
                }),
                Found::Composite(order) => {
                    let within = Within::enter(&element, within)?;
                    return Ok(self.fork(kind, &order, element.optional, Some(&Rc::new(within))));
                }
            }
        }
        Ok(Step::Group(self.done))
    }

    /// One branch per group; where the order is optional, one without it at the end.
    fn fork(self, kind: Kind, order: &Order, optional: bool, within: Option<&Rc<Within>>) -> Step {
        let mut alternatives: Vec<Self> = Vec::new();
        for group in &order.0 {
            let mut branch = self.clone();
            branch.put_in_front(kind, &group.group, within);
            alternatives.push(branch);
        }
        if optional {
            alternatives.push(self);
        }
        Step::Fork(alternatives)
    }
}

impl Within {
    fn enter(element: &OrderElement, outer: Option<Rc<Self>>) -> anyhow::Result<Self> {
        let name = format!("{}@{}", element.id, element.version);
        let mut path = vec![name.clone()];
        let mut around = outer.as_ref();
        while let Some(within) = around {
            path.push(within.name.clone());
            if within.name == name {
                path.reverse();
                anyhow::bail!("buildpack {name} contains itself: {}", path.join(" -> "));
            }
            around = within.outer.as_ref();
        }
        Ok(Self { name, outer })
    }
}

#[cfg(test)]
mod tests {
    use buildpack_api::OrderGroup;

    use super::*;

    /// `"a b? | c"`: two groups, of a and optional b, and of c.
    fn order(text: &str) -> Order {
        let element = |word: &str| OrderElement {
            id: BuildpackId::try_from(word.trim_end_matches('?').to_owned()).unwrap(),
            version: "1".to_owned(),
            optional: word.ends_with('?'),
            exec_env: Vec::new(),
        };
        let groups = text.split('|').filter(|g| !g.is_empty());
        Order(groups.map(|g| OrderGroup { group: g.split_whitespace().map(element).collect() }).collect())
    }

    /// The expanded groups in the notation of [`order`]; extensions have a `+` in front.
    fn expanded(text: &str, extensions: &str, composites: &[(&str, &str)]) -> anyhow::Result<Vec<String>> {
        let find = |kind: Kind, element: &OrderElement| {
            let composite = composites.iter().find(|c| kind == Kind::Buildpack && c.0 == element.id.as_str());
            Ok(match composite {
                Some((_, text)) => Found::Composite(Rc::new(order(text))),
                None if element.id.as_str() == "absent" => Found::Absent,
                None => Found::Component,
            })
        };
        let mut groups = Vec::new();
        expand(&order(text), &order(extensions), find, |members| {
            let word = |m: &Member| {
                let (plus, optional) = (m.kind == Kind::Extension, m.optional && m.kind == Kind::Buildpack);
                format!("{}{}{}", if plus { "+" } else { "" }, m.id, if optional { "?" } else { "" })
            };
            groups.push(members.iter().map(word).collect::<Vec<_>>().join(" "));
            Ok(false)
        })?;
        Ok(groups)
    }

    #[test]
    fn expansion() {
        let o = [("O", "A B | C D"), ("P", "E F | G H"), ("N", "O I | J")];
        for (text, extensions, groups) in [
            ("", "", &[][..]),
            ("a b | c", "", &["a b", "c"]),
            // buildpack.md "Order Resolution", its two matrices
            ("E O F", "", &["E A B F", "E C D F"]),
            ("O P", "", &["A B E F", "A B G H", "C D E F", "C D G H"]),
            // "a copy of the group without the entry MUST be repeated after the original group"
            ("a O? b", "", &["a A B b", "a C D b", "a b"]),
            ("N a", "", &["A B I a", "C D I a", "J a"]),
            ("a? b", "", &["a? b"]),
            // extensions are prepended, and optional as an order
            ("a | b", "x | y", &["+x a", "+y a", "a", "+x b", "+y b", "b"]),
            ("O", "x", &["+x A B", "+x C D", "A B", "C D"]),
            // an ID that is there already is skipped, but kinds do not mix
            ("a a b", "a", &["+a a b", "a b"]),
            ("A O", "", &["A B", "A C D"]),
            ("absent a", "", &["a"]),
            ("absent", "", &[""]),
        ] {
            assert_eq!(expanded(text, extensions, &o).unwrap(), groups, "{text} with {extensions}");
        }
    }

    #[test]
    fn expansion_stops_at_the_first_success() {
        let mut seen = 0;
        let visit = |_: &[Member]| {
            seen += 1;
            Ok(seen == 2)
        };
        let found = expand(&order("a | b | c"), &Order::default(), |_, _| Ok(Found::Component), visit);
        assert!(found.unwrap());
        assert_eq!(seen, 2);
    }

    #[test]
    fn a_cycle_is_named() {
        let error = expanded("x a", "", &[("a", "b"), ("b", "y c"), ("c", "z a?")]).unwrap_err();
        assert_eq!(error.to_string(), "buildpack a@1 contains itself: a@1 -> b@1 -> c@1 -> a@1");
        let twice = expanded("a b a", "", &[("a", "x | y")]).unwrap();
        assert_eq!(twice, ["x b", "x b y", "y b x", "y b"], "one after the other is no cycle");
    }

    #[test]
    fn system_buildpacks_go_around_every_group() {
        let system = System { pre: order("p a").0.remove(0).group, post: order("q? b").0.remove(0).group };
        assert_eq!(with_system(&order("a | b c"), &system), order("p a q? b | p a b c q?"));
        assert_eq!(with_system(&order("a"), &System::default()), order("a"));
    }
}
