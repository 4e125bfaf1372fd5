//! How long a snapshot takes: `snapshot <root>`, five times.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for the terminal")]

use std::{path::PathBuf, time::Instant};

use dockerfile::{Ignore, Snapshot};

fn main() {
    let root = PathBuf::from(std::env::args_os().nth(1).unwrap());
    let ignore = Ignore::new(&root, &[]).unwrap();
    for _ in 0..5 {
        let start = Instant::now();
        let snapshot = Snapshot::take(&root, &ignore).unwrap();
        println!("{} files in {:?}", snapshot.len(), start.elapsed());
    }
}
