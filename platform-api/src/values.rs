//! The values of a command line: a flag goes before its variable, that before the default.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use crate::{
    Failure, FlagInfo, Flags, PlatformApi,
    flag_table::find,
    flags::{Args, log_inputs},
    inputs::LogInputs,
    names::path::LAYERS_PLACEHOLDER,
};

/// A command line that was read, with the environment behind it.
pub(crate) struct Line<'a> {
    pub(crate) flags: &'a Flags,
    pub(crate) api: PlatformApi,
    pub(crate) log: LogInputs,
    /// `-layers`, absolute.
    pub(crate) layers: PathBuf,
    args: Args,
    cwd: PathBuf,
}

impl<'a> Line<'a> {
    pub(crate) fn new(flags: &'a Flags, api: PlatformApi, args: Args) -> Result<Self, Failure> {
        let mut line = Self::unchecked(flags, api, args);
        line.log = log_inputs(&line)?;
        line.cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        line.layers = line.dir("layers").unwrap_or_default();
        Ok(line)
    }

    /// One of which no value was looked at: where it is read from is not known yet.
    pub(crate) fn unchecked(flags: &'a Flags, api: PlatformApi, args: Args) -> Self {
        let log = LogInputs { level: crate::inputs::LogLevel::Info, no_color: false };
        Self { flags, api, log, layers: PathBuf::new(), args, cwd: PathBuf::new() }
    }

    pub(crate) fn positionals(&self) -> &[OsString] {
        &self.args.positionals
    }

    /// The value of the command line, only.
    pub(crate) fn given(&self, name: &str) -> Option<&OsStr> {
        self.args.given.get(name).and_then(|all| all.last()).map(OsString::as_os_str)
    }

    fn value(&self, name: &str) -> Option<(OsString, FlagInfo)> {
        let flag = find(name)?;
        let from_env = || flag.env.and_then(|env| self.flags.env.get(OsStr::new(env))).filter(|v| !v.is_empty());
        let default = || Some(flag.default).filter(|d| !d.is_empty()).map(OsString::from);
        let value = self.given(name).map(OsStr::to_owned).or_else(|| from_env().cloned()).or_else(default)?;
        Some((value, flag))
    }

    /// Text; bytes that are not UTF-8 (possible in a variable only) are replaced.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.value(name).map(|(value, _)| value.to_string_lossy().into_owned())
    }

    /// A path as given; `<layers>` at its start is the layers directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let Some((value, flag)) = self.value(name) else { return PathBuf::new() };
        let path = PathBuf::from(value);
        if !flag.default.starts_with(LAYERS_PLACEHOLDER) {
            return path;
        }
        path.strip_prefix(LAYERS_PLACEHOLDER).map(|rest| self.layers.join(rest)).unwrap_or(path)
    }

    /// A directory, absolute and without `.` and `..`; `None` where it has neither value nor default.
    pub(crate) fn dir(&self, name: &str) -> Option<PathBuf> {
        let path = self.path(name);
        (!path.as_os_str().is_empty()).then(|| clean(&self.cwd.join(path)))
    }

    /// A directory that has a default.
    pub(crate) fn dir_or_default(&self, name: &str) -> PathBuf {
        self.dir(name).unwrap_or_default()
    }

    /// A boolean; a variable that is no boolean word is false.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.value(name).is_some_and(|(value, _)| is_true(&value))
    }

    /// A user's or group's number; a variable that is no number is 0.
    pub(crate) fn id(&self, name: &str) -> u32 {
        let number = match self.given(name) {
            Some(value) => parse_int(&value.to_string_lossy()),
            None => self.text(name).and_then(|text| text.parse().ok()),
        };
        number.and_then(id).unwrap_or_default()
    }

    /// A span of time; a variable that is none gives the default.
    pub(crate) fn duration(&self, name: &str) -> Duration {
        let default = || find(name).and_then(|flag| parse_duration(flag.default)).unwrap_or_default();
        self.text(name).and_then(|text| parse_duration(&text)).unwrap_or_else(default)
    }

    /// The variable's elements, then the flag's, without empty ones and repetitions.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let from_env = find(name).and_then(|flag| flag.env).and_then(|env| self.flags.env(env)).unwrap_or_default();
        let given = self.args.given.get(name).into_iter().flatten().map(|v| v.to_string_lossy().into_owned());
        unique(from_env.split(',').map(str::to_owned).chain(given))
    }
}

