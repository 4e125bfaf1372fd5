//! Detection: finds the first group of the order that fits the app, and its build plan.
//!
//! Three steps, each in a file of its own: an order is expanded into groups (`order.rs`), the members of a group are
//! run (`run.rs`), and their results judged (`resolve.rs`, `trial.rs`). Only the second does anything.
//!
//! Spec: buildpack.md "Phase #1: Detection"; platform.md "detector".

mod order;
mod resolve;
mod run;
mod trial;

use std::{cell::RefCell, rc::Rc};

use anyhow::Context as _;
use buildpack_api::{Context, Env, Kind, OrderElement, Target, exec_env_applies};
use platform_api::{
    ExitCode, Failure, Group, GroupEntry, OrderFile, Plan, System, TargetData,
    inputs::{DetectorInputs, LogLevel},
};

use crate::os_release;
use order::{Found, Member};
use resolve::{Outcome, Verdict};
use run::{Modules, Runs};

/// What detection came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detected {
    pub group: Group,
    pub plan: Plan,
}

/// What detection has to say, with the level of each line. Who calls prints all of it on failure, and on success what
/// the log level lets through.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcript(pub Vec<(LogLevel, String)>);

impl Transcript {
    fn say(&mut self, level: LogLevel, text: impl Into<String>) {
        self.0.push((level, text.into()));
    }
}

/// Finds the group that builds the app.
///
/// # Errors
/// A [`Failure`] where no group passes (exit code 20), or none does and a buildpack of one is broken (21), or where a
/// module wants a Buildpack API that is not ours (12). Otherwise: a module that is missing or malformed, or composite
/// buildpacks in a circle.
pub fn detect(
    inputs: &DetectorInputs,
    order: &OrderFile,
    system: &System,
    target: Option<&TargetData>,
    out: &mut Transcript,
) -> anyhow::Result<Detected> {
    let buildpacks =
        if inputs.api.system_buildpacks() { order::with_system(&order.order, system) } else { order.order.clone() };
    let modules = RefCell::new(Modules::new(&inputs.dirs));
    for (kind, order) in [(Kind::Buildpack, &buildpacks), (Kind::Extension, &order.order_extensions)] {
        for element in order.0.iter().flat_map(|group| &group.group) {
            modules.borrow_mut().get(kind, &element.id, &element.version)?;
        }
    }

    let (target, lines) = os_release::completed(target);
    out.0.extend(lines);
    let context = context(inputs, target);
    let mut runs = Runs::default();
    let (mut found, mut errored) = (None, false);
    let out = RefCell::new(out);
    let find = |kind, element: &OrderElement| find(inputs, &modules, kind, element, &mut out.borrow_mut());
    order::expand(&buildpacks, &order.order_extensions, find, |members| {
        match try_group(inputs, &mut modules.borrow_mut(), &mut runs, &context, members, &mut out.borrow_mut())? {
            Ok(detected) => found = Some(detected),
            Err(is_error) => errored |= is_error,
        }
        Ok(found.is_some())
    })?;
    found.ok_or_else(|| no_group_passed(errored, &mut out.borrow_mut()).into())
}

/// What a module is told, by detect and by generate.
pub(crate) fn context(inputs: &DetectorInputs, target: Target) -> Context {
    Context {
        app: inputs.app.clone(),
        platform: inputs.platform.clone(),
        build_config: Some(inputs.build_config.clone()),
        target,
        no_color: inputs.log.no_color,
        exec_env: inputs.exec_env.clone(),
        env: Env::for_build(inputs.inherited.iter().cloned()),
    }
}

fn no_group_passed(errored: bool, out: &mut Transcript) -> Failure {
    out.say(LogLevel::Error, "No buildpack groups passed detection.");
    if errored {
        return Failure::new(ExitCode::DetectionErrored, "buildpack(s) failed with err");
    }
    out.say(LogLevel::Error, "Please check that you are running against the correct path.");
    Failure::new(ExitCode::NoDetection, "no buildpacks participating")
}

/// What an element of an order is, here and now.
fn find(
    inputs: &DetectorInputs,
    modules: &RefCell<Modules<'_>>,
    kind: Kind,
    element: &OrderElement,
    out: &mut Transcript,
) -> anyhow::Result<Found> {
    let mut modules = modules.borrow_mut();
    let module = modules.get(kind, &element.id, &element.version)?;
    let current = inputs.exec_env.as_str();
    if inputs.api.exec_env() && !current.is_empty() {
        for declared in [&element.exec_env, &module.exec_env] {
            if !exec_env_applies(declared, current) {
                let name = format!("{}@{}", element.id, element.version);
                let text = format!(
                    "Skipping {name} due to execution environment mismatch; current: {current}, buildpack supports: \
                     [{}]",
                    declared.join(" ")
                );
                out.say(LogLevel::Debug, text);
                return Ok(Found::Absent);
            }
        }
    }
    Ok(module.order.as_ref().map_or(Found::Component, |order| Found::Composite(Rc::clone(order))))
}

/// Runs the members of a group that have not run, and judges the group. `Err`: it did not pass; whether because of a
/// broken member.
fn try_group(
    inputs: &DetectorInputs,
    modules: &mut Modules<'_>,
    runs: &mut Runs,
    context: &Context,
    members: &[Member],
    out: &mut Transcript,
) -> anyhow::Result<Result<Detected, bool>> {
    let mut mismatches = Vec::new();
    let mut due = Vec::new();
    for member in members {
        let module = modules.get(member.kind, &member.id, &member.version)?;
        let mismatch = if inputs.api.target_data() { module.mismatch(&context.target) } else { None };
        if mismatch.is_none() && !runs.has(member) {
            due.push((member, Rc::clone(&module)));
        }
        mismatches.push(mismatch);
    }
    runs.run(&due, context);
    let mut outcomes = Vec::new();
    for (member, mismatch) in members.iter().zip(&mismatches) {
        outcomes.push(match mismatch {
            Some(text) => Outcome::WrongTarget(text),
            None => Outcome::Ran(runs.get(member).with_context(|| format!("{}: no result", member.full_name()))?),
        });
    }
    let (kept, plan) = match resolve::resolve(members, &outcomes, out) {
        Verdict::Pass(kept, plan) => (kept, plan),
        Verdict::Fail => return Ok(Err(false)),
        Verdict::Error => return Ok(Err(true)),
    };
    let mut group = Group::default();
    for member in kept.into_iter().filter_map(|index| members.get(index)) {
        let entry = modules.get(member.kind, &member.id, &member.version)?.entry.clone();
        match member.kind {
            Kind::Buildpack => group.buildpacks.push(entry),
            Kind::Extension => group.extensions.push(GroupEntry { optional: true, ..entry }),
        }
    }
    Ok(Ok(Detected { group, plan }))
}
