#!/usr/bin/env python3
"""Writes the software bills of materials of the lifecycle and of the launcher, in the three formats of the spec.

usage: sbom.py TARGET DIRECTORY [PURL...]

The parts are the crates that are linked in, as cargo resolved them for TARGET, and those of the package URLs: what else is
in a static executable, such as its libc. The same input gives the same bytes.
"""

import hashlib
import json
import pathlib
import subprocess
import sys
import tomllib
import urllib.parse


def linked(crate, target):
    """The crates from elsewhere that `crate` is linked with, sorted: no build scripts, no procedural macros, no tests."""
    lines = subprocess.run(
        ["cargo", "tree", "--locked", "-p", crate, "-e", "normal,no-proc-macro", "--target", target, "--prefix", "none",
         "--format", "{p}|{l}|{r}"], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found = {}
    for line in lines:
        package, licence, repository = line.removesuffix(" (*)").split("|")
        name, version, *where = package.split(" ")
        # A path in brackets: a crate of this workspace.
        if not where:
            found[name, version] = {
                "name": name, "version": version.removeprefix("v"), "license": licence.replace("/", " OR "), "repository": repository,
                "purl": f"pkg:cargo/{name}@{version.removeprefix('v')}", "type": "rust-crate", "language": "rust"}
    return [found[key] for key in sorted(found)]


def of_debian(url):
    """A package of Debian's; its licences are in the package itself."""
    name, version = url.partition("?")[0].rpartition("/")[2].split("@")
    return {"name": name, "version": urllib.parse.unquote(version), "license": "", "repository": "", "purl": url, "type": "deb", "language": ""}


def purl(package):
    return package["purl"]


def cyclonedx(name, version, used):
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": name, "version": version}},
        "components": [
            {"type": "library", "bom-ref": purl(p), "name": p["name"], "version": p["version"], "purl": purl(p),
             "licenses": [{"expression": p["license"]}] if p["license"] else []}
            for p in used
        ],
    }


def spdx(name, version, used):
    digest = hashlib.sha256("\n".join(map(purl, used)).encode()).hexdigest()
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{name}-{version}",
        "documentNamespace": f"https://buildpacks.io/spdx/{name}-{version}-{digest[:32]}",
        "creationInfo": {"created": "1980-01-01T00:00:01Z", "creators": ["Tool: make/sbom.py"]},
        "packages": [
            {"SPDXID": f"SPDXRef-{number}", "name": p["name"], "versionInfo": p["version"],
             "downloadLocation": p["repository"] or "NOASSERTION", "licenseConcluded": "NOASSERTION",
             "licenseDeclared": p["license"] or "NOASSERTION", "filesAnalyzed": False,
             "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl(p)}]}
            for number, p in enumerate(used)
        ],
        "relationships": [
            {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": f"SPDXRef-{number}"}
            for number in range(len(used))
        ],
    }


def syft(name, version, used):
    return {
        "artifacts": [
            {"id": hashlib.sha256(purl(p).encode()).hexdigest()[:16], "name": p["name"], "version": p["version"],
             "type": p["type"], "foundBy": "make/sbom.py", "locations": [], "language": p["language"], "cpes": [], "purl": purl(p),
             "licenses": [{"value": p["license"], "spdxExpression": p["license"], "type": "declared"}] if p["license"] else []}
            for p in used
        ],
        "artifactRelationships": [],
        "source": {"id": f"{name}-{version}", "name": name, "version": version, "type": "file", "metadata": {"path": name}},
        "distro": {},
        "descriptor": {"name": "make/sbom.py", "version": version},
        "schema": {"version": "16.0.0", "url": "https://raw.githubusercontent.com/anchore/syft/main/schema/json/schema-16.0.0.json"},
    }


def main(target, directory, *others):
    root = pathlib.Path(__file__).resolve().parent.parent
    version = tomllib.loads((root / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    for crate, name in (("cmd", "lifecycle"), ("launcher", "launcher")):
        used = linked(crate, target) + [of_debian(url) for url in others]
        for suffix, write in (("cdx", cyclonedx), ("spdx", spdx), ("syft", syft)):
            path = pathlib.Path(directory) / f"{name}.sbom.{suffix}.json"
            path.write_text(json.dumps(write(name, version, used), indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
