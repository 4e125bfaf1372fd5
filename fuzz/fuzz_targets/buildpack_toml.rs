#![no_main]
//! buildpack.toml.

use std::path::Path;

use buildpack_api::Buildpack;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(buildpack) = Buildpack::parse(Path::new("/nowhere"), text) {
        let escaped = buildpack.id.escaped();
        assert!(buildpack_api::is_file_name(&escaped), "{escaped:?}");
    }
});
