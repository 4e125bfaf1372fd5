//! Modules as their descriptors have them, each read once, and their `bin/detect`, each run once.

use std::{collections::HashMap, rc::Rc};

use buildpack_api::{
    Buildpack, BuildpackId, BuildpackKind, Context, DetectOutcome, DetectResult, Extension, Kind, Order, Target,
};
use platform_api::{GroupEntry, ModuleDirs};

use super::order::Member;
use crate::span;

/// A kind, an ID and a version name a module.
type Name = (Kind, BuildpackId, String);

/// What the order refers to, read when first asked for.
pub(super) struct Modules<'a> {
    dirs: &'a ModuleDirs,
    known: HashMap<Name, Rc<Module>>,
}

/// A buildpack or an extension.
pub(super) struct Module {
    /// As it will stand in group.toml.
    pub(super) entry: GroupEntry,
    /// A composite buildpack's.
    pub(super) order: Option<Rc<Order>>,
    pub(super) exec_env: Vec<String>,
    targets: Vec<Target>,
    descriptor: Descriptor,
}

enum Descriptor {
    Buildpack(Box<Buildpack>),
    Extension(Box<Extension>),
}

impl<'a> Modules<'a> {
    pub(super) fn new(dirs: &'a ModuleDirs) -> Self {
        Self { dirs, known: HashMap::new() }
    }

    /// # Errors
    /// It is not there, cannot be understood, or wants a Buildpack API that is not ours (a `Failure`).
    pub(super) fn get(&mut self, kind: Kind, id: &BuildpackId, version: &str) -> anyhow::Result<Rc<Module>> {
        let name = (kind, id.clone(), version.to_owned());
        if let Some(module) = self.known.get(&name) {
            return Ok(Rc::clone(module));
        }
        let module = Rc::new(self.read(kind, id, version)?);
        self.known.insert(name, Rc::clone(&module));
        Ok(module)
    }

    fn read(&self, kind: Kind, id: &BuildpackId, version: &str) -> anyhow::Result<Module> {
        // The names of the order are those that were looked up and that later phases look up again.
        let entry = |api: &str, homepage: &Option<String>| GroupEntry {
            id: id.clone(),
            version: version.to_owned(),
            api: api.to_owned(),
            homepage: homepage.clone(),
            optional: false,
        };
        let module = match kind {
            Kind::Buildpack => {
                let bp = self.dirs.buildpack(id, version)?;
                let (order, targets) = match &bp.kind {
                    BuildpackKind::Composite { order } => (Some(Rc::new(order.clone())), Vec::new()),
                    BuildpackKind::Component { targets, .. } => (None, targets.clone()),
                };
                Module {
                    entry: entry(&bp.api_text, &bp.homepage),
                    order,
                    exec_env: bp.exec_env.clone(),
                    targets,
                    descriptor: Descriptor::Buildpack(Box::new(bp)),
                }
            }
            Kind::Extension => {
                let ext = self.dirs.extension(id, version)?;
                Module {
                    entry: entry(&ext.api_text, &ext.homepage),
                    order: None,
                    exec_env: ext.exec_env.clone(),
                    targets: ext.targets.clone(),
                    descriptor: Descriptor::Extension(Box::new(ext)),
                }
            }
        };
        module.entry.supported_api(kind)?;
        Ok(module)
    }
}

impl Module {
    /// Why it cannot run on this run image, if so.
    pub(super) fn mismatch(&self, base: &Target) -> Option<String> {
        if self.targets.is_empty() || self.targets.iter().any(|target| target.matches(base)) {
            return None;
        }
        let json = |value: Result<String, serde_json::Error>| value.unwrap_or_else(|e| e.to_string());
        Some(format!(
            "unable to satisfy target os/arch constraints; run image: {}, buildpack: {}",
            json(serde_json::to_string(base)),
            json(serde_json::to_string(&self.targets))
        ))
    }
}

/// The results of every `bin/detect` that ran.
#[derive(Default)]
pub(super) struct Runs(HashMap<Name, DetectResult>);

impl Runs {
    pub(super) fn has(&self, member: &Member) -> bool {
        self.get(member).is_some()
    }

    pub(super) fn get(&self, member: &Member) -> Option<&DetectResult> {
        self.0.get(&name_of(member))
    }

    /// Runs them all at once and waits for all. Each is another module.
    pub(super) fn run(&mut self, due: &[(&Member, Rc<Module>)], context: &Context) {
        let modules: Vec<_> = due.iter().map(|(_, module)| module.descriptor.module()).collect();
        for ((member, module), result) in due.iter().zip(buildpack_api::detect(&modules, context)) {
            if let Some((began, took)) = result.time {
                let kind = if member.kind == Kind::Buildpack { "buildpack" } else { "extension" };
                let passed = !matches!(result.outcome, DetectOutcome::Error(_));
                span::tell("detect", kind, &module.entry, began, took, passed);
            }
            self.0.insert(name_of(member), result);
        }
    }
}

fn name_of(member: &Member) -> Name {
    (member.kind, member.id.clone(), member.version.clone())
}

impl Descriptor {
    fn module(&self) -> buildpack_api::Module<'_> {
        match self {
            Self::Buildpack(bp) => buildpack_api::Module::Buildpack(bp),
            Self::Extension(ext) => buildpack_api::Module::Extension(ext),
        }
    }
}
