# SPDX-License-Identifier: Apache-2.0
"""The image as an archive, and its name."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pycni
from image import proof, tree
from pycni.errors import PycniError
from pycni.files import replace_file
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


MADE_OF = ("bpf", "deploy/systemd", "loader", "pycni")
ALSO = ("hatch_build.py", "pyproject.toml", "tests/image/build.py", "tests/image/proof.py",
        "tests/image/requirements.txt", "tests/image/tree.py", "tests/support/oci.py")  # fmt: skip
ARCHIVE, RECORD = "pycni-image.tar", "made.json"


def provide(*, tell: Tell = print) -> Built:
    """The image of this tree, from the cache if it was built of the same files. Raises as `build`.

    Newer Debian packages alone are no reason to build it anew.
    """
    return kept(cache.directory("image"), sources_digest(), lambda path: build(path, tell=tell))


def kept(where: Path, of: str, make: Callable[[Path], Built]) -> Built:
    """What `make` writes as an archive in `where`, or what it wrote there before, `of` the same."""
    with cache.locked(where):
        made = _recorded(where)
        if made is None or made[0] != of or not made[1].archive.exists():
            built = make(where / ARCHIVE)
            record = {"of": of} | vars(built) | {"archive": str(built.archive)}
            replace_file(where / RECORD, json.dumps(record).encode())
            return built
    return made[1]


def sources_digest(project: Path = tree.PROJECT) -> str:
    """SHA-256 over the names and contents of all files that the image is made of."""
    found = [project / name for name in ALSO]
    for name in MADE_OF:
        found += [path for path in (project / name).rglob("*") if path.is_file()]
    digest = hashlib.sha256()
    for path in sorted(found):
        if "__pycache__" not in path.parts:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(project)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _recorded(where: Path) -> tuple[str, Built] | None:
    """What the cache holds, and of which sources."""
    try:
        record = json.loads((where / RECORD).read_bytes())
        made_of = str(record.pop("of"))
        return made_of, Built(**record | {"archive": Path(record["archive"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def build(output: Path, *, name: str = NAME, tell: Tell = print) -> Built:
    """Write the archive to `output`. Needs root, for the tree is proven to run.

    Raises PycniError, or ArchiveError if packages cannot be had.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    where = cache.directory("image")
    with tempfile.TemporaryDirectory(dir=where) as directory:
        scratch = Path(directory)
        packages = scratch / "apt"
        packages.mkdir()
        tell("unpacking Debian packages, pycni's wheel, and the wheels that it needs")
        tree.make(scratch / "tree", scratch=scratch, archive=Archive((tree.SUITE,), packages))
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
