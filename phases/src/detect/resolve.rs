//! The results of a group's members become a group and a plan, or tell why they do not. Pure: same results, same
//! outcome and same words.
//!
//! Spec: buildpack.md "Phase #1: Detection", "Process".

use buildpack_api::{BuildPlan, DetectOutcome, DetectResult, Kind};
use platform_api::{Plan, Provider, inputs::LogLevel};

use super::{
    Transcript,
    order::Member,
    trial::{Passed, first_that_holds, next_trial, plan_of, run_trial, trial_number},
};

/// How many failing trials are told one by one.
const TRIALS_TOLD: u128 = 100;

/// What a group came to.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// The members that take part, by index, and their plan.
    Pass(Vec<usize>, Plan),
    /// It does not fit the app.
    Fail,
    /// It does not, and a member of it is broken.
    Error,
}

/// How one member did.
#[derive(Clone, Copy)]
pub(super) enum Outcome<'a> {
    Ran(&'a DetectResult),
    /// It does not run on the run image; the text says so.
    WrongTarget(&'a str),
}

/// Judges a group by its members' results.
pub(super) fn resolve(members: &[Member], outcomes: &[Outcome<'_>], out: &mut Transcript) -> Verdict {
    for (member, outcome) in members.iter().zip(outcomes) {
        tell_output(member, *outcome, out);
    }
    out.say(LogLevel::Debug, "======== Results ========");
    let mut passed: Vec<(usize, Passed<'_>)> = Vec::new();
    let (mut failed, mut errored, mut any_buildpack) = (false, false, false);
    for (index, (member, outcome)) in members.iter().zip(outcomes).enumerate() {
        match tell_result(member, *outcome, out) {
            Told::Pass(plan) => {
                any_buildpack |= member.kind == Kind::Buildpack;
                passed.push((index, Passed::new(member, plan)));
            }
            Told::Fail => failed |= !member.optional,
            Told::Error => {
                // The exit code of errors is for those of buildpacks.
                errored |= member.kind == Kind::Buildpack;
                failed |= !member.optional;
            }
        }
    }
    if failed {
        return if errored { Verdict::Error } else { Verdict::Fail };
    }
    if !any_buildpack {
        out.say(LogLevel::Debug, "fail: no viable buildpacks in group");
        return Verdict::Fail;
    }
    let (indices, passed): (Vec<usize>, Vec<Passed<'_>>) = passed.into_iter().unzip();
    let winner = first_that_holds(&passed);
    tell_failing_trials(&passed, winner.as_deref(), out);
    let Some(choice) = winner else { return Verdict::Fail };
    let number = trial_number(&passed, &choice);
    out.say(LogLevel::Debug, format!("Resolving plan... (try #{number})"));
    let Some(kept) = run_trial(&passed, &choice, &mut out.0) else { return Verdict::Fail };
    let plan = plan_of(&passed, &choice, &kept);
    let kept: Vec<usize> = kept.into_iter().map(|at| indices[at]).collect();
    tell_participants(members, &kept, out);
    Verdict::Pass(kept, plan)
}

impl<'a> Passed<'a> {
    fn new(member: &Member, plan: &'a BuildPlan) -> Self {
        let provider = Provider { id: member.id.clone(), version: member.version.clone(), kind: member.kind };
        Self { name: member.full_name(), provider, optional: member.optional, plan }
    }
}

fn tell_output(member: &Member, outcome: Outcome<'_>, out: &mut Transcript) {
    let name = member.full_name();
    let (level, output, error) = match outcome {
        Outcome::Ran(result) => match &result.outcome {
            DetectOutcome::Pass(_) | DetectOutcome::Fail => (LogLevel::Debug, result.output.as_slice(), None),
            DetectOutcome::Error(text) => (LogLevel::Info, result.output.as_slice(), text.as_deref()),
        },
        Outcome::WrongTarget(text) if member.optional => (LogLevel::Debug, &[][..], Some(text)),
        Outcome::WrongTarget(text) => (LogLevel::Info, &[][..], Some(text)),
    };
    if !output.is_empty() {
        out.say(level, format!("======== Output: {name} ========"));
        out.say(level, String::from_utf8_lossy(output));
    }
    if let Some(text) = error {
        out.say(level, format!("======== Error: {name} ========"));
        out.say(level, text);
    }
}

enum Told<'a> {
    Pass(&'a BuildPlan),
    Fail,
    Error,
}

fn tell_result<'a>(member: &Member, outcome: Outcome<'a>, out: &mut Transcript) -> Told<'a> {
    let name = member.full_name();
    match outcome {
        Outcome::Ran(DetectResult { outcome: DetectOutcome::Pass(plan), .. }) => {
            out.say(LogLevel::Debug, format!("pass: {name}"));
            Told::Pass(plan)
        }
        Outcome::Ran(DetectResult { outcome: DetectOutcome::Fail, .. }) => {
            let word = if member.optional { "skip" } else { "fail" };
            out.say(LogLevel::Debug, format!("{word}: {name}"));
            Told::Fail
        }
        Outcome::Ran(DetectResult { code, .. }) => {
            let code = if *code == -1 { String::new() } else { format!(" ({code})") };
            out.say(LogLevel::Info, format!("err:  {name}{code}"));
            Told::Error
        }
        Outcome::WrongTarget(_) if member.optional => {
            out.say(LogLevel::Debug, format!("skip: {name}"));
            Told::Fail
        }
        Outcome::WrongTarget(_) => {
            out.say(LogLevel::Info, format!("err:  {name}"));
            Told::Error
        }
    }
}

/// The trials before the winner, as far as anybody will read them.
fn tell_failing_trials(passed: &[Passed<'_>], winner: Option<&[usize]>, out: &mut Transcript) {
    let mut choice = vec![0; passed.len()];
    for number in 1..=TRIALS_TOLD {
        if winner == Some(choice.as_slice()) {
            return;
        }
        out.say(LogLevel::Debug, format!("Resolving plan... (try #{number})"));
        run_trial(passed, &choice, &mut out.0);
        if !next_trial(passed, &mut choice) {
            return;
        }
    }
    if winner != Some(choice.as_slice()) {
        out.say(LogLevel::Debug, format!("Resolving plan... (not showing more than {TRIALS_TOLD} failing tries)"));
    }
}

fn tell_participants(members: &[Member], kept: &[usize], out: &mut Transcript) {
    if kept.len() != members.len() {
        let (n, m) = (kept.len(), members.len());
        out.say(LogLevel::Info, format!("{n} of {m} buildpacks participating"));
    }
    let kept: Vec<&Member> = kept.iter().map(|&index| &members[index]).collect();
    let width = kept.iter().map(|member| member.id.as_str().len()).max().unwrap_or(0);
    for member in kept {
        out.say(LogLevel::Info, format!("{:width$} {}", member.id.as_str(), member.version));
    }
}

#[cfg(test)]
mod tests {
    use buildpack_api::{BuildpackId, Require, Sections};

    use super::*;

    fn member(text: &str) -> Member {
        let (text, kind) = match text.strip_prefix('+') {
            Some(rest) => (rest, Kind::Extension),
            None => (text, Kind::Buildpack),
        };
        let optional = text.ends_with('?') || kind == Kind::Extension;
        let id = BuildpackId::try_from(text.trim_end_matches('?').to_owned()).unwrap();
        Member { kind, id, version: "1".to_owned(), optional }
    }

    fn result(text: &str) -> DetectResult {
        let plan = |provides: &str, requires: &str| {
            let requires = requires.split_whitespace();
            DetectOutcome::Pass(BuildPlan {
                alternatives: vec![Sections {
                    provides: provides.split_whitespace().map(str::to_owned).collect(),
                    requires: requires.map(|name| Require { name: name.to_owned(), metadata: None }).collect(),
                }],
            })
        };
        let (code, outcome) = match text {
            "pass" => (0, plan("", "")),
            "fail" => (100, DetectOutcome::Fail),
            "bad" => (-1, DetectOutcome::Error(Some("bad plan".to_owned()))),
            "error" => (7, DetectOutcome::Error(None)),
            provides => (0, plan(provides, "")),
        };
        let output = if text == "pass" { Vec::new() } else { b"%s \xff".to_vec() };
        DetectResult { output, code, outcome, time: None }
    }

    fn judge(rows: &[(&str, &str)]) -> (Verdict, Transcript) {
        let members: Vec<_> = rows.iter().map(|row| member(row.0)).collect();
        let results: Vec<_> = rows.iter().map(|row| result(row.1)).collect();
        let outcomes: Vec<_> = rows
            .iter()
            .zip(&results)
            .map(|(row, result)| if row.1 == "target" { Outcome::WrongTarget("no") } else { Outcome::Ran(result) })
            .collect();
        let mut out = Transcript::default();
        let verdict = resolve(&members, &outcomes, &mut out);
        (verdict, out)
    }

    #[test]
    fn verdicts() {
        let pass = |kept: &[usize]| Verdict::Pass(kept.to_vec(), Plan::default());
        for (rows, verdict) in [
            (&[("a", "pass"), ("b", "pass")][..], pass(&[0, 1])),
            (&[("a", "pass"), ("b", "fail")], Verdict::Fail),
            (&[("a", "pass"), ("b?", "fail")], pass(&[0])),
            (&[("a", "pass"), ("b", "error")], Verdict::Error),
            (&[("a", "pass"), ("b", "bad")], Verdict::Error),
            // an optional one that errs does not fail its group, but colours the failure of it
            (&[("a", "pass"), ("b?", "error")], pass(&[0])),
            (&[("a", "fail"), ("b?", "error")], Verdict::Error),
            // at least one buildpack must pass; an extension is not enough
            (&[("a?", "fail")], Verdict::Fail),
            (&[("+x", "pass"), ("a?", "fail")], Verdict::Fail),
            (&[("+x", "pass"), ("a", "pass")], pass(&[0, 1])),
            (&[("+x", "unused"), ("a", "pass")], pass(&[1])),
            (&[("a", "unused")], Verdict::Fail),
            (&[], Verdict::Fail),
            // targets: a required buildpack fails its group, an optional one is left out
            (&[("a", "pass"), ("b", "target")], Verdict::Error),
            (&[("a", "pass"), ("b?", "target")], pass(&[0])),
        ] {
            assert_eq!(judge(rows).0, verdict, "{rows:?}");
        }
    }

    #[test]
    fn words_of_success() {
        let (_, out) = judge(&[("long/id", "pass"), ("b?", "fail"), ("c?", "error"), ("d?", "x"), ("e", "pass")]);
        let lines: Vec<_> = out.0.iter().map(|(level, text)| (*level, text.as_str())).collect();
        let (debug, info) = (LogLevel::Debug, LogLevel::Info);
        assert_eq!(
            lines,
            [
                (debug, "======== Output: b@1 ========"),
                (debug, "%s \u{fffd}"),
                (info, "======== Output: c@1 ========"),
                (info, "%s \u{fffd}"),
                (debug, "======== Output: d@1 ========"),
                (debug, "%s \u{fffd}"),
                (debug, "======== Results ========"),
                (debug, "pass: long/id@1"),
                (debug, "skip: b@1"),
                (info, "err:  c@1 (7)"),
                (debug, "pass: d@1"),
                (debug, "pass: e@1"),
                (debug, "Resolving plan... (try #1)"),
                (debug, "skip: d@1 provides unused x"),
                (info, "2 of 5 buildpacks participating"),
                (info, "long/id 1"),
                (info, "e       1"),
            ]
        );
    }

    #[test]
    fn words_of_failure() {
        let (_, out) = judge(&[("a", "bad"), ("b", "target")]);
        let text: Vec<_> = out.0.iter().map(|line| line.1.as_str()).collect();
        assert_eq!(
            text,
            [
                "======== Output: a@1 ========",
                "%s \u{fffd}",
                "======== Error: a@1 ========",
                "bad plan",
                "======== Error: b@1 ========",
                "no",
                "======== Results ========",
                "err:  a@1",
                "err:  b@1",
            ]
        );
        let (_, out) = judge(&[("a?", "fail")]);
        assert_eq!(out.0.last().unwrap().1, "fail: no viable buildpacks in group");
    }

    #[test]
    fn told_trials_are_bounded() {
        let four =
            BuildPlan { alternatives: vec![Sections { provides: vec!["x".to_owned()], requires: Vec::new() }; 4] };
        let members: Vec<_> = (0..9).map(|n| member(&format!("m{n}"))).collect();
        let result = DetectResult { output: Vec::new(), code: 0, outcome: DetectOutcome::Pass(four), time: None };
        let outcomes = vec![Outcome::Ran(&result); 9];
        let mut out = Transcript::default();
        assert_eq!(resolve(&members, &outcomes, &mut out), Verdict::Fail);
        assert!(out.0.len() < 300, "{}", out.0.len());
    }
}
