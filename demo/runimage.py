"""Makes a run image from files of this machine: what a Python application needs, and no more.

Two layers: the base (users, certificates, time zones, busybox as the shell) and Python with its shared libraries.
A real run image would come from a distribution; this one needs no network, no registry and no root.
"""

import io
import os
import pathlib
import platform
import re
import subprocess
import sys
import tarfile

import oci

PYTHON = "/usr/bin/python3"
MTIME = 315532801  # 1980-01-01T00:00:01Z, as in every layer that the lifecycle writes
LEFT_OUT = re.compile(
    r"/(test|tests|idlelib|tkinter|turtledemo|lib2to3|ensurepip|__pycache__|dist-packages|site-packages|config-3[^/]*)(/|$)"
    r"|/_tkinter\.")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Tree:
    """Files of this machine that go into one layer, by their path in the image."""

    def __init__(self):
        self.members = {}

    def directory(self, path, mode=0o755, owner=0):
        self._parents(path)
        self._add(path, tarfile.DIRTYPE, mode=mode, owner=owner)

    def text(self, path, text):
        self._parents(path)
        self._add(path, tarfile.REGTYPE, data=text.encode())

    def link(self, path, target):
        self._parents(path)
        self._add(path, tarfile.SYMTYPE, mode=0o777, linkname=target)

    def copy(self, path):
        """Copies a file from this machine, with the links that lead to it."""
        path = real_parent(path)
        if str(path) in self.members:
            return
        if path.is_symlink():
            self.link(path, os.readlink(path))
            self.copy(path.parent / os.readlink(path))
        elif path.is_dir():
            self.directory(path)
            for child in sorted(path.iterdir()):
                if not LEFT_OUT.search(str(child)):
                    self.copy(child)
        else:
            self._parents(path)
            self._add(path, tarfile.REGTYPE, mode=path.stat().st_mode & 0o755, data=path.read_bytes())

    def _parents(self, path):
        for parent in reversed(pathlib.PurePath(path).parents):
            if str(parent) != "/" and str(parent) not in self.members:
                self._add(parent, tarfile.DIRTYPE, mode=0o755)

    def _add(self, path, kind, mode=0o644, owner=0, data=b"", linkname=""):
        member = tarfile.TarInfo(str(path).lstrip("/"))
        member.type, member.mode, member.mtime, member.size = kind, mode, MTIME, len(data)
        member.uid = member.gid = owner
        member.linkname = linkname
        self.members[str(path)] = (member, data)

    def tar(self):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for _, (member, data) in sorted(self.members.items()):
                tar.addfile(member, io.BytesIO(data))
        return out.getvalue()


def real_parent(path):
    """The path with links in its directories resolved, but not a link in its last part."""
    path = pathlib.Path(os.path.normpath(path))
    return path.parent.resolve() / path.name


def libraries(files):
    """The shared libraries that `files` are loaded with, the loader included."""
    out = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True).stdout
    return sorted(set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", out, re.M)))


def base_layer():
    tree = Tree()
    for name in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{name}"):
            tree.link(f"/{name}", os.readlink(f"/{name}"))
    tree.directory("/tmp", mode=0o1777)
    tree.directory("/home/cnb", owner=1000)
    for name in ("dev", "proc", "sys"):
        tree.directory(f"/{name}")
    tree.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\ncnb:x:1000:1000::/home/cnb:/bin/sh\n")
    tree.text("/etc/group", "root:x:0:\ncnb:x:1000:\n")
    tree.text("/etc/nsswitch.conf", "hosts: files dns\n")
    tree.text("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
    for file in ("/etc/os-release", "/etc/ssl/certs/ca-certificates.crt", "/usr/share/zoneinfo/UTC", "/usr/share/zoneinfo/Europe",
                 "/usr/share/zoneinfo/America", "/usr/share/zoneinfo/Asia"):
        if os.path.exists(file):
            tree.copy(file)
    busybox = real_parent("/bin/busybox")
    tree.copy(busybox)
    for library in libraries([busybox]):
        tree.copy(library)
    for applet in ("sh", "cat", "env", "id", "ls", "nproc", "ps", "sleep", "uname", "wget"):
        tree.link(f"/usr/bin/{applet}" if os.path.islink("/bin") else f"/bin/{applet}", str(busybox))
    return tree


def python_layer():
    tree = Tree()
    library = pathlib.Path(subprocess.run(
        [PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"],
        capture_output=True, text=True, check=True).stdout.strip())
    tree.copy(PYTHON)
    tree.copy(library)
    extensions = sorted((library / "lib-dynload").glob("*.so"))
    for needed in libraries([PYTHON, *(e for e in extensions if not LEFT_OUT.search(str(e)))]):
        tree.copy(needed)
    return tree


def os_release():
    fields = dict(re.findall(r'^(\w+)="?([^"\n]*)', pathlib.Path("/etc/os-release").read_text(), re.M))
    return fields.get("ID", "linux"), fields.get("VERSION_ID", "")


def write(directory):
    """Writes the run image as an OCI layout; gives its digest."""
    distribution, version = os_release()
    layers = [
        (base_layer().tar(), "Base: users, certificates, time zones, busybox"),
        (python_layer().tar(), "Python and its shared libraries"),
    ]
    return oci.write(directory, layers, {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {
            "User": "1000:1000",
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
            "WorkingDir": "/home/cnb",
            "Labels": {
                "io.buildpacks.base.description": "Python and what it needs, taken from the machine the demonstration ran on",
                "io.buildpacks.base.distro.name": distribution,
                "io.buildpacks.base.distro.version": version,
                "io.buildpacks.base.homepage": "https://buildpacks.io",
                "io.buildpacks.base.id": "demo.run",
                "io.buildpacks.base.maintainer": "the demonstration",
                "io.buildpacks.rebasable": "true",
            },
        },
    })


if __name__ == "__main__":
    print(write(sys.argv[1]))
