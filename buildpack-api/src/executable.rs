//! Calling `bin/detect`, `bin/generate` and `bin/build`: arguments, environment, and what their exit means
//! (buildpack.md, "Detection" and "Build"; `image_extension.md`).

use std::{
    ffi::{c_char, c_int},
    io,
    os::unix::{ffi::OsStrExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use nix::libc::{posix_spawn_file_actions_addchdir_np, posix_spawn_file_actions_t};

use crate::{
    BuildPlan, Buildpack, BuildpackApi, BuildpackPlan, Env, Extension, Target, io_text,
    output::{Captured, read_all},
    pass_on::run_aloud,
    plain::Plain,
    read_toml_bounded,
    temp_plan::TempPlan,
};

/// At most so many threads run the detects of a group, each at least so many detects, where there are.
const THREADS: usize = 8;
const PART: usize = 4;

/// How std gives a program its working directory where it need not fork, which copies a process that has threads, and
/// slowly. std asks for it weakly, and a static executable has such a function only where something else names it.
#[used]
static START_IN_DIRECTORY: unsafe extern "C" fn(*mut posix_spawn_file_actions_t, *const c_char) -> c_int =
    posix_spawn_file_actions_addchdir_np;

/// What every call needs to know of the build.
#[derive(Clone, Debug)]
pub struct Context {
    /// The app directory: the working directory of every call.
    pub app: PathBuf,
    /// The platform directory; the user's variables are in its `env`.
    pub platform: PathBuf,
    /// The operator's directory; its `env` is applied.
    pub build_config: Option<PathBuf>,
    /// The run image's target, for `CNB_TARGET_*`.
    pub target: Target,
    /// Whether colours are taken out of what build and generate print.
    pub no_color: bool,
    /// For `CNB_EXEC_ENV`; empty: not set.
    pub exec_env: String,
    /// The build environment so far (see [`Env::for_build`]); user and operator variables are added per module.
    pub env: Env,
}

/// What one detect came to, with everything it printed (stdout and stderr as they came).
#[derive(Clone, Debug)]
pub struct DetectResult {
    /// At most 1 MiB: where more came, its beginning and its end, with a line between that says so.
    pub output: Vec<u8>,
    /// The exit status; -1 where it could not run, was killed, or wrote a bad plan.
    pub code: i32,
    pub outcome: DetectOutcome,
    /// When it was started and how long it ran; `None` where nothing was run.
    pub time: Option<(SystemTime, Duration)>,
}

/// Pass, fail, or error.
#[derive(Clone, Debug, PartialEq)]
pub enum DetectOutcome {
    /// Exit 0.
    Pass(BuildPlan),
    /// Exit 100.
    Fail,
    /// Any other exit; the text says what went wrong where the exit status alone does not.
    Error(Option<String>),
}

/// Why an executable did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It ran and failed. The text is `exit status N` or `signal: NAME`.
    #[error("{text}")]
    Status { text: String },
    /// It could not be started.
    #[error("{0}")]
    Start(String),
    /// Something around it failed (temporary files, its environment).
    #[error("{0}")]
    Around(String),
}

/// What to call detect on.
#[derive(Clone, Copy, Debug)]
pub enum Module<'a> {
    Buildpack(&'a Buildpack),
    Extension(&'a Extension),
}

/// Runs `<root>/bin/detect` of each at once (for an extension without one: reads `<root>/detect/plan.toml`); the
/// results are in the order of the modules.
///
/// A few threads do it: each start waits until the new process has its program, and each end for the file system, which
/// takes long on a busy machine; but many threads make each start slow.
pub fn detect(modules: &[Module<'_>], context: &Context) -> Vec<DetectResult> {
    let mut parts = modules.chunks(modules.len().div_ceil(THREADS).max(PART));
    let own = parts.next().unwrap_or_default();
    thread::scope(|scope| {
        let run = |part| (part, thread::Builder::new().spawn_scoped(scope, move || detect_part(part, context)));
        let others: Vec<_> = parts.map(run).collect();
        let mut results = detect_part(own, context);
        for (part, other) in others {
            results.extend(match other {
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(_) => detect_part(part, context),
            });
        }
        results
    })
}

fn detect_part(modules: &[Module<'_>], context: &Context) -> Vec<DetectResult> {
    let mut detects: Vec<Detect<'_>> = modules.iter().map(|module| start_detect(*module, context)).collect();
    let running = detects.iter_mut().filter_map(|detect| match detect {
        Detect::Running(_, _, captured) => Some(captured),
        Detect::Done(_) => None,
    });
    let read = read_all(&mut running.collect::<Vec<_>>());
    let result = |detect| match (detect, &read) {
        (Detect::Done(result), _) => result,
        (Detect::Running(module, plan, captured), Ok(())) => finish_detect(module, &plan, captured),
        (Detect::Running(..), Err(error)) => result_of(Vec::new(), Err(format!("read its output: {error}"))),
    };
    detects.into_iter().map(result).collect()
}

/// One detect, started.
enum Detect<'a> {
    Done(DetectResult),
    Running(Module<'a>, TempPlan, Captured),
}

fn start_detect<'a>(module: Module<'a>, context: &Context) -> Detect<'a> {
    if let Module::Extension(extension) = module {
        if !extension.root.join("bin/detect").exists() {
            let read = read_toml_bounded(&extension.root.join("detect/plan.toml"));
            let plan = read.map_err(|error| error.to_string()).and_then(|text| plan_of(module, text.as_deref()));
            return Detect::Done(result_of(Vec::new(), plan));
        }
    }
    match run_detect(module, context) {
        Ok((plan, captured)) => Detect::Running(module, plan, captured),
        Err(error) => Detect::Done(result_of(Vec::new(), Err(error.to_string()))),
    }
}

fn run_detect(module: Module<'_>, context: &Context) -> Result<(TempPlan, Captured), RunError> {
    let call = Call::of(module, "detect")?;
    let plan = TempPlan::for_detect()?;
    let mut env = call.env(context)?;
    if call.api.dirs_in_env() {
        env.set("CNB_PLATFORM_DIR", &context.platform);
        env.set("CNB_BUILD_PLAN_PATH", &plan.path);
    }
    let command = call.command(&[&context.platform, &plan.path], &env, context)?;
    let captured = Captured::start(command).map_err(|cause| call.start_error(context, &cause))?;
    Ok((plan, captured))
}

fn finish_detect(module: Module<'_>, plan: &TempPlan, captured: Captured) -> DetectResult {
    let time = Some(captured.time());
    DetectResult { time, ..ended_detect(module, plan, captured) }
}

fn ended_detect(module: Module<'_>, plan: &TempPlan, captured: Captured) -> DetectResult {
    let (status, output) = match captured.wait() {
        Ok(ended) => ended,
        Err(error) => return result_of(Vec::new(), Err(format!("wait for it: {error}"))),
    };
    match status.code() {
        Some(0) => result_of(output, read_plan(module, &plan.path)),
        Some(100) => DetectResult { output, code: 100, outcome: DetectOutcome::Fail, time: None },
        Some(code) => DetectResult { output, code, outcome: DetectOutcome::Error(None), time: None },
        None => result_of(output, Err(status_text(status))),
    }
}

/// Reads what detect left where it was given an empty file.
fn read_plan(module: Module<'_>, path: &Path) -> Result<BuildPlan, String> {
    match read_toml_bounded(path) {
        Ok(Some(text)) => plan_of(module, Some(&text)),
        Ok(None) => Err(format!("open {}: no such file or directory", path.display())),
        Err(error) => Err(error.to_string()),
    }
}

/// The plan that this text is, if the module may have it.
fn plan_of(module: Module<'_>, text: Option<&str>) -> Result<BuildPlan, String> {
    let author = module.named();
    let plan = match text {
        Some(text) => BuildPlan::parse_of(&author, text).map_err(|error| error.to_string())?,
        None => BuildPlan::default(),
    };
    if matches!(module, Module::Extension(_)) && plan.has_requires() {
        return Err(format!("{author} outputs \"requires\" which is not allowed"));
    }
    Ok(plan)
}

fn result_of(output: Vec<u8>, plan: Result<BuildPlan, String>) -> DetectResult {
    match plan {
        Ok(plan) => DetectResult { output, code: 0, outcome: DetectOutcome::Pass(plan), time: None },
        Err(text) => DetectResult { output, code: -1, outcome: DetectOutcome::Error(Some(text)), time: None },
    }
}

/// Runs `<root>/bin/generate <output> <platform> <plan>`; what it prints goes to our stdout.
/// `output` is this extension's own directory and exists.
pub fn generate(extension: &Extension, plan: &BuildpackPlan, context: &Context, output: &Path) -> Result<(), RunError> {
    let call = Call::of(Module::Extension(extension), "generate")?;
    let plan = TempPlan::for_module(&extension.id.escaped(), plan)?;
    let mut env = call.env(context)?;
    env.set("CNB_BP_PLAN_PATH", &plan.path);
    env.set("CNB_OUTPUT_DIR", output);
    env.set("CNB_PLATFORM_DIR", &context.platform);
    call.run(&[output, &context.platform, &plan.path], &env, context)
}

/// Runs `<root>/bin/build <layers> <platform> <plan>`; what it prints goes to our stdout.
/// `layers` is this buildpack's own directory and exists.
pub fn build(buildpack: &Buildpack, plan: &BuildpackPlan, context: &Context, layers: &Path) -> Result<(), RunError> {
    let call = Call::of(Module::Buildpack(buildpack), "build")?;
    let plan = TempPlan::for_module(&buildpack.id.escaped(), plan)?;
    let mut env = call.env(context)?;
    if call.api.dirs_in_env() {
        env.set("CNB_BP_PLAN_PATH", &plan.path);
        env.set("CNB_LAYERS_DIR", layers);
        env.set("CNB_PLATFORM_DIR", &context.platform);
    }
    call.run(&[layers, &context.platform, &plan.path], &env, context)
}

impl Module<'_> {
    /// `buildpack <id>` or `extension <id>`
    fn named(&self) -> String {
        match self {
            Self::Buildpack(buildpack) => format!("buildpack {}", buildpack.id),
            Self::Extension(extension) => format!("extension {}", extension.id),
        }
    }
}

/// One executable of a module whose API is one of ours.
struct Call<'a> {
    root: &'a Path,
    program: PathBuf,
    api: BuildpackApi,
    clear_env: bool,
    root_variable: &'static str,
}

