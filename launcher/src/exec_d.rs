//! exec.d: executables of the buildpacks that set variables when the process starts.
//!
//! Each writes TOML to descriptor 3. buildpack.md, "Exec.d".

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, IntoRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use buildpack_api::{Env, parse_exec_d_output};
use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{dup2_raw, pipe2},
};

use crate::{
    error::Error,
    exec::{Prepared, with_children},
    layers::LayerDirs,
};

/// More than Linux lets an environment hold (6 MiB), so that whatever could be launched is read.
const OUTPUT_LIMIT: usize = 8 << 20;

/// How often to ask whether an executable that is silent has ended, in milliseconds.
const LOOK_AGAIN: u8 = 10;

/// For how long to listen to what an ended executable has left running (a filter that bash does not wait for, say) while it
/// says nothing, in milliseconds.
const LAST_WORDS: u16 = 1000;

/// Runs the plain executables of all layers, then those of the process type; each sees what those before it have set.
pub(crate) fn run_all(layers: &LayerDirs, process_type: Option<&str>, env: &mut Env) -> Result<(), Error> {
    let files = layers.files("exec.d", process_type)?;
    if files.is_empty() {
        return Ok(());
    }
    with_children(|| files.iter().try_for_each(|path| apply(path, env)))
}

/// Runs one, and sets what it says.
fn apply(path: &Path, env: &mut Env) -> Result<(), Error> {
    let named = |e: Error| e.within(&format!("execute '{}'", path.display()));
    let output = run(path, env).map_err(named)?;
    let text = String::from_utf8(output).map_err(|_| named(Error::new("the output is not UTF-8")))?;
    for (name, value) in parse_exec_d_output(&text).map_err(|e| named(Error::new(e.to_string())))? {
        env.set(name, value);
    }
    Ok(())
}

/// What the executable wrote to descriptor 3.
fn run(path: &Path, env: &Env) -> Result<Vec<u8>, Error> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::io("create pipe", &e.into()))?;
    let program = Prepared::new(path, path.as_os_str(), &[], env).map_err(|e| Error::io("start", &e))?;
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    with_descriptor_3(&mut command, writer, program);
    let mut child = command.spawn().map_err(|e| Error::io("start", &e))?;
    // The command holds our end for writing; while it is open the output has no end.
    drop(command);

    let output = read_output(reader.into(), &mut child);
    if output.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|e| Error::io("wait", &e))?;
    let output = output?;
    if !status.success() {
        return Err(Error::new(status.to_string()));
    }
    Ok(output)
}

/// Reads until the end of the output, or until the executable has ended and nothing more comes: a process it leaves in
/// the background may keep descriptor 3 open for as long as it likes.
fn read_output(mut pipe: File, child: &mut Child) -> Result<Vec<u8>, Error> {
    let failed = |e: io::Error| Error::io("read output", &e);
    let mut output = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        let ended = child.try_wait().map_err(failed)?.is_some();
        let timeout = if ended { PollTimeout::from(LAST_WORDS) } else { PollTimeout::from(LOOK_AGAIN) };
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if ended => return Ok(output),
            Ok(0) | Err(nix::Error::EINTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(failed(e.into())),
        }
        let read = match pipe.read(&mut chunk) {
            Ok(0) => return Ok(output),
            Ok(read) => chunk.get(..read).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(failed(e)),
        };
        if output.len().saturating_add(read.len()) > OUTPUT_LIMIT {
            return Err(Error::new(format!("more than {OUTPUT_LIMIT} bytes of output")));
        }
        output.extend_from_slice(read);
    }
}

