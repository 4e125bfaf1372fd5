//! Trials: one potential build plan of every member is chosen, and the choice holds if everything required is
//! provided before and everything provided is required after. The first that holds, in the order in which the spec
//! has them tried, wins.
//!
//! Spec: buildpack.md "Phase #1: Detection", "Process".
//!
//! Trying them one by one takes exponential time. What makes it quick is that taking something out of a group never
//! helps what stays: with fewer members, less is provided and less is required. So
//! - which optional members drop out of a trial does not depend on the order in which they are looked at;
//! - a group in which an undecided member has all its plans at once holds whatever any of its trials holds. If a
//!   required member fails even there, no decision about the undecided ones can help, and all those trials are
//!   passed over at once;
//! - members that need nothing more of what follows stay whatever follows. Two beginnings that differ only in how
//!   they got there have the same future, and one failure is enough.

use std::collections::{BTreeSet, HashMap, HashSet};

use buildpack_api::{BuildPlan, Require};
use platform_api::{Plan, PlanEntry, Provider, inputs::LogLevel};

/// A member that passed detection.
pub(super) struct Passed<'a> {
    /// `<id>@<version>`
    pub(super) name: String,
    pub(super) provider: Provider,
    pub(super) optional: bool,
    pub(super) plan: &'a BuildPlan,
}

impl Passed<'_> {
    /// "Optional" holds for the last alternative only: before a member drops out, all its plans are tried.
    fn droppable(&self, option: usize) -> bool {
        self.optional && option + 1 == self.plan.alternatives.len()
    }

    fn provides(&self, option: usize) -> impl Iterator<Item = &str> {
        self.plan.alternatives.get(option).into_iter().flat_map(|s| s.provides.iter().map(String::as_str))
    }

    fn requires(&self, option: usize) -> &[Require] {
        self.plan.alternatives.get(option).map_or(&[], |s| s.requires.as_slice())
    }
}

