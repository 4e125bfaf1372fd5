#![no_main]
//! launch.toml, at every Buildpack API.

mod api;

use buildpack_api::Launch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((api, text)) = api::api_and_text(data) else { return };
    if let Ok(launch) = Launch::parse(text, api) {
        assert!(launch.processes.iter().all(|process| !process.command.is_empty()));
        assert!(launch.processes.iter().filter(|process| process.default).count() <= 1);
    }
});
