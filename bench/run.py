#!/usr/bin/env python3
"""Measures what a user of a lifecycle feels: how long a process takes to start, how long builds and their parts take, and
the memory; prints tables and writes OUT_DIRECTORY/results.json.

usage: run.py ASSETS_BUILDPACK OUT_DIRECTORY LIFECYCLE [ANOTHER_LIFECYCLE]

Medians, with the lifecycles taken in turns, so that what else the machine does falls on each alike. ROUNDS (3) says how
often a build or export is done, STARTS (300) how often a process is started, MEGABYTES (300) how much is exported.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "demo"))

import images  # noqa: E402
import runimage  # noqa: E402
from build import HERE, RUN_IMAGE, Builder  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "3"))
STARTS = int(os.environ.get("STARTS", "300"))
TRUE = "/bin/true"


def layers_with_environment(root):
    """An app's <layers> as the launcher finds it: 4 buildpacks with 5 layers each, every layer with variables and paths."""
    metadata = ""
    for buildpack in range(4):
        metadata += f'[[buildpacks]]\nid = "bench/{buildpack}"\nversion = "1"\napi = "0.10"\n\n'
        for layer in range(5):
            where = root / "layers" / f"bench_{buildpack}" / f"layer-{layer}"
            for name in ("env", "env.launch", "bin", "lib"):
                (where / name).mkdir(parents=True)
            (where / "env" / f"NAME_{layer}.override").write_text("value")
            (where / "env.launch" / "LIST.append").write_text(f"{buildpack}{layer}")
            (where / "env.launch" / "LIST.delim").write_text(":")
    metadata += f'[[processes]]\ntype = "web"\ncommand = ["{TRUE}"]\nargs = []\ndirect = true\nbuildpack-id = "bench/0"\n'
    (root / "layers" / "config").mkdir()
    (root / "layers" / "config" / "metadata.toml").write_text(metadata)
    (root / "app").mkdir()
    return {"PATH": "/usr/bin:/bin", "CNB_LAYERS_DIR": str(root / "layers"), "CNB_APP_DIR": str(root / "app"),
            "CNB_PLATFORM_API": "0.14"}


def start(executable, arguments, environment):
    """Starts a process and waits for it: (wall seconds, CPU seconds)."""
    began = time.perf_counter()
    pid = os.posix_spawn(executable, arguments, environment)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - began
    if status:
        sys.exit(f"{executable} ended with {os.waitstatus_to_exitcode(status)}")
    return wall, usage.ru_utime + usage.ru_stime


def peak_of(executable, name, out, environment):
    """The most memory that `executable`, called `name`, had, in bytes."""
    link = out / "launch" / "process" / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(executable)
    # By GNU time, not by wait4 of our own: the kernel's figure includes what the parent had at the fork, and Python has more.
    said = subprocess.run(["/usr/bin/time", "--quiet", "-f", "%M", link], env=environment, capture_output=True, text=True, check=True)
    return int(said.stderr) * 1024


def measure_starts(lifecycles, out):
    environment = layers_with_environment(out / "launch")
    kinds = {"the process itself": (TRUE, [TRUE])}
    kinds |= {name: (str(path / "launcher"), ["/cnb/process/web"]) for name, path in lifecycles.items()}
    taken = {name: [] for name in kinds}
    for _ in range(STARTS):
        for name, (executable, arguments) in kinds.items():
            taken[name].append(start(executable, arguments, environment))
    return {
        name: [*(statistics.median(column) for column in zip(*rows)), peak_of(kinds[name][0], kinds[name][1][0].rsplit("/")[-1], out, environment)]
        for name, rows in taken.items()
    }


