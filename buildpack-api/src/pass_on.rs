//! Running a program and passing on what it prints.

use std::{
    fs::File,
    io::{self, Read, Write},
    iter,
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use crate::{piped, plain::Plain};

/// For how long a program that has ended is listened to while nothing comes: a filter of its output may still be at work,
/// but a daemon it left behind may keep its output open for ever.
const SILENCE: Duration = Duration::from_secs(10);

/// Runs it to its end, and to that of its output, which goes to our stdout; `plain` takes the colours away.
pub(crate) fn run_aloud(command: Command, mut plain: Option<Plain>) -> io::Result<ExitStatus> {
    let (mut child, output) = piped::start(command)?;
    let passed = pass_on(&mut child, output, plain.as_mut());
    let status = child.wait()?;
    passed.map(|()| status)
}

fn pass_on(child: &mut Child, mut output: File, mut plain: Option<&mut Plain>) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut ended = false;
    let mut last = Instant::now();
    loop {
        let ready = piped::wait_for(iter::once(&output))?;
        if ready == [false] {
            if ended && last.elapsed() > SILENCE {
                return Ok(());
            }
            if !ended && child.try_wait()?.is_some() {
                (ended, last) = (true, Instant::now());
            }
            continue;
        }
        let size = match output.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        last = Instant::now();
        let bytes = buffer.get(..size).unwrap_or_default();
        let mut stdout = io::stdout().lock();
        // Who reads our output may be gone, which is no reason to fail a build.
        let _ = match plain.as_mut() {
            Some(plain) => stdout.write_all(&plain.strip(bytes)),
            None => stdout.write_all(bytes),
        }
        .and_then(|()| stdout.flush());
    }
}
