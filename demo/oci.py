"""OCI image layouts: write one, read one, unpack one. Standard library only."""

import gzip
import hashlib
import io
import json
import pathlib
import tarfile

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
# Newer Pythons refuse some members unless told which rules to use; older ones do not know the argument.
FILTER = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    """The one image of an OCI image layout directory."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        index = json.loads((self.directory / "index.json").read_text())
        self.descriptor = index["manifests"][0]
        self.digest = self.descriptor["digest"]
        self.manifest = json.loads(self.blob(self.digest))
        self.config = json.loads(self.blob(self.manifest["config"]["digest"]))

    def path(self, digest):
        return self.directory / "blobs" / digest.replace(":", "/")

    def blob(self, digest):
        """A blob's bytes, checked against the digest that names it."""
        data = self.path(digest).read_bytes()
        if sha256(data) != digest:
            raise ValueError(f"{self.path(digest)}: the content does not match its name")
        return data

    def layers(self):
        """Each layer, bottom first, as (descriptor, diff ID, history entry)."""
        history = [h for h in self.config.get("history", []) if not h.get("empty_layer")]
        descriptors, diff_ids = self.manifest["layers"], self.config["rootfs"]["diff_ids"]
        if len(descriptors) != len(diff_ids):
            raise ValueError("the manifest and the config do not have the same number of layers")
        history += [{}] * (len(diff_ids) - len(history))
        return list(zip(descriptors, diff_ids, history))

    def tar(self, descriptor, diff_id):
        """A layer's tar, checked against its diff ID."""
        data = self.blob(descriptor["digest"])
        if descriptor["mediaType"].endswith("gzip"):
            data = gzip.decompress(data)
        if sha256(data) != diff_id:
            raise ValueError(f"{descriptor['digest']}: the layer does not unpack to its diff ID")
        return data

    def label(self, key):
        value = self.config["config"].get("Labels", {}).get(key, "")
        return json.loads(value) if value.startswith(("{", "[")) else value

    def unpack(self, root):
        """Lays all layers over each other in `root`. Owners are kept only when the caller is root."""
        for descriptor, diff_id, _ in self.layers():
            with tarfile.open(fileobj=io.BytesIO(self.tar(descriptor, diff_id))) as tar:
                for member in tar:
                    member.name = member.name.lstrip("/")
                    target = pathlib.Path(root) / member.name
                    if target.name.startswith(".wh."):
                        raise ValueError(f"{member.name}: the demonstration's images have no deletions")
                    if target.is_symlink() and member.isdir():
                        continue
                    if not member.isdir() and (target.is_symlink() or target.is_file()):
                        target.unlink()
                    tar.extract(member, root, numeric_owner=True, **FILTER)


def write(directory, layers, config):
    """Writes an image made of `layers` [(tar bytes, created_by)] and the `config` beside them; gives its digest."""
    directory = pathlib.Path(directory)
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(data, media_type):
        digest = sha256(data)
        (blobs / digest.removeprefix("sha256:")).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    created = "1980-01-01T00:00:01Z"
    config = dict(config, created=created)
    config["rootfs"] = {"type": "layers", "diff_ids": [sha256(tar) for tar, _ in layers]}
    config["history"] = [{"created": created, "created_by": by} for _, by in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": put(json.dumps(config, sort_keys=True).encode(), CONFIG),
        "layers": [put(gzip.compress(tar, 6, mtime=0), LAYER) for tar, _ in layers],
    }
    descriptor = put(json.dumps(manifest).encode(), MANIFEST)
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "mediaType":
        "application/vnd.oci.image.index.v1+json", "manifests": [descriptor]}))
    (directory / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    return descriptor["digest"]


def human(size):
    for unit in ("B", "kB", "MB"):
        if size < 1000 or unit == "MB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000

