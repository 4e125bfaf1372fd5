//! Flags as Go's `flag` package reads them: the grammar every platform calls us with.
//!
//! `-x`, `--x`, `-x=value` and `-x value` (not for a flag that is true or false); parsing ends at the first argument
//! that is no flag, or after `--`. An unknown flag is an error, and so is a missing value; an empty value counts as
//! none, since platforms pass flags on without looking whether they have a value.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use buildpack_api::ApiError;

use crate::{
    Executable, ExitCode, Failure, FlagInfo, FlagKind, PlatformApi, describe, help,
    inputs::{LogInputs, LogLevel},
    names,
    values::{self, Line},
};

/// What a command line came to.
#[derive(Clone, Debug)]
pub enum Parsed<T> {
    /// Run with these inputs.
    Inputs(T),
    /// `-version` was given: print it and exit 0.
    Version,
    /// `-h`: this text goes to stderr, exit 0.
    Help(String),
}

/// Arguments and environment of one call, read flag by flag: a flag goes before its variable, that before the default;
/// an empty value is an absent one.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// After the program's name.
    pub args: Vec<OsString>,
    /// The environment.
    pub env: BTreeMap<OsString, OsString>,
}

impl Flags {
    /// Of this process. The only place that reads them.
    pub fn of_this_process() -> Self {
        Self::with_args(std::env::args_os().skip(1))
    }

    /// Of this process, which knows its arguments from elsewhere. They come without the program's name.
    pub fn with_args(args: impl IntoIterator<Item = OsString>) -> Self {
        let mut env = BTreeMap::new();
        // Of a name that is there twice the first one counts, as for `getenv`.
        for (name, value) in std::env::vars_os() {
            env.entry(name).or_insert(value);
        }
        Self { args: args.into_iter().collect(), env }
    }

    /// A variable of the environment, `None` where unset or empty or not UTF-8.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.env.get(OsStr::new(name)).and_then(|v| v.to_str()).filter(|v| !v.is_empty())
    }

    /// `CNB_PLATFORM_API`, exit code 11 where it is missing or unsupported. platform.md, "Platform API Compatibility".
    pub fn platform_api(&self) -> Result<PlatformApi, Failure> {
        let failure = |text: String| Failure::new(ExitCode::PlatformApi, text);
        let asked = self.env.get(OsStr::new(names::env::PLATFORM_API)).map(|v| v.to_string_lossy()).unwrap_or_default();
        if asked.trim().is_empty() {
            return Err(failure(format!(
                "failed to get platform API version; please set '{}' to specify the desired platform API version",
                names::env::PLATFORM_API
            )));
        }
        asked.parse().map_err(|e| match e {
            ApiError::Malformed(_) => failure(format!("failed to parse platform API '{asked}'")),
            ApiError::Unsupported(_) => failure(format!(
                "failed to set platform API: platform API version '{asked}' is incompatible with the lifecycle"
            )),
        })
    }

    /// Whether the first argument asks for help.
    pub fn ask_for_help(&self) -> bool {
        self.args
            .first()
            .and_then(|arg| arg.to_str())
            .is_some_and(|arg| matches!(arg, "-h" | "-help" | "--h" | "--help"))
    }

    /// Whether colours are unwanted, by flag or variable, whatever else is wrong with the command line of the executable of
    /// this name.
    pub fn ask_for_no_color(&self, name: &str, api: PlatformApi) -> bool {
        let executable = Executable::ALL.into_iter().find(|executable| executable.name() == name);
        let args = executable.and_then(|executable| read_args(&self.args, &describe(executable, api)).ok());
        args.is_some_and(|args| Line::unchecked(self, api, args).is_set("no-color"))
    }

    /// Reads the command line of `executable` and makes its inputs with `read`. The order of checks is the reference's:
    /// syntax, `-version`, log level, then the inputs themselves.
    pub(crate) fn parse<T>(
        &self,
        executable: Executable,
        api: PlatformApi,
        read: impl FnOnce(&Line<'_>) -> Result<T, Failure>,
    ) -> Result<Parsed<T>, Failure> {
        let known = describe(executable, api);
        let read_args = match read_args(&self.args, &known) {
            Ok(read_args) => read_args,
            Err(Syntax::Help) => return Ok(Parsed::Help(help(executable, api))),
            Err(Syntax::Wrong(message)) => {
                return Err(Failure::new(ExitCode::Usage, format!("{message}\n{}", usage(executable, api))));
            }
        };
        if read_args.given.get("version").and_then(|all| all.last()).is_some_and(|v| values::is_true(v)) {
            return Ok(Parsed::Version);
        }
        let line = Line::new(self, api, read_args)?;
        read(&line).map(Parsed::Inputs)
    }
}

