# SPDX-License-Identifier: Apache-2.0
"""Images as an OCI layout in a tar archive (OCI image format 1.0): several that share one layer,
or one that has a layer for each architecture.

`ctr images import` reads it. The same tree gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Sequence
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
    architecture: str = field(default=ARCHITECTURE, repr=False)


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
    blobs: dict[str, bytes] = {}
    stored, content = _layered(layer, packed), digest_of(layer)
    entries = [
        _named(_describe(image, stored, content, blobs), name)
        for image in images
        for name in image.names
    ]
    _write(path, entries, blobs, [packed or layer])
    return str(entries[-1]["digest"])


def write_platforms(path: Path, parts: Sequence[tuple[Image, Path, Path]]) -> str:
    """The layout of one image for several architectures: an index of manifests, under each name.

    A part is an image, its layer, and that compressed; the names are the first one's. Returns the
    digest of the index.
    """
    blobs: dict[str, bytes] = {}
    described = [
        _describe(image, _layered(layer, packed), digest_of(layer), blobs)
        for image, layer, packed in parts
    ]
    index = {"schemaVersion": 2, "mediaType": f"{MEDIA_TYPE}.index.v1+json", "manifests": described}
    entry = _put(blobs, "index.v1+json", index)
    entries = [_named(entry, name) for name in parts[0][0].names]
    _write(path, entries, blobs, [packed for _, _, packed in parts])
    return str(entry["digest"])


def digest_of(path: Path) -> str:
    """The digest of a file, as descriptors have it."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _layered(layer: Path, packed: Path | None) -> dict[str, Any]:
    """The descriptor of a layer as it is stored."""
    stored = packed or layer
    return {
        "mediaType": f"{MEDIA_TYPE}.layer.v1.tar" + ("+gzip" if packed else ""),
        "digest": digest_of(stored),
        "size": stored.stat().st_size,
    }


def _describe(
    image: Image, layer: dict[str, Any], content: str, blobs: dict[str, bytes]
) -> dict[str, Any]:
    """The descriptor of an image's manifest; the image's blobs are added to `blobs`.

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
    return entry | {"platform": {"architecture": image.architecture, "os": "linux"}}


def _named(entry: dict[str, Any], name: str) -> dict[str, Any]:
    """An entry of a layout's index, by which `name` leads to an image."""
    tag = name.rpartition(":")[2]
    return entry | {
        "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag}
    }


def _write(
    path: Path, entries: Sequence[dict[str, Any]], blobs: dict[str, bytes], layers: Sequence[Path]
) -> None:
    with tarfile.open(path, "w") as archive:
        _add(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", _json({"schemaVersion": 2, "manifests": list(entries)}))
        for name, blob in blobs.items():
            _add(archive, _blob_path(name), blob)
        for layer in layers:
            archive.add(layer, _blob_path(digest_of(layer)), filter=_blob)


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
