# SPDX-License-Identifier: Apache-2.0
"""The lists of networks in a runtime's directory: ours among those of others.

Reads only. What cannot be read or is no list says nothing about networks; it still counts by its
name, because the runtime tries the files in the order of their names (go-cni, opts.go).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from pycni.cluster import Cluster, IPNetwork, overlap
from pycni.files import read_regular

SUFFIXES = (".conf", ".conflist", ".json")
"""Of the files that a runtime reads (libcni, api.go: ConfFiles)."""

GOES_FIRST = "sorts before {ours}, so the runtime uses that one"
GIVE_WAY = "remove it, or rename it so that it sorts after"

SIZE_MAX = 1 << 20
"""Bytes of a list."""

MULTUS = ("multus", "multus-shim")

NO_RANGES = frozenset({"routes", "dns", "gateway"})
"""Keys of an IPAM configuration below which networks are not where pods get addresses."""


@dataclass(frozen=True)
class ListFile:
    """A file that a runtime takes for a network list, or for a single network."""

    path: Path
    plugins: tuple[Mapping[str, Any], ...]
    """Empty if it could not be read as a list."""
    network: str = ""
    """Its name; empty if it has none."""

    @property
    def is_of_multus(self) -> bool:
        """Whether it is the list of Multus, which sorts first and calls the plugins of others."""
        return any(map(self.uses, MULTUS))

    def uses(self, plugin: str) -> bool:
        """Whether one of its plugins has that `type`."""
        return any(one.get("type") == plugin for one in self.plugins)


def read_all(conf_dir: Path) -> list[ListFile]:
    """All files of a directory that a runtime reads, in its order."""
    try:
        paths = sorted(path for path in conf_dir.iterdir() if path.suffix in SUFFIXES)
    except OSError:
        return []
    return [_read(path) for path in paths]


def users(conf_dir: Path, plugin: str) -> list[Path]:
    """The files that use a plugin."""
    return [one.path for one in read_all(conf_dir) if one.uses(plugin)]


def first_of_others(ours: Path) -> Path | None:
    """The file of another network that the runtime uses in the place of ours."""
    before = (one for one in read_all(ours.parent) if one.path.name < ours.name)
    return next((one.path for one in before if not one.is_of_multus), None)


def warnings(ours: Path, cluster: Cluster, *, plugin: str) -> list[str]:
    """What is wrong with the files beside ours: those that the runtime takes first, and networks
    of others that overlap the cluster's."""
    found = []
    for one in read_all(ours.parent):
        if one.path.name == ours.name:
            continue
        if one.path.name < ours.name and not one.is_of_multus:
            found.append(f"{one.path} {GOES_FIRST.format(ours=ours.name)}: {GIVE_WAY}")
        found += [
            f"{one.path} gives pods addresses of {network}, which overlaps {cidr} of cluster_cidrs:"
            " change one of them, or remove that file"
            for network in _ranges(one, plugin)
            for cidr in cluster.cidrs
            if overlap(network, cidr)
        ]
    return found


def _read(path: Path) -> ListFile:
    try:
        document = json.loads(read_regular(path, at_most=SIZE_MAX))
    except (OSError, ValueError, RecursionError):
        return ListFile(path, ())
    if not isinstance(document, dict):
        return ListFile(path, ())
    plugins = document.get("plugins", [document])
    if not isinstance(plugins, list):
        return ListFile(path, ())
    name = document.get("name")
    return ListFile(
        path,
        tuple(one for one in plugins if isinstance(one, dict)),
        name if isinstance(name, str) else "",
    )


def _ranges(one: ListFile, plugin: str) -> list[IPNetwork]:
    """The networks that plugins of others give addresses of, each once."""
    found: dict[IPNetwork, None] = {}
    for other in one.plugins:
        if other.get("type") != plugin:
            found |= dict.fromkeys(_networks(other.get("ipam")))
    return list(found)


def _networks(value: object) -> Iterator[IPNetwork]:
    """All networks that an IPAM configuration names: each plugin calls its key otherwise."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in NO_RANGES:
                yield from _networks(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _networks(inner)
    elif isinstance(value, str) and "/" in value:
        try:
            network = ip_network(value, strict=False)
        except ValueError:
            return
        if network.prefixlen:
            yield network
