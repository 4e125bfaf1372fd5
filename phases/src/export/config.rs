//! What the app image's config says: labels, environment, working directory, entrypoint.

use anyhow::bail;
use image::Image;
use platform_api::{
    BuildMetadata, LauncherInfo, LayersMetadata, ProjectMetadata,
    inputs::ExporterInputs,
    names::path::{LAUNCHER, LIFECYCLE, PROCESS},
};

use crate::labels;

/// What a container starts, and the type of process that is, where there is one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entrypoint {
    pub(super) path: String,
    pub(super) process_type: Option<String>,
}

/// The process the user asked for, else the buildpacks' default one, else the launcher itself.
///
/// # Errors
/// The user asked for a process there is not.
pub(super) fn entrypoint(asked_for: Option<&str>, metadata: &BuildMetadata) -> anyhow::Result<Entrypoint> {
    let default = metadata.default_process.as_ref().map(buildpack_api::ProcessType::as_str);
    if let Some(asked) = asked_for {
        if !metadata.processes.iter().any(|(process, _)| process.r#type.as_str() == asked) {
            bail!("determining entrypoint: tried to set {asked} to default but it doesn't exist");
        }
    }
    Ok(match asked_for.or(default) {
        Some(name) => Entrypoint { path: format!("{PROCESS}/{name}"), process_type: Some(name.to_owned()) },
        None => Entrypoint { path: LAUNCHER.to_owned(), process_type: None },
    })
}

/// The lifecycle's labels, then those of the buildpacks: a later one replaces an earlier one of the same key.
pub(super) fn set_labels(
    image: &mut Image,
    i: &ExporterInputs,
    layers: &LayersMetadata,
    metadata: &BuildMetadata,
    project: &ProjectMetadata,
    lifecycle: &LauncherInfo,
) -> anyhow::Result<()> {
    let mut set = |key: &str, value: String| {
        tracing::info!("Adding label '{key}'");
        image.config.labels.insert(key.to_owned(), value);
    };
    set(labels::LIFECYCLE_METADATA, labels::to_json(layers)?);
    set(labels::BUILD_METADATA, labels::to_json(&metadata.label(lifecycle, i.api))?);
    set(labels::PROJECT_METADATA, labels::to_json(project)?);
    for label in &metadata.labels {
        set(&label.key, label.value.clone());
    }
    if i.api.exec_env() && !i.exec_env.is_empty() {
        set(labels::EXEC_ENV, i.exec_env.clone());
    }
    Ok(())
}

/// How the image is run: what the launcher finds in its environment, and that the launcher is what is started.
pub(super) fn set_runtime(image: &mut Image, i: &ExporterInputs, entrypoint: &Entrypoint) {
    let (layers, app) = (i.layers.display().to_string(), i.app.display().to_string());
    let config = &mut image.config;
    for (name, value) in [
        ("CNB_LAYERS_DIR", layers.as_str()),
        ("CNB_APP_DIR", &app),
        ("CNB_PLATFORM_API", &i.api.to_string()),
        // The user of an image can do nothing about what is deprecated.
        ("CNB_DEPRECATION_MODE", "quiet"),
    ] {
        tracing::debug!("Setting {name}={value}");
        config.set_env(name, value);
    }
    tracing::debug!("Prepending {PROCESS} and {LIFECYCLE} to PATH");
    let path = format!("{PROCESS}:{LIFECYCLE}:{}", config.env_var("PATH").unwrap_or_default());
    config.set_env("PATH", &path);
    tracing::debug!("Setting WORKDIR: '{app}'");
    config.working_dir = app;
    if let Some(name) = &entrypoint.process_type {
        tracing::info!("Setting default process type '{name}'");
    } else {
        tracing::info!("no default process type");
    }
    tracing::debug!("Setting ENTRYPOINT: '{}'", entrypoint.path);
    config.entrypoint = vec![entrypoint.path.clone()];
    config.cmd.clear();
}

#[cfg(test)]
mod tests {
    use buildpack_api::{Process, ProcessType};

    use super::*;

    fn metadata(types: &[&str], default: Option<&str>) -> BuildMetadata {
        let process = |name: &&str| Process {
            r#type: ProcessType::new(*name),
            command: vec!["run".into()],
            args: None,
            direct: true,
            default: false,
            working_dir: None,
            exec_env: vec![],
        };
        BuildMetadata {
            processes: types.iter().map(|t| (process(t), "bp".to_owned())).collect(),
            default_process: default.map(ProcessType::new),
            ..BuildMetadata::default()
        }
    }

    #[test]
    fn which_process_is_started() {
        let both = metadata(&["web", "worker"], Some("web"));
        for (asked, metadata, expected) in [
            (Some("worker"), &both, "/cnb/process/worker"),
            (None, &both, "/cnb/process/web"),
            (None, &metadata(&["web"], None), "/cnb/lifecycle/launcher"),
            (None, &metadata(&[], None), "/cnb/lifecycle/launcher"),
        ] {
            assert_eq!(entrypoint(asked, metadata).unwrap().path, expected);
        }
        let error = entrypoint(Some("job"), &both).unwrap_err().to_string();
        assert!(error.contains("tried to set job to default but it doesn't exist"), "{error}");
    }
}
