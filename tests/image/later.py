# SPDX-License-Identifier: Apache-2.0
"""The image of a release to come: another version, and BPF programs that differ in each.

Made of the image that is there, in which pycni's own wheel is replaced; so it takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pycni
from image import build, proof, tree
from image.architectures import Architecture, own
from image.build import Built, Tell
from pycni.errors import PycniError
from vm import cache

VERSION = f"{pycni.__version__}.post1"
NAME = f"pycni.dev/pycni:{VERSION}"

SOURCES = (*build.MADE_OF, "hatch_build.py", "pyproject.toml", "README.md", "LICENSE", "LICENSES")
"""What a wheel is built of."""
CHANGES = {
    "pycni/__init__.py": (f'"{pycni.__version__}"', f'"{VERSION}"'),
    # an instruction that does nothing, in the step that each program takes for each packet
    "bpf/lib/verdict.h": ("\tif (verdict < 0)\n",
                          "\tbpf_get_smp_processor_id();\n\tif (verdict < 0)\n"),
}  # fmt: skip
"""Of a text in a file, once, by another."""


def provide(*, tell: Tell = print) -> Built:
    """The archive, from the cache if it was made of the image of this tree. Raises as `build`."""
    first = build.provide(tell=tell)
    of = hashlib.sha256(f"{first.digest}{CHANGES}".encode()).hexdigest()
    return build.kept(cache.directory("image-later"), of, lambda path: _make(first, path, tell))


def change(project: Path) -> None:
    """Make these sources those of the release to come. Raises PycniError."""
    for name, (former, new) in CHANGES.items():
        text = (project / name).read_text(encoding="utf-8")
        if text.count(former) != 1:
            raise PycniError(
                f"{name} has the text {former!r} {text.count(former)} times, not once",
                hint="change CHANGES of tests/image/later.py",
            )
        (project / name).write_text(text.replace(former, new), encoding="utf-8")


def unpack(archive: Path, root: Path, architecture: Architecture | None = None) -> None:
    """The tree of an image of one layer (OCI image format 1.0), in a directory that is empty; of
    several architectures that of one, by default this machine's."""
    with tarfile.open(archive) as layout:
        index = _read(layout, "index.json")
        described = _read(layout, _blob(index["manifests"][0]))
        several = {one["platform"]["architecture"]: one for one in described.get("manifests", ())}
        wanted = several.get((architecture or own()).name)
        manifest = _read(layout, _blob(wanted)) if wanted else described
        (layer,) = manifest["layers"]
        with tarfile.open(fileobj=layout.extractfile(_blob(layer))) as packed:
            # Python 3.11.2 of Debian 12 has no filters yet, 3.13 wants to be told of one
            packed.extraction_filter = getattr(tarfile, "tar_filter", lambda member, _: member)
            packed.extractall(root)


def _make(first: Built, output: Path, tell: Tell) -> Built:
    tell(f"making the image of a release to come, {VERSION}")
    with tempfile.TemporaryDirectory(dir=output.parent) as directory:
        scratch = Path(directory)
        root, project = scratch / "tree", scratch / "project"
        root.mkdir(mode=0o755)
        unpack(first.archive, root)
        _copy_sources(project)
        change(project)
        tree.add_pycni(root, tree.make_wheel(scratch, project=project), own())
        tree.tidy(root)
        tree.set_modes(root)
        tree.compile_modules(root)
        proof.prove(root)
        return build.pack(root, output, name=NAME)


def _copy_sources(project: Path) -> None:
    project.mkdir()
    for name in SOURCES:
        source, target = tree.PROJECT / name, project / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


def _read(layout: tarfile.TarFile, name: str) -> dict[str, Any]:
    file = layout.extractfile(name)
    assert file is not None, name
    return dict(json.load(file))


def _blob(descriptor: dict[str, str]) -> str:
    return f"blobs/{descriptor['digest'].replace(':', '/')}"
