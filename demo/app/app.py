"""The sample application: a page, its assets and a small JSON interface, served by waitress."""

import json
import os
import platform
import signal
import sys
from pathlib import Path

from flask import Flask, abort, jsonify, render_template, send_from_directory

HERE = Path(__file__).parent
# Set by the assets buildpack; without it (on a developer's machine) the files are served as they are.
ASSETS = Path(os.environ.get("ASSETS_DIR", HERE / "static"))

app = Flask(__name__, static_folder=None)


def read_json(path, otherwise):
    return json.loads(path.read_text()) if path.is_file() else otherwise


FINGERPRINTED = read_json(ASSETS / "manifest.json", {})
CATALOGUE = read_json(HERE / "catalogue.json", [])


@app.template_global()
def asset(name):
    """The address of an asset: with its digest in the name where the buildpack gave it one."""
    return f"/assets/{FINGERPRINTED.get(name, name)}"


@app.get("/")
def index():
    return render_template("index.html", plants=CATALOGUE, python=platform.python_version(), host=platform.node())


@app.get("/assets/<path:name>")
def assets(name):
    answer = send_from_directory(ASSETS, name)
    if name in FINGERPRINTED.values():
        answer.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return answer


@app.get("/api/plants/<int:number>")
def plant(number):
    found = next((p for p in CATALOGUE if p["number"] == number), None)
    return jsonify(found) if found else abort(404)


@app.get("/healthz")
def healthz():
    return {"ok": True, "user": os.getuid(), "threads": int(os.environ.get("WEB_THREADS", "0"))}


if __name__ == "__main__":
    import waitress

    # The process is PID 1 of its container, where a signal without a handler is dropped by the kernel.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    waitress.serve(
        app,
        listen=f"{os.environ.get('HOST', '0.0.0.0')}:{os.environ.get('PORT', '8080')}",
        threads=int(os.environ.get("WEB_THREADS", "4")),
    )