/// Runs the trial that chooses these alternatives: which members are left, or `None` where it fails.
pub(super) fn run_trial(
    passed: &[Passed<'_>],
    choice: &[usize],
    out: &mut Vec<(LogLevel, String)>,
) -> Option<Vec<usize>> {
    let mut kept: Vec<usize> = (0..passed.len()).collect();
    loop {
        let complaints = complaints(passed, choice, &kept);
        if complaints.is_empty() {
            break;
        }
        let mut drop = BTreeSet::new();
        for (at, text) in complaints {
            let droppable = passed[at].droppable(choice[at]);
            let verdict = if droppable { "skip" } else { "fail" };
            out.push((LogLevel::Debug, format!("{verdict}: {} {text}", passed[at].name)));
            if !droppable {
                return None;
            }
            drop.insert(at);
        }
        kept.retain(|at| !drop.contains(at));
    }
    if kept.is_empty() {
        out.push((LogLevel::Debug, "fail: no viable buildpacks in group".to_owned()));
        return None;
    }
    Some(kept)
}

/// What is unmet among these members: requires first, each in the order of the group.
fn complaints(passed: &[Passed<'_>], choice: &[usize], kept: &[usize]) -> Vec<(usize, String)> {
    let mut provided = HashSet::new();
    let mut complaints = Vec::new();
    for &at in kept {
        provided.extend(passed[at].provides(choice[at]));
        let unmet = passed[at].requires(choice[at]).iter().filter(|r| !provided.contains(r.name.as_str()));
        complaints.extend(unmet.map(|r| (at, format!("requires {}", r.name))));
    }
    let mut required = HashSet::new();
    let mut unused = Vec::new();
    for &at in kept.iter().rev() {
        required.extend(passed[at].requires(choice[at]).iter().map(|r| r.name.as_str()));
        let here: Vec<_> = passed[at].provides(choice[at]).filter(|name| !required.contains(name)).collect();
        unused.extend(here.into_iter().rev().map(|name| (at, format!("provides unused {name}"))));
    }
    complaints.extend(unused.into_iter().rev());
    complaints
}

/// The build plan of a trial that held: one entry per dependency, in the order they are first mentioned.
pub(super) fn plan_of(passed: &[Passed<'_>], choice: &[usize], kept: &[usize]) -> Plan {
    #[derive(Default)]
    struct Entry {
        entry: PlanEntry,
        /// Provided, but not yet required.
        waiting: Vec<Provider>,
    }
    let mut at_name: HashMap<&str, usize> = HashMap::new();
    let mut entries: Vec<Entry> = Vec::new();
    for &at in kept {
        for name in passed[at].provides(choice[at]) {
            let index = *at_name.entry(name).or_insert(entries.len());
            if index == entries.len() {
                entries.push(Entry::default());
            }
            entries[index].waiting.push(passed[at].provider.clone());
        }
        for require in passed[at].requires(choice[at]) {
            if let Some(entry) = at_name.get(require.name.as_str()).and_then(|&index| entries.get_mut(index)) {
                let waiting = std::mem::take(&mut entry.waiting);
                entry.entry.providers.extend(waiting);
                entry.entry.requires.push(require.clone());
            }
        }
    }
    Plan { entries: entries.into_iter().map(|e| e.entry).collect() }
}

/// The alternatives chosen in the first trial that holds: what trying all combinations in order, the first member's
/// alternatives changing slowest, would find.
pub(super) fn first_that_holds(passed: &[Passed<'_>]) -> Option<Vec<usize>> {
    let search = Search::new(passed);
    let mut choice: Vec<usize> = Vec::new();
    let mut keys: Vec<Option<Key>> = Vec::new();
    let mut failed: HashSet<Key> = HashSet::new();
    let mut next = 0;
    while choice.len() < passed.len() {
        if next < search.options[choice.len()].len() {
            choice.push(next);
            let outcome = search.outlook(&choice);
            let dead = outcome.as_ref().is_none_or(|key| failed.contains(key));
            if dead {
                choice.pop();
                next += 1;
            } else {
                keys.push(outcome);
                next = 0;
            }
            continue;
        }
        // Nothing of what follows fits this beginning.
        failed.extend(keys.pop().flatten());
        next = choice.pop()? + 1;
    }
    Some(choice)
}

/// The number of a trial, counting from 1, as far as it can be told.
pub(super) fn trial_number(passed: &[Passed<'_>], choice: &[usize]) -> u128 {
    let number = passed.iter().zip(choice).fold(0_u128, |number, (member, &option)| {
        number.saturating_mul(member.plan.alternatives.len() as u128).saturating_add(option as u128)
    });
    number.saturating_add(1)
}

/// The choice of the next trial, if there is one.
pub(super) fn next_trial(passed: &[Passed<'_>], choice: &mut [usize]) -> bool {
    for (member, option) in passed.iter().zip(choice).rev() {
        if *option + 1 < member.plan.alternatives.len() {
            *option += 1;
            return true;
        }
        *option = 0;
    }
    false
}

/// One alternative of one member, with names as numbers.
struct Choice {
    provides: Vec<usize>,
    requires: Vec<usize>,
    droppable: bool,
}

struct Search {
    options: Vec<Vec<Choice>>,
    names: usize,
    /// For each name, one more than the last member that may require it; 0 for none.
    wanted_until: Vec<usize>,
}

/// All that the future of a beginning depends on. Equal keys, equal futures.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    /// How many members are decided.
    decided: usize,
    /// Whether any of them stays for sure.
    any_stays: bool,
    /// Names that later members may require, provided by members that stay for sure.
    provided: Vec<usize>,
    /// The members that may still drop out or fail, with their alternative and the names they wait for.
    open: Vec<(usize, usize, Vec<usize>, Vec<usize>)>,
}

/// An alternative in a group under consideration.
#[derive(Clone, Copy)]
struct Present {
    member: usize,
    option: usize,
}

impl Search {
    fn new(passed: &[Passed<'_>]) -> Self {
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut number = |name: &str| {
            let next = numbers.len();
            *numbers.entry(name.to_owned()).or_insert(next)
        };
        let mut options = Vec::new();
        for member in passed {
            let choices = (0..member.plan.alternatives.len()).map(|option| Choice {
                provides: member.provides(option).map(&mut number).collect(),
                requires: member.requires(option).iter().map(|r| number(&r.name)).collect(),
                droppable: member.droppable(option),
            });
            options.push(choices.collect::<Vec<_>>());
        }
        let names = numbers.len();
        let mut wanted_until = vec![0; names];
        for (member, choices) in options.iter().enumerate() {
            for name in choices.iter().flat_map(|choice| &choice.requires) {
                wanted_until[*name] = member + 1;
            }
        }
        Self { options, names, wanted_until }
    }

    fn choice(&self, at: Present) -> &Choice {
        &self.options[at.member][at.option]
    }

    /// Whether some trial that begins like this may hold, and what that depends on. Exact where all is decided.
    fn outlook(&self, choice: &[usize]) -> Option<Key> {
        let decided = choice.iter().enumerate().map(|(member, &option)| Present { member, option });
        let undecided = (choice.len()..self.options.len())
            .flat_map(|member| (0..self.options[member].len()).map(move |option| Present { member, option }));
        let best = self.settle(decided.chain(undecided).collect());
        if best.is_empty() {
            return None;
        }
        let mut left = best.iter().peekable();
        for (member, options) in self.options.iter().enumerate() {
            let mut stays = false;
            while left.next_if(|at| at.member == member).is_some() {
                stays = true;
            }
            let droppable = match choice.get(member) {
                Some(&option) => options[option].droppable,
                None => options.last().is_some_and(|last| last.droppable),
            };
            if !stays && !droppable {
                return None;
            }
        }
        let alive: Vec<Present> = best.into_iter().filter(|at| at.member < choice.len()).collect();
        Some(self.key(choice.len(), alive))
    }

    /// The largest part of these alternatives in which everything required is provided before or with it, and
    /// everything provided is required after or with it. They are in the order of the group.
    fn settle(&self, mut present: Vec<Present>) -> Vec<Present> {
        loop {
            let (first_provided, last_required) = self.reach(&present);
            let before = present.len();
            present.retain(|&at| {
                let choice = self.choice(at);
                choice.requires.iter().all(|&name| first_provided[name] <= at.member)
                    && choice.provides.iter().all(|&name| last_required[name] > at.member)
            });
            if present.len() == before {
                return present;
            }
        }
    }

    /// Of every name, the first member that provides it, and one more than the last that requires it.
    fn reach(&self, present: &[Present]) -> (Vec<usize>, Vec<usize>) {
        let mut first_provided = vec![usize::MAX; self.names];
        let mut last_required = vec![0; self.names];
        for &at in present {
            let choice = self.choice(at);
            for &name in &choice.provides {
                first_provided[name] = first_provided[name].min(at.member);
            }
            for &name in &choice.requires {
                last_required[name] = last_required[name].max(at.member + 1);
            }
        }
        (first_provided, last_required)
    }

    fn key(&self, decided: usize, alive: Vec<Present>) -> Key {
        let sure = self.settle(alive.clone());
        let (first_provided, last_required) = self.reach(&sure);
        let stays: HashSet<usize> = sure.iter().map(|at| at.member).collect();
        let open = alive.into_iter().filter(|at| !stays.contains(&at.member)).map(|at| {
            let choice = self.choice(at);
            let unmet = choice.requires.iter().copied().filter(|&name| first_provided[name] > at.member);
            let unused = choice.provides.iter().copied().filter(|&name| last_required[name] <= at.member);
            (at.member, at.option, unmet.collect(), unused.collect())
        });
        let provided =
            (0..self.names).filter(|&name| first_provided[name] != usize::MAX && self.wanted_until[name] > decided);
        Key { decided, any_stays: !sure.is_empty(), provided: provided.collect(), open: open.collect() }
    }
}

#[cfg(test)]
#[path = "trial_tests.rs"]
mod tests;
