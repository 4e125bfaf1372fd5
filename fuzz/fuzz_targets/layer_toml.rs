#![no_main]
//! `<layer>.toml`: the metadata that is restored is what was there, and without types.

use buildpack_api::{LayerToml, LayerTypes};
use libfuzzer_sys::fuzz_target;

mod same;

fuzz_target!(|text: &str| {
    if let Ok(layer) = LayerToml::parse(text) {
        let again = LayerToml::parse(&layer.restored_toml()).expect("what we write can be read");
        assert_eq!(again.types, LayerTypes::default());
        let (was, is) = (layer.metadata.unwrap_or_default(), again.metadata.unwrap_or_default());
        assert!(same::tables(&was, &is), "{was:?} {is:?}");
    }
});