impl<'a> Call<'a> {
    fn of(module: Module<'a>, name: &str) -> Result<Self, RunError> {
        let (root, api, clear_env, root_variable) = match &module {
            Module::Buildpack(b) => (&b.root, &b.api, b.clear_env, "CNB_BUILDPACK_DIR"),
            Module::Extension(e) => (&e.root, &e.api, e.clear_env, "CNB_EXTENSION_DIR"),
        };
        let api = api.clone().map_err(|error| RunError::Around(format!("{}: {error}", module.named())))?;
        Ok(Self { root, program: root.join("bin").join(name), api, clear_env, root_variable })
    }

    /// What detect, generate and build have in common.
    fn env(&self, context: &Context) -> Result<Env, RunError> {
        let build_config = context.build_config.as_ref().map(|dir| dir.join("env"));
        let mut env = context
            .env
            .for_module(self.clear_env, &context.platform.join("env"), build_config.as_deref())
            .map_err(|error| RunError::Around(error.to_string()))?;
        env.set(self.root_variable, self.root);
        if self.api.targets() {
            context.target.set_env(&mut env);
        }
        if self.api.exec_env() && !context.exec_env.is_empty() {
            env.set("CNB_EXEC_ENV", &context.exec_env);
        }
        Ok(env)
    }

