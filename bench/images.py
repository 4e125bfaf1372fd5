"""Measures what moves bytes: exports to a registry and a daemon, caches, restores, a rebase; and detection.

Everything is run as a platform runs it: whole processes, a registry of its own (docker-registry), files of this machine
as contents. Beside each figure stands its floor: the least that has to be done to the same bytes, done by other tools
in the same run.
"""

import concurrent.futures
import gzip
import hashlib
import http.client
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

from distance import Distance

API = os.environ.get("BENCH_PLATFORM_API", "0.12")
MEGABYTES = int(os.environ.get("MEGABYTES", "300"))
CORES = os.cpu_count()
SOURCES = ("/usr/lib", "/usr/share", "/usr/bin")
LARGEST = 16 << 20
SOCKET = "/var/run/docker.sock"
BUILDPACKS = 60
# Seconds of a round trip to a registry that is not on this machine.
AWAY = 0.05
# Shares of the contents: one big layer, as of a runtime or of dependencies; some smaller ones; the app's own files.
LAYERS = {"big": 0.5, "one": 0.12, "two": 0.12, "three": 0.12, "four": 0.08}
APP = 0.06


def files_of_this_machine():
    """Regular files in the order of their names; none so large that it would be a layer's greater part."""
    for source in SOURCES:
        for directory, names, files in os.walk(source):
            names.sort()
            for name in sorted(files):
                path = pathlib.Path(directory, name)
                if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK) and path.stat().st_size <= LARGEST:
                    yield path


def fill(directory, budget, files):
    """Copies files until the directory holds `budget` bytes."""
    held = 0
    for number, path in enumerate(files):
        to = directory / f"{number % 40}" / f"{number}-{path.name}"
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
        held += to.stat().st_size
        if held >= budget:
            return


