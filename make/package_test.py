#!/usr/bin/env python3
"""Tests what `make package` made: package_test.py OUT

Executables of other architectures run under qemu's user emulation. What is not built, or cannot run here, is skipped with
a line that says so. Ends with "N passed, N failed".
"""

import gzip
import hashlib
import io
import json
import os
import pathlib
import platform
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import tomllib

import image
import package

NOBODY = 65534
PT_INTERP, SHT_SYMTAB = 3, 2
# ELF's e_machine, and the name that the kernel and qemu have for the machine.
ARCHES = {
    "amd64": (62, "x86_64"),
    "arm64": (183, "aarch64"),
    "ppc64le": (21, "ppc64le"),
    "s390x": (22, "s390x"),
}
PHASES = ("analyzer", "builder", "creator", "detector", "exporter", "extender", "rebaser", "restorer")
# In bytes; in every app image, and in every builder.
LARGEST_LAUNCHER = {"amd64": 650_000, "arm64": 650_000}
LARGEST_PHASES = {"amd64": 20 << 20}
DETECT = "#!/bin/sh\nexit 0\n"
BUILD = """#!/bin/sh
set -e
mkdir -p "$1/greeting/env.launch"
printf 'hello from a buildpack' >"$1/greeting/env.launch/GREETING"
printf '[types]\\nlaunch = true\\n' >"$1/greeting.toml"
cat >"$1/launch.toml" <<END
[[processes]]
type = "web"
command = ["/bin/sh", "-c"]
args = ["echo $GREETING: $(cat main.txt)"]
default = true
END
"""


def runner(arch):
    """What to put before a command of this architecture; None where it cannot run here."""
    machine = ARCHES[arch][1]
    if machine == platform.machine():
        return []
    emulator = shutil.which(f"qemu-{machine}-static") or shutil.which(f"qemu-{machine}")
    return [emulator] if emulator else None


def run(command, env, **more):
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, **more)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def check_files(arch, lifecycle, _version):
    """Static, stripped, small, without a trace of where they were built."""
    for path in lifecycle.iterdir():
        data = path.read_bytes()
        if path.suffix == ".json":
            continue
        order = ">" if data[5] == 2 else "<"
        assert struct.unpack_from(f"{order}H", data, 18)[0] == ARCHES[arch][0], f"{path}: another machine's"
        segments, sections, _, _, segment, of_segments, section, of_sections = struct.unpack_from(f"{order}QQIHHHHH", data, 32)
        kinds = [struct.unpack_from(f"{order}I", data, segments + number * segment)[0] for number in range(of_segments)]
        assert PT_INTERP not in kinds, f"{path} asks for an interpreter"
        kinds = [struct.unpack_from(f"{order}I", data, sections + number * section + 4)[0] for number in range(of_sections)]
        assert SHT_SYMTAB not in kinds, f"{path} is not stripped"
        # /build is where cross.sh has everything; a directory of ours may have that name, too.
        built = [f"/build/{place}/".encode() for place in ("src", "vendor", "target", "cargo", "support")]
        for place in (*built, str(package.ROOT).encode() + b"/", b"/usr/src/", b"/.cargo/"):
            assert place not in data, f"{path} holds the path {data[data.index(place) - 40:data.index(place) + 60]}"
    launcher = (lifecycle / "launcher").stat().st_size
    assert launcher <= LARGEST_LAUNCHER.get(arch, 1_500_000), f"launcher of {launcher} bytes"
    if not (lifecycle / "creator").exists():
        return
    phases = sum((lifecycle / phase).stat().st_size for phase in PHASES)
    assert phases < LARGEST_PHASES.get(arch, 32 << 20), f"phases of {phases} bytes"


def check_version(arch, lifecycle, version):
    """Every phase starts, and knows its version."""
    for phase in PHASES:
        said = run(runner(arch) + [lifecycle / phase, "-version"], {"CNB_PLATFORM_API": "0.15"})
        assert said.split("+")[0].strip() == version, f"{phase} says {said}"


