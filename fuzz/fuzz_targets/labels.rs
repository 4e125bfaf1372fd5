#![no_main]
//! The labels of a previous image and of a cache, and their way through analyzed.toml.

use image::{Config, Image};
use libfuzzer_sys::fuzz_target;
use phases::labels::{self, cache_metadata, layers_metadata, string_list, to_json};
use platform_api::Analyzed;

fuzz_target!(|text: &str| {
    let cached = cache_metadata(text);
    to_json(&cached).expect("a label");
    let mut image = Image { config: Config::default(), ..Image::default() };
    image.config.labels.insert(labels::LIFECYCLE_METADATA.into(), text.into());
    image.config.labels.insert(labels::STACK_MIXINS.into(), text.into());
    let _ = string_list(&image, labels::STACK_MIXINS);
    let Ok(metadata) = layers_metadata(&image.config) else { return };
    let label = to_json(&metadata).expect("a label");
    image.config.labels.insert(labels::LIFECYCLE_METADATA.into(), label.clone());
    let again = layers_metadata(&image.config).expect("what we write can be read");
    assert_eq!(to_json(&again).expect("a label"), label);

    let file = Analyzed { metadata, ..Analyzed::default() }.to_toml();
    let restored = Analyzed::parse(&file).expect("what we write can be read").metadata;
    assert_eq!(restored.buildpacks.len(), again.buildpacks.len());
});