/// A command line, split.
#[derive(Clone, Debug, Default)]
pub(crate) struct Args {
    /// Values that are not empty, by flag, in order.
    pub(crate) given: BTreeMap<&'static str, Vec<OsString>>,
    pub(crate) positionals: Vec<OsString>,
}

enum Syntax {
    Help,
    Wrong(String),
}

fn read_args(args: &[OsString], known: &[FlagInfo]) -> Result<Args, Syntax> {
    let mut found = Args::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let Some(body) = flag_body(arg)? else {
            if arg != "--" {
                found.positionals.push(arg.clone());
            }
            break;
        };
        let (name, inline) = match body.iter().position(|b| *b == b'=') {
            Some(at) => (body.get(..at), body.get(at + 1..)),
            None => (Some(body), None),
        };
        let name = String::from_utf8_lossy(name.unwrap_or_default());
        let Some(flag) = known.iter().find(|flag| flag.name == name) else {
            return Err(if matches!(&*name, "h" | "help") {
                Syntax::Help
            } else {
                Syntax::Wrong(format!("flag provided but not defined: -{name}"))
            });
        };
        let value = match (inline, flag.kind) {
            (Some(value), _) => OsString::from_vec(value.to_vec()),
            (None, FlagKind::Bool) => "true".into(),
            (None, _) => rest.next().ok_or_else(|| Syntax::Wrong(format!("flag needs an argument: -{name}")))?.clone(),
        };
        if !value.is_empty() {
            check(flag, &value).map_err(Syntax::Wrong)?;
            found.given.entry(flag.name).or_default().push(value);
        }
    }
    found.positionals.extend(rest.cloned());
    Ok(found)
}

/// What follows the dash or dashes; `None` for an argument that is no flag, and for `--`.
fn flag_body(arg: &OsStr) -> Result<Option<&[u8]>, Syntax> {
    let Some(body) = arg.as_bytes().strip_prefix(b"-") else { return Ok(None) };
    if body.is_empty() || body == b"-" {
        return Ok(None);
    }
    let body = body.strip_prefix(b"-").unwrap_or(body);
    if body.starts_with(b"-") || body.starts_with(b"=") {
        return Err(Syntax::Wrong(format!("bad flag syntax: {}", arg.to_string_lossy())));
    }
    Ok(Some(body))
}

/// Refuses a value that its flag cannot have.
fn check(flag: &FlagInfo, value: &OsStr) -> Result<(), String> {
    let (name, text) = (flag.name, value.to_string_lossy());
    let wrong = |why: &str| Err(format!("invalid value {text:?} for flag -{name}: {why}"));
    match flag.kind {
        FlagKind::Bool if values::parse_bool(&text).is_none() => {
            Err(format!("invalid boolean value {text:?} for -{name}: parse error"))
        }
        FlagKind::Id => match values::parse_int(&text) {
            None => wrong("parse error"),
            Some(number) if values::id(number).is_none() => wrong("value out of range"),
            Some(_) => Ok(()),
        },
        FlagKind::Duration if values::parse_duration(&text).is_none() => wrong("parse error"),
        FlagKind::Text | FlagKind::List if value.to_str().is_none() => wrong("not UTF-8"),
        _ => Ok(()),
    }
}

/// Every flag with its variable and default: what a wrong flag is answered with, and a part of what `-h` shows.
pub fn usage(executable: Executable, api: PlatformApi) -> String {
    use std::fmt::Write as _;
    let mut text = format!("Usage: {} [flags] {}", executable.name(), executable.arguments()).trim_end().to_owned();
    let _ = writeln!(text, "\nFlags at Platform API {api}:");
    for flag in describe(executable, api) {
        let head = format!("  -{} {}", flag.name, flag.kind.word());
        let _ = write!(text, "{}\n    \t{}", head.trim_end(), flag.help);
        let default = Some(flag.default).filter(|d| !d.is_empty() && *d != "false").map(|d| format!("default {d}"));
        let notes: Vec<_> = flag.env.map(str::to_owned).into_iter().chain(default).collect();
        if !notes.is_empty() {
            let _ = write!(text, " ({})", notes.join(", "));
        }
        text.push('\n');
    }
    text
}

