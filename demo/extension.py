"""The last part of the demonstration, `make demo EXTENSION=1`: an image extension changes the run image.

An extension writes a Dockerfile; extender applies it to the run image, in a root file system that is that image, and
without Docker. As on a platform with a registry, each phase is an executable of its own.
"""

import os
import shutil
import subprocess
import time

from build import HERE, PLATFORM_API, USER, box_environment
from container import Container
from oci import Layout, human
from registry import Registry
import oci
import runimage

ORDER = """
[[order-extensions]]

  [[order-extensions.group]]
  id = "demo/authority"
  version = "1.0.0"
"""
# What is asked inside of the app's container: whose certificates does its Python trust?
TRUSTED = "import ssl; print([dict(x[0] for x in c['subject']).get('commonName') for c in ssl.create_default_context().get_ca_certs()])"


class Phases:
    """The phases of one build after another, in boxes; images are in the registry."""

    def __init__(self, builder, registry):
        self.builder, self.registry = builder, registry
        self.rootfs = builder.out / "run-rootfs"

    def phase(self, name, *arguments, box=None):
        """Gives the lines it printed."""
        box = box or ["host", str(self.builder.stage)]
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/home/cnb",
            "CNB_PLATFORM_API": PLATFORM_API, "CNB_EXPERIMENTAL_MODE": "quiet", "CNB_NO_COLOR": "true",
            "CNB_USER_ID": str(USER), "CNB_GROUP_ID": str(USER),
            # The box has nothing that a container engine would leave; what is changed in it is a copy all the same.
            "CNB_EXTEND_OUTSIDE_CONTAINER": "true",
        }
        if name in ("detector", "builder"):
            # They run what buildpacks bring, so they refuse to be root.
            box = [*box, "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        command = ["bash", str(HERE / "box.sh"), *box, f"/cnb/lifecycle/{name}", *arguments]
        done = subprocess.run(command, env=box_environment(self.builder.out, environment, "/workspace"),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        if done.returncode:
            raise RuntimeError(f"{name} ended with status {done.returncode}:\n{done.stdout}")
        return done.stdout.splitlines()

    def build(self, app, run_image):
        """Gives the seconds that extender took, and its lines."""
        builder = self.builder
        builder.use_app(app)
        self.phase("analyzer", self.registry.host + "/orchard:1")
        self.phase("detector")
        self.phase("restorer", "-cache-dir", "/cache")
        shutil.rmtree(self.rootfs, ignore_errors=True)
        self.rootfs.mkdir()
        run_image.unpack(self.rootfs)
        started = time.monotonic()
        lines = self.phase("extender", "-kind", "run", box=["extend", str(self.rootfs), str(builder.stage)])
        seconds = time.monotonic() - started
        self.phase("builder")
        self.phase("exporter", "-cache-dir", "/cache", self.registry.host + "/orchard:1")
        return seconds, lines

    def image(self, name):
        return Layout(self.registry.layout("orchard", "1", self.builder.out / "images" / name))


def newer(run_image, directory):
    """The run image as its maker brings it out a month later, with one more layer."""
    tree = runimage.Tree()
    tree.text("/etc/patched", "yes\n")
    layers = [(run_image.tar(descriptor, diff_id), history["created_by"]) for descriptor, diff_id, history in run_image.layers()]
    config = {key: run_image.config[key] for key in ("architecture", "os", "config")}
    oci.write(directory, [*layers, (tree.tar(), "A patch")], config)
    return Layout(directory)


def trusted(image, out):
    """The authorities that a Python in a container of the image trusts, and whether it has the newer base's patch."""
    rootfs = out / "extended-rootfs"
    shutil.rmtree(rootfs, ignore_errors=True)
    rootfs.mkdir()
    image.unpack(rootfs)
    with Container("box", image, rootfs, out, arguments=["/usr/bin/python3", "-c", TRUSTED]) as container:
        return container.process.communicate(timeout=60)[0], (rootfs / "etc" / "patched").exists()


def show(builder, run_image, step, say, check):
    """Extends, builds, extends again, rebases; gives lines for the summary."""
    step(8, "Extend the run image",
         "demo/extensions/authority writes a run.Dockerfile that adds the company's certificate authority. extender applies",
         "it in a root file system of its own: no Docker, no BuildKit. The images are in a registry now: demo/registry.py.")
    if os.getuid() != 0:
        say("Left out: extender gives files to users, which takes root.")
        return {}
    stage = builder.stage
    shutil.copytree(HERE / "extensions" / "authority", stage / "cnb" / "extensions" / "demo_authority" / "1.0.0")
    (stage / "kaniko").mkdir()
    with (stage / "cnb" / "order.toml").open("a") as order:
        order.write(ORDER)
    with Registry(builder.out / "registry") as registry:
        name = registry.add(run_image, "run", "1")
        (stage / "cnb" / "run.toml").write_text(f'[[images]]\nimage = "{name}"\n')
        phases = Phases(builder, registry)
        first_seconds, lines = phases.build(HERE / "app", run_image)
        check(any("No cached layer found" in line for line in lines), f"extender applied the Dockerfile in {first_seconds:.2f} s")
        first = phases.image("extended")
        added = [(row[0]["size"], row[2]["created_by"]) for row in first.layers() if "Created by extension" in row[2].get("created_by", "")]
        for size, maker in added:
            say(f"      {human(size):>9}  {maker}")
        check(len(added) == 2, "the app image has the extension's layers, and history says whose they are")
        check("Demo Authority" in trusted(first, builder.out)[0], "a Python in the app's container trusts the company's authority")
        check(first.config["config"]["User"].split(":")[0] == str(USER), "the app runs as the user it had before")

        second_seconds, lines = phases.build(HERE / "app", run_image)
        reused = any("Using caching version of cmd: RUN" in line for line in lines)
        check(reused and not any("No cached layer" in line for line in lines), f"again: all from the cache, no RUN was run, {second_seconds:.2f} s")
        check(phases.image("extended-again").digest == first.digest, "and the same image to the last byte")

        step(9, "Rebase it", "The run image has a newer version. The extension said that what it adds goes with any.")
        registry.add(newer(run_image, builder.out / "images" / "run-2"), "run", "1")
        phases.phase("rebaser", registry.host + "/orchard:1")
        authorities, patched = trusted(phases.image("rebased"), builder.out)
        check(patched and "Demo Authority" in authorities, "the app is on the newer run image, and keeps what the extension added")
    return {"Extended the run image": f"{first_seconds:.2f} s, again {second_seconds:.2f} s"}
