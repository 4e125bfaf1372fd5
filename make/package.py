#!/usr/bin/env python3
"""Packs the executables as platforms take them: lifecycle.toml, lifecycle/*, and a checksum beside the tgz.

usage: package.py LIFECYCLE_DIRECTORY OUT_DIRECTORY MACHINE

Two runs over the same executables write the same bytes: names sorted, owner 0:0 without names, one time for all.
"""

import gzip
import hashlib
import io
import pathlib
import re
import sys
import tarfile
import tomllib

MTIME = 315532801  # 1980-01-01T00:00:01Z
ROOT = pathlib.Path(__file__).resolve().parent.parent
SBOM_FORMATS = ["application/vnd.cyclonedx+json", "application/spdx+json", "application/vnd.syft+json"]


def supported(crate, enum):
    """The API versions that the crate's version type can hold, lowest first."""
    text = (ROOT / crate / "src" / "version.rs").read_text()
    body = re.search(rf"pub enum {enum} \{{(.*?)\n\}}", text, re.S)[1]
    return [f"{major}.{minor}" for major, minor in re.findall(r"^\s*V(\d+)_(\d+)", body, re.M)]


def descriptor(version):
    buildpack, platform = supported("buildpack-api", "BuildpackApi"), supported("platform-api", "PlatformApi")

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


def archive(files):
    """A gzipped tar of {name: (mode, bytes or None for a directory)}."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9, mtime=0, filename="") as compressed:
        with tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
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


def main(lifecycle, out, machine):
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    machine = {"x86_64": "x86-64", "aarch64": "arm64"}.get(machine, machine)
    files = {"lifecycle.toml": (0o644, descriptor(version).encode()), "lifecycle": (0o755, None)}
    for path in sorted(pathlib.Path(lifecycle).iterdir()):
        files[f"lifecycle/{path.name}"] = (0o644 if path.suffix == ".json" else 0o755, path.read_bytes())

    package = pathlib.Path(out) / f"lifecycle-v{version}+linux.{machine}.tgz"
    data = archive(files)
    package.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    # The path first, then the digest: as the packages of this kind have it.
    pathlib.Path(f"{package}.sha256").write_text(f"{package}  {digest}\n")
    print(f"{package}  {len(data):,} bytes  sha256:{digest}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
