//! What stands after an instruction's keyword.

use super::{Command, Copy, Document, Flag, Healthcheck, Instruction, lines::announced};
use crate::{Error, Result, words::split_words};

pub(super) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

pub(super) fn from(rest: &str) -> Result<Instruction> {
    let (_, rest) = flags(rest, &["platform"], &[])?;
    let mut words = rest.split_whitespace();
    let wrong = || Error::new("FROM requires either one or three arguments");
    let image = words.next().ok_or_else(wrong)?.to_owned();
    match (words.next(), words.next(), words.next()) {
        (None, ..) => Ok(Instruction::From { image }),
        (Some(word), Some(_), None) if word.eq_ignore_ascii_case("as") => Ok(Instruction::From { image }),
        _ => Err(wrong()),
    }
}

/// The flags before the arguments, and the arguments. `values` are those that need one, `switches` those that are on or
/// off. All that Docker knows are known here: which of them can be done is not for who reads them.
pub(super) fn flags<'a>(mut rest: &'a str, values: &[&str], switches: &[&str]) -> Result<(Vec<Flag>, &'a str)> {
    let mut flags = Vec::new();
    while let Some(after) = rest.strip_prefix("--") {
        let (flag, next) = after.split_once(char::is_whitespace).unwrap_or((after, ""));
        rest = next.trim_start();
        if flag.is_empty() {
            break;
        }
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        match value {
            None if values.contains(&name) => return Err(Error::new(format!("missing a value on flag: --{name}"))),
            Some(_) if values.contains(&name) => {}
            None | Some("true" | "false") if switches.contains(&name) => {}
            Some(value) if switches.contains(&name) => {
                return Err(Error::new(format!("expecting boolean value for flag --{name}, not: {value}")));
            }
            _ => return Err(Error::new(format!("unknown flag: --{name}"))),
        }
        flags.push(Flag { name: name.to_owned(), value: value.unwrap_or_default().to_owned() });
    }
    Ok((flags, rest))
}

pub(super) fn run(rest: &str, documents: Vec<Document>) -> Result<Instruction> {
    let (flags, rest) = flags(rest, &["mount", "network", "security", "device"], &[])?;
    Ok(Instruction::Run { flags, command: command(rest)?, documents })
}

pub(super) fn volume(rest: &str) -> Result<Instruction> {
    let paths = json(rest)?.unwrap_or_else(|| words(rest));
    if paths.is_empty() {
        return Err(Error::new("VOLUME requires at least one argument"));
    }
    if paths.iter().any(|path| path.trim().is_empty()) {
        return Err(Error::new("VOLUME specified can not be an empty string"));
    }
    Ok(Instruction::Volume(paths))
}

/// An array of strings; `None`: it is no array at all.
pub(super) fn json(text: &str) -> Result<Option<Vec<String>>> {
    let values = text.starts_with('[').then(|| serde_json::from_str::<Vec<serde_json::Value>>(text).ok()).flatten();
    let wrong = || Error::new("arrays must be of strings only");
    let string = |value: serde_json::Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
    values.map(|values| values.into_iter().map(string).collect()).transpose()
}

pub(super) fn command(text: &str) -> Result<Command> {
    Ok(json(text)?.map_or_else(|| Command::Shell(text.to_owned()), Command::Exec))
}

pub(super) fn onbuild(rest: &str) -> Result<Instruction> {
    let keyword = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    if ["ONBUILD", "FROM", "MAINTAINER"].contains(&keyword.as_str()) {
        return Err(Error::new(format!("{keyword} is not allowed as a trigger of ONBUILD")));
    }
    Ok(Instruction::Onbuild(rest.to_owned()))
}

/// `name=value …`, or `name value` where the first word has no `=`.
pub(super) fn pairs(keyword: &str, rest: &str, escape: char) -> Result<Vec<(String, String)>> {
    let words = split_words(rest, escape);
    let first = words.first().map(String::as_str).unwrap_or_default();
    if !first.contains('=') {
        let (name, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::new(format!("{keyword} must have two arguments")))?;
        return Ok(vec![(name.to_owned(), value.trim_start().to_owned())]);
    }
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) => Err(Error::new(format!("{keyword} names can not be blank"))),
        None => Err(Error::new(format!("can't find = in \"{word}\": must be of the form name=value"))),
    };
    words.iter().map(pair).collect()
}

pub(super) fn arguments(rest: &str, escape: char) -> Result<Vec<(String, Option<String>)>> {
    let argument = |word: String| match word.split_once('=') {
        Some(("", _)) => Err(Error::new("ARG names can not be blank")),
        Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
        None => Ok((word, None)),
    };
    split_words(rest, escape).into_iter().map(argument).collect()
}

pub(super) fn copy(keyword: &str, rest: &str, documents: Vec<Document>, escape: char) -> Result<Copy> {
    let (values, switches): (&[&str], &[&str]) = match keyword {
        "COPY" => (&["from", "chown", "chmod", "exclude"], &["link", "parents"]),
        _ => (&["checksum", "chown", "chmod", "exclude"], &["link", "keep-git-dir", "unpack"]),
    };
    let (flags, rest) = flags(rest, values, switches)?;
    let mut sources = json(rest)?.unwrap_or_else(|| words(rest));
    let destination = sources.pop().unwrap_or_default();
    if sources.is_empty() {
        return Err(Error::new(format!("{keyword} requires at least two arguments")));
    }
    sources.retain(|source| announced(source, escape).is_none());
    Ok(Copy { flags, sources, documents, destination })
}

/// `NONE`, or `[--interval=… --timeout=… --start-period=… --start-interval=… --retries=…] CMD <command>`.
pub(super) fn healthcheck(rest: &str) -> Result<Instruction> {
    let known = ["interval", "timeout", "start-period", "start-interval", "retries"];
    let (flags, rest) = flags(rest, &known, &[])?;
    let (kind, command_text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let mut check = Healthcheck { command: None, options: Vec::new() };
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if flags.is_empty() && command_text.trim().is_empty() => return Ok(Instruction::Healthcheck(check)),
        "NONE" => return Err(Error::new("HEALTHCHECK NONE takes no arguments")),
        "CMD" if !command_text.trim().is_empty() => check.command = Some(command(command_text.trim())?),
        "CMD" => return Err(Error::new("missing command after HEALTHCHECK CMD")),
        other => return Err(Error::new(format!("unknown type {other:?} in HEALTHCHECK (try CMD)"))),
    }
    for Flag { name, value } in &flags {
        let key = match name.as_str() {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            _ => "Retries",
        };
        let number = if key == "Retries" { value.parse().ok() } else { nanoseconds(value) };
        let number = number.ok_or_else(|| Error::new(format!("--{name}={value} is not a value for it")))?;
        check.options.push((key, number));
    }
    Ok(Instruction::Healthcheck(check))
}

/// Go's durations: `1m30s`, `500ms`, `1.5h`. At least a millisecond, as Docker asks for, or none.
fn nanoseconds(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() && text != "0" {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    // A century is longer than anybody waits, and fits.
    let valid = !text.is_empty() && (total == 0.0 || (1e6..3.2e18).contains(&total));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was just looked at")]
    valid.then_some(total as u64)
}
