# SPDX-License-Identifier: Apache-2.0
"""Kubernetes objects in files: YAML, which JSON is a part of, one document or several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from pycni.errors import DecodingError, FileError
from pycni.files import read_regular

LIST = "List"
"""End of the kind of an object that holds others."""

FILE_MAX = 256 << 20
"""Bytes; 10,000 Services with 100,000 endpoints have about 60 MB."""

_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Every object of the files, those in lists one by one. Raises FileError or DecodingError,
    which name the file."""
    for path in paths:
        try:
            content = read_regular(path, at_most=FILE_MAX, pipes=True)
        except OSError as error:
            raise FileError(
                f"{path} cannot be read: {error.strerror}", hint="name a file of YAML or JSON"
            ) from error
        try:
            whole = list(yaml.load_all(content.decode(), _LOADER))
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise DecodingError(
                f"{path} is no YAML: {' '.join(str(error).split())}",
                hint="write it as `kubectl get services,endpointslices -A -o yaml` does",
            ) from error
        for document in whole:
            yield from _objects(document, path)


def _objects(document: object, path: Path) -> Iterator[dict[str, Any]]:
    if document is None:
        return
    if not isinstance(document, dict):
        raise DecodingError(
            f"{path} holds {document!r:.40}, which is no object",
            hint="each document of the file must be an object with a kind",
        )
    kind = str(document.get("kind", ""))
    items = document.get("items")
    if not kind.endswith(LIST) or not isinstance(items, list):
        yield document
        return
    for item in items:
        if isinstance(item, dict):
            yield {"kind": kind.removesuffix(LIST), **item}
