//! Dockerfiles as Docker reads them: lines joined, comments dropped, here-documents collected, then one instruction
//! after another. Variables are not looked at here.
//!
//! Written for this crate: the parsers that were looked at lose what applying needs, the names of here-documents or
//! the order of variables.

mod arguments;
mod lines;

use arguments::{arguments, command, copy, from, healthcheck, json, onbuild, pairs, run, volume, words};
use lines::{collect_documents, escape_of, full_text, is_skipped, join};

use crate::{Error, Result};

/// A whole Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// `\`, or another by the directive `# escape=`.
    pub escape: char,
    /// In order, `FROM` and what stands before it included.
    pub steps: Vec<Step>,
}

/// One instruction and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Counted from 1.
    pub line: usize,
    /// As written, on one line, with its here-documents below.
    pub text: String,
    pub instruction: Instruction,
}

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    From { image: String },
    Arg(Vec<(String, Option<String>)>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Run { flags: Vec<Flag>, command: Command, documents: Vec<Document> },
    Shell(Vec<String>),
    User(String),
    Workdir(String),
    Copy(Copy),
    Add(Copy),
    Cmd(Command),
    Entrypoint(Command),
    Expose(Vec<String>),
    Volume(Vec<String>),
    Stopsignal(String),
    Healthcheck(Healthcheck),
    Onbuild(String),
    Maintainer(String),
}

impl Instruction {
    /// In upper case.
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::From { .. } => "FROM",
            Self::Arg(_) => "ARG",
            Self::Env(_) => "ENV",
            Self::Label(_) => "LABEL",
            Self::Run { .. } => "RUN",
            Self::Shell(_) => "SHELL",
            Self::User(_) => "USER",
            Self::Workdir(_) => "WORKDIR",
            Self::Copy(_) => "COPY",
            Self::Add(_) => "ADD",
            Self::Cmd(_) => "CMD",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Expose(_) => "EXPOSE",
            Self::Volume(_) => "VOLUME",
            Self::Stopsignal(_) => "STOPSIGNAL",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Onbuild(_) => "ONBUILD",
            Self::Maintainer(_) => "MAINTAINER",
        }
    }
}

/// `--name=value`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    pub name: String,
    /// Empty where there is no `=`.
    pub value: String,
}

/// The two ways to write a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Exec(Vec<String>),
    Shell(String),
}

/// The arguments of `COPY` and `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    pub flags: Vec<Flag>,
    /// Paths and patterns; here-documents are in `documents`.
    pub sources: Vec<String>,
    pub documents: Vec<Document>,
    pub destination: String,
}

/// How a container is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthcheck {
    /// `None`: not at all, whatever the base image says.
    pub command: Option<Command>,
    /// By their names in an image's config; times in nanoseconds.
    pub options: Vec<(&'static str, u64)>,
}

/// A here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What ends it; for `COPY` the file's name too.
    pub name: String,
    /// Its name was not quoted: variables are to be put in.
    pub expand: bool,
    /// `<<-`: the shell drops tabs before its lines.
    pub chomp: bool,
    pub content: String,
}

/// Reads a Dockerfile.
///
/// # Errors
/// Naming the line that breaks Docker's grammar.
pub fn parse(text: &str) -> Result<Dockerfile> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let escape = escape_of(text);
    let mut steps = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((first, line)) = lines.next() {
        if is_skipped(first) {
            continue;
        }
        let whole = join(first.trim_start(), escape, &mut lines);
        let whole = whole.trim_end();
        let documents = collect_documents(whole, line, escape, &mut lines)?;
        let failed = |e: Error| Error::new(format!("line {line}: {e}"));
        let instruction = instruction(whole, escape, documents.clone()).map_err(failed)?;
        steps.push(Step { line, text: full_text(whole, &documents), instruction });
    }
    check_order(&steps)?;
    Ok(Dockerfile { escape, steps })
}

/// An instruction that `ONBUILD` left in a base image, as if it stood in this line.
pub(crate) fn trigger(text: &str, line: usize) -> Result<Step> {
    let instruction = instruction(text.trim(), '\\', Vec::new())?;
    Ok(Step { line, text: text.to_owned(), instruction })
}

fn check_order(steps: &[Step]) -> Result<()> {
    if steps.is_empty() {
        return Err(Error::new("file with no instructions"));
    }
    let before = steps.iter().take_while(|step| !matches!(step.instruction, Instruction::From { .. }));
    for step in before {
        if !matches!(step.instruction, Instruction::Arg(_)) {
            let keyword = step.instruction.keyword();
            return Err(Error::new(format!(
                "line {}: {keyword} before FROM: no build stage in current context",
                step.line
            )));
        }
    }
    Ok(())
}

