# SPDX-License-Identifier: Apache-2.0
"""What a teardown has to undo on this host, in words: for `teardown --dry-run`. Looks only."""

from __future__ import annotations

from collections.abc import Iterator

from loader import pins
from pycni.kernel.rtnl import Rtnl
from pycni.node import claim, masquerade, overlay
from pycni.node.record import Node, record_path
from pycni.pods import port_table
from pycni.pods.lease import is_ours, read_lease
from pycni.settings import Settings


def steps(settings: Settings) -> list[str]:
    """Each step as a phrase that follows "would", in order; none: nothing of pycni is there.

    Raises SetupError if this host is the node of other settings.
    """
    with Rtnl() as ipr:
        claim.refuse_others(settings, ipr)
        node = Node.load_if_any(settings)
        found = [*_links(ipr), *_dataplane(settings, ipr), *_tables()]
    if node is not None:
        found += _host(settings, node)
    if found:
        name = node.name if node is not None else settings.node_name
        found.insert(0, f"take node {name} out of the store {settings.store_url}")
    return found


def _links(ipr: Rtnl) -> Iterator[str]:
    for link in ipr.links():
        if is_ours(link):
            lease = read_lease(link)
            yield f"delete the link {link.ifname}" + (
                f" of the pod {lease.container_id}" if lease else ""
            )


def _dataplane(settings: Settings, ipr: Rtnl) -> Iterator[str]:
    if settings.pin_root.exists():
        yield f"detach the programs, and remove the pins in {settings.pin_root}"
    if overlay.find(ipr) is not None:
        yield f"delete the device {overlay.DEVICE}, with its addresses and routes"


def _tables() -> Iterator[str]:
    if masquerade.exists():
        yield f"delete the nftables table {masquerade.TABLE}"
    if port_table.exists():
        yield f"delete the nftables table {port_table.TABLE}"


def _host(settings: Settings, node: Node) -> Iterator[str]:
    for name, value in node.sysctls.items():
        yield f"write {value} to {name}"
    if node.mounted_bpffs and not pins.needs_bpffs(settings.bpffs):
        yield f"unmount {settings.bpffs}"
    yield f"remove {record_path(settings)}"
