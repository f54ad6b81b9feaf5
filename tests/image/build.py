# SPDX-License-Identifier: Apache-2.0
"""The image as an archive, for one architecture or for several, and its name."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pycni
from image import proof, tree
from image.architectures import Architecture, own
from pycni.errors import PycniError
from pycni.files import replace_file
from support.oci import Image, compress, write_archive, write_layer, write_platforms
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
    """Of the manifest, or of the index of several: what registries and nodes know the image by."""
    compressed: int
    """Bytes of the layer as it is transferred; of several the largest, for a node has one."""
    unpacked: int
    """Bytes of the layer as it is on a node."""


MADE_OF = ("bpf", "deploy/systemd", "loader", "pycni")
ALSO = ("hatch_build.py", "pyproject.toml", "tests/image/architectures.py", "tests/image/build.py",
        "tests/image/proof.py", "tests/image/requirements.txt", "tests/image/tree.py",
        "tests/support/oci.py")  # fmt: skip
ARCHIVE, RECORD = "pycni-image.tar", "made.json"


def provide(architectures: Sequence[Architecture] = (), *, tell: Tell = print) -> Built:
    """The image of this tree, by default for this machine alone, from the cache if it was built of
    the same files. Raises as `build`.

    Newer Debian packages alone are no reason to build it anew.
    """
    where = cache.directory("-".join(["image", *(one.name for one in sorted(architectures))]))
    return kept(
        where,
        sources_digest(),
        lambda path: build(path, architectures=architectures, tell=tell),
    )


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


def build(
    output: Path,
    *,
    name: str = NAME,
    architectures: Sequence[Architecture] = (),
    tell: Tell = print,
) -> Built:
    """Write the archive to `output`, by default for this machine's architecture alone. Needs root,
    for each tree is proven to run.

    Raises PycniError, or ArchiveError if packages cannot be had.
    """
    wanted = sorted(set(architectures)) or [own()]
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.directory("image")) as directory:
        trees = _make_trees(Path(directory), wanted, tell)
        for architecture in wanted:
            tell(f"proving that it runs ({architecture.name})")
            proof.prove(trees[architecture], architecture)
        tell("writing the archive")
        return pack_all({one: trees[one] for one in wanted}, output, name=name)


def _make_trees(
    scratch: Path, wanted: Sequence[Architecture], tell: Tell
) -> dict[Architecture, Path]:
    """A tree for each, and one for this machine in any case: its Python compiles all modules."""
    wheel = tree.make_wheel(scratch)
    trees: dict[Architecture, Path] = {}
    for architecture in sorted({own(), *wanted}, key=lambda one: one != own()):
        tell(f"unpacking Debian packages, pycni's wheel, and those it needs ({architecture.name})")
        packages = scratch / f"apt-{architecture.name}"
        packages.mkdir()
        archive = Archive((tree.SUITE,), packages, architecture.name)
        root = scratch / architecture.name
        tree.make(root, wheel, archive=archive, architecture=architecture)
        tree.compile_modules(root, ours=trees.get(own()))
        trees[architecture] = root
    return trees


def pack(root: Path, output: Path, *, name: str) -> Built:
    """A tree for this machine as an image. Raises PycniError if it is larger than LARGEST."""
    return pack_all({own(): root}, output, name=name)


def pack_all(trees: Mapping[Architecture, Path], output: Path, *, name: str) -> Built:
    """Trees as one image. Raises PycniError if one is larger than LARGEST."""
    with tempfile.TemporaryDirectory(dir=output.parent) as directory:
        aside = Path(directory, "archive")
        parts = []
        for architecture, root in trees.items():
            layer = Path(directory, architecture.name)
            write_layer(layer, root)
            packed = compress(layer)
            _refuse_large(packed.stat().st_size)
            parts.append((image(name, architecture), layer, packed))
        if len(parts) == 1:
            ((only, layer, packed),) = parts
            digest = write_archive(aside, layer, [only], packed=packed)
        else:
            digest = write_platforms(aside, parts)
        compressed = max(packed.stat().st_size for _, _, packed in parts)
        unpacked = max(layer.stat().st_size for _, layer, _ in parts)
        aside.replace(output)
    return Built(output, name, digest, compressed, unpacked)


def _refuse_large(size: int) -> None:
    if size > LARGEST:
        raise PycniError(
            f"the image has {size >> 20} MiB, more than {LARGEST >> 20}",
            hint="take out what no node needs: DISPENSABLE of image/tree.py",
        )


def image(name: str, architecture: Architecture | None = None) -> Image:
    """What a container of it runs."""
    return Image(
        (name,),
        entrypoint=("/usr/bin/pycni",),
        command=("agent",),
        environment=("PYTHONDONTWRITEBYTECODE=1", "LANG=C.UTF-8"),
        architecture=(architecture or own()).name,
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
