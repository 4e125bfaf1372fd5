#![no_main]
//! order.toml, system.toml, group.toml, plan.toml, run.toml, stack.toml and project-metadata.toml.

use libfuzzer_sys::fuzz_target;
use phases::labels::to_json;
use platform_api::{Group, OrderFile, Plan, PlatformApi, ProjectMetadata, RunImages, System};

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match first % 7 {
        0 => drop(OrderFile::parse(text)),
        1 => drop(System::parse(text)),
        2 => drop(RunImages::parse(text, PlatformApi::V0_11)),
        3 => drop(RunImages::parse(text, PlatformApi::V0_15)),
        4 => {
            if let Ok(project) = ProjectMetadata::parse(text) {
                if let Err(error) = to_json(&project) {
                    // TOML has infinity, JSON has not.
                    assert!(error.to_string().contains("cannot be written as JSON"), "{error}");
                }
            }
        }
        5 => {
            if let Ok(group) = Group::parse(text) {
                let again = Group::parse(&group.to_toml()).expect("what we write can be read");
                let names = |group: &Group| -> Vec<_> {
                    group.buildpacks.iter().chain(&group.extensions).map(|entry| entry.full_name()).collect()
                };
                assert_eq!(names(&group), names(&again));
                let _ = group.check_apis();
            }
        }
        _ => {
            if let Ok(plan) = Plan::parse(text) {
                let again = Plan::parse(&plan.to_toml()).expect("what we write can be read");
                assert_eq!(plan.entries.len(), again.entries.len());
            }
        }
    }
});
