"""Lays out what a builder image holds and runs the lifecycle's creator in it."""

import os
import pathlib
import shutil
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
PLATFORM_API = os.environ.get("DEMO_PLATFORM_API", "0.15")
RUN_IMAGE = "demo.test/run:1"
APP_IMAGE = "demo.test/orchard:1"
USER = 1000
# Settings of this machine that a package installer may need; a platform hands them to buildpacks in <platform>/env.
PASSED_ON = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_")

ORDER = """\
[[order]]

  [[order.group]]
  id = "demo/pip"
  version = "1.0.0"

  [[order.group]]
  id = "demo/assets"
  version = "1.0.0"
  optional = true

  [[order.group]]
  id = "demo/web"
  version = "1.0.0"
"""


def box_environment(out, environment, directory):
    """The environment of box.sh: the command's own, and where the box works."""
    mount = pathlib.Path(out) / "box"
    mount.mkdir(exist_ok=True)
    return dict(environment, BOX_MOUNT=str(mount), BOX_DIR=directory)


class Builder:
    """A directory that holds, under the names they have in a builder image, all that the lifecycle works on."""

    def __init__(self, out, lifecycle, assets_buildpack):
        self.out = pathlib.Path(out)
        self.stage = self.out / "stage"
        self.lifecycle = pathlib.Path(lifecycle)
        self.assets_buildpack = pathlib.Path(assets_buildpack)

    def prepare(self):
        """Starts from nothing: no cache, no image."""
        shutil.rmtree(self.out, ignore_errors=True)
        cnb = self.stage / "cnb"
        shutil.copytree(self.lifecycle, cnb / "lifecycle", symlinks=True)
        buildpacks = cnb / "buildpacks"
        for name in ("pip", "web"):
            shutil.copytree(HERE / "buildpacks" / name, buildpacks / f"demo_{name}" / "1.0.0")
        assets = buildpacks / "demo_assets" / "1.0.0"
        (assets / "bin").mkdir(parents=True)
        shutil.copy(HERE / "buildpacks" / "assets" / "buildpack.toml", assets)
        shutil.copy(self.assets_buildpack, assets / "bin" / "build")
        (assets / "bin" / "detect").symlink_to("build")
        (cnb / "order.toml").write_text(ORDER)
        (cnb / "run.toml").write_text(f'[[images]]\nimage = "{RUN_IMAGE}"\n')
        for name in ("layers", "workspace", "layout", "cache", "home/cnb", "platform/env"):
            (self.stage / name).mkdir(parents=True)
        for name, value in os.environ.items():
            if name.startswith(PASSED_ON):
                (self.stage / "platform" / "env" / name).write_text(value)
        self._give("home/cnb", "cache")

    def image_path(self, name):
        """Where an image is kept: <layout>/<registry>/<repository>/<tag>."""
        return self.stage / "layout" / name.replace(":", "/")

    def use_app(self, app):
        """Brings the application, and an empty layers directory, as a platform does before every build."""
        for name in ("workspace", "layers"):
            shutil.rmtree(self.stage / name, ignore_errors=True)
        shutil.copytree(app, self.stage / "workspace", ignore=shutil.ignore_patterns("__pycache__"))
        (self.stage / "layers").mkdir()
        self._give("workspace", "layers", "layout")

    def create(self, on_line, on_start=lambda pid: None):
        """Runs creator, hands over its process ID and each line it prints; gives its exit status and the seconds it took."""
        command = [
            "/cnb/lifecycle/creator",
            "-app", "/workspace", "-layers", "/layers", "-platform", "/platform", "-cache-dir", "/cache",
            "-layout", "-layout-dir", "/layout", "-run-image", RUN_IMAGE, "-report", "/layers/report.toml", APP_IMAGE,
        ]
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/home/cnb",
            "CNB_PLATFORM_API": PLATFORM_API,
            "CNB_EXPERIMENTAL_MODE": "quiet",
            "CNB_NO_COLOR": "true",
            "CNB_USER_ID": str(USER),
            "CNB_GROUP_ID": str(USER),
        }
        started = time.monotonic()
        process = subprocess.Popen(
            ["bash", str(HERE / "box.sh"), "host", str(self.stage), *command],
            env=box_environment(self.out, environment, "/workspace"),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        on_start(process.pid)
        for line in process.stdout:
            on_line(line.rstrip("\n"))
        status = process.wait()
        return status, time.monotonic() - started

    def _give(self, *names):
        """To the build's user, if we may; otherwise that user is ourselves, by another number."""
        if os.getuid() != 0:
            return
        for name in names:
            top = self.stage / name
            os.chown(top, USER, USER)
            for path in top.rglob("*"):
                os.chown(path, USER, USER, follow_symlinks=False)
