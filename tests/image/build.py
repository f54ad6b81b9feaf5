# SPDX-License-Identifier: Apache-2.0
"""The image as an archive, and its name."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pycni
from image import proof, tree
from pycni.errors import PycniError
from support.oci import Image, compress, write_archive, write_layer
from vm import cache
from vm.apt import Archive

NAME = f"pycni.dev/pycni:{pycni.__version__}"
"""As deploy/kubernetes asks for it."""

LARGEST = 60 << 20
"""Bytes, compressed: a node waits for its first pods until the image is there."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """An archive, and what is in it."""

    archive: Path
    name: str
    digest: str
    """Of the manifest: what registries and nodes know the image by."""
    compressed: int
    """Bytes of the layer as it is transferred."""
    unpacked: int
    """Bytes of the layer as it is on a node."""


def build(output: Path, *, name: str = NAME, tell: Tell = print) -> Built:
    """Write the archive to `output`. Needs root, for the tree is proven to run.

    Raises PycniError, or ArchiveError if packages cannot be had.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    where = cache.directory("image")
    with cache.locked(where), tempfile.TemporaryDirectory(dir=where) as directory:
        scratch = Path(directory)
        archive = Archive((tree.SUITE,), where / "apt")
        (where / "apt").mkdir(exist_ok=True)
        tell("unpacking Debian packages, pycni's wheel, and the wheels that it needs")
        tree.make(scratch / "tree", scratch=scratch, archive=archive)
        tell("proving that it runs")
        proof.prove(scratch / "tree")
        tell("writing the archive")
        return pack(scratch / "tree", output, name=name)


def pack(root: Path, output: Path, *, name: str) -> Built:
    """A tree as an image. Raises PycniError if it is larger than LARGEST."""
    with tempfile.TemporaryDirectory(dir=output.parent) as directory:
        layer, aside = Path(directory, "layer"), Path(directory, "archive")
        write_layer(layer, root)
        packed = compress(layer)
        size = packed.stat().st_size
        if size > LARGEST:
            raise PycniError(
                f"the image has {size >> 20} MiB, more than {LARGEST >> 20}",
                hint="take out what no node needs: DISPENSABLE of image/tree.py",
            )
        digest = write_archive(aside, layer, [image(name)], packed=packed)
        built = Built(output, name, digest, size, layer.stat().st_size)
        aside.replace(output)
    return built


def image(name: str) -> Image:
    """What a container of it runs."""
    return Image(
        (name,),
        entrypoint=("/usr/bin/pycni",),
        command=("agent",),
        environment=("PYTHONDONTWRITEBYTECODE=1", "LANG=C.UTF-8"),
        labels={
            "org.opencontainers.image.title": "pycni",
            "org.opencontainers.image.version": pycni.__version__,
            "org.opencontainers.image.licenses": "Apache-2.0 AND GPL-2.0-only",
        },
    )


def summary(built: Built) -> str:
    """One line for people."""
    return json.dumps(
        {
            "archive": str(built.archive),
            "name": built.name,
            "digest": built.digest,
            "compressed_mib": round(built.compressed / (1 << 20), 1),
            "unpacked_mib": round(built.unpacked / (1 << 20), 1),
        }
    )
