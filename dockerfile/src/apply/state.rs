//! What instructions say of the ones after them: variables, user, working directory, shell, and the rest of the
//! image's config.

use std::collections::BTreeMap;

use image::{Image, clean_path};
use serde_json::{Map, Value, json};

use super::start;
use crate::{
    Dockerfile, Error, Instruction, Result,
    parse::{Command, Healthcheck},
    words::Expansion,
};

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
}

/// The image that a Dockerfile begins with, its variables put in.
///
/// # Errors
/// A variable that cannot be, or no `FROM`.
pub fn base_of(dockerfile: &Dockerfile, args: &[(String, String)]) -> Result<String> {
    let mut state = State::new(Image::default(), dockerfile.escape, args);
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
        Self { image, warnings, args, escape, given, global: None, from: String::new(), cmd_set: false }
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
                if user.is_empty() {
                    return Err(Error::new("USER names nobody"));
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
            (None, None) => self.global.as_ref().and_then(|global| global.get(&name).cloned()),
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
