#![no_main]
//! store.toml: what is restored is what was stored.

use buildpack_api::Store;
use libfuzzer_sys::fuzz_target;

mod same;

fuzz_target!(|text: &str| {
    if let Ok(store) = Store::parse(text) {
        let again = Store::parse(&store.to_toml()).expect("what we write can be read");
        assert!(same::tables(&store.metadata, &again.metadata), "{store:?} {again:?}");
    }
});
