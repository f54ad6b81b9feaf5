# SPDX-License-Identifier: Apache-2.0
"""The text of our network configuration list: a new one, or changes in one that is there.

A list that is there belongs to the operator. Only what is asked for by name is changed in it; other
keys, other plugins and their order stay. Pure, but for reading a file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycni.cni.netconf import parse_netconf
from pycni.cni.requests import ANNOTATIONS
from pycni.errors import FileError

PLUGIN = "pycni"
"""The plugin's file name, which is the `type` in a network configuration."""

CONFLIST = "10-pycni.conflist"
"""Runtimes use the list whose name sorts first."""

CONFLIST_MARKER = "writtenBy"
CONFLIST_MARK = "pycni install"

NAME = "pycni"
"""Of the network, in a new list."""

CNI_VERSION = "1.0.0"
CNI_VERSIONS = ("0.4.0", "1.0.0", "1.1.0")
"""Written as `cniVersions`: a runtime uses the highest that it knows. Older runtimes only read
`cniVersion`, which is CNI_VERSION: those of Debian 12, and its IPAM plugins, refuse 1.1.0."""

CAPABILITIES = ("bandwidth", "dns", "ipRanges", "ips", "mac", "portMappings", ANNOTATIONS)

Document = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """What is asked for. None: what a list that is there says; in a new list, the default."""

    name: str | None = None
    cni_version: str = CNI_VERSION
    """In a new list."""
    ip_masq: bool | None = None
    """Default: yes."""
    mtu: int | None = None
    """Bytes of a pod's packet. Default: none in the list, so that the node chooses."""


UNSPECIFIED = Network()
"""Nothing is asked for."""


def render(network: Network) -> bytes:
    """A new list. Raises InvalidConfig or IncompatibleVersion if it would not work."""
    own: Document = {
        "type": PLUGIN,
        "ipMasq": network.ip_masq is not False,
        "capabilities": dict.fromkeys(CAPABILITIES, True),
    }
    if network.mtu is not None:
        own["mtu"] = network.mtu
    head: Document = {"cniVersion": network.cni_version, "name": network.name or NAME}
    if network.cni_version in CNI_VERSIONS:
        head["cniVersions"] = list(CNI_VERSIONS)
    document = head | {CONFLIST_MARKER: CONFLIST_MARK, "plugins": [own]}
    check(document)
    return _text(document)


def change(content: bytes, network: Network, *, where: Path) -> bytes:
    """The list that is at `where`, with what `network` asks for; the same bytes if that is nothing.

    Raises FileError if it is no list with our plugin, InvalidConfig or IncompatibleVersion if the
    result would not work.
    """
    document = parse(content)
    own = find_own(document)
    if document is None or own is None:
        raise FileError(
            f"{where} exists, and is no network list with the plugin {PLUGIN}",
            details="it is no JSON object" if document is None else "other plugins are in it",
            hint="move it away, or give --force: the file is then replaced, and a copy of it kept",
        )
    before = _text(document)
    if network.name is not None:
        document["name"] = network.name
    if network.ip_masq is not None:
        own["ipMasq"] = network.ip_masq
    if network.mtu is not None:
        own["mtu"] = network.mtu
    check(document)
    after = _text(document)
    return content if after == before else after


def parse(content: bytes) -> Document | None:
    """The JSON object in a file; None if it is none."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def find_own(document: Document | None) -> Document | None:
    """The configuration of our plugin in a list; None if there is none."""
    plugins = document.get("plugins") if document else None
    if not isinstance(plugins, list):
        return None
    return next(
        (one for one in plugins if isinstance(one, dict) and one.get("type") == PLUGIN), None
    )


def check(document: Document) -> None:
    """Raise what the plugin would raise at each ADD: InvalidConfig, DecodingError or
    IncompatibleVersion."""
    own = find_own(document) or {}
    head = {key: document[key] for key in ("cniVersion", "name") if key in document}
    parse_netconf(json.dumps(own | head).encode())


def mtu(content: bytes) -> int | None:
    """The MTU that a list which was checked asks for; None: the node's."""
    found = (find_own(parse(content)) or {}).get("mtu")
    return found if isinstance(found, int) else None


def is_ours(content: bytes) -> bool:
    """Whether `install` wrote a list. With another plugin added it is not ours any more."""
    document = parse(content)
    own = find_own(document)
    if document is None or own is None:
        return False
    return document.get(CONFLIST_MARKER) == CONFLIST_MARK and document["plugins"] == [own]


def _text(document: Document) -> bytes:
    return json.dumps(document, indent=2).encode() + b"\n"