    fn command(&self, args: &[&Path], env: &Env, context: &Context) -> Result<Command, RunError> {
        if let Some((name, _)) = env.iter().find(|(_, value)| value.as_bytes().contains(&0)) {
            let name = name.to_string_lossy();
            return Err(RunError::Around(format!("the value of environment variable {name} contains a NUL byte")));
        }
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(&context.app).env_clear().envs(env.iter());
        Ok(command)
    }

    /// Runs it; what it prints goes to our stdout as it comes.
    fn run(&self, args: &[&Path], env: &Env, context: &Context) -> Result<(), RunError> {
        let mut command = self.command(args, env, context)?;
        command.stdin(Stdio::null());
        let status = run_aloud(command, context.no_color.then(Plain::default));
        let status = status.map_err(|cause| self.start_error(context, &cause))?;
        if status.success() { Ok(()) } else { Err(RunError::Status { text: status_text(status) }) }
    }

    /// Why it did not start; the system says "no such file or directory" of more than the file.
    fn start_error(&self, context: &Context, cause: &io::Error) -> RunError {
        let why = io_text(cause);
        if !context.app.is_dir() {
            return RunError::Start(format!("change to app directory {}: {why}", context.app.display()));
        }
        let hint = if cause.kind() == io::ErrorKind::NotFound && self.program.exists() {
            " (the interpreter that its first line names is missing)"
        } else {
            ""
        };
        RunError::Start(format!("fork/exec {}: {why}{hint}", self.program.display()))
    }
}

/// How a program ended, as the platforms know it from Go: `exit status 7`, `signal: killed`.
fn status_text(status: ExitStatus) -> String {
    let Some(signal) = status.signal() else {
        return format!("exit status {}", status.code().unwrap_or(-1));
    };
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        other => return format!("signal: signal {other}"),
    };
    format!("signal: {name}{}", if status.core_dumped() { " (core dumped)" } else { "" })
}
