#![no_main]
//! A base image's config: what we write of it we read as the same.

use image::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(mut config) = Config::parse(data) {
        let written = config.to_json();
        let again = Config::parse(&written).expect("what we write can be read");
        assert_eq!(again.to_json(), written);
        config.set_env("PATH", "/cnb/process");
        config.stamp("1980-01-01T00:00:01Z");
        assert_eq!(config.env_var("PATH"), Some("/cnb/process"));
    }
});
