#![no_main]
//! extension.toml.

use std::path::Path;

use buildpack_api::Extension;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(extension) = Extension::parse(Path::new("/nowhere"), text) {
        let escaped = extension.id.escaped();
        assert!(buildpack_api::is_file_name(&escaped), "{escaped:?}");
    }
});
