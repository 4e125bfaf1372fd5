"""Writes OCI layouts, and the lifecycle image as one.

The lifecycle image's labels are what pack and kpack read.
`skopeo copy --all oci:out/lifecycle-image:<version> docker://...` publishes it.
"""

import gzip
import hashlib
import json
import shutil

CREATED = "1980-01-01T00:00:01Z"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def compact(value):
    return json.dumps(value, separators=(",", ":"))


class Layout:
    """A new layout, in a directory that is emptied first."""

    def __init__(self, path):
        self.path = path
        shutil.rmtree(path, ignore_errors=True)
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def put(self, data, kind):
        """Stores a blob; its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        (self.path / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    def put_image(self, arch, config, layers):
        """Stores an image of these gzipped layers; its descriptor."""
        diff_ids = ["sha256:" + hashlib.sha256(gzip.decompress(layer)).hexdigest() for layer in layers]
        image = {"created": CREATED, "architecture": arch, "os": "linux", "config": config,
                 "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.put(compact(image).encode(), "config.v1+json"),
            "layers": [self.put(layer, "layer.v1.tar+gzip") for layer in layers],
        }
        return self.put(compact(manifest).encode(), "manifest.v1+json") | {"platform": {"architecture": arch, "os": "linux"}}

    def put_index(self, manifests):
        return self.put(compact(index(manifests)).encode(), "index.v1+json")

    def finish(self, descriptor):
        (self.path / "index.json").write_text(compact(index([descriptor])))


def index(manifests):
    return {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests}


def labels(version, apis):
    lowest = {name: versions["supported"][0] for name, versions in apis.items()}
    return {
        # For kpack, and for platforms older than the label of the APIs.
        "io.buildpacks.builder.metadata": compact({"lifecycle": {"version": version}, "api": lowest}),
        "io.buildpacks.lifecycle.apis": compact(apis),
        "io.buildpacks.lifecycle.version": version,
    }


def write_lifecycle_image(path, version, apis, layers):
    """Writes the images of {architecture: [gzipped layer, ...]} and an index over them; the index's digest."""
    layout = Layout(path)
    config = {
        "Env": [PATH, "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
        "WorkingDir": "/layers",
        "Labels": labels(version, apis),
    }
    over_all = layout.put_index([layout.put_image(arch, config, of_arch) for arch, of_arch in layers.items()])
    layout.finish(over_all | {"annotations": {"org.opencontainers.image.ref.name": version}})
    return over_all["digest"]
