#![no_main]
//! The check of an extension's Dockerfiles, and the parser of those that are applied.

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "generate uses more of it")]
#[path = "../../phases/src/generate/check.rs"]
mod check;

fuzz_target!(|text: &str| {
    let _ = dockerfile::parse(text);
    let _ = check::check(text, check::DockerfileKind::Build);
    if let Ok(checked) = check::check(text, check::DockerfileKind::Run) {
        assert!(checked.new_base.is_none_or(|base| !base.is_empty()));
    }
});
