#![no_main]
//! `<layers>/config/metadata.toml`, as it is read by the exporter and, in the image, by the launcher.

use libfuzzer_sys::fuzz_target;
use phases::labels::to_json;
use platform_api::{BuildMetadata, LauncherInfo, PlatformApi};

fuzz_target!(|text: &str| {
    let Ok(metadata) = BuildMetadata::parse(text) else { return };
    let launcher = LauncherInfo { version: "1".into(), repository: "r".into(), commit: "c".into() };
    for api in [PlatformApi::V0_8, PlatformApi::V0_15] {
        let written = metadata.to_toml(api);
        let again = BuildMetadata::parse(&written).expect("what we write can be read");
        assert_eq!(again.to_toml(api), written);
        if let Err(error) = to_json(&metadata.label(&launcher, api)) {
            // TOML has infinity, JSON has not.
            assert!(error.to_string().contains("cannot be written as JSON"), "{error}");
        }
    }
});
