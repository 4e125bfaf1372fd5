//! Exports on a run image that extensions extended.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::PathBuf;

use acceptance::tree::Entry;
use common::{World, logged};
use image::{Destination, History, Layer, LayerJob, Layout, Owner, Pipeline, Recipe};
use platform_api::{Analyzed, Failure, PlatformApi};

fn to_extend(world: &World) -> Analyzed {
    let mut analyzed = world.analyzed();
    analyzed.run_image.as_mut().unwrap().extend = true;
    analyzed
}

/// What an extender leaves of the run image: a layout without the layers of the base.
fn extended(world: &World) -> PathBuf {
    let dir = world.path("layers/extended/run/sha256:x");
    let source = world.path("made");
    world.write(&[("made", Entry::File("by an extension"))]);
    let mut recipe = Recipe::default();
    recipe.push_file("/etc/extended", &source, 0o644, Owner { uid: 0, gid: 0 }).unwrap();
    let to = Some(Destination::Layout(dir.clone()));
    let job =
        LayerJob { name: "extended".into(), recipe, reusable: vec![], to, cache_to: None, tar_to: None, known: None };
    let made = Pipeline { workers: 1, docker: false, on_event: &|_| {} }.run(vec![job]).unwrap().remove(0);

    let mut image = world.find("run");
    let step = "Layer: 'RUN touch /etc/extended', Created by extension: acme/ext".to_owned();
    let layer = Layer { diff_id: made.diff_id, blob: made.blob, recipe: None };
    image.push(layer, History { created_by: Some(step), ..History::default() });
    image.config.set_env("FROM_EXTENSION", "1");
    image.config.user = "1001".into();
    image.config.labels.insert("io.buildpacks.rebasable".into(), "true".into());
    Layout::put(&image, &dir, None).unwrap();
    dir
}

#[test]
fn an_extended_run_image_gives_its_config_and_its_layers() {
    let world = World::in_registry();
    extended(&world);
    let (report, lines) = logged(|| world.export(&world.exporter("app"), &to_extend(&world), None));
    report.unwrap();
    let app = world.find("app");
    let base = world.find("run").layers.len();
    let history: Vec<_> = app.config.history.iter().filter_map(|step| step.created_by.as_deref()).collect();
    assert_eq!(
        history[..=base],
        ["base etc/os", "base etc/more", "Layer: 'RUN touch /etc/extended', Created by extension: acme/ext"]
    );
    assert_eq!(history[base + 1], "Application Layer");
    assert_eq!(app.config.env_var("FROM_EXTENSION"), Some("1"));
    assert_eq!(app.config.env_var("PATH"), Some("/cnb/process:/cnb/lifecycle:/usr/bin"));
    assert_eq!(app.config.user, "1001");
    assert_eq!(app.config.label("io.buildpacks.rebasable"), Some("true"));
    let name = format!("Adding layer 'acme/ext:extended-layer-{base}'");
    assert!(lines.contains(&name), "{lines:?}");
    assert_eq!(world.registry.missing_blob(&app.layers).unwrap(), None);
    // A rebase replaces the base; what extensions added stays above it, as the label of theirs allows.
    let label = phases::labels::layers_metadata(&app.config).unwrap();
    assert_eq!(label.run_image.top_layer, app.config.diff_ids[base - 1].to_string());
}

#[test]
fn an_extended_run_image_must_be_there_and_be_one() {
    let mut world = World::in_registry();
    let failed = |world: &World| world.export(&world.exporter("app"), &to_extend(world), None).unwrap_err();
    let error = failed(&world);
    let failure = error.downcast_ref::<Failure>().unwrap();
    assert_eq!(failure.text, "failed to get extended image config: missing extended run image");
    extended(&world);
    world.write(&[("layers/extended/run/another", Entry::Dir)]);
    assert!(failed(&world).to_string().contains("to have a single directory"));
    // Run images are extended from Platform API 0.12 on.
    world.api = PlatformApi::V0_11;
    world.export(&world.exporter("app"), &to_extend(&world), None).unwrap();
    assert_eq!(world.find("app").config.env_var("FROM_EXTENSION"), None);
}
