//! A Debian root as debootstrap makes it, for images that apt works in.

use std::{
    env, fs,
    net::{TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use acceptance::{
    run::{as_root, command, run, workspace},
    tree::{Entry::Dir, give_to, write},
};

const SUITE: &str = "bookworm";
const USER: u32 = 1000;

/// A tar of it, made once and kept in `out`. `None`, said on stderr, where it cannot be had.
pub(crate) fn root() -> Option<&'static Path> {
    static ROOT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let made = ROOT.get_or_init(|| {
        let made = make();
        made.map_err(|why| eprintln!("skipped: needs a root that debootstrap made: {why}")).ok()
    });
    made.as_deref()
}

fn make() -> Result<PathBuf, String> {
    if !as_root() {
        return Err("only root can make it".to_owned());
    }
    let mirror = env::var("DEBIAN_MIRROR").unwrap_or_else(|_| "http://deb.debian.org/debian".to_owned());
    // What was kept is of no use without it: apt in the containers asks it, too.
    answers(&mirror).ok_or_else(|| format!("{mirror} does not answer"))?;
    let dir = workspace().join("out/debian");
    let tar = dir.join(format!("{SUITE}.tar"));
    if tar.exists() {
        return Ok(tar);
    }
    fs::create_dir_all(&dir).unwrap();
    let own = tempfile::tempdir_in(&dir).unwrap();
    let root = own.path().join("root");
    let started = Instant::now();
    let mut debootstrap = command("debootstrap");
    debootstrap.args(["--variant=minbase", SUITE]).arg(&root).arg(&mirror);
    for proxy in ["http_proxy", "https_proxy", "no_proxy"] {
        debootstrap.envs(env::var_os(proxy).map(|value| (proxy, value)));
    }
    does(&mut debootstrap)?;
    // A user for the build, and nothing that the next apt-get update would fetch anyway.
    does(command("chroot").arg(&root).args(["useradd", "--create-home", "--uid", &USER.to_string(), "cnb"]))?;
    does(command("chroot").arg(&root).args(["sh", "-c", "apt-get clean; rm -r /var/lib/apt/lists/*"]))?;
    write(&root, &[("workspace", Dir)]);
    give_to(&root.join("workspace"), USER, USER);
    let new = own.path().join("tar");
    does(command("tar").args(["--numeric-owner", "--xattrs", "-cf"]).arg(&new).arg("-C").arg(&root).arg("."))?;
    fs::rename(&new, &tar).unwrap();
    eprintln!("made {} in {:?}", tar.display(), started.elapsed());
    Ok(tar)
}

fn answers(mirror: &str) -> Option<()> {
    let (scheme, rest) = mirror.split_once("://")?;
    let host = rest.split('/').next()?;
    let host = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:{}", if scheme == "https" { 443 } else { 80 })
    };
    let mut addresses = host.to_socket_addrs().ok()?;
    addresses.find_map(|address| TcpStream::connect_timeout(&address, Duration::from_secs(10)).ok()).map(drop)
}

/// Its last line, where it fails.
fn does(call: &mut Command) -> Result<(), String> {
    let name = call.get_program().to_string_lossy().into_owned();
    if !["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|dir| Path::new(dir).join(&name).exists()) {
        return Err(format!("there is no {name}"));
    }
    let outcome = run(call);
    if outcome.code() == 0 {
        return Ok(());
    }
    let last = outcome.all().lines().last().unwrap_or_default().to_owned();
    Err(format!("{name}: exit code {}: {last}", outcome.code()))
}