def check_launcher(arch, lifecycle, _version):
    """The launcher becomes a process, in its environment."""
    with tempfile.TemporaryDirectory() as name:
        world = pathlib.Path(name)
        for path, text in {
            "layers/config/metadata.toml":
                '[[buildpacks]]\nid = "a/b"\nversion = "1"\napi = "0.12"\n'
                '[[processes]]\ntype = "web"\ncommand = ["/bin/sh", "-c", "echo $WORD $0"]\nargs = ["end"]\n'
                'direct = true\nbuildpack-id = "a/b"\n',
            "layers/a_b/layer/env.launch/WORD": "said",
            "app/main.txt": "",
        }.items():
            (world / path).parent.mkdir(parents=True, exist_ok=True)
            (world / path).write_text(text)
        env = {"CNB_PLATFORM_API": "0.15", "CNB_LAYERS_DIR": f"{name}/layers", "CNB_APP_DIR": f"{name}/app", "PATH": os.environ["PATH"]}
        link = world / "web"
        link.symlink_to((lifecycle / "launcher").absolute())
        command = runner(arch)
        # The emulator gives the program its own name, unless told.
        said = run(command + (["-0", link] if command else []) + [link], env)
        assert said == "said end\n", said


def check_build(arch, lifecycle, version):
    """creator makes an image of a layout's run image, and the launcher in it starts it."""
    if os.geteuid() != 0:
        return "needs root"
    with tempfile.TemporaryDirectory() as name:
        world = pathlib.Path(name)
        bp = "buildpacks/a_b/1"
        for path, text in {
            "app/main.txt": "and from the app",
            f"{bp}/buildpack.toml": 'api = "0.12"\n[buildpack]\nid = "a/b"\nversion = "1"\n[[targets]]\nos = "linux"\n',
            f"{bp}/bin/detect": DETECT,
            f"{bp}/bin/build": BUILD,
            "order.toml": '[[order]]\n[[order.group]]\nid = "a/b"\nversion = "1"\n',
            "run.toml": '[[images]]\nimage = "packages.test/run"\n',
        }.items():
            (world / path).parent.mkdir(parents=True, exist_ok=True)
            (world / path).write_text(text)
            (world / path).chmod(0o755 if "/bin/" in path else 0o644)
        for path in ("layers", "platform/env", "layout/packages.test/run"):
            (world / path).mkdir(parents=True)
        base = image.Layout(world / "layout/packages.test/run/latest")
        base.finish(base.put_image(arch, {"Env": [image.PATH]}, [package.compressed(package.tarball({"etc/base": (0o644, b"run\n")}))]))
        for path in (world, *world.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        flags = {"app": "app", "layers": "layers", "platform": "platform", "buildpacks": "buildpacks", "order": "order.toml",
                 "run": "run.toml", "layout-dir": "layout", "report": "layers/report.toml"}
        call = runner(arch) + [lifecycle / "creator", "-layout", "-uid", str(NOBODY), "-gid", str(NOBODY),
                               "-launcher", lifecycle / "launcher", "-launcher-sbom", lifecycle]
        for flag, path in flags.items():
            call += [f"-{flag}", world / path]
        run(call + ["packages.test/app"], {"CNB_PLATFORM_API": "0.15", "CNB_EXPERIMENTAL_MODE": "warn", "CNB_EXTENSIONS_DIR": f"{name}/none",
                                          "PATH": os.environ["PATH"]})
        start_app(arch, world, version)
    return None


def start_app(arch, world, version):
    layout = world / "layout/packages.test/app/latest"

    def blob(descriptor):
        return (layout / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()

    manifest = json.loads(blob(json.loads((layout / "index.json").read_text())["manifests"][0]))
    config = json.loads(blob(manifest["config"]))
    assert config["architecture"] == arch, config["architecture"]
    metadata = json.loads(config["config"]["Labels"]["io.buildpacks.build.metadata"])
    assert metadata["launcher"]["version"] == version, metadata["launcher"]
    root = world / "root"
    for layer in manifest["layers"]:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob(layer)))) as tar:
            for member in tar:
                # Names in layers begin with a slash, which tarfile would follow.
                member.name = member.name.lstrip("/")
                tar.extract(member, root)
    env = dict(variable.split("=", 1) for variable in config["config"]["Env"])
    inside = {name: f"{root}{env[name]}" for name in ("CNB_LAYERS_DIR", "CNB_APP_DIR")}
    said = run(runner(arch) + [root / "cnb/lifecycle/launcher", "/bin/sh", "-c", 'echo "$GREETING" $(cat main.txt)'], env | inside)
    assert said == "hello from a buildpack and from the app\n", said


