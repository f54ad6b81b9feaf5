# SPDX-License-Identifier: Apache-2.0
"""Other people's interfaces on a node and in its pods, some with names much like ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pycni.lab.layout import LabNode
from pycni.names import NAME_HEAD
from support.kernel import open_iproute

IN_A_POD = "stranger0"
ON_THE_NODE = (f"{NAME_HEAD}stranger", f"{NAME_HEAD}0123456789ab")
"""The two ends of a veth."""


@contextmanager
def on(node: LabNode) -> Iterator[None]:
    """Strangers on a node, for as long as the context lasts."""
    one, other = ON_THE_NODE
    with open_iproute(node.netns) as ipr:
        ipr.link("add", ifname=one, kind="veth", peer=other)
    try:
        yield
    finally:
        with open_iproute(node.netns) as ipr:
            for index in ipr.link_lookup(ifname=one):
                ipr.link("del", index=index)


def move_in(pod: str) -> None:
    """One stranger in a pod's namespace."""
    with open_iproute(pod) as ipr:
        ipr.link("add", ifname=IN_A_POD, kind="bridge")


def ifnames(netns: str) -> set[str]:
    """All interfaces of a namespace."""
    with open_iproute(netns) as ipr:
        return {str(link.get("ifname")) for link in ipr.get_links()}
