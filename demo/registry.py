"""A registry for images, as small as it can be: one directory, no users, this machine only. Standard library only."""

import http.server
import json
import pathlib
import re
import sys
import threading
import urllib.parse
import uuid

from oci import MANIFEST, sha256


class Registry:
    """Listens on a free port while the `with` block lasts. All repositories share one directory of blobs."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.blobs = self.directory / "blobs" / "sha256"
        self.uploads = self.directory / "uploads"
        self.tags = {}
        for path in (self.blobs, self.uploads):
            path.mkdir(parents=True, exist_ok=True)
        handler = type("Handler", (Handler,), {"registry": self})
        self.server = Server(("127.0.0.1", 0), handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def path(self, digest):
        return self.blobs / digest.removeprefix("sha256:")

    def add(self, layout, repository, tag):
        """Takes an image over from an OCI layout, without the detour over HTTP."""
        for blob in (layout.directory / "blobs" / "sha256").iterdir():
            (self.blobs / blob.name).write_bytes(blob.read_bytes())
        self.tags[repository, tag] = layout.digest
        return f"{self.host}/{repository}:{tag}"

    def layout(self, repository, tag, directory):
        """One image as an OCI layout, to be looked at."""
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True)
        (directory / "blobs").symlink_to(self.directory / "blobs")
        digest = self.tags[repository, tag]
        descriptor = {"mediaType": MANIFEST, "digest": digest, "size": self.path(digest).stat().st_size}
        (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
        (directory / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
        return directory


class Server(http.server.ThreadingHTTPServer):
    """A client may hang up when it has read what it wanted."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    """The distribution protocol (https://github.com/opencontainers/distribution-spec): pull, push, mount."""

    protocol_version = "HTTP/1.1"
    registry = None

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        headers.get("Content_Length") or self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        """What comes with the request, in one piece or in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            yield self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def route(self):
        url = urllib.parse.urlsplit(self.path)
        query = {name: values[0] for name, values in urllib.parse.parse_qs(url.query).items()}
        for kind in ("blobs/uploads", "blobs", "manifests"):
            if found := re.fullmatch(f"/v2/(.+)/{kind}/(.*)", url.path):
                return kind, found[1], found[2], query
        return url.path, "", "", query

    def do_GET(self):
        kind, repository, name, _ = self.route()
        if kind == "/v2/":
            return self.answer(200)
        digest = self.registry.tags.get((repository, name), name)
        path = self.registry.path(digest)
        if kind not in ("blobs", "manifests") or not re.fullmatch("sha256:[0-9a-f]{64}", digest) or not path.exists():
            return self.answer(404)
        data = path.read_bytes()
        media_type = json.loads(data).get("mediaType", MANIFEST) if kind == "manifests" else "application/octet-stream"
        length = {"Content_Length": len(data)} if self.command == "HEAD" and data else {}
        return self.answer(200, data, Content_Type=media_type, Docker_Content_Digest=digest, **length)

    do_HEAD = do_GET

    def do_POST(self):
        _, repository, _, query = self.route()
        list(self.body())
        if "mount" in query and self.registry.path(query["mount"]).exists():
            return self.answer(201, Location=f"/v2/{repository}/blobs/{query['mount']}")
        upload = uuid.uuid4().hex
        (self.registry.uploads / upload).touch()
        return self.answer(202, Location=f"/v2/{repository}/blobs/uploads/{upload}", Range="0-0")

    def receive(self, upload):
        with open(self.registry.uploads / upload, "ab") as out:
            for chunk in self.body():
                out.write(chunk)
            return out.tell()

    def do_PATCH(self):
        _, _, upload, _ = self.route()
        size = self.receive(upload)
        return self.answer(202, Location=self.path, Range=f"0-{size - 1}")

    def do_PUT(self):
        kind, repository, name, query = self.route()
        if kind == "manifests":
            data = b"".join(self.body())
            digest = sha256(data)
            self.registry.path(digest).write_bytes(data)
            self.registry.tags[repository, name] = digest
            return self.answer(201, Location=self.path, Docker_Content_Digest=digest)
        self.receive(name)
        upload = self.registry.uploads / name
        digest = sha256(upload.read_bytes())
        if digest != query.get("digest"):
            return self.answer(400)
        upload.rename(self.registry.path(digest))
        return self.answer(201, Location=f"/v2/{repository}/blobs/{digest}", Docker_Content_Digest=digest)
