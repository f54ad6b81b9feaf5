# SPDX-License-Identifier: Apache-2.0
"""Compiles the C programs with clang into a cache, or finds an object compiled before.

A cache entry is a directory `<digest>/` with one object per program and a manifest; it is built
aside and renamed into place, so it is whole or absent. The digest covers every source, the flags
and clang's version. A prebuilt directory is a copy of a cache entry, for nodes without clang.

Needs no privileges and touches no kernel state. Code that only loads need not import it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import clang
from .errors import CompileError
from .objects import Objects
from .places import OBJECTS

__all__ = ["OBJECTS", "PREBUILT", "SOURCES", "Objects", "compile_programs", "source_digest"]

MANIFEST = "manifest.json"


def _sources() -> Path:
    here = Path(__file__).resolve().parent
    installed = here / "bpf_sources"
    return installed if installed.is_dir() else here.parent / "bpf"


SOURCES = _sources()
PREBUILT = Path(__file__).resolve().parent / "bpf_objects"
"""In an installed wheel: objects of its sources (hatch_build.py)."""


def compile_programs(
    cache: Path,
    *,
    sources: Path = SOURCES,
    prebuilt: Path | None = PREBUILT,
    before_build: Callable[[], object] = lambda: None,
) -> Objects:
    """Return objects of `sources`, compiling only if no cache entry holds; `before_build` is called
    before that.

    Without clang or its headers: a cached object of the same sources by any compiler, else
    `prebuilt` if it was made of the same sources. CompileError if there is none, if a source does
    not compile, or if others may write to `cache` (its objects are loaded with privileges).
    """
    digest = source_digest(sources)
    try:
        compiler = clang.find_clang()
    except CompileError as missing:
        return _compiled_before(cache, prebuilt, digest, missing)
    directory = cache / _entry_name(digest, compiler)
    if not _holds(directory, digest):
        _open_cache(cache)
        before_build()
        _build(cache, directory, sources, digest, compiler)
    _check_private(cache)
    return Objects(directory, directory.name)


def source_digest(sources: Path) -> str:
    """SHA-256 over names and contents of all .c and .h files below `sources`, and the flags."""
    files = sorted(path for path in sources.rglob("*") if path.suffix in (".c", ".h"))
    if not files:
        raise CompileError(f"no C sources in {sources}", hint="install pycni again")
    digest = hashlib.sha256(" ".join(clang.FLAGS).encode())
    for path in files:
        content = path.read_bytes()
        digest.update(f"\0{path.relative_to(sources)}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _entry_name(digest: str, compiler: clang.Clang) -> str:
    return f"{digest[:24]}-{compiler.version[:8]}"


def _compiled_before(
    cache: Path, prebuilt: Path | None, digest: str, missing: CompileError
) -> Objects:
    for directory in sorted(cache.glob(f"{digest[:24]}-*")):
        if _holds(directory, digest):
            _check_private(cache)
            return Objects(directory, directory.name)
    if prebuilt is not None and prebuilt.is_dir():
        if _holds(prebuilt, digest):
            objects = (prebuilt / MANIFEST).read_bytes()
            return Objects(prebuilt, f"{digest[:24]}-{hashlib.sha256(objects).hexdigest()[:8]}")
        missing.details = f"{prebuilt} does not hold objects of these sources"
    else:
        missing.details = f"no compiled object of these sources in {cache}, and none prebuilt"
    raise missing


def _open_cache(cache: Path) -> None:
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CompileError(
            f"cannot make the object cache {cache}: {error.strerror}",
            hint="set cache_dir in the settings to a directory that root can write to",
        ) from error
    _check_private(cache)


def _check_private(cache: Path) -> None:
    status = cache.stat()
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise CompileError(
            f"others may write to the object cache {cache}",
            hint=f"chown root {cache}; chmod 700 {cache}",
        )


def _build(cache: Path, directory: Path, sources: Path, digest: str, compiler: clang.Clang) -> None:
    with tempfile.TemporaryDirectory(prefix=".build-", dir=cache) as temporary:
        staging = Path(temporary) / directory.name
        staging.mkdir()
        clang.compile_all(compiler, sources, OBJECTS, staging)
        manifest = {"sources": digest, "objects": _digests(staging)}
        (staging / MANIFEST).write_text(json.dumps(manifest, indent=1))
        _move_into_place(staging, directory, digest)


def _move_into_place(staging: Path, directory: Path, digest: str) -> None:
    """Another process may have built the same entry meanwhile: then that one stays."""
    try:
        staging.rename(directory)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _holds(directory, digest):
            directory.rename(staging.with_name("damaged"))
            staging.rename(directory)


def _holds(directory: Path, digest: str) -> bool:
    """Whether `directory` has undamaged objects of these sources."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        return bool(manifest == {"sources": digest, "objects": _digests(directory)})
    except (OSError, ValueError):
        return False


def _digests(directory: Path) -> dict[str, str]:
    return {
        program: hashlib.sha256((directory / f"{program}.o").read_bytes()).hexdigest()
        for program in OBJECTS
    }
