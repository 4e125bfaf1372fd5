//! What the spec demands of an extension's Dockerfiles, checked before anybody builds with them. Only instructions
//! are told apart here; their arguments are the extender's business.
//!
//! Spec: `image_extension.md` "Dockerfile Requirements".

use anyhow::bail;

/// Which base image a Dockerfile is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DockerfileKind {
    Build,
    Run,
}

impl DockerfileKind {
    /// `build`, `run`
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Run => "run",
        }
    }

    /// `build.Dockerfile`, `run.Dockerfile`
    pub(super) fn file_name(self) -> &'static str {
        match self {
            Self::Build => "build.Dockerfile",
            Self::Run => "run.Dockerfile",
        }
    }
}

/// What a Dockerfile does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Checked {
    /// The base image it switches to, as written.
    pub(super) new_base: Option<String>,
    /// It has instructions beside `FROM`.
    pub(super) extends: bool,
    /// Sentences for the user.
    pub(super) warnings: Vec<String>,
}

const BASE_IMAGE: &str = "base_image";
const FROM_BASE_IMAGE: &str = "${base_image}";
/// What extensions "MAY contain".
const RECOMMENDED: [&str; 9] = ["ADD", "ARG", "COPY", "ENV", "LABEL", "RUN", "SHELL", "USER", "WORKDIR"];
/// What they "SHOULD NOT contain".
const OTHERS: [&str; 8] =
    ["CMD", "ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "MAINTAINER", "ONBUILD", "STOPSIGNAL", "VOLUME"];

/// Checks a Dockerfile.
///
/// # Errors
/// It is no Dockerfile, or breaks a rule of its kind.
pub(super) fn check(text: &str, kind: DockerfileKind) -> anyhow::Result<Checked> {
    let file = kind.file_name();
    let instructions = instructions(text)?;
    let stages: Vec<&Instruction> = instructions.iter().filter(|i| i.keyword == "FROM").collect();
    if stages.len() > 1 {
        bail!("{file} is not permitted to use multistage build");
    }
    let from = instructions.iter().position(|i| i.keyword == "FROM").unwrap_or(instructions.len());
    let (global, commands) = instructions.split_at(from);
    if let Some(early) = global.iter().find(|i| i.keyword != "ARG") {
        bail!("line {}: {} before FROM: no build stage in current context", early.line, early.keyword);
    }
    let mut checked = Checked::default();
    let commands = commands.get(1..).unwrap_or_default();
    checked.extends = !commands.is_empty();
    for Instruction { keyword, line, .. } in commands {
        if !RECOMMENDED.contains(&keyword.as_str()) {
            checked.warnings.push(format!("{file} command {keyword} on line {line} is not recommended"));
        }
    }
    if kind == DockerfileKind::Build && !matches!(global, [arg] if declares_base_image(arg)) {
        bail!("{file} did not start with required ARG command");
    }
    let [from] = stages.as_slice() else { bail!("{file} should have at least one stage") };
    let base = base_of(from)?;
    if base != FROM_BASE_IMAGE {
        if kind == DockerfileKind::Build {
            bail!("{file} did not contain required FROM {FROM_BASE_IMAGE} command");
        }
        checked.new_base = Some(base.to_owned());
    }
    Ok(checked)
}

fn declares_base_image(arg: &Instruction) -> bool {
    let first = arg.args.split_whitespace().next().unwrap_or_default();
    first.split('=').next() == Some(BASE_IMAGE)
}

/// The image of `FROM [--platform=…] <image> [AS <name>]`.
fn base_of(from: &Instruction) -> anyhow::Result<&str> {
    let mut words = from.args.split_whitespace().skip_while(|word| word.starts_with("--"));
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(base), None, None, None) => Ok(base),
        (Some(base), Some(word), Some(_), None) if word.eq_ignore_ascii_case("as") => Ok(base),
        _ => bail!("line {}: FROM requires either one or three arguments", from.line),
    }
}

struct Instruction {
    /// Upper case.
    keyword: String,
    /// Continued lines joined; without the here-documents.
    args: String,
    /// Where it begins, from 1.
    line: usize,
}

/// The instructions of a Dockerfile.
fn instructions(text: &str) -> anyhow::Result<Vec<Instruction>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let escape = escape_of(text);
    let mut found = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((first, line)) = lines.next() {
        if is_skipped(first) {
            continue;
        }
        let mut whole = first.trim_start().to_owned();
        while let Some(without) = continued(&whole, escape) {
            whole = without.to_owned();
            // Comments and empty lines between continued lines do not end the instruction.
            match lines.by_ref().find(|(next, _)| !is_skipped(next)) {
                Some((next, _)) => whole.push_str(next),
                None => break,
            }
        }
        let (keyword, args) = whole.split_once(char::is_whitespace).unwrap_or((&whole, ""));
        let keyword = keyword.to_ascii_uppercase();
        if keyword != "FROM" && !RECOMMENDED.contains(&keyword.as_str()) && !OTHERS.contains(&keyword.as_str()) {
            bail!("line {line}: unknown instruction: {keyword}");
        }
        if matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
            for (name, strip_tabs) in here_documents(args) {
                let is_end = |text: &str| if strip_tabs { text.trim_start_matches('\t') } else { text } == name;
                if !lines.by_ref().any(|(text, _)| is_end(text)) {
                    bail!("line {line}: unterminated heredoc {name}");
                }
            }
        }
        found.push(Instruction { args: args.trim().to_owned(), keyword, line });
    }
    if found.is_empty() {
        bail!("file with no instructions");
    }
    Ok(found)
}

