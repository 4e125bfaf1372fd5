//! Which process to start: the one the launcher's name says, or the one its arguments say.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use buildpack_api::{BuildpackApi, Process};
use platform_api::{BuildMetadata, PlatformApi, inputs::LauncherInputs};

use crate::error::Error;

/// The start command: what to run and how.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// The type of a buildpack-provided process.
    process_type: Option<String>,
    pub(crate) command: OsString,
    pub(crate) args: Vec<OsString>,
    /// Executed without a shell.
    pub(crate) direct: bool,
    /// `None`: the app directory.
    pub(crate) working_dir: Option<PathBuf>,
}

impl Start {
    /// The type of a buildpack-provided process; `None` for a user-provided one.
    pub(crate) fn process_type(&self) -> Option<&str> {
        self.process_type.as_deref()
    }
}

/// platform.md, "launcher": how `<cmd>`, `<args>`, `<working-dir>` and `<direct>` are derived.
pub(crate) fn choose(argv0: &OsStr, inputs: &LauncherInputs, metadata: &BuildMetadata) -> Result<Start, Error> {
    let name = Path::new(argv0).file_name().and_then(OsStr::to_str).unwrap_or_default();
    let mut of_this_type = metadata.processes.iter().filter(|(p, _)| p.r#type.as_str() == name).peekable();
    if of_this_type.peek().is_none() {
        return user_provided(&inputs.args);
    }
    let (process, buildpack) = of_this_type
        .find(|(p, _)| eligible(p, inputs.api, &inputs.exec_env))
        .ok_or_else(|| Error::new(format!("process type {name} was not found")))?;
    let (command, always) = process
        .command
        .split_first()
        .ok_or_else(|| Error::new(format!("no command provided for process type \"{name}\"")))?;

    let mut args: Vec<OsString> = always.iter().map(OsString::from).collect();
    if inputs.args.is_empty() || !args_replaced(process, buildpack, inputs.api, metadata)? {
        args.extend(process.args().iter().map(OsString::from));
    }
    args.extend_from_slice(&inputs.args);
    Ok(Start {
        process_type: Some(name.to_owned()),
        command: command.into(),
        args,
        direct: process.direct,
        working_dir: process.working_dir.clone().filter(|dir| !dir.as_os_str().is_empty()),
    })
}

fn eligible(process: &Process, api: PlatformApi, exec_env: &str) -> bool {
    !api.exec_env() || process.exec_env.is_empty() || process.exec_env.iter().any(|e| e == "*" || e == exec_env)
}

/// Whether arguments of the user replace the process's own, instead of following them.
fn args_replaced(
    process: &Process,
    buildpack: &str,
    api: PlatformApi,
    metadata: &BuildMetadata,
) -> Result<bool, Error> {
    if !api.user_args_may_replace() {
        return Ok(false);
    }
    // Only Buildpack APIs with replaceable arguments have such commands.
    if process.command.len() > 1 {
        return Ok(true);
    }
    let provider = metadata.buildpacks.iter().find(|entry| entry.id.as_str() == buildpack).ok_or_else(|| {
        Error::new(format!("find buildpack '{buildpack}', which provides process type '{}'", process.r#type))
    })?;
    let api: BuildpackApi = provider.api.parse().map_err(|e| Error::new(format!("buildpack '{buildpack}': {e}")))?;
    Ok(api.default_args_replaced())
}

fn user_provided(args: &[OsString]) -> Result<Start, Error> {
    let (direct, command, args) = match args {
        [] => return Err(Error::new("when there is no default process a command is required")),
        [dashes, command, args @ ..] if dashes == "--" => (true, command, args),
        [command, args @ ..] => (false, command, args),
    };
    Ok(Start { process_type: None, command: command.clone(), args: args.to_vec(), direct, working_dir: None })
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt};

    use buildpack_api::{Process, ProcessType};
    use platform_api::{BuildMetadata, GroupEntry, PlatformApi, inputs::LauncherInputs};

    use super::{Start, choose};

    fn inputs(api: PlatformApi, args: &[&str]) -> LauncherInputs {
        LauncherInputs {
            api,
            app: "/workspace".into(),
            layers: "/layers".into(),
            exec_env: "production".into(),
            process_type: None,
            no_color: false,
            args: args.iter().map(OsString::from).collect(),
            inherited: Vec::new(),
        }
    }

    fn process(r#type: &str, command: &[&str], args: &[&str], exec_env: &[&str]) -> Process {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Process {
            r#type: ProcessType::new(r#type),
            command: owned(command),
            args: Some(owned(args)),
            direct: true,
            default: false,
            working_dir: None,
            exec_env: owned(exec_env),
        }
    }

    fn metadata(processes: Vec<(Process, &str)>) -> BuildMetadata {
        let buildpack = |(id, api): (&str, &str)| GroupEntry {
            id: id.to_owned().try_into().unwrap(),
            version: "1".into(),
            api: api.into(),
            homepage: None,
            optional: false,
        };
        BuildMetadata {
            buildpacks: [("old", "0.8"), ("new", "0.9")].map(buildpack).to_vec(),
            processes: processes.into_iter().map(|(p, id)| (p, id.to_owned())).collect(),
            ..BuildMetadata::default()
        }
    }

    fn words(start: &Start) -> Vec<&str> {
        [&start.command].into_iter().chain(&start.args).map(|w| w.to_str().unwrap()).collect()
    }

    #[test]
    fn arguments_of_the_user_replace_or_follow() {
        // Who provides it, its command, user arguments; before 0.10, from 0.10 on.
        type Words = &'static [&'static str];
        let rows: [(&str, Words, Words, Words, Words); 6] = [
            ("old", &["run"], &[], &["run", "default"], &["run", "default"]),
            ("old", &["run"], &["mine"], &["run", "default", "mine"], &["run", "default", "mine"]),
            ("new", &["run"], &[], &["run", "default"], &["run", "default"]),
            ("new", &["run"], &["mine"], &["run", "default", "mine"], &["run", "mine"]),
            ("new", &["run", "always"], &[], &["run", "always", "default"], &["run", "always", "default"]),
            ("new", &["run", "always"], &["mine"], &["run", "always", "default", "mine"], &["run", "always", "mine"]),
        ];
        for (buildpack, command, user, before, after) in rows {
            let metadata = metadata(vec![(process("web", command, &["default"], &[]), buildpack)]);
            for api in PlatformApi::ALL {
                let start = choose("/cnb/process/web".as_ref(), &inputs(api, user), &metadata).unwrap();
                let want = if api.user_args_may_replace() { after } else { before };
                assert_eq!(words(&start), want, "{buildpack} {command:?} {user:?} {api:?}");
                assert_eq!(start.process_type(), Some("web"));
            }
        }
    }

    #[test]
    fn a_process_is_chosen_by_the_last_element_of_the_launchers_name() {
        let metadata = metadata(vec![(process("a.b", &["run"], &[], &[]), "new")]);
        for name in ["/cnb/process/a.b", "a.b", "./a.b"] {
            assert!(choose(name.as_ref(), &inputs(PlatformApi::V0_15, &[]), &metadata).is_ok(), "{name}");
        }
        for name in ["/cnb/lifecycle/launcher", "a", "b", "", "/a.b/x"] {
            let error = choose(name.as_ref(), &inputs(PlatformApi::V0_15, &[]), &metadata).unwrap_err();
            assert_eq!(error.to_string(), "when there is no default process a command is required", "{name}");
        }
        let bytes = OsString::from_vec(vec![b'/', 0xff]);
        assert!(choose(&bytes, &inputs(PlatformApi::V0_15, &["x"]), &metadata).is_ok());
    }

    #[test]
    fn a_process_must_be_eligible_for_the_execution_environment() {
        let rows: [(&[&str], bool); 5] =
            [(&[], true), (&["*"], true), (&["production"], true), (&["test", "production"], true), (&["test"], false)];
        for (exec_env, eligible) in rows {
            let metadata = metadata(vec![(process("web", &["run"], &[], exec_env), "new")]);
            for api in PlatformApi::ALL {
                let chosen = choose("web".as_ref(), &inputs(api, &["x"]), &metadata);
                if eligible || !api.exec_env() {
                    assert!(chosen.is_ok(), "{exec_env:?} {api:?}");
                } else {
                    assert_eq!(chosen.unwrap_err().to_string(), "process type web was not found");
                }
            }
        }
    }

    #[test]
    fn of_two_processes_of_one_type_the_eligible_one_is_chosen() {
        let two = vec![
            (process("web", &["dev-server"], &[], &["development"]), "new"),
            (process("web", &["server"], &[], &["production"]), "new"),
        ];
        let start = choose("web".as_ref(), &inputs(PlatformApi::V0_15, &[]), &metadata(two)).unwrap();
        assert_eq!(start.command, "server");
    }

    #[test]
    fn a_process_of_an_unknown_buildpack_starts_but_takes_no_arguments() {
        let metadata = metadata(vec![(process("web", &["run"], &[], &[]), "gone")]);
        assert!(choose("web".as_ref(), &inputs(PlatformApi::V0_10, &[]), &metadata).is_ok());
        let error = choose("web".as_ref(), &inputs(PlatformApi::V0_10, &["x"]), &metadata).unwrap_err();
        assert_eq!(error.to_string(), "find buildpack 'gone', which provides process type 'web'");
        assert!(choose("web".as_ref(), &inputs(PlatformApi::V0_9, &["x"]), &metadata).is_ok());
    }

    #[test]
    fn a_process_without_a_command_is_an_error() {
        let metadata = metadata(vec![(process("web", &[], &["x"], &[]), "new")]);
        let error = choose("web".as_ref(), &inputs(PlatformApi::V0_10, &[]), &metadata).unwrap_err();
        assert_eq!(error.to_string(), "no command provided for process type \"web\"");
    }

    #[test]
    fn a_user_provided_process_is_direct_after_two_dashes() {
        let rows: [(&[&str], bool, &[&str]); 5] = [
            (&["--", "cmd", "a", "b"], true, &["cmd", "a", "b"]),
            (&["--", "--"], true, &["--"]),
            (&["cmd", "a"], false, &["cmd", "a"]),
            (&["cmd", "--", "a"], false, &["cmd", "--", "a"]),
            (&["--"], false, &["--"]),
        ];
        for (args, direct, want) in rows {
            let start =
                choose("launcher".as_ref(), &inputs(PlatformApi::V0_7, args), &BuildMetadata::default()).unwrap();
            assert_eq!((start.direct, words(&start)), (direct, want.to_vec()), "{args:?}");
            assert_eq!((start.process_type(), &start.working_dir), (None, &None));
        }
    }
}
