//! What instructions say of the ones after them: variables, user, working directory, shell, and the rest of the
//! image's config.

use std::collections::BTreeMap;

use image::{Config, Image, clean_path};
use serde_json::{Map, Value, json};

use super::start;
use crate::{
    Dockerfile, Error, Instruction, Result,
    parse::{Command, Healthcheck},
    words::Expansion,
};

/// What an image has where its base does not say otherwise, as with Docker: what runs with it would find nothing.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a Dockerfile has come to.
#[derive(Debug)]
pub(super) struct State<'a> {
    pub(super) image: Image,
    pub(super) warnings: Vec<String>,
    /// Declared build arguments that have a value.
    pub(super) args: BTreeMap<String, String>,
    escape: char,
    given: &'a [(String, String)],
    /// What was declared before `FROM`; `None` until then.
    global: Option<BTreeMap<String, String>>,
    /// The image that `FROM` names.
    from: String,
    cmd_set: bool,
    /// `USER` has to name somebody.
    pub(super) user_required: bool,
}

/// The image that a Dockerfile begins with, its variables put in. `image`: what it is applied to.
///
/// # Errors
/// A variable that cannot be, or no `FROM`.
pub fn base_of(dockerfile: &Dockerfile, image: &Image, args: &[(String, String)]) -> Result<String> {
    let image = Image { config: image.config.clone(), ..Image::default() };
    let mut state = State::new(image, dockerfile.escape, args);
    for step in &dockerfile.steps {
        state.configure(&step.instruction).map_err(|e| Error::new(format!("line {}: {e}", step.line)))?;
        if matches!(step.instruction, Instruction::From { .. }) {
            return Ok(state.from);
        }
    }
    Err(Error::new("there is no FROM"))
}

impl<'a> State<'a> {
    pub(super) fn new(image: Image, escape: char, given: &'a [(String, String)]) -> Self {
        let (warnings, args) = (Vec::new(), BTreeMap::new());
        let (from, cmd_set, user_required) = (String::new(), false, false);
        Self { image, warnings, args, escape, given, global: None, from, cmd_set, user_required }
    }

    /// Puts variables in: `ENV` goes before `ARG`.
    pub(super) fn expand(&self, word: &str) -> Result<String> {
        self.expansion(&|name: &str| self.lookup(name), |e| e.word(word))
    }

    /// Puts variables into a here-document.
    pub(super) fn expand_text(&self, text: &str) -> Result<String> {
        self.expansion(&|name: &str| self.lookup(name), |e| e.text(text))
    }

