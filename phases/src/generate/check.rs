//! What the spec demands of an extension's Dockerfiles, checked before anybody builds with them.
//!
//! Spec: `image_extension.md` "Dockerfile Requirements".

use anyhow::bail;
use dockerfile::{Instruction, Step};

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
/// What extensions "MAY contain"; the others they "SHOULD NOT".
const RECOMMENDED: [&str; 9] = ["ADD", "ARG", "COPY", "ENV", "LABEL", "RUN", "SHELL", "USER", "WORKDIR"];

/// Checks a Dockerfile.
///
/// # Errors
/// It is no Dockerfile, or breaks a rule of its kind.
pub(super) fn check(text: &str, kind: DockerfileKind) -> anyhow::Result<Checked> {
    let file = kind.file_name();
    let steps = dockerfile::parse(text)?.steps;
    let base_at = |step: &Step| matches!(step.instruction, Instruction::From { .. });
    let stages = steps.iter().filter(|step| base_at(step)).count();
    if stages > 1 {
        bail!("{file} is not permitted to use multistage build");
    }
    let (global, stage) = steps.split_at(steps.iter().position(base_at).unwrap_or(steps.len()));
    if kind == DockerfileKind::Build && !matches!(global, [arg] if declares_base_image(arg)) {
        bail!("{file} did not start with required ARG command");
    }
    let Some((Step { instruction: Instruction::From { image }, .. }, commands)) = stage.split_first() else {
        bail!("{file} should have at least one stage");
    };
    let mut checked = Checked { extends: !commands.is_empty(), ..Checked::default() };
    for step in commands {
        let keyword = step.instruction.keyword();
        if !RECOMMENDED.contains(&keyword) {
            checked.warnings.push(format!("{file} command {keyword} on line {} is not recommended", step.line));
        }
    }
    if image != FROM_BASE_IMAGE {
        if kind == DockerfileKind::Build {
            bail!("{file} did not contain required FROM {FROM_BASE_IMAGE} command");
        }
        checked.new_base = Some(image.clone());
    }
    Ok(checked)
}

fn declares_base_image(step: &Step) -> bool {
    let Instruction::Arg(arguments) = &step.instruction else { return false };
    arguments.first().is_some_and(|(name, _)| name == BASE_IMAGE)
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
            (Run, "FROM x\nCOPY --chown a /b", "line 2: missing a value on flag: --chown"),
            (Run, "FROM x\nRUN --foo a", "line 2: unknown flag: --foo"),
            (Run, "FROM x\nVOLUME []", "line 2: VOLUME requires at least one argument"),
            (Run, "RUN x\nFROM x", "line 1: RUN before FROM: no build stage in current context"),
        ] {
            assert_eq!(check(text, kind).unwrap_err().to_string(), error, "{text}");
        }
    }
}
