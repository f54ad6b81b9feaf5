# SPDX-License-Identifier: Apache-2.0
"""The nodes of the cluster as this node heard of them last: a file in the state directory.

A node that boots while its store does not answer has the places of the other nodes from it. It is
checked like a store: what cannot be read, or is of another cluster, is as if it were not there.

One JSON document a line: the cluster's parameters and this node's name, then a name and a record
(stores/records.py) for each node.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pycni.files import replace_file
from pycni.settings import Settings
from pycni.stores import NodeRecord
from pycni.stores.places import parameters
from pycni.stores.records import Raw, write
from pycni.stores.roster import Roster

FILE = "nodes.jsonl"
FORMAT = 1
SIZE_MAX = 64 << 20
"""Bytes that a reader takes."""


def is_kept(settings: Settings) -> bool:
    """Whether there is need of it: an embedded store is a file of this machine already."""
    return settings.store_file is None


def save(settings: Settings, nodes: Iterable[NodeRecord]) -> None:
    """Replace the list. Raises FileError."""
    replace_file(list_path(settings), _lines(settings, nodes))


def _lines(settings: Settings, nodes: Iterable[NodeRecord]) -> Iterator[bytes]:
    yield json.dumps(_head(settings)).encode()
    for node in nodes:
        yield f"\n{json.dumps([node.name, write(node, '')])}".encode()


def load(settings: Settings) -> tuple[NodeRecord, ...]:
    """The list, by name; empty if there is none of this node and cluster. Raises nothing."""
    try:
        with list_path(settings).open("rb") as file:
            lines = file.read(SIZE_MAX).splitlines()
        if not lines or json.loads(lines[0]) != _head(settings):
            return ()
        found = dict(_named(json.loads(line)) for line in lines[1:])
    except (OSError, ValueError, RecursionError):
        return ()
    roster = Roster(settings.cluster, {name: Raw(record) for name, record in found.items()})
    return tuple(roster.nodes[name] for name in sorted(roster.nodes))


def list_path(settings: Settings) -> Path:
    """Where the list is; there may be none."""
    return settings.state_dir / FILE


def _head(settings: Settings) -> dict[str, Any]:
    """What a list is of."""
    return {
        "format": FORMAT,
        "store": settings.store_url,
        "node": settings.node_name,
        "parameters": parameters(settings.cluster),
    }


def _named(value: object) -> tuple[str, object]:
    """Raises ValueError."""
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str):
        raise ValueError("a line is no name and record")
    return value[0], value[1]
