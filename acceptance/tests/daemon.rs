//! creator and rebaser with `-daemon`, as root that becomes another user, against the Docker daemon of this machine, or
//! the one that `DOCKER_HOST` (with `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`) names. What is made in it is removed
//! again. platform.md "Exporter", "Rebaser"
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests; they say what they leave out")]

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use acceptance::{
    run::{Outcome, as_root, command, executable, find_executable, may_differ, run},
    tree::{
        Entry::{Dir, File, Script},
        give_to, temp_dir, write, write_buildpack,
    },
};
use tempfile::TempDir;

/// Every system has this user; creator asks for its home.
const NOBODY: u32 = 65534;
/// Where the daemon is; both Docker's client and the lifecycle read them.
const WHERE: [&str; 3] = ["DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"];

/// A layer that is other at each build, and above it one that is made once and then left to the previous image.
const BUILD: &str = r#"
mkdir "$1/a-new"
date +%N >"$1/a-new/time"
printf '[types]\nlaunch = true\n' >"$1/a-new.toml"
if [ ! -e "$1/once.toml" ]; then
    mkdir "$1/once"
    echo "made at the first build" >"$1/once/file"
fi
printf '[types]\nlaunch = true\n[metadata]\nmade = true\n' >"$1/once.toml"
printf '[[processes]]\ntype = "web"\ncommand = ["/bin/cat"]\nargs = ["%s", "/base"]\ndefault = true\n' "$1/once/file" >"$1/launch.toml"
"#;

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// One build's directories, and names of images.
struct World {
    dir: TempDir,
    name: String,
    /// Where the lifecycle finds the daemon.
    host: Vec<(&'static str, OsString)>,
}

impl World {
    /// `None`, said on stderr, where there is no daemon, or no right to become another user.
    fn new(name: &str) -> Option<Self> {
        let answers = || {
            let mut version = Command::new("docker");
            version.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
            version.status().is_ok_and(|status| status.success())
        };
        if !as_root() {
            return None;
        }
        if !answers() {
            eprintln!("skipped: no Docker daemon answers, or there is no docker command");
            return None;
        }
        let host = WHERE.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))).collect();
        let world = Self { dir: temp_dir(), name: format!("acceptance-daemon/{}-{name}", std::process::id()), host };
        let launcher = find_executable("launcher").map(|path| path.display().to_string()).unwrap_or_default();
        assert!(!launcher.is_empty(), "the launcher is not built");
        write(
            world.dir.path(),
            &[
                ("sbom", Dir),
                ("platform", Dir),
                ("layers", Dir),
                ("cache", Dir),
                ("launch", Dir),
                ("app/file", File("app")),
                ("order.toml", File("[[order]]\n[[order.group]]\nid = \"a\"\nversion = \"1\"\n")),
                ("run.toml", File(&format!("[[images]]\nimage = \"{}\"\n", world.image("run")))),
                ("root/bin/true", Script("")),
            ],
        );
        write_buildpack(&world.path("buildpacks"), ("a", "1", "0.10"), "[[targets]]\n", ":", BUILD);
        for writable in ["layers", "cache", "launch", "app"] {
            give_to(&world.path(writable), NOBODY, NOBODY);
        }
        world.import_base("first");
        Some(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn image(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    fn import_base(&self, base: &str) {
        let root = self.path("root");
        fs::copy("/bin/busybox", root.join("bin/cat")).unwrap();
        fs::write(root.join("base"), base).unwrap();
        let tar = self.text("root.tar");
        assert!(Command::new("tar").args(["-cf", &tar, "-C"]).arg(&root).arg(".").status().unwrap().success());
        // What is made on it inherits the label, by which all is found again.
        let label = format!("LABEL acceptance-daemon={}", self.name);
        docker(&["import", "--change", &label, "--change", "ENV PATH=/bin", &tar, &self.image("run")]);
    }

    fn call(&self, name: &str) -> Command {
        let mut call = command(executable(name));
        call.env("CNB_PLATFORM_API", "0.12").args(["-daemon", "-uid", "65534", "-gid", "65534"]);
        call.envs(self.host.iter().cloned());
        call.args(["-report", &self.text("app/report.toml")]);
        call
    }

    fn create(&self, more: &[&str], app: &str) -> Outcome {
        fs::remove_dir_all(self.path("layers")).unwrap();
        fs::create_dir(self.path("layers")).unwrap();
        give_to(&self.path("layers"), NOBODY, NOBODY);
        let mut creator = self.call("creator");
        for flag in ["app", "layers", "platform", "buildpacks"] {
            creator.args([&format!("-{flag}"), &self.text(flag)]);
        }
        creator.args(["-cache-dir", &self.text("cache"), "-launcher-sbom", &self.text("sbom")]);
        creator.args(["-order", &self.text("order.toml"), "-run", &self.text("run.toml")]);
        creator.arg("-launcher").arg(executable("launcher")).args(more).arg(app);
        run(&mut creator)
    }

    fn report(&self) -> toml::Table {
        fs::read_to_string(self.path("app/report.toml")).unwrap().parse().unwrap()
    }

    /// What the image prints when its process runs: in a container, but without the launcher, as that may need
    /// libraries that the base image has not.
    fn printed(&self, image: &str) -> String {
        let once = format!("{}/a/once/file", self.text("layers"));
        docker(&["run", "--rm", "--network", "none", "--entrypoint", "/bin/cat", image, &once, "/base"])
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let label = format!("label=acceptance-daemon={}", self.name);
        let ours = docker(&["images", "--quiet", "--filter", &label]);
        let ours: BTreeSet<&str> = ours.lines().collect();
        let _ = Command::new("docker").args(["rmi", "-f"]).args(ours).output();
    }
}

/// The report names the tags and the image ID, which is what `docker inspect` says, without its algorithm.
fn check_report(world: &World, names: &[&str]) {
    let report = world.report();
    let tags: Vec<&str> = report["image"]["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect();
    assert_eq!(tags, names);
    // A daemon has no manifest of the image.
    assert!(report["image"].get("manifest-size").is_none(), "{report}");
    for name in names {
        let id = docker(&["inspect", "--format", "{{.Id}}", name]);
        assert_eq!(report["image"]["image-id"].as_str(), id.strip_prefix("sha256:"));
    }
}

/// The daemon's socket behind TLS, for clients that show a certificate.
struct Tls {
    dir: TempDir,
    proxy: Child,
    port: u16,
}

impl Tls {
    /// `None`, said on stderr, where there is nothing to make it of.
    fn start() -> Option<Self> {
        let socket = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let (Some(socket), true) = (socket.strip_prefix("unix://"), Command::new("socat").arg("-V").output().is_ok())
        else {
            eprintln!("skipped: TLS to the daemon needs its socket and socat");
            return None;
        };
        let dir = temp_dir();
        let openssl = |arguments: &str| {
            let output = Command::new("openssl").args(arguments.split(' ')).current_dir(dir.path()).output().unwrap();
            assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        };
        openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca-key.pem -out ca.pem");
        for (name, key) in [("server", "server-key.pem"), ("cert", "key.pem")] {
            openssl(&format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {key} -out {name}.csr"));
            fs::write(dir.path().join("names"), "subjectAltName=IP:127.0.0.1").unwrap();
            let sign = "x509 -req -days 2 -CA ca.pem -CAkey ca-key.pem -CAcreateserial -extfile names";
            openssl(&format!("{sign} -in {name}.csr -out {name}.pem"));
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listen = format!("OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,verify=1");
        let listen = format!("{listen},cert=server.pem,key=server-key.pem,cafile=ca.pem");
        let mut proxy = Command::new("socat");
        proxy.args([&listen, &format!("UNIX-CONNECT:{socket}")]).current_dir(dir.path()).stderr(Stdio::null());
        let tls = Self { dir, proxy: proxy.spawn().unwrap(), port };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            thread::yield_now();
        }
        Some(tls)
    }

    fn host(&self) -> Vec<(&'static str, OsString)> {
        let values = [format!("tcp://127.0.0.1:{}", self.port).into(), "1".into(), self.dir.path().into()];
        WHERE.into_iter().zip(values).collect()
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

fn builds_and_rebases(name: &str, launch_cache: bool) {
    if let Some(world) = World::new(name) {
        builds_and_rebases_in(&world, launch_cache);
    }
}

fn builds_and_rebases_in(world: &World, launch_cache: bool) {
    let (app, tag) = (world.image("app"), world.image("app:2"));
    let launch = world.text("launch");
    let mut more = vec!["-tag", &*tag];
    if launch_cache {
        more.extend(["-launch-cache", &launch]);
    }
    world.create(&more, &app).ok().says("Adding layer 'a:once'");
    check_report(world, &[&app, &tag]);
    assert_eq!(world.printed(&app), "made at the first build\nfirst");
    let diff_ids = || docker(&["inspect", "--format", "{{json .RootFS.Layers}}", &app]);
    let first = diff_ids();

    let again = world.create(&more, &app);
    if launch_cache || !may_differ("the reference needs a second connection to a socket that is root's") {
        again.ok().says("Reusing layer 'a:once'").says("Adding layer 'a:a-new'");
        check_report(world, &[&app, &tag]);
        assert_eq!(world.printed(&app), "made at the first build\nfirst");
        assert_ne!(diff_ids(), first);
    }
    let kept: BTreeSet<String> = match fs::read_dir(world.path("launch/committed")) {
        Ok(entries) => entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect(),
        Err(_) => BTreeSet::new(),
    };
    let layers: Vec<String> = serde_json::from_str(&diff_ids()).unwrap();
    let of_app: BTreeSet<String> = layers[1..].iter().map(|id| format!("{id}.tar")).collect();
    assert_eq!(kept, if launch_cache { of_app } else { BTreeSet::new() });

    world.import_base("second");
    run(world.call("rebaser").arg(&app)).ok();
    check_report(world, &[&app]);
    assert_eq!(world.printed(&app), "made at the first build\nsecond");
    let rebased: Vec<String> = serde_json::from_str(&diff_ids()).unwrap();
    assert_eq!(rebased[1..], layers[1..]);
    assert_ne!(rebased[0], layers[0]);
}

#[test]
fn with_a_launch_cache() {
    builds_and_rebases("cached", true);
}

#[test]
fn without_a_launch_cache() {
    builds_and_rebases("plain", false);
}

/// The daemon is known by its certificate, and knows us by ours.
#[test]
fn over_tls() {
    let Some(mut world) = World::new("tls") else { return };
    let Some(tls) = Tls::start() else { return };
    world.host = tls.host();
    builds_and_rebases_in(&world, true);

    // Another authority's daemon is not believed.
    let Some(other) = Tls::start() else { return };
    fs::copy(other.dir.path().join("ca.pem"), tls.dir.path().join("ca.pem")).unwrap();
    if !may_differ("the reference says so when it first asks the daemon, in the words of its client") {
        run(world.call("rebaser").arg(world.image("app"))).exits(1).says("failed to initialize docker client");
    }
}

/// Before anything else is done.
#[test]
fn no_daemon_is_an_error_of_its_own() {
    for (host, text) in [("unix:///no/such.sock", "/no/such.sock"), ("ssh://me@there", "ssh")] {
        let mut rebaser = command(executable("rebaser"));
        rebaser.env("CNB_PLATFORM_API", "0.12").env("DOCKER_HOST", host).args(["-daemon", "acme/app"]);
        if !may_differ("the reference says so when it first asks the daemon, in the words of its client") {
            run(&mut rebaser).exits(1).says("failed to initialize docker client").says(text);
        }
    }
}
