#![no_main]
//! Names of images: the canonical form means the same image, and no name leads out of a layout directory.

use std::path::{Component, Path};

use image::{Layout, Reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(reference) = Reference::parse(text) else { return };
    let canonical = reference.to_string();
    let again = Reference::parse(&canonical).expect("the canonical form can be read");
    assert_eq!(again.to_string(), canonical);
    assert!(Reference::same_name(text, text));
    let path = Layout::path_of_reference(Path::new("/layout"), &reference);
    assert!(path.starts_with("/layout"), "{path:?}");
    assert!(!path.components().any(|part| part == Component::ParentDir), "{path:?}");
});
