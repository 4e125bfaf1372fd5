//! What the executables share. Each executable is a page: inputs, images, drop privileges, phase, files, exit code.
//! Nothing here is a rule of the spec; those are in the crates below.

mod layers;
pub mod log;
mod otel;
pub mod privileges;
mod progress;
mod signals;
pub mod steps;

use std::process::ExitCode;

use platform_api::{
    ExperimentalFeature, ExperimentalMode, Failure, Flags, Notice, Parsed, PlatformApi, inputs::LogInputs,
};

/// This lifecycle's version, with the commit where the build knows it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit this lifecycle was built from; empty where the build did not say.
pub const COMMIT: &str = match option_env!("LIFECYCLE_COMMIT") {
    Some(commit) => commit,
    None => "",
};
/// Where this lifecycle's source is; empty where the build did not say.
pub const REPOSITORY: &str = match option_env!("LIFECYCLE_REPOSITORY") {
    Some(repository) => repository,
    None => "",
};

/// One executable, from its arguments to its exit code: reads the inputs, logs as they say (`about`: how to log, and
/// the warnings about the inputs themselves), runs `act`, prints the one line that says why it failed.
pub fn run<I>(
    name: &str,
    inputs: impl FnOnce(&Flags, PlatformApi) -> Result<Parsed<I>, Failure>,
    about: fn(&I) -> (LogInputs, &[String]),
    act: impl FnOnce(I, &Flags) -> Result<(), Failure>,
) -> ExitCode {
    let flags = Flags::of_this_process();
    signals::as_expected();
    log::start(name, &flags);
    let read = read_inputs(name, &flags, inputs, about);
    let acted = read.and_then(|inputs| {
        let Some(inputs) = inputs else { return Ok(()) };
        let span = otel::start(&flags, name == "creator");
        let acted = act(inputs, &flags);
        if let Some(span) = span {
            span.end(acted.is_ok());
        }
        acted
    });
    match acted {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure);
            ExitCode::from(failure.code as u8)
        }
    }
}

/// `None`: the answer was `-version` or `-h`, and is printed.
fn read_inputs<I>(
    name: &str,
    flags: &Flags,
    inputs: impl FnOnce(&Flags, PlatformApi) -> Result<Parsed<I>, Failure>,
    about: fn(&I) -> (LogInputs, &[String]),
) -> Result<Option<I>, Failure> {
    // Whoever asks for help may not know of the variable yet.
    let api = flags
        .platform_api()
        .or_else(|failure| PlatformApi::ALL.last().copied().filter(|_| flags.ask_for_help()).ok_or(failure))?;
    let no_color = || log::set_colour(flags.ask_for_no_color(name, api));
    let inputs = match inputs(flags, api).inspect_err(|_| no_color())? {
        Parsed::Inputs(inputs) => inputs,
        Parsed::Version => {
            // An answer, and no line of the log.
            print(&mut std::io::stdout(), &version());
            return Ok(None);
        }
        Parsed::Help(text) => {
            print(&mut std::io::stderr(), &text);
            return Ok(None);
        }
    };
    let (log, warnings) = about(&inputs);
    log::set(log);
    tracing::debug!("Starting {name}...");
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(Some(inputs))
}

/// `<version>`, or `<version>+<commit>`.
pub fn version() -> String {
    if COMMIT.is_empty() || VERSION.contains(COMMIT) { VERSION.to_owned() } else { format!("{VERSION}+{COMMIT}") }
}

/// Exit code 1 where an experimental feature is asked for and `CNB_EXPERIMENTAL_MODE` does not allow it.
pub fn guard_experimental(flags: &Flags, feature: ExperimentalFeature) -> Result<(), Failure> {
    match ExperimentalMode::from_flags(flags).decide(feature) {
        Notice::Nothing => Ok(()),
        Notice::Warn(text) => {
            tracing::warn!("{text}");
            Ok(())
        }
        Notice::Refuse(lines) => {
            for line in lines {
                tracing::error!("{line}");
            }
            Err(ExperimentalMode::failure())
        }
    }
}

