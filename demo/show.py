#!/usr/bin/env python3
"""Prints what is in an app image that lies in an OCI layout: layers and their makers, processes, labels, SBOM.

usage: show.py LAYOUT_DIRECTORY [PREVIOUS_LAYOUT_DIRECTORY]
"""

import io
import json
import sys
import tarfile

from oci import Layout, human


def layer_rows(image, previous=None):
    """One row for each layer, bottom first: (state, compressed size, who made it)."""
    before = set(previous.config["rootfs"]["diff_ids"]) if previous else set()
    base_top = image.label("io.buildpacks.lifecycle.metadata")["runImage"]["topLayer"]
    rows, in_base = [], True
    for descriptor, diff_id, history in image.layers():
        if in_base:
            state = "run image"
        elif not previous:
            state = "new"
        else:
            state = "same" if diff_id in before else "changed"
        rows.append((state, descriptor["size"], history.get("created_by", "")))
        in_base = in_base and diff_id != base_top
    return rows


def print_layers(image, previous=None, say=print, paint=lambda style, text: text):
    styles = {"run image": "dim", "same": "dim", "new": "green", "changed": "yellow"}
    for state, size, maker in layer_rows(image, previous):
        say(f"{paint(styles[state], f'{state:<10}')} {human(size):>9}  {maker}")


def sboms(image):
    """Each CycloneDX document of the image: (path, parsed)."""
    for descriptor, diff_id, history in image.layers():
        if history.get("created_by") != "Software Bill-of-Materials":
            continue
        with tarfile.open(fileobj=io.BytesIO(image.tar(descriptor, diff_id))) as tar:
            for member in tar:
                if member.isfile() and member.name.endswith(".cdx.json"):
                    yield member.name, json.load(tar.extractfile(member))


def process_rows(image):
    default = image.config["config"]["Entrypoint"][0].rsplit("/", 1)[-1]
    for process in image.label("io.buildpacks.build.metadata")["processes"]:
        command = process["command"] if isinstance(process["command"], list) else [process["command"]]
        yield process["type"], process["type"] == default, " ".join(command + (process.get("args") or []))


def print_image(image, previous=None, say=print, paint=lambda style, text: text):
    say(paint("bold", "Layers, bottom first (compressed size, and who made it)"))
    print_layers(image, previous, lambda line: say("  " + line), paint)
    total = sum(descriptor["size"] for descriptor in image.manifest["layers"])
    say(f"  {'together':<10} {human(total):>9}")

    say("")
    say(paint("bold", "Processes"))
    for name, default, command in process_rows(image):
        say(f"  {name:<10} {command}{'   (default)' if default else ''}")

    config = image.config["config"]
    say("")
    say(paint("bold", "Config"))
    say(f"  entrypoint {' '.join(config['Entrypoint'])}")
    say(f"  user       {config.get('User', '')}")
    say(f"  directory  {config.get('WorkingDir', '')}")

    say("")
    say(paint("bold", "Labels"))
    for key, value in sorted(config["Labels"].items()):
        text = f"{len(value)} bytes of JSON" if value.startswith("{") and len(value) > 40 else value
        say(f"  {key:<34} {text}")

    say("")
    say(paint("bold", "Software bill of materials"))
    for path, document in sboms(image):
        parts = [f"{c['name']} {c.get('version', '')}".strip() for c in document.get("components", [])]
        say(f"  {path.lstrip('/')}")
        for start in range(0, len(parts), 4):
            say("    " + ", ".join(parts[start:start + 4]))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    print_image(*(Layout(directory) for directory in sys.argv[1:]))
