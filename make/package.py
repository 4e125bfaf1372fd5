#!/usr/bin/env python3
"""Packs OUT/package/linux-ARCH/lifecycle/* as platforms take them, for each ARCH: as a tgz and as an image.

usage: package.py OUT ROOT ARCH...

OUT/lifecycle-v<version>+linux.<machine>.tgz has lifecycle.toml and lifecycle/*, and a checksum beside it; `image.py` tells
of the image. ROOT is a Debian root with ca-certificates, for the image. Two runs over the same files write the same bytes:
names sorted, owner 0:0 without names, one time for all.
"""

import gzip
import hashlib
import io
import pathlib
import re
import sys
import tarfile
import tomllib

import image

MTIME = 315532801  # 1980-01-01T00:00:01Z
ROOT = pathlib.Path(__file__).resolve().parent.parent
# As the packages' names have it, where that is not Go's name.
MACHINES = {"amd64": "x86-64"}
SBOM_FORMATS = ["application/vnd.cyclonedx+json", "application/spdx+json", "application/vnd.syft+json"]


def supported(crate, enum):
    """The API versions that the crate's version type can hold, lowest first."""
    text = (ROOT / crate / "src" / "version.rs").read_text()
    body = re.search(rf"pub enum {enum} \{{(.*?)\n\}}", text, re.S)[1]
    return [f"{major}.{minor}" for major, minor in re.findall(r"^\s*V(\d+)_(\d+)", body, re.M)]


def apis():
    """What lifecycle.toml and the image's label say alike."""
    return {
        "buildpack": {"deprecated": [], "supported": supported("buildpack-api", "BuildpackApi")},
        "platform": {"deprecated": [], "supported": supported("platform-api", "PlatformApi")},
    }


def descriptor(version):
    buildpack, platform = apis()["buildpack"]["supported"], apis()["platform"]["supported"]

    def words(values):
        return "[" + ", ".join(f'"{value}"' for value in values) + "]"

    return f"""\
[apis]

  [apis.buildpack]
  deprecated = []
  supported = {words(buildpack)}

  [apis.platform]
  deprecated = []
  supported = {words(platform)}

# The lowest of each, for platforms that know only one.
[api]
platform = "{platform[0]}"
buildpack = "{buildpack[0]}"

[lifecycle]
version = "{version}"
sbom-formats = {words(SBOM_FORMATS)}
"""


def tarball(files):
    """A tar of {name: (mode, bytes or None for a directory)}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, (mode, data) in files.items():
            member = tarfile.TarInfo(name)
            member.mode, member.mtime = mode, MTIME
            if data is None:
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
            else:
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def compressed(data):
    return gzip.compress(data, compresslevel=9, mtime=0)


def contents(version, lifecycle):
    files = {"lifecycle.toml": (0o644, descriptor(version).encode()), "lifecycle": (0o755, None)}
    for path in sorted(lifecycle.iterdir()):
        files[f"lifecycle/{path.name}"] = (0o644 if path.suffix == ".json" else 0o755, path.read_bytes())
    return files


def write_package(out, name, files):
    data = compressed(tarball(files))
    package = out / name
    package.write_bytes(data)
    # The path first, then the digest: as the packages of this kind have it.
    digest = hashlib.sha256(data).hexdigest()
    (out / f"{name}.sha256").write_text(f"{name}  {digest}\n")
    print(f"{package}  {len(data):,} bytes  sha256:{digest}")


def certificates(root):
    """What an image without a distribution lacks: authorities to trust, names of users, a place for temporary files."""
    return {
        "etc": (0o755, None),
        "etc/group": (0o644, b"root:x:0:\nnobody:x:65534:\n"),
        "etc/passwd": (0o644, b"root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n"),
        "etc/ssl": (0o755, None),
        "etc/ssl/certs": (0o755, None),
        "etc/ssl/certs/ca-certificates.crt": (0o644, (root / "etc/ssl/certs/ca-certificates.crt").read_bytes()),
        "tmp": (0o1777, None),
    }


def main(out, root, arches):
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    layers = {}
    for arch in arches:
        files = contents(version, out / "package" / f"linux-{arch}" / "lifecycle")
        write_package(out, f"lifecycle-v{version}+linux.{MACHINES.get(arch, arch)}.tgz", files)
        # The lifecycle comes last: there kpack looks for it.
        in_image = {"cnb": (0o755, None)} | {f"cnb/{name}": file for name, file in files.items()}
        layers[arch] = [compressed(tarball(certificates(root))), compressed(tarball(in_image))]
    layout = out / "lifecycle-image"
    digest = image.write_lifecycle_image(layout, version, apis(), layers)
    print(f"{layout}  {digest}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:])
