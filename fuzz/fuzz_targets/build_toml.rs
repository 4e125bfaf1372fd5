#![no_main]
//! build.toml.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(build) = buildpack_api::BuildToml::parse(text) {
        assert!(build.unmet.iter().all(|name| !name.is_empty()));
    }
});
