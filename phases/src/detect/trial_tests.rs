use std::time::{Duration, Instant};

use buildpack_api::{BuildpackId, Kind, Sections};

use super::*;

/// One member: `optional` and its alternatives, each `(provides, requires)`, names separated by blanks.
type Spec<'a> = (bool, &'a [(&'a str, &'a str)]);

fn plan_from(alternatives: impl Iterator<Item = (Vec<String>, Vec<String>)>) -> BuildPlan {
    let sections = |(provides, requires): (Vec<String>, Vec<String>)| Sections {
        provides,
        requires: requires.into_iter().map(|name| Require { name, metadata: None }).collect(),
    };
    BuildPlan { alternatives: alternatives.map(sections).collect() }
}

fn plans(members: &[Spec<'_>]) -> Vec<(bool, BuildPlan)> {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    let plan = |member: &Spec<'_>| plan_from(member.1.iter().map(|(p, r)| (words(p), words(r))));
    members.iter().map(|member| (member.0, plan(member))).collect()
}

fn passed(plans: &[(bool, BuildPlan)]) -> Vec<Passed<'_>> {
    plans
        .iter()
        .enumerate()
        .map(|(index, (optional, plan))| {
            let id = BuildpackId::try_from(format!("m{index}")).unwrap();
            let provider = Provider { id, version: "1".to_owned(), kind: Kind::Buildpack };
            Passed { name: format!("m{index}@1"), provider, optional: *optional, plan }
        })
        .collect()
}

/// Every combination in order, as the spec has it.
fn naive(passed: &[Passed<'_>]) -> Option<Vec<usize>> {
    let mut choice = vec![0; passed.len()];
    loop {
        if run_trial(passed, &choice, &mut Vec::new()).is_some() {
            return Some(choice);
        }
        if !next_trial(passed, &mut choice) {
            return None;
        }
    }
}

/// The members left of the first trial that holds, in short: index and alternative.
fn winner(members: &[Spec<'_>]) -> Option<Vec<(usize, usize)>> {
    let plans = plans(members);
    let passed = passed(&plans);
    let choice = first_that_holds(&passed);
    assert_eq!(choice, naive(&passed));
    let choice = choice?;
    let kept = run_trial(&passed, &choice, &mut Vec::new()).unwrap();
    Some(kept.into_iter().map(|at| (at, choice[at])).collect())
}

#[test]
fn rules_of_a_trial() {
    const MUST: bool = false;
    const MAY: bool = true;
    type Row<'a> = (&'a str, &'a [Spec<'a>], Option<&'a [(usize, usize)]>);
    let rows: &[Row<'_>] = &[
        ("nothing asked, nothing given", &[(MUST, &[("", "")])], Some(&[(0, 0)])),
        ("provided by a previous buildpack", &[(MUST, &[("a", "")]), (MUST, &[("", "a")])], Some(&[(0, 0), (1, 0)])),
        ("provided by the same buildpack", &[(MUST, &[("a", "a")])], Some(&[(0, 0)])),
        ("a required one provides what nobody requires", &[(MUST, &[("a", "")])], None),
        ("a required one requires what nobody provides", &[(MUST, &[("", "a")])], None),
        ("required only before it is provided", &[(MUST, &[("", "a")]), (MUST, &[("a", "")])], None),
        (
            "an optional one that provides what nobody requires is excluded",
            &[(MAY, &[("a", "")]), (MUST, &[("", "")])],
            Some(&[(1, 0)]),
        ),
        (
            "an optional one that requires what nobody provides is excluded",
            &[(MAY, &[("", "a")]), (MUST, &[("", "")])],
            Some(&[(1, 0)]),
        ),
        (
            "with an excluded one go its provides and requires",
            &[(MAY, &[("a", "")]), (MAY, &[("b", "a")]), (MUST, &[("", "")])],
            Some(&[(2, 0)]),
        ),
        ("nothing left", &[(MAY, &[("a", "")])], None),
        (
            "many may provide and require the same",
            &[(MUST, &[("a", "")]), (MUST, &[("a", "")]), (MUST, &[("", "a")]), (MUST, &[("", "a")])],
            Some(&[(0, 0), (1, 0), (2, 0), (3, 0)]),
        ),
        (
            "alternatives are tried in order",
            &[(MUST, &[("a", ""), ("b", "")]), (MUST, &[("", "c"), ("", "b")])],
            Some(&[(0, 1), (1, 1)]),
        ),
        (
            "the first member's alternatives change slowest",
            &[(MUST, &[("a", ""), ("b", "")]), (MUST, &[("", "b"), ("", "a")])],
            Some(&[(0, 0), (1, 1)]),
        ),
        (
            "an optional one is optional in its last alternative only",
            &[(MAY, &[("x", ""), ("y", "")]), (MUST, &[("", "")])],
            Some(&[(1, 0)]),
        ),
        (
            "so an earlier alternative fails the trial, though dropping the member would do",
            &[(MAY, &[("x", ""), ("", "")]), (MUST, &[("", "")])],
            Some(&[(0, 1), (1, 0)]),
        ),
    ];
    for (sentence, members, expected) in rows {
        assert_eq!(winner(members).as_deref(), *expected, "{sentence}");
    }
}

#[test]
fn the_plan_has_an_entry_per_dependency() {
    let plans =
        plans(&[(false, &[("b a", "")]), (false, &[("a", "b a")]), (false, &[("a", "a")]), (true, &[("z", "")])]);
    let passed = passed(&plans);
    let choice = first_that_holds(&passed).unwrap();
    let kept = run_trial(&passed, &choice, &mut Vec::new()).unwrap();
    let plan = plan_of(&passed, &choice, &kept);
    let words = |entry: &PlanEntry| {
        let providers: Vec<_> = entry.providers.iter().map(|p| p.id.as_str()).collect();
        let requires: Vec<_> = entry.requires.iter().map(|r| r.name.as_str()).collect();
        format!("{}: {}", providers.join(" "), requires.join(" "))
    };
    let entries: Vec<_> = plan.entries.iter().map(words).collect();
    assert_eq!(entries, ["m0: b", "m0 m1 m2: a a"]);
}

#[test]
fn what_is_said_of_a_trial() {
    let plans = plans(&[(true, &[("a", "")]), (true, &[("b", "a c")]), (false, &[("x y", "d")])]);
    let mut lines = Vec::new();
    assert!(run_trial(&passed(&plans), &[0, 0, 0], &mut lines).is_none());
    let text: Vec<_> = lines.into_iter().map(|l| l.1).collect();
    assert_eq!(text, ["skip: m1@1 requires c", "fail: m2@1 requires d"]);
}

/// A small generator of numbers: the same sequence in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % limit
    }

    fn names(&mut self, most: usize) -> Vec<String> {
        (0..self.below(most + 1)).map(|_| format!("n{}", self.below(4))).collect()
    }

    fn group(&mut self) -> Vec<(bool, BuildPlan)> {
        let members = 1 + self.below(6);
        let member = |numbers: &mut Self| {
            let alternatives: Vec<_> = (0..=numbers.below(3)).map(|_| (numbers.names(2), numbers.names(2))).collect();
            (numbers.below(2) == 0, plan_from(alternatives.into_iter()))
        };
        (0..members).map(|_| member(self)).collect()
    }
}