class Peak(threading.Thread):
    """Watches the high-water mark of a process's own memory; that of the buildpacks it runs does not count."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.bytes, self.over = pid, 0, threading.Event()

    def run(self):
        while not self.over.wait(0.002):
            try:
                status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
            except OSError:
                return
            found = re.search(r"^Name:\tcreator$.*^VmHWM:\s*(\d+) kB", status, re.M | re.S)
            if found:
                self.bytes = max(self.bytes, int(found[1]) * 1024)


def measure_builds(lifecycles, assets_buildpack, out):
    """For each lifecycle: [(first build's seconds, second build's seconds, creator's peak bytes)]."""
    taken = {name: [] for name in lifecycles}
    for _ in range(ROUNDS):
        for name, path in lifecycles.items():
            builder = Builder(out / "build", path, assets_buildpack)
            builder.prepare()
            runimage.write(builder.image_path(RUN_IMAGE))
            seconds, peaks = [], []
            for _ in ("first", "second"):
                builder.use_app(HERE / "app")
                lines = []
                watcher = []

                def started(pid):
                    watcher.append(Peak(pid))
                    watcher[0].start()

                status, took = builder.create(lines.append, started)
                watcher[0].over.set()
                if status:
                    sys.exit("\n".join(lines[-20:]))
                seconds.append(took)
                peaks.append(watcher[0].bytes)
            taken[name].append((*seconds, max(peaks)))
    return {name: [statistics.median(column) for column in zip(*rows)] for name, rows in taken.items()}


def table(title, heads, rows):
    print(f"\n{title}")
    width = max(len(name) for name, *_ in rows) + 2
    print(" " * width + "".join(f"{head:>16}" for head in heads))
    for name, *cells in rows:
        print(f"{name:<{width}}" + "".join(f"{cell:>16}" for cell in cells))


def seconds(value):
    if value is None:
        return "-"
    return f"{1000 * value:.1f} ms" if value < 0.1 else f"{value:.2f} s"


def measure_parts(lifecycles, out):
    """Whole processes beside their floor; the rows, for the record."""
    try:
        rows, size = images.measure_images(lifecycles, out, ROUNDS)
    except images.Failed as failed:
        sys.exit(str(failed))
    rows.append(images.measure_detect(lifecycles, out, ROUNDS))
    heads = ["floor"]
    for name in lifecycles:
        heads += [pathlib.Path(name).name[-14:] if len(lifecycles) > 1 else "wall", "peak memory"]
    lines = []
    for what, floor, of in rows:
        cells = [seconds(floor)]
        for name in lifecycles:
            took, peak = of.get(name, (None, None))
            cells += [seconds(took), f"{peak / 1e6:.1f} MB" if peak else "-"]
        lines.append((what, *cells))
    table(f"Parts of a build, {size / 1e6:.0f} MB on {images.CORES} cores (median of {ROUNDS})", heads, lines)
    return [{"what": what, "floor_seconds": floor, "lifecycles": {name: {"seconds": took, "peak_bytes": peak} for name, (took, peak) in of.items()}}
            for what, floor, of in rows], size


def main(assets_buildpack, out, *directories):
    # So that the registry is stopped, and its files go, also when we are.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    out = pathlib.Path(out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    lifecycles = {d: pathlib.Path(d).resolve() for d in directories}
    starts = measure_starts(lifecycles, out)
    floor = starts["the process itself"]
    table(f"Start of a process, 20 layers with variables (median of {STARTS})", ["wall", "of it launcher", "CPU", "peak memory"], [
        (name, f"{1000 * wall:.2f} ms", f"{1000 * (wall - floor[0]):.2f} ms", f"{1000 * cpu:.2f} ms", f"{peak / 1e6:.1f} MB")
        for name, (wall, cpu, peak) in starts.items()])
    parts, size = measure_parts(lifecycles, out)
    builds = measure_builds(lifecycles, assets_buildpack, out)
    table(f"creator on the demonstration's app, OCI layout (median of {ROUNDS})", ["first build", "second build", "creator's peak"], [
        (name, f"{first:.2f} s", f"{second:.2f} s", f"{peak / 1e6:.1f} MB") for name, (first, second, peak) in builds.items()])
    record = {
        "cores": images.CORES, "rounds": ROUNDS, "starts": STARTS, "bytes": size, "parts": parts,
        "starts_of_a_process": {name: dict(zip(("seconds", "cpu_seconds", "peak_bytes"), row)) for name, row in starts.items()},
        "demonstration": {name: dict(zip(("first_seconds", "second_seconds", "peak_bytes"), row)) for name, row in builds.items()},
    }
    (out / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"\n{out / 'results.json'} has the figures")
    files = ["launcher", "creator", "detector", "analyzer", "restorer", "builder", "exporter", "rebaser"]
    table("Size of the executables, in kB", list(lifecycles), [
        (file, *(f"{(path / file).stat().st_size / 1000:,.0f}" for path in lifecycles.values())) for file in files
        if all((path / file).exists() for path in lifecycles.values())])


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:])
