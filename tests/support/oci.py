# SPDX-License-Identifier: Apache-2.0
"""Images that share one layer, as an OCI layout in a tar archive (OCI image format 1.0).

`ctr images import` reads it. The same tree gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ARCHITECTURE = "amd64"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MEDIA_TYPE = "application/vnd.oci.image"
GZIP_SUFFIX = ".gz"


@dataclass(frozen=True)
class Image:
    """What an image runs, and all its names."""

    names: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    """NAME=VALUE, beside PATH."""
    labels: dict[str, str] = field(default_factory=dict)
    architecture: str = ARCHITECTURE


def write_layer(path: Path, tree: Path) -> None:
    """The files of a tree as a layer: sorted, owned by root, without their times."""
    with tarfile.open(path, "w") as archive:
        for entry in sorted(tree.iterdir()):
            archive.add(entry, entry.name, filter=_plain)


def compress(layer: Path) -> Path:
    """The layer by gzip (RFC 1952), beside it, without name and time."""
    packed = layer.with_name(layer.name + GZIP_SUFFIX)
    with (
        layer.open("rb") as source,
        packed.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=0) as target,
    ):
        shutil.copyfileobj(source, target, 1 << 20)
    return packed


def write_archive(
    path: Path, layer: Path, images: Iterable[Image], *, packed: Path | None = None
) -> str:
    """The layout: the layer, and a configuration and a manifest for each image.

    `packed` is the layer compressed, to be stored in its place. Returns the digest of the last
    image's manifest.
    """
    stored = packed or layer
    layered: dict[str, Any] = {
        "mediaType": f"{MEDIA_TYPE}.layer.v1.tar" + ("+gzip" if packed else ""),
        "digest": digest_of(stored),
        "size": stored.stat().st_size,
    }
    blobs: dict[str, bytes] = {}
    content = digest_of(layer) if packed else layered["digest"]
    entries = [
        entry for image in images for entry in _describe(image, layered, content, blobs=blobs)
    ]
    index = {"schemaVersion": 2, "manifests": entries}
    with tarfile.open(path, "w") as archive:
        _add(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", _json(index))
        for name, blob in blobs.items():
            _add(archive, _blob_path(name), blob)
        archive.add(stored, _blob_path(layered["digest"]), filter=_blob)
    return str(entries[-1]["digest"])


def digest_of(path: Path) -> str:
    """The digest of a file, as descriptors have it."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _describe(
    image: Image, layer: dict[str, Any], content: str, *, blobs: dict[str, bytes]
) -> Iterable[dict[str, Any]]:
    """An image's entries in the index, one for each name; its blobs are added to `blobs`.

    `content` is the digest of the layer as it is unpacked.
    """
    ran = {
        "Entrypoint": list(image.entrypoint),
        "Cmd": list(image.command),
        "Env": [PATH, *image.environment],
        "Labels": image.labels,
    }
    config = {
        "architecture": image.architecture,
        "os": "linux",
        "config": {key: value for key, value in ran.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [content]},
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
            "platform": {"architecture": image.architecture, "os": "linux"},
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


def _blob(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """With the mode of other blobs, whatever the umask was."""
    member.mode = 0o644
    return _plain(member)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()
