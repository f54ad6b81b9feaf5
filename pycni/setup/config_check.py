# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a network list, found without a node, a kernel or a store.

It asks what ADD would ask: the same decoding, the same ranges. Then it looks for what no ADD would
tell: keys that are misspelt, since unknown keys are ignored.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pycni import directories
from pycni.attachments.on_lan import wanted
from pycni.cni import network_lists
from pycni.cni.netconf import KEYS, parse_netconf
from pycni.errors import PycniError
from pycni.files import read_regular
from pycni.ipam import ranges
from pycni.node.record import Node
from pycni.settings import Settings, about
from pycni.setup import conflist, pod_mtu

NOT_OURS = frozenset({"type", "capabilities", "args", "disableGC", "disableCheck"})
"""Keys of a plugin's configuration that the runtime reads."""


def settings_problems(settings: Settings, lines: Mapping[str, int]) -> list[str]:
    """What this host says against settings that are right by themselves: what is in the way of a
    directory. `lines` are those of the file's keys."""
    found = directories.obstacles(settings.directories)
    return [about(settings, key, why, lines) for key, why in found]


def problems(path: Path, settings: Settings) -> list[str]:
    """Each problem of the list at `path` in words; none: ADD would take it with these settings."""
    try:
        document = json.loads(read_regular(path, at_most=network_lists.SIZE_MAX))
    except OSError as error:
        return [f"it cannot be read: {error.strerror}"]
    except (ValueError, RecursionError) as error:
        return [f"it is no JSON: {error}"]
    if not isinstance(document, dict):
        return ["it is no JSON object"]
    return problems_of(document, settings)


def problems_of(document: Mapping[str, Any], settings: Settings) -> list[str]:
    """Each problem of a list that is decoded."""
    own = conflist.find_own(dict(document))
    if own is None:
        return [
            f'it has no plugin of type "{conflist.PLUGIN}" in its list `plugins`; what the list of '
            "another plugin is in pycni, `pycni config translate FILE` says"
        ]
    found = [*_misspelt(own), *_refused(document, own, settings)]
    if document["plugins"][0] is not own:
        found.append(f'"{conflist.PLUGIN}" must be the first plugin: it makes the interface')
    return found


def _refused(
    document: Mapping[str, Any], own: Mapping[str, Any], settings: Settings
) -> Iterator[str]:
    """What ADD would refuse."""
    head = {key: document[key] for key in ("cniVersion", "name") if key in document}
    try:
        conf = parse_netconf(json.dumps({**own, **head}).encode())
        if conf.on_lan:
            wanted.refuse_offline(conf, _node(settings))
            return
        if conf.mtu is not None:
            pod_mtu.check_offline(settings, conf.mtu, hint="change `mtu` in the list")
        if not conf.delegate:
            ranges.configured(conf, _node(settings))
            list(ranges.excluded(conf))
    except PycniError as error:
        yield "; ".join(filter(None, (error.message, error.details, error.hint)))


def _misspelt(own: Mapping[str, Any]) -> Iterator[str]:
    """Keys that nobody reads and that are nearly one which we do."""
    known = {key.lower() for key in (*KEYS, *NOT_OURS)}
    for key in own:
        if key.lower() not in known:
            close = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.75)
            yield from (f"unknown key {key}: did you mean {one}?" for one in close)


def _node(settings: Settings) -> Node:
    """A node as far as the settings make it, for what asks about the cluster's networks."""
    return Node(
        name=settings.node_name,
        node_id=0,
        vtep=settings.vtep or ip_address("0.0.0.0"),
        pod_cidrs=(),
        cluster_cidrs=settings.cluster_cidrs,
        uplink=settings.uplink,
        mtu=settings.mtu,
        port=settings.port,
    )
