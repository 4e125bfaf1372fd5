//! The launcher: turns itself into a process of the app image, in the environment its buildpacks made.
//!
//! It reads its environment, its arguments, `<layers>` and the app's `.profile`, writes nothing but what goes wrong,
//! and leaves nothing behind: the process has its process ID, its descriptors and its signals.
//!
//! Spec: <https://github.com/buildpacks/spec/blob/main/platform.md#launcher>
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    clippy::unreachable
)]

mod env;
mod error;
mod exec;
mod exec_d;
mod layers;
mod process;
mod shell;

use std::{
    convert::Infallible,
    env::set_current_dir,
    ffi::OsStr,
    io::Write,
    path::{Path, absolute},
};

use buildpack_api::BuildpackApi;
use platform_api::{BuildMetadata, ExitCode, Failure, Flags, file, inputs::LauncherInputs};

use crate::{error::Error, layers::LayerDirs};

fn main() -> std::process::ExitCode {
    let flags = Flags::of_this_process();
    let colour = !matches!(flags.env("CNB_NO_COLOR"), Some("1" | "t" | "T" | "true" | "TRUE" | "True"));
    let Err(failure) = run(&flags, colour);
    say("ERROR: ", if colour { "31;1" } else { "" }, &failure.text);
    std::process::ExitCode::from(failure.code as u8)
}

/// Everything up to the exec, and so never back but with a failure.
fn run(flags: &Flags, colour: bool) -> Result<Infallible, Failure> {
    let inputs = LauncherInputs::from_flags(flags)?;
    let metadata = file::parse(&inputs.layers.join("config/metadata.toml"), BuildMetadata::parse)
        .map_err(|e| Failure::failed(format!("failed to read metadata: {e}")))?;
    check_buildpack_apis(&metadata)?;
    if let Some(ignored) = &inputs.process_type {
        let yellow = if colour { "33;1" } else { "" };
        say("Warning: ", yellow, &format!("CNB_PROCESS_TYPE is not supported in Platform API {}", inputs.api));
        say("Warning: ", yellow, &format!("Run with ENTRYPOINT '{ignored}' to invoke the '{ignored}' process type"));
    }
    launch(inputs, &metadata).map_err(|e| Failure::new(ExitCode::Launch, format!("failed to launch: {e}")))
}

fn check_buildpack_apis(metadata: &BuildMetadata) -> Result<(), Failure> {
    for buildpack in &metadata.buildpacks {
        if let Err(e) = buildpack.api.parse::<BuildpackApi>() {
            let text = format!("failed to set API for buildpack '{}': buildpack {e}", buildpack.id);
            return Err(Failure::new(ExitCode::BuildpackApi, text));
        }
    }
    Ok(())
}

/// platform.md, "launcher", Execution.
fn launch(inputs: LauncherInputs, metadata: &BuildMetadata) -> Result<Infallible, Error> {
    let argv0 = std::env::args_os().next().unwrap_or_default();
    let start = process::choose(&argv0, &inputs, metadata).map_err(|e| e.within("determine start command"))?;

    // Made absolute while the working directory is still ours.
    let app = absolute(&inputs.app).map_err(|e| Error::io("change to app directory", &e))?;
    let layers = absolute(&inputs.layers).map_err(|e| Error::io("find layers directory", &e))?;
    set_current_dir(&app)
        .map_err(|e| Error::io(&format!("chdir {}", app.display()), &e).within("change to app directory"))?;

    let layers = LayerDirs::find(&layers, &metadata.buildpacks)?;
    let mut env =
        env::launch_env(inputs.inherited, &layers, start.process_type()).map_err(|e| e.within("modify env"))?;
    exec_d::run_all(&layers, start.process_type(), &mut env).map_err(|e| e.within("exec.d"))?;

    if start.direct {
        return Err(exec::direct(&start, &env));
    }
    let profiles = shell::profiles(&layers, start.process_type(), &app).map_err(|e| e.within("find profiles"))?;
    let args = shell::arguments(&argv0, &profiles, &app, &start);
    let error = exec::replace(Path::new("/bin/bash"), OsStr::new("bash"), &args, &env);
    Err(Error::io("/bin/bash", &error).within("bash exec"))
}

/// One line to stderr. `colour` is that of the prefix, empty for none.
fn say(prefix: &str, colour: &str, text: &str) {
    let line =
        if colour.is_empty() { format!("{prefix}{text}\n") } else { format!("\x1b[{colour}m{prefix}\x1b[0m{text}\n") };
    // Where stderr is closed there is nobody to tell; the exit code says it all the same.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
