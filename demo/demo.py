#!/usr/bin/env python3
"""From source to a running container, one step after the other, with every claim checked.

usage: demo.py LIFECYCLE_DIRECTORY ASSETS_BUILDPACK OUT_DIRECTORY [--extension]
"""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time

import extension
import runimage
import show
from build import APP_IMAGE, HERE, PLATFORM_API, RUN_IMAGE, Builder
from container import IN_WORDS, Container, runtime
from oci import Layout, human

COLOURS = {"bold": "1", "dim": "2", "green": "32", "yellow": "33", "red": "31", "title": "1;36"}
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
CHECKS = []


def paint(style, text):
    return f"\033[{COLOURS[style]}m{text}\033[0m" if COLOUR else text


def say(text=""):
    print(f"  {text}".rstrip(), flush=True)


def step(number, title, *lines):
    say()
    print(paint("title", f"{number}. {title}"), flush=True)
    for line in lines:
        say(line)
    say()


def check(passed, text):
    CHECKS.append((bool(passed), text))
    say(paint("green", "ok") + f"    {text}" if passed else paint("red", "FAIL") + f"  {text}")
    return passed


def build(builder, app, log, keep=lambda line: True):
    """Runs one build; shows the lines that `keep` wants, and keeps all in `log`."""
    builder.use_app(app)
    lines = []

    def on_line(line):
        lines.append(line)
        if keep(line):
            style = "bold" if line.startswith("===>") else "dim"
            say(paint("dim", "| ") + paint(style, line))

    status, seconds = builder.create(on_line)
    log.write_text("\n".join(lines) + "\n")
    say()
    if not check(status == 0, f"creator ended with status 0 after {seconds:.2f} s"):
        say(f"The end of {log}:")
        for line in lines[-15:]:
            say("| " + line)
        finish({})
    return seconds, lines


def keep_image(builder, name):
    """A copy of the image as it is now, to compare the next with."""
    copy = builder.out / "images" / name
    shutil.copytree(builder.image_path(APP_IMAGE), copy)
    return Layout(copy)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def unpack(image, out):
    """Unpacks the image for the runtime: with umoci where it is installed, for a second opinion, else with oci.py."""
    rootfs = out / "rootfs"
    if os.getuid() == 0 and shutil.which("umoci"):
        tagged = out / "tagged"
        shutil.copytree(image.directory, tagged)
        # umoci finds an image by a name in the index.
        index = json.loads((tagged / "index.json").read_text())
        index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "demo"}
        (tagged / "index.json").write_text(json.dumps(index))
        result = subprocess.run(["umoci", "unpack", "--image", f"{tagged}:demo", str(out / "umoci")], capture_output=True, text=True)
        if check(result.returncode == 0, "umoci, a tool that knows nothing of buildpacks, unpacks the image"):
            (out / "umoci" / "rootfs").rename(rootfs)
            return rootfs
        say(f"      {result.stderr.strip().splitlines()[-1].strip()}")
    rootfs.mkdir()
    image.unpack(rootfs)
    check(True, "the layers unpack over each other (demo/oci.py)")
    return rootfs


def run_app(image, rootfs, out):
    port = free_port()
    kind = runtime(image, rootfs, out)
    say(f"Run by {IN_WORDS[kind]}.")
    with Container(kind, image, rootfs, out, environment={"PORT": str(port), "HOST": "127.0.0.1"}) as container:
        started = time.monotonic()
        url = f"http://127.0.0.1:{port}"
        status, _, page = container.get(url)
        waited = time.monotonic() - started
        title = re.search(r"<title>(.*?)</title>", page)
        plants = re.findall(r"<h2>(.*?)</h2>", page)
        say(f"GET {url}/  answered {status} after {waited:.2f} s with the page \"{title and title[1]}\":")
        for plant in plants:
            say(f"    {plant.replace('&#39;', chr(39))}")
        say()
        check(status == 200 and len(plants) == 3, "the page is there, with all three articles")
        style = re.search(r'href="(/assets/style-[0-9a-f]{12}\.css)"', page)
        check(style, "the page names its style sheet by digest (the Rust buildpack's work)")
        status, headers, _ = container.get(url + style[1]) if style else (0, {}, "")
        check(status == 200 and "immutable" in headers.get("Cache-Control", ""), "the style sheet is served, to be kept for ever")
        _, _, health = container.get(url + "/healthz")
        check('"user":1000' in health.replace(" ", ""), "the process is user 1000, not root")
        check(re.search(r'"threads":\s*[1-9]', health), "exec.d set WEB_THREADS when the container started (the shell buildpack's work)")
        check(container.stop() == 0, "the process itself got SIGTERM and ended with status 0: the launcher is no longer in between")
    with Container(kind, image, rootfs, out, arguments=["/cnb/process/routes"]) as container:
        routes = container.process.communicate(timeout=60)[0]
        check(container.process.returncode == 0 and "/healthz" in routes, "the second process type, routes, runs too")


def telling(line):
    """The lines that say what was reused and what was made."""
    return line.startswith("===>") or re.search(r"Restoring data|Reusing (layer|the|\d)|Adding layer|Installing|Fingerprinting", line)