def check_package(arch, lifecycle, version):
    """The tgz and the image of the layout hold what was tested above, under one version."""
    out = lifecycle.parent.parent.parent
    file = out / f"lifecycle-v{version}+linux.{package.MACHINES.get(arch, arch)}.tgz"
    data = file.read_bytes()
    assert pathlib.Path(f"{file}.sha256").read_text() == f"{file.name}  {hashlib.sha256(data).hexdigest()}\n"
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}
        assert all((m.uid, m.gid, m.uname, m.mtime) == (0, 0, "", package.MTIME) for m in tar.getmembers())
    descriptor = tomllib.loads(members.pop("lifecycle.toml").decode())
    assert descriptor["lifecycle"]["version"] == version, descriptor
    assert members == {f"lifecycle/{path.name}": path.read_bytes() for path in lifecycle.iterdir()}
    return check_image(out / "lifecycle-image", arch, version, members)


def check_image(layout, arch, version, members):
    def blob(descriptor):
        data = (layout / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (descriptor["digest"][7:], descriptor["size"])
        return data

    over_all = json.loads((layout / "index.json").read_text())["manifests"][0]
    of_arch = [m for m in json.loads(blob(over_all))["manifests"] if m["platform"] == {"architecture": arch, "os": "linux"}]
    if not of_arch:
        return "is not in the image, which has what the last make package was asked for"
    assert len(of_arch) == 1, of_arch
    manifest = json.loads(blob(of_arch[0]))
    config = json.loads(blob(manifest["config"]))
    labels = config["config"]["Labels"]
    assert labels["io.buildpacks.lifecycle.version"] == version
    assert json.loads(labels["io.buildpacks.builder.metadata"]) == {
        "lifecycle": {"version": version}, "api": {"buildpack": "0.7", "platform": "0.7"}}
    assert json.loads(labels["io.buildpacks.lifecycle.apis"])["platform"]["supported"][-1] == "0.15"
    layers = [gzip.decompress(blob(layer)) for layer in manifest["layers"]]
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    with tarfile.open(fileobj=io.BytesIO(layers[-1])) as tar:
        last = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}
    del last["cnb/lifecycle.toml"]
    assert last == {f"cnb/{name}": data for name, data in members.items()}, "kpack takes the last layer"
    return None


def main(out):
    version = tomllib.loads((package.ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    passed = failed = 0
    for arch in ARCHES:
        lifecycle = (out / "package" / f"linux-{arch}" / "lifecycle").absolute()
        if not lifecycle.is_dir():
            print(f"skipped: linux/{arch} is not built (make package ARCHES={arch})")
            continue
        for check in (check_files, check_launcher, check_version, check_build, check_package):
            if check not in (check_files, check_launcher) and not (lifecycle / "creator").exists():
                print(f"skipped: linux/{arch}, {check.__doc__} Only the launcher is built.")
                continue
            if check in (check_version, check_launcher, check_build) and runner(arch) is None:
                print(f"skipped: linux/{arch}, {check.__doc__} Without qemu-user-static, it cannot run here.")
                continue
            try:
                skipped = check(arch, lifecycle, version)
            except (AssertionError, OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
                failed += 1
                print(f"FAILED: linux/{arch}, {check.__doc__}\n  {type(error).__name__}: {error}")
                continue
            if skipped:
                print(f"skipped: linux/{arch}, {check.__doc__} It {skipped}.")
            else:
                passed += 1
                print(f"passed: linux/{arch}, {check.__doc__}")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(pathlib.Path(sys.argv[1])))