#[test]
fn the_quick_way_finds_what_trying_all_finds() {
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    let mut held = 0;
    for round in 0..4000 {
        let plans = numbers.group();
        let passed = passed(&plans);
        let quick = first_that_holds(&passed);
        assert_eq!(quick, naive(&passed), "round {round}: {plans:?}");
        held += usize::from(quick.is_some());
    }
    assert!((400..3600).contains(&held), "the groups are too simple to tell anything: {held}");
}

#[test]
fn many_alternatives_take_no_time() {
    let start = Instant::now();
    let four = |member: usize| -> (bool, BuildPlan) {
        let all = (0..4).map(|option| (vec![format!("p{member}.{option}")], Vec::new()));
        (false, plan_from(all))
    };
    let of = |option: usize| (0..30).map(|member| format!("p{member}.{option}")).collect::<Vec<_>>();

    // Only one of 4^30 trials holds: the last.
    let mut plans: Vec<_> = (0..30).map(four).collect();
    plans.push((false, plan_from([(Vec::new(), of(3))].into_iter())));
    assert_eq!(first_that_holds(&passed(&plans)).unwrap()[..30], [3; 30]);

    // None holds.
    let requires = (0..4).map(|option| (Vec::new(), [of(option), vec!["none".to_owned()]].concat()));
    plans.push((false, plan_from(requires)));
    assert_eq!(first_that_holds(&passed(&plans)), None);

    // None holds, but only the end tells: two members want different alternatives of every other.
    let mut plans: Vec<_> = (0..30).map(four).collect();
    plans.push((false, plan_from((0..2).map(|option| (Vec::new(), of(option))))));
    plans.push((false, plan_from((2..4).map(|option| (Vec::new(), of(option))))));
    assert_eq!(first_that_holds(&passed(&plans)), None);

    // Interchangeable beginnings: every alternative provides and requires a name of its own, nothing fits the end.
    let own = |member: usize| {
        let name = |option: usize| vec![format!("p{member}.{option}")];
        (true, plan_from((0..4).map(|option| (name(option), name(option)))))
    };
    let mut plans: Vec<_> = (0..30).map(own).collect();
    let ends = [("u", ""), ("v", "")].map(|(p, r): (&str, &str)| (vec![p.to_owned()], vec![r.to_owned()]));
    plans.push((false, plan_from(ends.into_iter())));
    plans.push((false, plan_from([(Vec::new(), vec!["u".to_owned(), "v".to_owned()])].into_iter())));
    assert_eq!(first_that_holds(&passed(&plans)), None);

    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
