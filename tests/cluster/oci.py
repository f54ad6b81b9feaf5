# SPDX-License-Identifier: Apache-2.0
"""Images that share one layer, as an OCI layout in a tar archive (OCI image format 1.0).

`ctr images import` reads it. The same tree gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARCHITECTURE = "amd64"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MEDIA_TYPE = "application/vnd.oci.image"


@dataclass(frozen=True)
class Image:
    """What an image runs, and all its names."""

    names: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


def write_layer(path: Path, tree: Path) -> None:
    """The files of a tree as a layer: owned by root, without their times."""
    with tarfile.open(path, "w") as archive:
        for entry in sorted(tree.iterdir()):
            archive.add(entry, entry.name, filter=_plain)


def write_archive(path: Path, layer: Path, images: Iterable[Image]) -> None:
    """The layout: the layer, and a configuration and a manifest for each image."""
    with layer.open("rb") as file:
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    layered = {"mediaType": f"{MEDIA_TYPE}.layer.v1.tar", "digest": digest,
               "size": layer.stat().st_size}  # fmt: skip
    blobs: dict[str, bytes] = {}
    entries = [entry for image in images for entry in _describe(image, layered, blobs)]
    index = {"schemaVersion": 2, "manifests": entries}
    with tarfile.open(path, "w") as archive:
        _add(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", _json(index))
        for name, blob in blobs.items():
            _add(archive, _blob_path(name), blob)
        archive.add(layer, _blob_path(digest), filter=_plain)


def _describe(
    image: Image, layer: dict[str, Any], blobs: dict[str, bytes]
) -> Iterable[dict[str, Any]]:
    """An image's entries in the index, one for each name; its blobs are added to `blobs`."""
    ran = {"Entrypoint": list(image.entrypoint), "Cmd": list(image.command), "Env": [PATH]}
    config = {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "config": {key: value for key, value in ran.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{MEDIA_TYPE}.manifest.v1+json",
        "config": _put(blobs, "config.v1+json", config),
        "layers": [layer],
    }
    entry = _put(blobs, "manifest.v1+json", manifest)
    for name in image.names:
        tag = name.rpartition(":")[2]
        yield {
            **entry,
            "platform": {"architecture": ARCHITECTURE, "os": "linux"},
            "annotations": {"io.containerd.image.name": name,
                            "org.opencontainers.image.ref.name": tag},
        }  # fmt: skip


def _put(blobs: dict[str, bytes], kind: str, document: dict[str, Any]) -> dict[str, Any]:
    blob = _json(document)
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    blobs[digest] = blob
    return {"mediaType": f"{MEDIA_TYPE}.{kind}", "digest": digest, "size": len(blob)}


def _blob_path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()