class Registry:
    """docker-registry on a free port of this machine, with its files in `root`."""

    def __init__(self, root):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        root.mkdir(parents=True)
        config = root / "config.yml"
        config.write_text(
            "version: 0.1\nlog: {level: error}\n"
            f"storage: {{filesystem: {{rootdirectory: {root / 'data'}}}}}\nhttp: {{addr: '{self.host}'}}\n")
        self.process = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while True:
            try:
                self.ask("GET", "/v2/")
                return
            except OSError:
                if time.monotonic() > until:
                    sys.exit("docker-registry does not answer")
                time.sleep(0.05)

    def ask(self, method, path, body=None, kind="application/octet-stream"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request(method, path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        answer.read()
        if answer.status >= 300:
            raise OSError(f"{method} {path}: {answer.status}")
        return answer

    def put_blob(self, name, blob):
        digest = "sha256:" + hashlib.sha256(blob).hexdigest()
        to = self.ask("POST", f"/v2/{name}/blobs/uploads/").headers["Location"]
        path = to.split(self.host, 1)[-1]
        self.ask("PUT", f"{path}{'&' if '?' in path else '?'}digest={digest}", blob)
        return {"digest": digest, "size": len(blob)}

    def put_run_image(self, name, config, layer):
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        image = "application/vnd.docker.container.image.v1+json"
        tar = "application/vnd.docker.image.rootfs.diff.tar.gzip"
        manifest = {
            "schemaVersion": 2, "mediaType": kind,
            "config": {"mediaType": image, **self.put_blob(name, config)},
            "layers": [{"mediaType": tar, **self.put_blob(name, gzip.compress(layer, 1))}],
        }
        self.ask("PUT", f"/v2/{name}/manifests/1", json.dumps(manifest), kind)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def run_image(text):
    """(config, layer) of a run image with one file."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        member = tarfile.TarInfo("etc/base")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text.encode()))
    diff_id = "sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": "arm64" if os.uname().machine == "aarch64" else "amd64", "os": "linux",
        "config": {"Labels": {"io.buildpacks.stack.id": "bench", "io.buildpacks.rebasable": "true"}},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]}, "history": [{"created_by": "bench"}],
    }
    return json.dumps(config).encode(), layer.getvalue()


class Failed(Exception):
    """An executable did not do what it was asked to."""


class DaemonConnection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(SOCKET)


def ask_daemon(method, path, body=None):
    connection = DaemonConnection("daemon", timeout=120)
    connection.request(method, path, body, {"Content-Type": "application/x-tar"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def load_into_daemon(name, config, layer):
    archive = io.BytesIO()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, data in (("config.json", config), ("layer.tar", layer), ("manifest.json", manifest)):
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return ask_daemon("POST", "/images/load", archive.getvalue())


class Scene:
    """An app that was built, and what the executables are told about it."""

    def __init__(self, root):
        self.root = root
        self.app, self.layers, self.master = root / "app", root / "layers", root / "master"
        self.registry = Registry(root / "registry")
        self.far = Distance(self.registry.port, AWAY)
        files = files_of_this_machine()
        megabyte = 1 << 20
        for name, share in LAYERS.items():
            fill(self.master / name, share * MEGABYTES * megabyte, files)
        fill(self.app, APP * MEGABYTES * megabyte, files)
        (self.layers / "config").mkdir(parents=True)
        (self.layers / "config" / "metadata.toml").write_text(
            '[[buildpacks]]\nid = "bench/all"\nversion = "1"\napi = "0.9"\n\n'
            '[[processes]]\ntype = "web"\ncommand = ["/bin/true"]\nargs = []\ndirect = true\nbuildpack-id = "bench/all"\n')
        (root / "sboms").mkdir()
        (root / "group.toml").write_text('[[group]]\nid = "bench/all"\nversion = "1"\napi = "0.9"\n')
        (root / "run.toml").write_text(f'[[images]]\nimage = "{self.registry.host}/run:1"\n')
        self.base = run_image("one")
        self.registry.put_run_image("run", *self.base)
        self.registry.put_run_image("run2", *run_image("two"))
        self.bytes = sum(path.stat().st_size for top in (self.master, self.app) for path in top.rglob("*") if path.is_file())

    def set_layers(self):
        """<layers> as buildpacks leave it."""
        buildpack = self.layers / "bench_all"
        shutil.rmtree(buildpack, ignore_errors=True)
        subprocess.run(["cp", "-a", str(self.master), str(buildpack)], check=True)
        for name in LAYERS:
            (buildpack / f"{name}.toml").write_text("[types]\nlaunch = true\ncache = true\n[metadata]\nversion = 1\n")

    def environment(self):
        return {
            "PATH": os.environ["PATH"], "HOME": str(self.root), "CNB_PLATFORM_API": API, "CNB_NO_COLOR": "true",
            "CNB_USER_ID": str(os.getuid()), "CNB_GROUP_ID": str(os.getgid()),
            "CNB_INSECURE_REGISTRIES": f"{self.registry.host},{self.far.host}",
        }

    def call(self, lifecycle, name, *arguments):
        """Runs an executable: (seconds, peak bytes)."""
        said = self.root / "time"
        command = ["/usr/bin/time", "--quiet", "-o", str(said), "-f", "%M", str(lifecycle / name), *map(str, arguments)]
        began = time.perf_counter()
        run = subprocess.run(command, env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        took = time.perf_counter() - began
        if run.returncode:
            raise Failed(f"{lifecycle / name} ended with {run.returncode}:\n{run.stdout[-1000:]}")
        return took, int(said.read_text()) * 1024

    def analyze(self, lifecycle, image, *more):
        # The run image is where the app image is.
        base = ["-run-image", f"{image.split('/')[0]}/run:1"]
        return self.call(lifecycle, "analyzer", "-layers", self.layers, "-analyzed", self.root / "analyzed.toml",
                         "-run", self.root / "run.toml", *base, *more, image)

    def export(self, lifecycle, image, *more):
        return self.call(
            lifecycle, "exporter", "-app", self.app, "-layers", self.layers, "-group", self.root / "group.toml",
            "-analyzed", self.root / "analyzed.toml", "-run", self.root / "run.toml", "-report", self.root / "report.toml",
            "-launcher", lifecycle / "launcher", "-launcher-sbom", self.root / "sboms", *more, image)

    def restore(self, lifecycle, cache):
        shutil.rmtree(self.layers / "bench_all", ignore_errors=True)
        return self.call(lifecycle, "restorer", "-layers", self.layers, "-group", self.root / "group.toml",
                         "-analyzed", self.root / "analyzed.toml", "-cache-dir", cache)


FAR = {
    what: f"{what}, registry {1000 * AWAY:.0f} ms away"
    for what in ("analyze", "export, nothing changed", "rebase")
}


def images_round(scene, lifecycle, tag, with_daemon):
    """One of everything: {name: (seconds, peak bytes)}."""
    registry, taken = scene.registry.host, {}
    image = f"{registry}/{tag}:1"
    shutil.rmtree(scene.layers / "bench_all", ignore_errors=True)
    scene.analyze(lifecycle, image)
    scene.set_layers()
    taken["first export"] = scene.export(lifecycle, image)
    scene.analyze(lifecycle, image)
    scene.set_layers()
    taken["export, nothing changed"] = scene.export(lifecycle, image)
    next(path for path in sorted(scene.app.rglob("*")) if path.is_file()).write_text(tag)
    scene.analyze(lifecycle, image)
    scene.set_layers()
    taken["export, one app file changed"] = scene.export(lifecycle, image)
    scene.analyze(lifecycle, f"{registry}/{tag}-c:1")
    scene.set_layers()
    taken["first export, with cache image"] = scene.export(
        lifecycle, f"{registry}/{tag}-c:1", "-cache-image", f"{registry}/{tag}-cache:1")
    cache = scene.root / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir()
    taken["first export, with cache directory"] = scene.export(lifecycle, f"{registry}/{tag}-d:1", "-cache-dir", cache)
    scene.analyze(lifecycle, f"{registry}/{tag}-d:1")
    taken["restore from cache directory"] = scene.restore(lifecycle, cache)
    taken["rebase"] = scene.call(lifecycle, "rebaser", "-force", "-run-image", f"{registry}/run2:1", "-report", scene.root / "report.toml", image)
    far = f"{scene.far.host}/{tag}-d:1"
    taken[FAR["analyze"]] = scene.analyze(lifecycle, far)
    scene.set_layers()
    taken[FAR["export, nothing changed"]] = scene.export(lifecycle, far, "-cache-dir", cache)
    taken[FAR["rebase"]] = scene.call(
        lifecycle, "rebaser", "-force", "-run-image", f"{scene.far.host}/run2:1", "-report", scene.root / "report.toml", far)
    if with_daemon:
        name = f"bench.test/{tag}:1"
        for what in ("first export to the daemon", "export to the daemon, nothing changed"):
            scene.analyze(lifecycle, name, "-daemon")
            scene.set_layers()
            try:
                taken[what] = scene.export(lifecycle, name, "-daemon")
            except Failed as failed:
                # A daemon is not the same everywhere; what else there is to measure does not need it.
                print(f"no figure: {what}: {lifecycle}: {str(failed).strip().splitlines()[-1]}")
        ask_daemon("DELETE", f"/images/{name}?force=1")
    return taken


def timed(act):
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def hash_file(path):
    hasher = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher


def floors_round(scene):
    """What has to be done to the bytes at the least: {name: seconds}."""
    paths = [path for top in (scene.master, scene.app) for path in top.rglob("*") if path.is_file()]
    paths.sort(key=lambda path: -path.stat().st_size)
    parts = scene.root / "parts"
    if not parts.exists():
        parts.mkdir()
        for number in range(4 * CORES):
            with tarfile.open(parts / f"{number}.tar", "w") as tar:
                for path in paths[number::4 * CORES]:
                    tar.add(path)
    with concurrent.futures.ThreadPoolExecutor(CORES) as pool:
        hashing = timed(lambda: list(pool.map(hash_file, paths)))
        compress = lambda part: subprocess.run(
            ["igzip", "-1", "-c", str(part)], stdout=subprocess.DEVNULL, check=True)
        compressing = timed(lambda: list(pool.map(compress, sorted(parts.iterdir()))))
    copy = scene.root / "copy"
    copying = timed(lambda: subprocess.run(["cp", "-r", str(scene.master), str(copy)], check=True))
    shutil.rmtree(copy)
    return {"read and hash": hashing, "compress": compressing, "copy": copying}


# Which floors a row has; those of the daemon copy what they hash.
FLOORS = {
    "first export": ("read and hash", "compress"),
    "export, nothing changed": ("read and hash",),
    "export, one app file changed": ("read and hash",),
    "first export, with cache image": ("read and hash", "compress"),
    "first export, with cache directory": ("read and hash", "compress", "copy"),
    "restore from cache directory": ("read and hash", "copy"),
    "first export to the daemon": ("read and hash", "copy"),
    "export to the daemon, nothing changed": ("read and hash",),
    FAR["export, nothing changed"]: ("read and hash",),
}


def place(out):
    """A new directory, in memory where there is room: a disk that is still busy with one call would hold up the next."""
    memory = "/dev/shm"
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 12 * MEGABYTES << 20
    return pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=memory if roomy else out))


def measure_images(lifecycles, out, rounds):
    """[(what, floor in seconds or None, {lifecycle: (seconds, peak bytes)})], and the bytes it was done to."""
    scene = Scene(place(out))
    try:
        with_daemon = os.access(SOCKET, os.W_OK) and load_into_daemon("bench.test/run:1", *scene.base) == 200
        if not with_daemon:
            print(f"skipped: a daemon, for none can be used at {SOCKET}")
        taken = {name: [] for name in lifecycles}
        floors = []
        for turn in range(rounds):
            floors.append(floors_round(scene))
            for number, (name, path) in enumerate(lifecycles.items()):
                taken[name].append(images_round(scene, path, f"app-{number}-{turn}", with_daemon))
        if with_daemon:
            ask_daemon("DELETE", "/images/bench.test/run:1?force=1")
    finally:
        scene.far.stop()
        scene.registry.stop()
        shutil.rmtree(scene.root)
    floor = {kind: statistics.median(one[kind] for one in floors) for kind in floors[0]}
    middle = lambda rows, what: tuple(statistics.median(column) for column in zip(*(row[what] for row in rows)))
    rows = [(kind, seconds, {}) for kind, seconds in floor.items()]
    for what in dict.fromkeys(what for all_rounds in taken.values() for one in all_rounds for what in one):
        least = sum(floor[kind] for kind in FLOORS[what]) if what in FLOORS else None
        rows.append((what, least, {
            name: middle(all_rounds, what) for name, all_rounds in taken.items() if all(what in one for one in all_rounds)}))
    return rows, scene.bytes


def measure_detect(lifecycles, out, rounds):
    """One group of many buildpacks that all pass, against their scripts run side by side by a shell."""
    root = out / "detect"
    order = "[[order]]\n"
    for number in range(BUILDPACKS):
        top = root / "buildpacks" / f"bench_{number}" / "1"
        (top / "bin").mkdir(parents=True)
        (top / "buildpack.toml").write_text(
            f'api = "0.9"\n[buildpack]\nid = "bench/{number}"\nversion = "1"\n[[stacks]]\nid = "*"\n')
        for name in ("detect", "build"):
            (top / "bin" / name).write_text("#!/bin/sh\nexit 0\n")
            (top / "bin" / name).chmod(0o755)
        order += f'[[order.group]]\nid = "bench/{number}"\nversion = "1"\n'
    for name in ("app", "platform", "layers"):
        (root / name).mkdir()
    (root / "order.toml").write_text(order)
    (root / "analyzed.toml").write_text('[run-image]\nreference = "bench.test/run"\n[run-image.target]\nos = "linux"\narch = "amd64"\n')
    environment = {"PATH": os.environ["PATH"], "CNB_PLATFORM_API": API, "CNB_STACK_ID": "bench", "CNB_NO_COLOR": "true"}
    arguments = ["-app", "app", "-platform", "platform", "-layers", "layers", "-buildpacks", "buildpacks", "-order", "order.toml",
                 "-analyzed", "analyzed.toml", "-group", "group.toml", "-plan", "plan.toml"]
    arguments = [a if a.startswith("-") else str(root / a) for a in arguments]
    by_hand = ["/bin/sh", "-c", 'for script in "$0"/*/1/bin/detect; do "$script" & done; wait', str(root / "buildpacks")]
    commands = {None: by_hand} | {name: [str(path / "detector"), *arguments] for name, path in lifecycles.items()}
    taken = {name: [] for name in commands}
    # As a user that is not root, if we are: detector refuses to be it.
    user = {"user": 1000, "group": 1000, "extra_groups": []} if os.getuid() == 0 else {}
    if user:
        for path in (root, *root.rglob("*")):
            os.chown(path, 1000, 1000)
    for _ in range(rounds):
        for name, command in commands.items():
            def run():
                made = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, **user)
                if made.returncode:
                    sys.exit(f"{command[0]} ended with {made.returncode}:\n{made.stdout[-2000:]}{made.stderr[-2000:]}")
            taken[name].append(timed(run))
    shutil.rmtree(root)
    floor = statistics.median(taken.pop(None))
    return (f"detect, {BUILDPACKS} buildpacks", floor, {name: (statistics.median(all_rounds), None) for name, all_rounds in taken.items()})
