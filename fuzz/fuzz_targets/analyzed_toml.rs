#![no_main]
//! analyzed.toml: what we write of it says what we read.

use libfuzzer_sys::fuzz_target;
use platform_api::Analyzed;

fuzz_target!(|text: &str| {
    if let Ok(analyzed) = Analyzed::parse(text) {
        let written = analyzed.to_toml();
        let again = Analyzed::parse(&written).expect("what we write can be read");
        assert_eq!(again.to_toml(), written);
    }
});
