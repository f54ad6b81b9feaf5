# SPDX-License-Identifier: Apache-2.0
"""The addresses that an ADD takes for its lease, each with its undo.

To take an address is to insert its entry into the endpoints table (pods/endpoints.py) and, if it is
outside the node's pod CIDRs, to publish it. Callers share the network lock.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace

from pycni.attachments import reclaim
from pycni.attachments.attaching import Attaching
from pycni.cluster import IPAddress
from pycni.dataplane import maps
from pycni.errors import NotAvailable, PoolExhausted
from pycni.ipam import allocation, published, shortage
from pycni.ipam.ipam_result import IpamResult
from pycni.ipam.pools import Rotation
from pycni.pods import endpoints
from pycni.pods.endpoints import Endpoints
from pycni.pods.resting import Resting


def take(one: Attaching, table: Endpoints, given: IpamResult | None) -> None:
    """Take the addresses that another IPAM plugin gave, or else addresses of our own pools."""

    def claim(address: IPAddress) -> str:
        return _claim(one, table, address)

    if given is None:
        taken = _allocate(one, table)
    else:
        taken = tuple(ip.address.ip for ip in given.ips)
        for address in taken:
            published.refuse_unusable(one.ipr, address, node=one.node, settings=one.settings)
            if owner := claim(address):
                raise published.taken(address, owner)
    _forget_former(one, taken)
    one.lease = replace(one.lease, addresses=taken)


def _allocate(one: Attaching, table: Endpoints) -> tuple[IPAddress, ...]:
    """Addresses of our own pools; if there are none left, when the node has more."""
    claimed = []

    def claim(address: IPAddress) -> str:
        owner = _claim(one, table, address)
        if not owner:
            claimed.append(address)
        return owner

    def allocate() -> tuple[IPAddress, ...]:
        return allocation.allocate(
            one.call.request,
            one.call.conf,
            node=one.node,
            rotation=Rotation(one.settings.state_dir),
            resting=Resting(one.settings.run_dir),
            claim=claim,
        )

    try:
        return allocate()
    except PoolExhausted as error:
        one.node = shortage.wait(one.settings, one.node, error, seconds=one.call.left())
    for address in claimed:
        _give_back(one, address)
    return allocate()


def reserve(one: Attaching, table: Endpoints, address: IPAddress) -> bool:
    """Insert the entry of an address; False if another link has it."""
    if not endpoints.reserve(table, address, one.lease.endpoint):
        return False
    one.undo.callback(_give_back, one, address)
    return True


def _forget_former(one: Attaching, taken: Collection[IPAddress]) -> None:
    """An address that did not rest long enough may still have connections of its last pod."""
    resting = Resting(one.settings.run_dir)
    if former := [address for address in taken if resting.since(address) is not None]:
        one.call.forgetting.now(former)


def _claim(one: Attaching, table: Endpoints, address: IPAddress) -> str:
    """Who has the address, in words; "": it is this attachment's now."""
    if not reserve(one, table, address):
        return "another pod of this node"
    if not published.is_outside(address, one.node):
        return ""
    owner = published.publish(one.ipr, address, node=one.node, settings=one.settings)
    if owner:
        _give_back(one, address)
        return f"node {owner}"
    return ""


def _give_back(one: Attaching, address: IPAddress) -> None:
    """An address that cannot be given back now is reclaimed by a sweep, once the link is gone."""
    with suppress(NotAvailable), maps.open_endpoints(one.settings.pin_root) as table:
        endpoints.release(
            table,
            {address: one.lease.ifindex},
            run_dir=one.settings.run_dir,
            clean_up=reclaim.cleanup(
                one.ipr,
                one.settings,
                one.node,
                ports=one.lease.ports,
                forget=one.call.forgetting.soon,
            ),
        )
