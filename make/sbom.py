#!/usr/bin/env python3
"""Writes the software bills of materials of the lifecycle and of the launcher, in the three formats of the spec.

usage: sbom.py TARGET DIRECTORY

The parts are the crates that are linked in, as cargo resolved them for TARGET; the same input gives the same bytes.
"""

import hashlib
import json
import pathlib
import subprocess
import sys


def resolved(target):
    """All packages by ID, and for each the IDs of what it is linked with (no build scripts, no tests)."""
    metadata = json.loads(subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target],
        check=True, stdout=subprocess.PIPE).stdout)
    packages = {p["id"]: p for p in metadata["packages"]}
    links = {
        node["id"]: [d["pkg"] for d in node["deps"] if any(k["kind"] is None for k in d["dep_kinds"])]
        for node in metadata["resolve"]["nodes"]
    }
    return packages, links


def parts(name, packages, links):
    """The package called `name`, and what it is linked with, sorted by name and version. Procedural macros stay out."""
    root = next(p for p in packages.values() if p["name"] == name and p["source"] is None)
    seen, todo = set(), [root["id"]]
    while todo:
        package = todo.pop()
        if package in seen or any("proc-macro" in t["kind"] for t in packages[package]["targets"]):
            continue
        seen.add(package)
        todo += links[package]
    seen.discard(root["id"])
    return root, sorted((packages[p] for p in seen), key=lambda p: (p["name"], p["version"]))


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


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
             "type": "rust-crate", "foundBy": "make/sbom.py", "locations": [], "language": "rust", "cpes": [], "purl": purl(p),
             "licenses": [{"value": p["license"], "spdxExpression": p["license"], "type": "declared"}] if p["license"] else []}
            for p in used
        ],
        "artifactRelationships": [],
        "source": {"id": f"{name}-{version}", "name": name, "version": version, "type": "file", "metadata": {"path": name}},
        "distro": {},
        "descriptor": {"name": "make/sbom.py", "version": version},
        "schema": {"version": "16.0.0", "url": "https://raw.githubusercontent.com/anchore/syft/main/schema/json/schema-16.0.0.json"},
    }


def main(target, directory):
    packages, links = resolved(target)
    for crate, name in (("cmd", "lifecycle"), ("launcher", "launcher")):
        root, used = parts(crate, packages, links)
        used = [p for p in used if p["source"]]
        for suffix, write in (("cdx", cyclonedx), ("spdx", spdx), ("syft", syft)):
            path = pathlib.Path(directory) / f"{name}.sbom.{suffix}.json"
            path.write_text(json.dumps(write(name, root["version"], used), indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