/// The last line of a run that failed. A usage text is printed as it is, as Go's flag package does.
fn report(failure: &Failure) {
    let is_usage = failure.code == platform_api::ExitCode::Usage;
    let text = match failure.text.split_once('\n') {
        Some((first, _)) if is_usage && log::is_json() => first,
        _ if is_usage => return print(&mut std::io::stderr(), &failure.text),
        _ => &failure.text,
    };
    tracing::error!(exit_code = failure.code as u8, "{text}");
}

fn print(to: &mut dyn std::io::Write, text: &str) {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    // Nobody left to tell, should it be closed.
    let _ = write!(to, "{text}{end}");
}

/// A phase's error at its door: a [`Failure`] in the chain keeps its own code, any other takes the phase's. What an
/// unsupported API or a wrong argument comes to is a whole sentence already.
pub fn in_phase(code: platform_api::ExitCode, action: &str, error: &anyhow::Error) -> Failure {
    use platform_api::ExitCode::{BuildpackApi, InvalidArgs};
    match error.chain().find_map(|cause| cause.downcast_ref::<Failure>()) {
        Some(failure) if matches!(failure.code, BuildpackApi | InvalidArgs) => failure.clone(),
        own => Failure::new(own.map_or(code, |failure| failure.code), format!("failed to {action}: {}", chain(error))),
    }
}

/// The error and its causes with `: ` between, those of the system in the words that platforms know.
pub fn chain(error: &anyhow::Error) -> String {
    in_known_words(error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": "))
}

/// A text in which errors of the system are as platforms know them, wherever it has them from.
fn in_known_words(mut text: String) -> String {
    const CODE: &str = " (os error ";
    while let Some(at) = text.find(CODE) {
        let digits = text.get(at + CODE.len()..).and_then(|rest| rest.split(')').next());
        let Some(error) = digits.and_then(|code| code.parse().ok()).map(std::io::Error::from_raw_os_error) else {
            break;
        };
        let named = error.to_string();
        if !text.contains(&named) {
            break;
        }
        text = text.replace(&named, &buildpack_api::io_text(&error));
    }
    text
}

#[cfg(test)]
mod tests {
    use platform_api::ExitCode;

    use super::*;

    #[test]
    fn a_failure_in_the_chain_keeps_its_code() {
        let failed = |code, text: &str| anyhow::Error::from(Failure::new(code, text)).context("running acme/x");
        let at_the_door = |error| in_phase(ExitCode::Build, "build", &error);
        for (error, code, text) in [
            (anyhow::anyhow!("disk full"), ExitCode::Build, "failed to build: disk full"),
            (
                failed(ExitCode::BuildpackBuild, "exit status 1"),
                ExitCode::BuildpackBuild,
                "failed to build: running acme/x: exit status 1",
            ),
            (failed(ExitCode::BuildpackApi, "failed to set API"), ExitCode::BuildpackApi, "failed to set API"),
        ] {
            let failure = at_the_door(error);
            assert_eq!((failure.code, failure.text.as_str()), (code, text));
        }
    }

    #[test]
    fn causes_are_told_in_the_words_platforms_know() {
        use anyhow::Context as _;
        let error = std::fs::read("/nonesuch").context("read /nonesuch").unwrap_err();
        assert_eq!(chain(&error), "read /nonesuch: no such file or directory");
        assert_eq!(in_phase(ExitCode::Build, "build", &error).text, format!("failed to build: {}", chain(&error)));
        for (text, known) in [
            ("layer x: No such file or directory (os error 2), twice", "layer x: no such file or directory, twice"),
            (
                "a: Permission denied (os error 13); b: No such file or directory (os error 2)",
                "a: permission denied; b: no such file or directory",
            ),
            ("Ours (os error 2)", "Ours (os error 2)"),
            ("ours (os error ", "ours (os error "),
            ("ours (os error 99999999999)", "ours (os error 99999999999)"),
        ] {
            assert_eq!(in_known_words(text.to_owned()), known);
        }
    }
}
