#![no_main]
//! What an exec.d executable writes: every variable can be put into an environment.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for (name, value) in buildpack_api::parse_exec_d_output(text).unwrap_or_default() {
        assert!(!name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'));
    }
});