/// `-log-level` and `-no-color`; an unknown level is exit code 1.
pub(crate) fn log_inputs(line: &Line<'_>) -> Result<LogInputs, Failure> {
    let word = line.text("log-level").unwrap_or_default();
    let level = match word.to_lowercase().as_str() {
        "debug" => LogLevel::Debug,
        "info" => LogLevel::Info,
        "warn" | "warning" => LogLevel::Warn,
        "error" => LogLevel::Error,
        "fatal" => LogLevel::Fatal,
        _ => return Err(Failure::failed("failed to parse log level: invalid level")),
    };
    Ok(LogInputs { level, no_color: line.is_set("no-color") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        inputs::{AnalyzerInputs, DetectorInputs, ExporterInputs},
        reference,
    };

    fn flags(args: &[&str], env: &[(&str, &str)]) -> Flags {
        Flags {
            args: args.iter().map(Into::into).collect(),
            env: env.iter().map(|(k, v)| (k.into(), v.into())).collect(),
        }
    }

    fn detector(args: &[&str], env: &[(&str, &str)]) -> Result<DetectorInputs, Failure> {
        match DetectorInputs::from_flags(&flags(args, env), PlatformApi::V0_15)? {
            Parsed::Inputs(inputs) => Ok(inputs),
            other => panic!("{other:?}"),
        }
    }

    fn analyzer(args: &[&str], env: &[(&str, &str)]) -> Result<AnalyzerInputs, Failure> {
        match AnalyzerInputs::from_flags(&flags(args, env), PlatformApi::V0_15)? {
            Parsed::Inputs(inputs) => Ok(inputs),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_form_of_a_flag() {
        for args in [&["-app", "/a"][..], &["-app=/a"], &["--app", "/a"], &["--app=/a"], &["-app=/b", "-app=/a"]] {
            assert_eq!(detector(args, &[]).unwrap().app.to_str(), Some("/a"), "{args:?}");
        }
        assert_eq!(analyzer(&["-run-image=a=b", "i"], &[]).unwrap().run_image.as_deref(), Some("a=b"));
        assert_eq!(analyzer(&["-run-image", "-x", "i"], &[]).unwrap().run_image.as_deref(), Some("-x"));
    }

    #[test]
    fn every_form_of_a_boolean() {
        for (args, expected) in [
            (&[][..], false),
            (&["-skip-layers"], true),
            (&["-skip-layers=true"], true),
            (&["-skip-layers=T"], true),
            (&["-skip-layers=1"], true),
            (&["-skip-layers=0"], false),
            (&["-skip-layers=False"], false),
            (&["-skip-layers="], false),
        ] {
            let args: Vec<_> = args.iter().chain(&["img"]).copied().collect();
            assert_eq!(analyzer(&args, &[]).unwrap().skip_layers, expected, "{args:?}");
        }
        // A boolean never takes the next argument.
        assert_eq!(analyzer(&["-skip-layers", "false"], &[]).unwrap().output_image, "false");
        let on = [("CNB_SKIP_LAYERS", "true")];
        assert!(!analyzer(&["-skip-layers=false", "i"], &on).unwrap().skip_layers);
    }

    #[test]
    fn wrong_syntax_is_exit_code_2_and_shows_the_flags() {
        for (args, message) in [
            (&["-nope"][..], "flag provided but not defined: -nope\n"),
            (&["--nope=1"], "flag provided but not defined: -nope\n"),
            (&["-app"], "flag needs an argument: -app\n"),
            (&["---app"], "bad flag syntax: ---app\n"),
            (&["-=x"], "bad flag syntax: -=x\n"),
            (&["-no-color=x"], "invalid boolean value \"x\" for -no-color: parse error\n"),
        ] {
            let failure = detector(args, &[]).unwrap_err();
            assert_eq!(failure.code, ExitCode::Usage, "{args:?}");
            assert!(failure.text.starts_with(message), "{}", failure.text);
            assert!(failure.text.contains("CNB_APP_DIR, default /workspace"), "{}", failure.text);
        }
        for (args, message) in [
            (["-uid", "x"], "invalid value \"x\" for flag -uid: parse error\n"),
            (["-gid", "-1"], "invalid value \"-1\" for flag -gid: value out of range\n"),
            (["-uid", "4294967295"], "invalid value \"4294967295\" for flag -uid: value out of range\n"),
        ] {
            assert!(analyzer(&args, &[]).unwrap_err().text.starts_with(message), "{args:?}");
        }
    }

    #[test]
    fn an_empty_value_is_no_value() {
        let inputs = analyzer(
            &["-uid=", "-daemon=", "-run-image=", "-tag=", "-tag", "", "-insecure-registry=", "-cache-image=", "i"],
            &[("CNB_USER_ID", "7"), ("CNB_RUN_IMAGE", "r"), ("CNB_CACHE_IMAGE", "")],
        )
        .unwrap();
        assert_eq!((inputs.user.uid, inputs.run_image.as_deref()), (7, Some("r")));
        assert!(inputs.tags.is_empty() && inputs.insecure_registries.is_empty() && inputs.cache.image.is_none());
        assert_eq!(detector(&["-layers="], &[("CNB_LAYERS_DIR", "")]).unwrap().layers.to_str(), Some("/layers"));
    }

    #[test]
    fn parsing_ends_at_the_first_positional() {
        let Ok(Parsed::Inputs(inputs)) =
            ExporterInputs::from_flags(&flags(&["a", "-daemon", "b", ""], &[]), PlatformApi::V0_7)
        else {
            panic!()
        };
        assert_eq!(inputs.output_images, ["a", "-daemon", "b"]);
        assert_eq!(inputs.location, crate::inputs::ImageLocation::Registry);
        assert!(inputs.warnings.iter().any(|w| w.contains("unconsumed flag-like positional arg: -daemon")));
        let after = analyzer(&["--", "-x"], &[]).unwrap();
        assert_eq!(after.output_image, "-x");
    }

    #[test]
    fn help_and_version() {
        for arg in ["-h", "-help", "--help"] {
            let parsed = AnalyzerInputs::from_flags(&flags(&[arg], &[]), PlatformApi::V0_9).unwrap();
            let Parsed::Help(text) = parsed else { panic!("{arg}") };
            assert!(text.starts_with("Usage: analyzer [flags] <image>\n"), "{text}");
            assert!(text.contains(reference(Executable::Analyzer).about), "{text}");
            for end in ["\n  CNB_REGISTRY_AUTH\n", "\n   32  analyze failed\n"] {
                assert!(text.contains(end), "{end} is not in {text}");
            }
            assert!(text.contains("-stack path") && !text.contains("-layout"), "{text}");
            assert!(text.contains("(CNB_ANALYZED_PATH, default <layers>/analyzed.toml)"), "{text}");
        }
        for args in [&["-version"][..], &["-version", "-log-level=bad"]] {
            assert!(matches!(AnalyzerInputs::from_flags(&flags(args, &[]), PlatformApi::V0_9), Ok(Parsed::Version)));
        }
    }

    #[test]
    fn log_level() {
        for (word, level) in [("debug", LogLevel::Debug), ("WARNING", LogLevel::Warn), ("", LogLevel::Info)] {
            assert_eq!(detector(&["-log-level", word], &[]).unwrap().log.level, level, "{word}");
        }
        let failure = detector(&[], &[("CNB_LOG_LEVEL", "loud")]).unwrap_err();
        assert_eq!(failure, Failure::failed("failed to parse log level: invalid level"));
    }

    #[test]
    fn platform_api() {
        for (value, text) in [
            (None, "please set 'CNB_PLATFORM_API'"),
            (Some(" "), "please set 'CNB_PLATFORM_API'"),
            (Some("bad"), "failed to parse platform API 'bad'"),
            (Some("0.6"), "failed to set platform API: platform API version '0.6' is incompatible with the lifecycle"),
        ] {
            let env: Vec<_> = value.map(|v| ("CNB_PLATFORM_API", v)).into_iter().collect();
            let failure = flags(&[], &env).platform_api().unwrap_err();
            assert_eq!(failure.code, ExitCode::PlatformApi);
            assert!(failure.text.contains(text), "{}", failure.text);
        }
        assert_eq!(flags(&[], &[("CNB_PLATFORM_API", "0.9")]).platform_api(), Ok(PlatformApi::V0_9));
    }
}
