//! Becoming the process.

use std::{
    convert::Infallible,
    env::set_current_dir,
    ffi::{CString, OsStr, OsString},
    fs, io, iter,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use buildpack_api::{Env, end_when_told, io_text};
use nix::{
    errno::Errno,
    sys::signal::{SigHandler, Signal, signal},
    unistd::{AccessFlags, eaccess, execve},
};

use crate::{error::Error, process::Start};

/// Becomes a direct process. Comes back only where that failed.
pub(crate) fn direct(start: &Start, env: &Env) -> Error {
    if let Some(dir) = &start.working_dir {
        if let Err(e) = set_current_dir(dir) {
            return Error::io(&format!("chdir {}", dir.display()), &e).within("change directory");
        }
    }
    let program = match look_up(&start.command, env.get("PATH").unwrap_or_default()) {
        Ok(program) => program,
        Err(e) => return e.within("path lookup"),
    };
    let error = replace(&program, &start.command, &start.args, env);
    Error::io(&program.display().to_string(), &error).within("direct exec")
}

/// Replaces this process by the file `program`. Comes back only where that failed.
pub(crate) fn replace(program: &Path, argv0: &OsStr, args: &[OsString], env: &Env) -> io::Error {
    let replaced = Prepared::new(program, argv0, args, env).and_then(|prepared| {
        set_broken_pipe(SigHandler::SigDfl)?;
        prepared.exec()
    });
    match replaced {
        Err(e) => e,
    }
}

/// All that the kernel wants to know of a program.
///
/// std's `Command` gives what the kernel does not know as a program (one of another architecture, say) to `/bin/sh`, and
/// what comes of it hides the reason.
pub(crate) struct Prepared {
    program: CString,
    args: Vec<CString>,
    variables: Vec<CString>,
}

impl Prepared {
    pub(crate) fn new(program: &Path, argv0: &OsStr, args: &[OsString], env: &Env) -> io::Result<Self> {
        let args = iter::once(argv0).chain(args.iter().map(OsString::as_os_str));
        Ok(Self {
            program: c_string(program.as_os_str(), "the program")?,
            args: args.map(|arg| c_string(arg, "an argument")).collect::<io::Result<_>>()?,
            variables: env.iter().map(|(name, value)| variable(name, value)).collect::<io::Result<_>>()?,
        })
    }

    /// Becomes the program. Comes back only where that failed.
    pub(crate) fn exec(&self) -> io::Result<Infallible> {
        Ok(execve(&self.program, &self.args, &self.variables)?)
    }
}

/// So that the launcher's exit code tells what went wrong even where nobody reads what it says.
pub(crate) fn ignore_broken_pipes() {
    // Where it is refused, a broken pipe ends us with a signal instead.
    let _ = set_broken_pipe(SigHandler::SigIgn);
}

/// An ignored signal would stay so in the process, which would then never end on a broken pipe.
fn set_broken_pipe(handler: SigHandler) -> io::Result<()> {
    set_signal(Signal::SIGPIPE, handler).map(drop)
}

/// Sets what a signal does, ignoring it or its default, and says what it did.
fn set_signal(number: Signal, handler: SigHandler) -> io::Result<SigHandler> {
    // SAFETY: neither ignoring a signal nor its default disposition runs code of ours.
    #[allow(unsafe_code)]
    Ok(unsafe { signal(number, handler) }?)
}

/// Does `act` while ended children can be waited for: who ignores their signal (a supervisor may have left it so) has none
/// to wait for. From then on a first process ends when it is told to, until it is the app.
pub(crate) fn with_children<T>(act: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let failed = |e: io::Error| Error::io("set what a signal does", &e);
    let before = set_signal(Signal::SIGCHLD, SigHandler::SigDfl).map_err(failed)?;
    end_when_told();
    let done = act();
    set_signal(Signal::SIGCHLD, before).map_err(failed)?;
    done
}

fn c_string(text: &OsStr, what: &str) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| holds_nul(what))
}

/// `<name>=<value>`, made in one place of the right size: there may be hundreds.
fn variable(name: &OsStr, value: &OsStr) -> io::Result<CString> {
    let mut text = Vec::with_capacity(name.len() + value.len() + "=\0".len());
    text.extend_from_slice(name.as_bytes());
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    CString::new(text).map_err(|_| holds_nul(&format!("variable {}", Path::new(name).display())))
}

fn holds_nul(what: &str) -> io::Error {
    io::Error::other(format!("{what} holds a NUL byte"))
}

/// The file to execute: the command itself where it has a slash, else the first executable of that name in `path`.
/// Only absolute elements count: the app's own directory is not searched by accident.
fn look_up(command: &OsStr, path: &OsStr) -> Result<PathBuf, Error> {
    let named = |text: &str| Error::new(format!("exec: \"{}\": {text}", Path::new(command).display()));
    if command.as_bytes().contains(&b'/') {
        return match executable(Path::new(command)) {
            Ok(()) => Ok(command.into()),
            Err(e) => Err(named(&io_text(&e))),
        };
    }
    std::env::split_paths(path)
        .filter(|dir| dir.is_absolute() && !command.is_empty())
        .map(|dir| dir.join(command))
        .find(|file| executable(file).is_ok())
        .ok_or_else(|| named("executable file not found in $PATH"))
}

/// Whether we, whoever that is, may execute the file.
fn executable(file: &Path) -> io::Result<()> {
    let metadata = fs::metadata(file)?;
    if metadata.is_dir() {
        return Err(Errno::EISDIR.into());
    }
    match eaccess(file, AccessFlags::X_OK) {
        // Sandboxes that do not know the call.
        Err(Errno::ENOSYS | Errno::EPERM) if metadata.permissions().mode() & 0o111 != 0 => Ok(()),
        answer => Ok(answer?),
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, fs, os::unix::fs::PermissionsExt, path::Path};

    use super::look_up;

    fn file(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_name_is_looked_up_in_path_and_a_path_is_taken_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let dir = |name: &str| root.path().join(name);
        file(&dir("a/tool"), 0o644);
        fs::create_dir_all(dir("b/tool")).unwrap();
        file(&dir("c/tool"), 0o755);
        file(&dir("d/tool"), 0o755);
        let path: OsString = std::env::join_paths(
            [dir("missing"), dir("a"), dir("b"), dir("c"), dir("d"), "".into(), "relative".into()].iter(),
        )
        .unwrap();
        assert_eq!(look_up("tool".as_ref(), &path).unwrap(), dir("c/tool"));
        let given = dir("d/tool");
        assert_eq!(look_up(given.as_os_str(), "".as_ref()).unwrap(), given);

        let text = |command: &str| look_up(command.as_ref(), &path).unwrap_err().to_string();
        for command in ["nothing", "", "Cargo.toml"] {
            assert_eq!(text(command), format!("exec: \"{command}\": executable file not found in $PATH"));
        }
        let missing = dir("missing/tool");
        let missing = missing.to_str().unwrap();
        assert_eq!(text(missing), format!("exec: \"{missing}\": no such file or directory"));
        let plain = dir("a/tool");
        assert_eq!(text(plain.to_str().unwrap()), format!("exec: \"{}\": permission denied", plain.display()));
        let directory = dir("b/tool");
        assert_eq!(text(directory.to_str().unwrap()), format!("exec: \"{}\": is a directory", directory.display()));
    }
}
