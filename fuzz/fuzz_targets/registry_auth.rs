#![no_main]
//! `CNB_REGISTRY_AUTH` and docker's config.json.

use image::Keychain;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let registries = ["index.docker.io".to_owned(), "example.com/some/app".to_owned()];
    if let Ok(keychain) = Keychain::resolve(Some(text), &registries, &|_| None) {
        for registry in &registries {
            let _ = keychain.credentials(registry);
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("config.json"), text.replace("cred", "")).expect("a config");
    let config = dir.path().to_string_lossy().into_owned();
    let env = |name: &str| (name == "DOCKER_CONFIG").then(|| config.clone());
    // No registry is asked for, so no helper runs.
    Keychain::resolve(None, &[], &env).expect("a config is no error");
});