fn instruction(whole: &str, escape: char, documents: Vec<Document>) -> Result<Instruction> {
    let (keyword, rest) = whole.split_once(char::is_whitespace).unwrap_or((whole, ""));
    let keyword = keyword.to_ascii_uppercase();
    let rest = rest.trim();
    if rest.is_empty() && keyword != "CMD" && keyword != "ENTRYPOINT" {
        return Err(Error::new(match keyword.as_str() {
            k if !KEYWORDS.contains(&k) => format!("unknown instruction: {keyword}"),
            _ => format!("{keyword} requires arguments"),
        }));
    }
    Ok(match keyword.as_str() {
        "FROM" => from(rest)?,
        "ARG" => Instruction::Arg(arguments(rest, escape)?),
        "ENV" => Instruction::Env(pairs("ENV", rest, escape)?),
        "LABEL" => Instruction::Label(pairs("LABEL", rest, escape)?),
        "RUN" => run(rest, documents)?,
        "SHELL" => match json(rest)? {
            Some(words) if !words.is_empty() => Instruction::Shell(words),
            _ => return Err(Error::new("SHELL requires the arguments to be in JSON form")),
        },
        "USER" => Instruction::User(rest.to_owned()),
        "WORKDIR" => Instruction::Workdir(rest.to_owned()),
        "COPY" => Instruction::Copy(copy("COPY", rest, documents, escape)?),
        "ADD" => Instruction::Add(copy("ADD", rest, documents, escape)?),
        "CMD" => Instruction::Cmd(command(rest)?),
        "ENTRYPOINT" => Instruction::Entrypoint(command(rest)?),
        "EXPOSE" => Instruction::Expose(words(rest)),
        "VOLUME" => volume(rest)?,
        "STOPSIGNAL" => Instruction::Stopsignal(rest.to_owned()),
        "HEALTHCHECK" => healthcheck(rest)?,
        "ONBUILD" => onbuild(rest)?,
        "MAINTAINER" => Instruction::Maintainer(rest.to_owned()),
        _ => return Err(Error::new(format!("unknown instruction: {keyword}"))),
    })
}

