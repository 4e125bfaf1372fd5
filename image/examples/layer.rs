//! Makes a layer by hand, to compare and to measure: `layer dir|app|hash|files DIR [layout]`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool")]

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use image::{Destination, LayerJob, Owner, Pipeline, Recipe};

fn walk(dir: &Path, all: &mut Vec<PathBuf>) -> std::io::Result<()> {
    all.push(dir.to_owned());
    for entry in dir.read_dir()? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { walk(&entry.path(), all)? } else { all.push(entry.path()) }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let dir = Path::new(&args[2]);
    let owner = Owner { uid: 1234, gid: 3_000_000_000 };
    let start = Instant::now();
    let recipe = match args[1].as_str() {
        "app" => {
            let mut all = Vec::new();
            walk(dir, &mut all)?;
            Recipe::files(dir, all.into_iter().map(|path| (path, None)).collect(), owner)?
        }
        "tar" => Recipe::tar(dir),
        _ => Recipe::dir(dir, owner)?,
    };
    let walked = start.elapsed();
    let job = LayerJob {
        name: "example".to_owned(),
        recipe,
        reusable: Vec::new(),
        to: args.get(3).map(|to| Destination::Layout(PathBuf::from(to))),
        cache_to: None,
        tar_to: None,
        known: None,
    };
    let workers = std::env::var("WORKERS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let pipeline = Pipeline { workers, docker: false, on_event: &|_| {} };
    let made = pipeline.run(vec![job])?.remove(0);
    let took = start.elapsed();
    #[allow(clippy::cast_precision_loss)]
    let speed = made.size as f64 / 1e6 / took.as_secs_f64();
    println!("{} {} bytes, {:?}", made.diff_id, made.size, made.blob.map(|blob| blob.size));
    eprintln!("walk {walked:?}, all {took:?}, {speed:.0} MB/s");
    Ok(())
}