def finish(table):
    failed = [text for passed, text in CHECKS if not passed]
    say()
    print(paint("title", "Summary"))
    for name, value in table.items():
        say(f"{name:<28} {value}")
    say()
    for text in failed:
        say(paint("red", "FAIL") + f"  {text}")
    print(f"{len(CHECKS) - len(failed)} passed, {len(failed)} failed")
    sys.exit(1 if failed else 0)


def main(lifecycle, assets_buildpack, out, *options):
    out = pathlib.Path(out).resolve()
    builder = Builder(out, lifecycle, assets_buildpack)
    builder.prepare()

    print(paint("title", "From source to a running container with Cloud Native Buildpacks"))
    say("No Docker, no registry, no Dockerfile. Everything is under " + os.path.relpath(out) + ".")

    step(1, "A run image",
         "What the application will stand on. A real one comes from a distribution; this one is made of files of",
         "this machine (Python, its libraries, certificates, a shell), so that nothing has to be pulled.")
    run_digest = runimage.write(builder.image_path(RUN_IMAGE))
    run_image = Layout(builder.image_path(RUN_IMAGE))
    for descriptor, _, history in run_image.layers():
        say(f"{human(descriptor['size']):>9}  {history['created_by']}")
    say()
    check(run_image.digest == run_digest, f"{RUN_IMAGE} is a valid OCI image: {run_digest[:19]}")

    step(2, "An application and three buildpacks",
         "demo/app        a web server in Python with two direct dependencies, a template, a style sheet and a picture",
         "demo/pip        a buildpack in Python: installs the locked packages, makes an SBOM, keeps its layer while it can",
         "demo/assets     a buildpack in Rust (the libcnb crate): fingerprints and compresses the static files",
         "demo/web        a buildpack in Bash: says how to start, sets a variable at start, cuts the application in slices")

    step(3, "The first build",
         f"One command, creator, runs all phases (Platform API {PLATFORM_API}). It has a root file system of its own with",
         "/workspace, /layers, /platform and /cnb, as in a builder image, and builds as user 1000.")
    first_seconds, _ = build(builder, HERE / "app", out / "build-1.log")
    first = keep_image(builder, "first")
    made = {row[2] for row in show.layer_rows(first)}
    check(any("demo/pip@1.0.0" in maker for maker in made) and any("demo/assets@1.0.0" in maker for maker in made),
          "each buildpack's layer says who made it")

    step(4, "What is in the image",
         f"demo/show.py reads it from {os.path.relpath(builder.image_path(APP_IMAGE))}.")
    show.print_image(first, say=say, paint=paint)
    say()
    packages = {c["name"].lower() for _, document in show.sboms(first) for c in document.get("components", [])}
    check({"flask", "waitress", "werkzeug"} <= packages, f"the SBOM lists the {len(packages)} packages that were installed")
    check([default for _, default, _ in show.process_rows(first)].count(True) == 1, "one process is the default")
    stored, unpacked = 0, 0
    for (descriptor, diff_id, _), (state, *_) in zip(first.layers(), show.layer_rows(first)):
        tar = first.tar(descriptor, diff_id)
        if state != "run image":
            stored += descriptor["size"]
            unpacked += len(tar)
    check(True, "every layer has the digest and the diff ID that the manifest and the config say")
    check(stored < unpacked / 2, f"the layers on top of the run image are compressed: {human(stored)} for {human(unpacked)}")

    step(5, "Start it", "The entrypoint is the launcher: it sets the environment up and becomes the process.")
    rootfs = unpack(first, out)
    try:
        run_app(first, rootfs, out)
    except RuntimeError as error:
        check(False, str(error))

    step(6, "Build again, with nothing changed", "The cache brings back what the first build kept (only the telling lines are shown).")
    second_seconds, lines = build(builder, HERE / "app", out / "build-2.log", telling)
    second = keep_image(builder, "second")
    check(second.digest == first.digest, f"the same image to the last byte: {second.digest[:19]}")
    check(any("Reusing the installed packages" in line for line in lines), "no package was downloaded")
    say(f"      {first_seconds:.2f} s became {second_seconds:.2f} s")

    step(7, "Change one file", "One word in templates/index.html.")
    changed_app = out / "app-changed"
    shutil.copytree(HERE / "app", changed_app)
    template = changed_app / "templates" / "index.html"
    template.write_text(template.read_text().replace("Trees for small gardens.", "Trees for the smallest gardens."))
    third_seconds, _ = build(builder, changed_app, out / "build-3.log", telling)
    third = keep_image(builder, "third")
    show.print_layers(third, first, say, paint)
    say()
    changed = [maker for state, _, maker in show.layer_rows(third, first) if state == "changed"]
    check(len(changed) == 1 and changed[0].startswith("Application"), "one layer changed, and it is the application's")

    new = sum(size for state, size, _ in show.layer_rows(third, first) if state == "changed")
    more = {}
    if "--extension" in options:
        try:
            more = extension.show(builder, run_image, step, say, check)
        except RuntimeError as error:
            check(False, str(error))
    finish({
        "Image": f"{os.path.relpath(builder.image_path(APP_IMAGE))}",
        "Digest": third.digest,
        "First build": f"{first_seconds:.2f} s",
        "Again, nothing changed": f"{second_seconds:.2f} s   every layer reused, same digest",
        "Again, one file changed": f"{third_seconds:.2f} s   {human(new)} of layers are new",
        **more,
        "Look closer": f"python3 demo/show.py {os.path.relpath(builder.image_path(APP_IMAGE))}",
    })


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:])