/// Without empty ones and repetitions, in order.
pub(crate) fn unique(all: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for one in all {
        if !one.is_empty() && !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

/// Resolves `.`, `..` and doubled separators by name alone, as Go's `filepath.Clean` does for absolute paths.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

/// The words of Go's `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

pub(crate) fn is_true(value: &OsStr) -> bool {
    value.to_str().and_then(parse_bool) == Some(true)
}

/// An integer as Go's `flag` reads it: a sign, a base prefix (`0x`, `0o`, `0b` or a leading `0`), and `_` between
/// digits.
pub(crate) fn parse_int(text: &str) -> Option<i64> {
    let (negative, body) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let lower = body.to_ascii_lowercase();
    let (radix, digits) = if let Some(hex) = lower.strip_prefix("0x") {
        (16, hex)
    } else if let Some(octal) = lower.strip_prefix("0o") {
        (8, octal)
    } else if let Some(binary) = lower.strip_prefix("0b") {
        (2, binary)
    } else if let Some(octal) = lower.strip_prefix('0').filter(|rest| !rest.is_empty()) {
        (8, octal)
    } else {
        (10, lower.as_str())
    };
    // Where a prefix goes before, an underscore may follow it; elsewhere it stands between digits.
    let digits = if radix == 10 { digits } else { digits.strip_prefix('_').unwrap_or(digits) };
    if digits.starts_with(['_', '+', '-']) || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    let number = i64::from_str_radix(&digits.replace('_', ""), radix).ok()?;
    Some(if negative { -number } else { number })
}

/// A number as an ID. The highest one means "unchanged" to the system, so nobody has it.
pub(crate) fn id(number: i64) -> Option<u32> {
    u32::try_from(number).ok().filter(|id| *id != u32::MAX)
}

/// A span of time as Go's `time.ParseDuration` reads it; a negative one is none at all.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() || seconds == 0.0 && rest.len() == text.len() {
        let unit_at = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
        let (number, after) = rest.split_at_checked(unit_at)?;
        let number: f64 = number.parse().ok()?;
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(end)?;
        seconds += number * unit_seconds(unit)?;
        rest = after;
    }
    if negative { Some(Duration::ZERO) } else { Duration::try_from_secs_f64(seconds).ok() }
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "h" => 3600.0,
        "m" => 60.0,
        "s" => 1.0,
        "ms" => 1e-3,
        "us" | "µs" | "μs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    })
}

/// Warnings about positionals that look like flags: they stand behind the first one that does not.
pub(crate) fn positional_warnings(line: &Line<'_>) -> Vec<String> {
    line.positionals()
        .iter()
        .filter(|arg| arg.as_bytes().starts_with(b"-"))
        .map(|arg| {
            format!(
                "unconsumed flag-like positional arg: {}; it is not read as a flag, as it comes after the first \
                 positional argument",
                arg.to_string_lossy()
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_as_go_reads_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1000", Some(1000)),
            ("+7", Some(7)),
            ("-7", Some(-7)),
            ("0x3E8", Some(1000)),
            ("0o17", Some(15)),
            ("017", Some(15)),
            ("0b11", Some(3)),
            ("0x1_0", Some(16)),
            ("", None),
            ("-", None),
            ("--1", None),
            ("1_000", Some(1000)),
            ("_1", None),
            ("08", None),
            ("1a", None),
            ("0x", None),
            (" 1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_int(text), expected, "{text:?}");
        }
    }

    #[test]
    fn durations_as_go_reads_them() {
        for (text, expected) in [
            ("336h", Some(336 * 3_600_000)),
            ("1h30m", Some(5_400_000)),
            ("1.5s", Some(1500)),
            ("250ms", Some(250)),
            ("0", Some(0)),
            ("-1h", Some(0)),
            ("", None),
            ("12", None),
            ("h", None),
            ("1d", None),
            ("1h2", None),
        ] {
            assert_eq!(parse_duration(text), expected.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn paths_are_cleaned_by_name() {
        for (path, expected) in
            [("/layers/", "/layers"), ("/a/./b/../c", "/a/c"), ("/../a", "/a"), ("/a//b", "/a/b"), ("/", "/")]
        {
            assert_eq!(clean(Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
