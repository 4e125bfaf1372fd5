#![no_main]
//! The Build Plan of detect, and the Buildpack Plan made of it.

use buildpack_api::{BuildPlan, BuildpackPlan};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(plan) = BuildPlan::parse(text) else { return };
    assert!(!plan.alternatives.is_empty());
    let requires: Vec<_> = plan.alternatives.into_iter().flat_map(|sections| sections.requires).collect();
    let wanted = requires.len();
    let printed = BuildpackPlan { entries: requires }.to_toml();
    let read: toml::Table = printed.parse().expect("what we write can be read");
    let entries = read.get("entries").and_then(|entries| entries.as_array()).map_or(0, Vec::len);
    assert_eq!(entries, wanted);
});