    fn expansion(
        &self,
        lookup: &dyn Fn(&str) -> Option<String>,
        with: impl FnOnce(Expansion<'_>) -> Result<String>,
    ) -> Result<String> {
        with(Expansion { escape: self.escape, lookup })
    }

    fn lookup(&self, name: &str) -> Option<String> {
        let env = self.image.config.env_var(name).filter(|_| self.global.is_some()).map(str::to_owned);
        env.or_else(|| self.args.get(name).cloned())
    }

    /// The working directory, absolute.
    pub(super) fn workdir(&self) -> String {
        let dir = &self.image.config.working_dir;
        clean_path(std::path::Path::new(dir)).display().to_string()
    }

    /// `SHELL`, or Docker's.
    pub(super) fn shell(&self) -> Vec<String> {
        let shell = self.image.config.rest_of_config.get("Shell").and_then(Value::as_array);
        let words: Vec<String> = shell.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        if words.is_empty() { vec!["/bin/sh".to_owned(), "-c".to_owned()] } else { words }
    }

    /// An instruction that changes no file.
    pub(super) fn configure(&mut self, instruction: &Instruction) -> Result<()> {
        match instruction {
            Instruction::From { image } => {
                self.from = self.expand(image)?;
                self.global = Some(std::mem::take(&mut self.args));
                if self.image.config.env_var("PATH").is_none() {
                    self.image.config.set_env("PATH", PATH);
                }
            }
            Instruction::Arg(arguments) => {
                for (name, default) in arguments {
                    self.declare(name, default.as_deref())?;
                }
            }
            Instruction::Env(pairs) => {
                for (name, value) in self.expand_pairs(pairs)? {
                    self.image.config.set_env(&name, &value);
                }
            }
            Instruction::Label(pairs) => {
                let pairs = self.expand_pairs(pairs)?;
                self.image.config.labels.extend(pairs);
            }
            Instruction::User(user) => {
                let user = self.expand(user)?;
                if names_nobody(&user) && self.user_required {
                    return Err(Error::new("it names nobody, so it would be root"));
                }
                if names_nobody(&user) {
                    self.warnings.push(format!("USER {user:?} names nobody: it is root"));
                }
                self.image.config.user = user;
            }
            Instruction::Shell(words) => self.set("Shell", json!(words)),
            other => self.configure_start(other)?,
        }
        Ok(())
    }

    /// What the base wants to be done by who begins with it. It wants so once.
    pub(super) fn take_triggers(&mut self) -> Vec<String> {
        let triggers = self.image.config.rest_of_config.remove("OnBuild");
        let triggers = triggers.iter().filter_map(Value::as_array).flatten();
        triggers.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// What containers are started with.
    fn configure_start(&mut self, instruction: &Instruction) -> Result<()> {
        match instruction {
            Instruction::Cmd(command) => {
                self.image.config.cmd = self.words(command);
                self.cmd_set = true;
            }
            Instruction::Entrypoint(command) => {
                self.image.config.entrypoint = self.words(command);
                if !self.cmd_set {
                    // It was meant for another entrypoint.
                    self.image.config.cmd = Vec::new();
                }
            }
            Instruction::Expose(ports) => {
                for text in ports {
                    // A variable may have several, or none.
                    for text in self.expand(text)?.split_whitespace() {
                        start::ports(text)?.into_iter().for_each(|port| self.add("ExposedPorts", port));
                    }
                }
            }
            Instruction::Volume(paths) => {
                for path in paths {
                    let path = self.expand(path)?;
                    self.add("Volumes", path);
                }
            }
            Instruction::Stopsignal(signal) => {
                let signal = self.expand(signal)?;
                start::check_signal(&signal)?;
                self.set("StopSignal", json!(signal));
            }
            Instruction::Onbuild(text) => {
                let list = self.image.config.rest_of_config.entry("OnBuild").or_insert_with(|| json!([]));
                match list.as_array_mut() {
                    Some(list) => list.push(json!(text)),
                    None => *list = json!([text]),
                }
            }
            Instruction::Healthcheck(check) => self.set_healthcheck(check),
            // The rest change files, or nothing at all.
            other => self.warnings.push(format!("{} has no effect", other.keyword())),
        }
        Ok(())
    }

    fn set_healthcheck(&mut self, check: &Healthcheck) {
        let test = match &check.command {
            None => vec!["NONE".to_owned()],
            Some(Command::Exec(words)) => std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
            Some(Command::Shell(text)) => vec!["CMD-SHELL".to_owned(), text.clone()],
        };
        let mut value = Map::from_iter([("Test".to_owned(), json!(test))]);
        // Zero is what is not said.
        let options = check.options.iter().filter(|(_, number)| *number != 0);
        value.extend(options.map(|(name, number)| ((*name).to_owned(), json!(number))));
        self.set("Healthcheck", Value::Object(value));
    }

    fn declare(&mut self, name: &str, default: Option<&str>) -> Result<()> {
        let name = self.expand(name)?;
        let given = self.given.iter().rev().find(|(n, _)| *n == name).map(|(_, value)| value.clone());
        let value = match (given, default) {
            (Some(value), _) => Some(value),
            (None, Some(default)) => Some(self.expand(default)?),
            (None, None) => {
                let global = self.global.as_ref().and_then(|global| global.get(&name).cloned());
                global.or_else(|| platform_argument(&self.image.config, &name))
            }
        };
        match value {
            Some(value) => self.args.insert(name, value),
            // Declared once more, it has lost what it had.
            None => self.args.remove(&name),
        };
        Ok(())
    }

    /// All before any of them counts: `ENV a=1 b=$a` takes the `a` from before.
    fn expand_pairs(&self, pairs: &[(String, String)]) -> Result<Vec<(String, String)>> {
        pairs.iter().map(|(name, value)| Ok((self.expand(name)?, self.expand(value)?))).collect()
    }

    fn words(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(text) => self.shell().into_iter().chain([text.clone()]).collect(),
        }
    }

    fn set(&mut self, key: &str, value: Value) {
        self.image.config.rest_of_config.insert(key.to_owned(), value);
    }

    fn add(&mut self, key: &str, name: String) {
        let map = self.image.config.rest_of_config.entry(key).or_insert_with(|| json!({}));
        if !map.is_object() {
            *map = Value::Object(Map::new());
        }
        if let Some(map) = map.as_object_mut() {
            map.insert(name, json!({}));
        }
    }
}

/// There may still be a group.
fn names_nobody(user: &str) -> bool {
    user.is_empty() || user.starts_with(':')
}

/// What Docker says of the platform to those who declare that they want to know. What builds is the image itself, so
/// both platforms are the image's.
fn platform_argument(config: &Config, name: &str) -> Option<String> {
    let Config { os, architecture, .. } = config;
    // The only one that there is, so it goes without saying.
    let variant = config.variant.as_deref().filter(|variant| (architecture.as_str(), *variant) != ("arm64", "v8"));
    let variant = variant.unwrap_or_default();
    match name.strip_prefix("TARGET").or_else(|| name.strip_prefix("BUILD"))? {
        "OS" => Some(os.clone()),
        "ARCH" => Some(architecture.clone()),
        "VARIANT" => Some(variant.to_owned()),
        "PLATFORM" if variant.is_empty() => Some(format!("{os}/{architecture}")),
        "PLATFORM" => Some(format!("{os}/{architecture}/{variant}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_told_to_who_declares_them() {
        for (arch, variant, expected) in [
            ("amd64", None, "|linux|amd64||linux/amd64|linux|amd64||linux/amd64"),
            ("arm", Some("v7"), "|linux|arm|v7|linux/arm/v7|linux|arm|v7|linux/arm/v7"),
            ("arm64", Some("v8"), "|linux|arm64||linux/arm64|linux|arm64||linux/arm64"),
        ] {
            let config = Config {
                os: "linux".to_owned(),
                architecture: arch.to_owned(),
                variant: variant.map(str::to_owned),
                ..Config::default()
            };
            let image = Image { config, ..Image::default() };
            let mut state = State::new(image.clone(), '\\', &[]);
            let mut all = String::new();
            for name in ["TARGET", "BUILD"]
                .iter()
                .flat_map(|of| ["OS", "ARCH", "VARIANT", "PLATFORM"].map(|n| format!("{of}{n}")))
            {
                assert_eq!(state.expand(&format!("${name}")).unwrap(), "", "it is not declared");
                state.declare(&name, None).unwrap();
                all += &state.expand(&format!("|${name}")).unwrap();
            }
            assert_eq!(all, expected);
            state.declare("TARGETARCH", Some("own")).unwrap();
            assert_eq!(state.expand("$TARGETARCH").unwrap(), "own");
            let given = [("BUILDOS".to_owned(), "given".to_owned())];
            let dockerfile =
                crate::parse("ARG TARGETARCH\nARG BUILDOS\nARG TARGET\nFROM $TARGETARCH-$BUILDOS$TARGET").unwrap();
            assert_eq!(base_of(&dockerfile, &image, &given).unwrap(), format!("{arch}-given"));
        }
    }
}