/// In the child alone `descriptor` becomes number 3 and is inherited; ours stays closed on exec. Then the child becomes the
/// program.
#[allow(unsafe_code)]
fn with_descriptor_3(command: &mut Command, descriptor: OwnedFd, program: Prepared) {
    let become_it = move || {
        // SAFETY: number 3 has no owner in the child: it is what the launcher itself inherited, or one end of our
        // pipe, whose owner in the child never runs again.
        let installed = unsafe { dup2_raw(&descriptor, 3) }?;
        // Where it has been number 3 all along, it would still be closed.
        fcntl(&installed, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let _ = installed.into_raw_fd();
        program.exec().map(drop)
    };
    // SAFETY: runs between fork and exec in a process of one thread, where nothing was interrupted half-way.
    unsafe { command.pre_exec(become_it) };
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt,
        path::{Path, PathBuf},
        time::{Duration, Instant},
    };

    use buildpack_api::Env;

    use super::{OUTPUT_LIMIT, run};

    fn script(dir: &Path, body: &str) -> PathBuf {
        let path = dir.join("script");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn env() -> Env {
        let mut env = Env::default();
        env.set("PATH", "/usr/bin:/bin");
        env.set("V", "val");
        env
    }

    #[test]
    fn output_of_descriptor_3_is_returned() {
        let dir = tempfile::tempdir().unwrap();
        let much = 300_000;
        let rows = [
            ("echo \"x = '$V'\" >&3", "x = 'val'\n".to_owned()),
            ("echo a >&3; echo b > /dev/fd/3", "a\nb\n".to_owned()),
            (":", String::new()),
            ("exec 3>&-", String::new()),
            ("head -c 300000 /dev/zero | tr '\\0' x >&3", "x".repeat(much)),
            ("read line || echo at the end >&3", "at the end\n".to_owned()),
        ];
        for (body, want) in rows {
            let output = run(&script(dir.path(), body), &env()).unwrap();
            assert!(output == want.as_bytes(), "{body}: {}", String::from_utf8_lossy(&output));
        }
    }

    #[test]
    fn a_process_in_the_background_that_keeps_the_descriptor_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let output = run(&script(dir.path(), "sleep 60 & echo kept >&3; echo $! >&3"), &env()).unwrap();
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
        let text = String::from_utf8(output).unwrap();
        let pid = text.strip_prefix("kept\n").unwrap().trim();
        assert!(Path::new("/proc").join(pid).exists(), "it ran on");
        std::process::Command::new("kill").arg(pid).status().unwrap();
    }

    #[test]
    fn what_a_filter_has_to_say_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let output = run(&script(dir.path(), "(sleep 0.2; echo late >&3) &"), &env()).unwrap();
        assert_eq!(output, b"late\n");
    }

    #[test]
    fn failures_say_how_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let too_much = format!("head -c {} /dev/zero >&3; exec 3>&-; exec sleep 60", OUTPUT_LIMIT + 1);
        for (body, want) in [
            ("exit 3", "exit status: 3"),
            ("kill -9 $$", "signal: 9"),
            (too_much.as_str(), "more than 8388608 bytes of output"),
        ] {
            let error = run(&script(dir.path(), body), &env()).unwrap_err().to_string();
            assert!(error.starts_with(want), "{body}: {error}");
        }
        let error = run(&dir.path().join("missing"), &env()).unwrap_err();
        assert_eq!(error.to_string(), "start: no such file or directory");
        let no_program = script(dir.path(), "");
        fs::write(&no_program, "echo 'a = 1' >&3").unwrap();
        assert_eq!(run(&no_program, &env()).unwrap_err().to_string(), "start: exec format error");
    }

    #[test]
    fn of_our_descriptors_number_3_alone_is_inherited() {
        let dir = tempfile::tempdir().unwrap();
        let count = "ls /proc/self/fd | wc -l";
        let with = run(&script(dir.path(), &format!("{count} >&3")), &env()).unwrap();
        let number = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().parse::<usize>().unwrap();
        // Whatever the surroundings of the test leak is there without us, too.
        let without = std::process::Command::new("sh").args(["-c", count]).output().unwrap().stdout;
        assert_eq!(number(&with), number(&without) + 1);
    }
}
