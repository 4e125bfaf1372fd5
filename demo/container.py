"""Starts an unpacked app image the way a container runtime does: crun or runc when root and installed, else box.sh."""

import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request

from build import HERE, box_environment

NUMBERS = itertools.count()
IN_WORDS = {
    "runc": "runc, with own mount, PID, IPC and UTS namespaces, no capability and a read-only root",
    "crun": "crun, with own mount, PID, IPC and UTS namespaces, no capability and a read-only root",
    "box": "unshare, in a private mount namespace whose root is the image (no container runtime works here for this user)",
}


def runtime(image, rootfs, out):
    """The first container runtime that can run a program of the image on this machine; box.sh can always."""
    if os.getuid() == 0:
        for kind in ("runc", "crun"):
            if shutil.which(kind):
                with Container(kind, image, rootfs, out, arguments=["/bin/id", "-u"]) as container:
                    said = container.process.communicate(timeout=60)[0]
                if container.process.returncode == 0 and said.strip() == "1000":
                    return kind
    return "box"


def spec(image, rootfs, arguments, environment):
    """The runtime's config.json, from the image's config. The network is the machine's, so that we can ask for a page."""
    config = image.config["config"]
    uid, gid = (int(part) for part in config["User"].split(":"))
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": uid, "gid": gid},
            "args": arguments,
            "env": config["Env"] + [f"{k}={v}" for k, v in environment.items()],
            "cwd": config["WorkingDir"],
            "noNewPrivileges": True,
            "capabilities": {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")},
        },
        "root": {"path": str(rootfs), "readonly": True},
        "hostname": "orchard",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts")]},
    }


class Container:
    """One process of the image, running; stopped when the `with` block ends."""

    def __init__(self, kind, image, rootfs, out, arguments=None, environment=None):
        arguments = arguments or image.config["config"]["Entrypoint"]
        environment = environment or {}
        self.kind = kind
        bundle = pathlib.Path(out) / "bundle"
        bundle.mkdir(exist_ok=True)
        if self.kind == "box":
            variables = dict(entry.split("=", 1) for entry in image.config["config"]["Env"]) | environment
            command = ["bash", str(HERE / "box.sh"), "image", str(rootfs), *arguments]
            variables = box_environment(out, variables, image.config["config"]["WorkingDir"])
        else:
            (bundle / "config.json").write_text(json.dumps(spec(image, rootfs, arguments, environment), indent=2))
            self.state = bundle / "state"
            self.id = f"orchard-{os.getpid()}-{next(NUMBERS)}"
            command = [*self._runtime(), "run", "--bundle", str(bundle), self.id]
            variables = dict(os.environ)
        self.process = subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def _runtime(self):
        flags = ["--cgroup-manager=disabled"] if self.kind == "crun" else []
        return [self.kind, *flags, "--root", str(self.state)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Asks the process to end; gives its exit status, or None when it had to be killed."""
        if self.process.poll() is None:
            if self.kind == "box":
                self.process.send_signal(signal.SIGTERM)
            else:
                subprocess.run([*self._runtime(), "kill", self.id, "TERM"], stderr=subprocess.DEVNULL)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            if self.kind != "box":
                subprocess.run([*self._runtime(), "delete", "--force", self.id], stderr=subprocess.DEVNULL)
            self.process.kill()
            self.process.wait()
            return None

    def get(self, url, seconds=20):
        """A page, as soon as the server answers: (status, headers, body)."""
        until = time.monotonic() + seconds
        # The machine's proxy settings are for others than this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            try:
                with opener.open(url, timeout=5) as answer:
                    return answer.status, answer.headers, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.headers, error.read().decode()
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    raise RuntimeError("the server does not answer; it said:\n" + (self.process.stdout.read() or "(nothing)"))
                time.sleep(0.05)