fn is_skipped(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// The line without the escape that continues it.
fn continued(line: &str, escape: char) -> Option<&str> {
    line.trim_end().strip_suffix(escape)
}

/// Of `# escape=` among the directives at the very top.
fn escape_of(text: &str) -> char {
    for line in text.lines() {
        let Some((name, value)) = line.trim().strip_prefix('#').and_then(|comment| comment.split_once('=')) else {
            break;
        };
        if name.trim().eq_ignore_ascii_case("escape") && value.trim() == "`" {
            return '`';
        }
    }
    '\\'
}

/// The names of the here-documents that a line announces, in order, and whether tabs before their ends count.
fn here_documents(args: &str) -> Vec<(String, bool)> {
    let name = |word: &str| {
        let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
        let (rest, strip_tabs) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
        let name = rest.replace(['"', '\''], "");
        (!name.is_empty() && !rest.contains('<')).then_some((name, strip_tabs))
    };
    args.split_whitespace().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::{DockerfileKind::*, *};

    #[test]
    fn dockerfiles_that_are_right() {
        for (kind, text, new_base, extends, warnings) in [
            (Build, "ARG base_image\nFROM ${base_image}", None, false, &[][..]),
            (Build, "arg base_image=x\nfrom ${base_image}\nRUN true", None, true, &[]),
            (Build, "# c\n\nARG base_image\n\n FROM ${base_image} AS x\nUSER 1", None, true, &[]),
            (Run, "FROM ${base_image}", None, false, &[]),
            (Run, "ARG base_image\nARG other\nFROM ${base_image}\nRUN x", None, true, &[]),
            (Run, "FROM some/image@sha256:1", Some("some/image@sha256:1"), false, &[]),
            (Run, "FROM --platform=linux/amd64 some/image\nENV a=b", Some("some/image"), true, &[]),
            // another spelling is another image
            (Run, "FROM $base_image", Some("$base_image"), false, &[]),
            (
                Run,
                "FROM x\nCMD y\nRUN z\n\nMAINTAINER a\n",
                Some("x"),
                true,
                &[
                    "run.Dockerfile command CMD on line 2 is not recommended",
                    "run.Dockerfile command MAINTAINER on line 5 is not recommended",
                ],
            ),
            // words that look like instructions
            (Run, "FROM x\nRUN a && \\\n# FROM c\n\n FROM b\n", Some("x"), true, &[]),
            (Run, "# escape=`\nFROM x\nRUN a `\nFROM b \\\n", Some("x"), true, &[]),
        ] {
            let expected = Checked {
                new_base: new_base.map(str::to_owned),
                extends,
                warnings: warnings.iter().map(ToString::to_string).collect(),
            };
            assert_eq!(check(text, kind).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn here_documents_are_passed_over() {
        let text = "FROM x\nRUN <<A <<-\"B\"\nFROM 1\nA\nFROM 2\n\t\tB\nCOPY <<C /c\nCMD\nC\nRUN cat <<<FROM\n";
        assert_eq!(check(text, Run).unwrap().warnings, [""; 0]);
        let error = check("FROM x\nRUN <<A\nB\n", Run).unwrap_err().to_string();
        assert_eq!(error, "line 2: unterminated heredoc A");
    }

    #[test]
    fn dockerfiles_that_break_a_rule() {
        let arg = "build.Dockerfile did not start with required ARG command";
        let from = "build.Dockerfile did not contain required FROM ${base_image} command";
        for (kind, text, error) in [
            (
                Build,
                "ARG base_image\nFROM ${base_image}\nFROM x",
                "build.Dockerfile is not permitted to use multistage build",
            ),
            (Run, "FROM ${base_image}\nFROM x", "run.Dockerfile is not permitted to use multistage build"),
            (Build, "FROM ${base_image}", arg),
            (Build, "ARG other\nFROM ${base_image}", arg),
            (Build, "ARG base_image\nARG other\nFROM ${base_image}", arg),
            (Build, "ARG base_image\nFROM x", from),
            (Build, "ARG base_image=x\nFROM $base_image", from),
            (Build, "ARG base_image", "build.Dockerfile should have at least one stage"),
            (Run, "ARG base_image", "run.Dockerfile should have at least one stage"),
            (Run, "", "file with no instructions"),
            (Run, "FROM a b", "line 1: FROM requires either one or three arguments"),
            (Run, "FROM x\nFOO", "line 2: unknown instruction: FOO"),
            (Run, "RUN x\nFROM x", "line 1: RUN before FROM: no build stage in current context"),
        ] {
            assert_eq!(check(text, kind).unwrap_err().to_string(), error, "{text}");
        }
    }
}