const KEYWORDS: [&str; 18] = [
    "FROM",
    "ARG",
    "ENV",
    "LABEL",
    "RUN",
    "SHELL",
    "USER",
    "WORKDIR",
    "COPY",
    "ADD",
    "CMD",
    "ENTRYPOINT",
    "EXPOSE",
    "VOLUME",
    "STOPSIGNAL",
    "HEALTHCHECK",
    "ONBUILD",
    "MAINTAINER",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str) -> Vec<Instruction> {
        parse(&format!("FROM a\n{text}")).unwrap().steps.into_iter().skip(1).map(|s| s.instruction).collect()
    }

    fn shell(text: &str) -> Instruction {
        Instruction::Run { flags: vec![], command: Command::Shell(text.to_owned()), documents: vec![] }
    }

    fn strings(of: &[&str]) -> Vec<String> {
        of.iter().map(|&s| s.to_owned()).collect()
    }

    #[test]
    fn lines_are_joined_and_comments_dropped() {
        for (text, expected) in [
            ("RUN a \\\n  # no\n\n  b", "a   b"),
            ("run a \\  \n&& b", "a && b"),
            ("  RUN a # stays", "a # stays"),
            ("RUN a \\\\", "a \\\\"),
            ("RUN a \\", "a"),
            ("RUN [a", "[a"),
        ] {
            assert_eq!(steps(text), [shell(expected)], "{text}");
        }
        let parsed = parse("# syntax=x\n# escape=`\nFROM a\nRUN b `\n c \\\nRUN d").unwrap();
        assert_eq!(parsed.escape, '`');
        assert_eq!(parsed.steps[1].instruction, shell("b  c \\"));
        assert_eq!(parsed.steps.iter().map(|s| s.line).collect::<Vec<_>>(), [3, 4, 6]);
    }

    #[test]
    fn names_and_values_keep_order_and_quotes() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            steps(r#"ENV b="x y" a=1\ 2 b='z'"#),
            [Instruction::Env(vec![pair("b", r#""x y""#), pair("a", r"1\ 2"), pair("b", "'z'")])]
        );
        assert_eq!(steps("ENV a b  c"), [Instruction::Env(vec![pair("a", "b  c")])]);
        assert_eq!(
            steps("ARG a b=1 c="),
            [Instruction::Arg(vec![
                ("a".into(), None),
                ("b".into(), Some("1".into())),
                ("c".into(), Some(String::new()))
            ])]
        );
    }

    #[test]
    fn commands_in_both_forms() {
        assert_eq!(
            steps(r#"RUN --mount=type=cache,target=/x --network=none ["a", "b c"]"#),
            [Instruction::Run {
                flags: vec![
                    Flag { name: "mount".into(), value: "type=cache,target=/x".into() },
                    Flag { name: "network".into(), value: "none".into() }
                ],
                command: Command::Exec(strings(&["a", "b c"])),
                documents: vec![]
            }]
        );
        assert_eq!(steps(r#"SHELL ["/bin/bash", "-c"]"#), [Instruction::Shell(strings(&["/bin/bash", "-c"]))]);
    }

    #[test]
    fn here_documents() {
        let text = "RUN <<-'A' cat 3<<B\n\tx $y\n\tA\nb\\\nB\nUSER u";
        let found = steps(text);
        let Instruction::Run { documents, .. } = &found[0] else { panic!("{found:?}") };
        let document = |name: &str, expand, chomp, content: &str| Document {
            name: name.into(),
            expand,
            chomp,
            content: content.into(),
        };
        assert_eq!(documents, &[document("A", false, true, "\tx $y\n"), document("B", true, false, "b\\\n")]);
        assert_eq!(found[1], Instruction::User("u".into()));
        assert_eq!(
            steps("COPY --chown=1:2 a <<f /d/\nx\nf"),
            [Instruction::Copy(Copy {
                flags: vec![Flag { name: "chown".into(), value: "1:2".into() }],
                sources: strings(&["a"]),
                documents: vec![document("f", true, false, "x\n")],
                destination: "/d/".into()
            })]
        );
    }

    #[test]
    fn health_checks() {
        let check = |command, options: &[(&'static str, u64)]| {
            vec![Instruction::Healthcheck(Healthcheck { command, options: options.to_vec() })]
        };
        let shell = Some(Command::Shell("a b".to_owned()));
        assert_eq!(steps("HEALTHCHECK none"), check(None, &[]));
        assert_eq!(steps("HEALTHCHECK CMD a b"), check(shell.clone(), &[]));
        assert_eq!(
            steps("HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=0 --retries=3 \\\n cmd a b"),
            check(
                shell,
                &[("Interval", 90_000_000_000), ("Timeout", 1_500_000_000), ("StartPeriod", 0), ("Retries", 3)]
            )
        );
        assert_eq!(steps("HEALTHCHECK CMD [\"x\"]"), check(Some(Command::Exec(strings(&["x"]))), &[]));
    }

    #[test]
    fn wrong_ones_name_their_line() {
        for (text, expected) in [
            ("", "file with no instructions"),
            ("RUN x\nFROM a", "line 1: RUN before FROM"),
            ("FROM a\nRUM x", "line 2: unknown instruction: RUM"),
            ("FROM a\nRUN", "line 2: RUN requires arguments"),
            ("FROM a b", "line 1: FROM requires either one or three"),
            ("FROM a\nRUN <<E\nx", "line 2: unterminated heredoc E"),
            ("FROM a\nCOPY x", "line 2: COPY requires at least two"),
            ("FROM a\nSHELL sh", "line 2: SHELL requires the arguments to be in JSON form"),
            ("FROM a\nENV x=1 y", "line 2: can't find = in \"y\""),
            ("FROM a\nENV x", "line 2: ENV must have two arguments"),
            ("FROM a\nONBUILD onbuild RUN x", "line 2: ONBUILD is not allowed as a trigger of ONBUILD"),
            ("FROM a\nONBUILD FROM x", "line 2: FROM is not allowed as a trigger of ONBUILD"),
            ("FROM a\nRUN [1, \"x\"]", "line 2: arrays must be of strings only"),
            ("FROM a\nCMD [{}]", "line 2: arrays must be of strings only"),
            ("FROM a\nHEALTHCHECK x", "line 2: unknown type \"X\" in HEALTHCHECK"),
            ("FROM a\nHEALTHCHECK CMD", "line 2: missing command after HEALTHCHECK CMD"),
            ("FROM a\nHEALTHCHECK NONE x", "line 2: HEALTHCHECK NONE takes no arguments"),
            ("FROM a\nHEALTHCHECK --interval=1 CMD x", "line 2: --interval=1 is not a value for it"),
            ("FROM a\nHEALTHCHECK --timeout=1us CMD x", "line 2: --timeout=1us is not a value for it"),
            ("FROM a\nCOPY --chown a.txt /q", "line 2: missing a value on flag: --chown"),
            ("FROM a\nCOPY --chown", "line 2: missing a value on flag: --chown"),
            ("FROM a\nCOPY --foo a /q", "line 2: unknown flag: --foo"),
            ("FROM a\nCOPY --checksum=x a /q", "line 2: unknown flag: --checksum"),
            ("FROM a\nADD --from=x a /q", "line 2: unknown flag: --from"),
            ("FROM a\nCOPY --link=x a /q", "line 2: expecting boolean value for flag --link, not: x"),
            ("FROM a\nRUN --foo true", "line 2: unknown flag: --foo"),
            ("FROM a\nRUN --mount true", "line 2: missing a value on flag: --mount"),
            ("FROM --foo=x a", "line 1: unknown flag: --foo"),
            ("FROM a\nVOLUME []", "line 2: VOLUME requires at least one argument"),
            ("FROM a\nVOLUME [\"\"]", "line 2: VOLUME specified can not be an empty string"),
            ("FROM a\nHEALTHCHECK --often CMD x", "line 2: unknown flag: --often"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
