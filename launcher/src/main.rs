//! The launcher: turns itself into a process of the app image, in the environment its buildpacks made.
//!
//! It reads its environment, its arguments, `<layers>` and the app's `.profile`, writes nothing but what goes wrong,
//! and leaves nothing behind: the process has its process ID, its descriptors and its signals.
//!
//! Spec: <https://github.com/buildpacks/spec/blob/main/platform.md#launcher>
// See `main`.
#![cfg_attr(not(test), no_main)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    clippy::unreachable
)]

mod arena;
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
#[cfg(not(test))]
use std::{
    ffi::{CStr, c_char, c_int},
    os::unix::ffi::OsStrExt,
};

use buildpack_api::{ApiError, BuildpackApi};
use platform_api::{
    BuildMetadata, DeprecationMode, ExitCode, Failure, Flags, GroupEntry, Notice, file, inputs::LauncherInputs,
};

use crate::{error::Error, layers::LayerDirs};

#[cfg(not(test))]
#[global_allocator]
static MEMORY: arena::Arena = arena::Arena::new();

/// The entry point without Rust's runtime: that would be a tenth of the executable, and look into /proc and set up a
/// signal stack before every start of an app.
#[cfg(not(test))]
#[allow(unsafe_code)]
// SAFETY: no other symbol of the program is called `main`.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, args: *const *const c_char) -> c_int {
    open_standard_descriptors();
    let count = usize::try_from(count).unwrap_or_default();
    // SAFETY: C hands over so many pointers to strings, which live as long as the process.
    let args = (0..count).map(|at| unsafe { CStr::from_ptr(*args.add(at)) });
    let mut args = args.map(|arg| OsStr::from_bytes(arg.to_bytes()).to_owned());
    let argv0 = args.next().unwrap_or_default();
    run_or_say(&argv0, &Flags::with_args(args)).into()
}

/// Where a standard descriptor is closed the null device takes its place, as with Rust's runtime: else the first file that
/// the process opens would be it.
#[cfg(not(test))]
#[allow(unsafe_code)]
fn open_standard_descriptors() {
    use nix::libc;
    for descriptor in 0..=2 {
        // SAFETY: asks for flags, and opens a device on the lowest number that is free, which nobody owns.
        unsafe {
            if libc::fcntl(descriptor, libc::F_GETFD) == -1 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
}

/// The exit code, where there is one: of what went wrong.
#[cfg_attr(test, expect(dead_code, reason = "tests have another entry point"))]
fn run_or_say(argv0: &OsStr, flags: &Flags) -> u8 {
    exec::ignore_broken_pipes();
    // Known before the inputs are, because they may fail.
    let colour = !matches!(flags.env("CNB_NO_COLOR"), Some("1" | "t" | "T" | "true" | "TRUE" | "True"));
    let Err(failure) = run(argv0, flags, colour);
    say_error(&failure.text, colour);
    failure.code as u8
}

/// Everything up to the exec, and so never back but with a failure.
fn run(argv0: &OsStr, flags: &Flags, colour: bool) -> Result<Infallible, Failure> {
    let inputs = LauncherInputs::from_flags(flags)?;
    let mode = DeprecationMode::from_flags(flags);
    if inputs.api.is_deprecated()
        && refused(mode, &format!("Platform requested deprecated API '{}'", inputs.api), colour)
    {
        let text = format!(
            "failed to set platform API: platform API version '{}' is incompatible with the lifecycle",
            inputs.api
        );
        return Err(Failure::new(ExitCode::PlatformApi, text));
    }
    let metadata = file::parse(&inputs.layers.join("config/metadata.toml"), BuildMetadata::parse)
        .map_err(|e| Failure::failed(format!("failed to read metadata: {e}")))?;
    for buildpack in &metadata.buildpacks {
        check_api(buildpack, mode, colour)?;
    }
    if let Some(ignored) = &inputs.process_type {
        say_warning(&format!("CNB_PROCESS_TYPE is not supported in Platform API {}", inputs.api), colour);
        say_warning(&format!("Run with ENTRYPOINT '{ignored}' to invoke the '{ignored}' process type"), colour);
    }
    launch(argv0, inputs, &metadata).map_err(|e| Failure::new(ExitCode::Launch, format!("failed to launch: {e}")))
}

/// Refuses a buildpack whose API is not one of ours.
fn check_api(buildpack: &GroupEntry, mode: DeprecationMode, colour: bool) -> Result<(), Failure> {
    let GroupEntry { id, api, .. } = buildpack;
    let text = match api.parse::<BuildpackApi>() {
        Ok(known) if !known.is_deprecated() => return Ok(()),
        Ok(_) if !refused(mode, &format!("buildpack '{id}' requests deprecated API '{api}'"), colour) => return Ok(()),
        Ok(_) | Err(ApiError::Unsupported(_)) => {
            format!(
                "failed to set API for buildpack '{id}': buildpack API version '{api}' is incompatible with the lifecycle"
            )
        }
        Err(ApiError::Malformed(_)) => format!("failed to parse buildpack API '{api}' for buildpack '{id}'"),
    };
    Err(Failure::new(ExitCode::BuildpackApi, text))
}

/// Says what the mode wants said of a deprecated API; whether it is refused.
fn refused(mode: DeprecationMode, request: &str, colour: bool) -> bool {
    match mode.decide(request) {
        Notice::Nothing => false,
        Notice::Warn(text) => {
            say_warning(&text, colour);
            false
        }
        Notice::Refuse(lines) => {
            for line in &lines {
                say_error(line, colour);
            }
            true
        }
    }
}

/// platform.md, "launcher", Execution.
fn launch(argv0: &OsStr, inputs: LauncherInputs, metadata: &BuildMetadata) -> Result<Infallible, Error> {
    let start = process::choose(argv0, &inputs, metadata).map_err(|e| e.within("determine start command"))?;

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
    let args = shell::arguments(argv0, &profiles, &app, &start);
    let error = exec::replace(Path::new("/bin/bash"), OsStr::new("bash"), &args, &env);
    Err(Error::io("/bin/bash", &error).within("bash exec"))
}

fn say_error(text: &str, colour: bool) {
    say("ERROR: ", colour.then_some("31;1"), text);
}

fn say_warning(text: &str, colour: bool) {
    say("Warning: ", colour.then_some("33;1"), text);
}

/// One line to stderr, its prefix in colour.
fn say(prefix: &str, colour: Option<&str>, text: &str) {
    let line = match colour {
        Some(colour) => format!("\x1b[{colour}m{prefix}\x1b[0m{text}\n"),
        None => format!("{prefix}{text}\n"),
    };
    // Where stderr is closed there is nobody to tell; the exit code says it all the same.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
