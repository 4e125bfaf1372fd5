#![no_main]
//! `/etc/os-release` of a build image, and the name of an SBOM file.

use buildpack_api::{Distro, SbomName, Target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = Distro::from_os_release(text);
    let target = Target::default().or_host(Some(text));
    assert!(!target.os.is_empty() && !target.arch.is_empty());
    if let Some(name) = SbomName::parse(text) {
        assert!(text.starts_with(name.of));
    }
});
