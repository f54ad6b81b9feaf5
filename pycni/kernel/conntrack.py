# SPDX-License-Identifier: Apache-2.0
"""Connection tracking: makes the kernel forget connections.

A UDP client that goes on sending keeps its entry for ever, and with it the old translation. So
whoever takes an address or a port from a pod, or gives it to another, has the entries forgotten.

However many addresses or ports there are, the kernel's table is read once for each IP version at
most. Both functions work in the network namespace of the calling thread, and raise NetlinkError.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pycni.cluster import IPAddress
from pycni.kernel import ctnetlink
from pycni.kernel.ctnetlink import Ctnetlink, Entry
from pycni.kernel.rtnl import Rtnl

FEW = 8
"""For so many IPv4 addresses, it is cheaper to have the kernel delete for each, than to list."""


@dataclass(frozen=True)
class Service:
    """A port of this node, or of one of its addresses, that `pod` shall answer."""

    protocol: int
    """By its number in IP."""
    host_ip: IPAddress | None
    port: int
    pod: IPAddress


def forget(addresses: Collection[IPAddress]) -> None:
    """Delete the connections that these addresses have begun, or answer."""
    with Ctnetlink() as table:
        for version in (4, 6):
            own = [address for address in addresses if address.version == version]
            if own and not _forget_each(table, own):
                table.delete(version, list(table.entries_of(own)))


def forget_other_answers(services: Iterable[Service]) -> None:
    """Delete the connections to these services that somebody other than their pod answers."""
    by_protocol: dict[tuple[int, int], list[Service]] = {}
    for one in services:
        by_protocol.setdefault((one.pod.version, one.protocol), []).append(one)
    if not by_protocol:
        return
    own = _own_addresses()
    with Ctnetlink() as table:
        for (version, protocol), same in by_protocol.items():
            port = same[0].port if len(same) == 1 else 0
            wanted: dict[int, list[Service]] = {}
            for one in same:
                wanted.setdefault(one.port, []).append(one)
            stale = [
                entry
                for entry in table.entries(version, only=ctnetlink.asked_for(protocol, port))
                if any(_is_misled(entry, one, own) for one in wanted.get(entry.port, ()))
            ]
            table.delete(version, stale)


def _is_misled(entry: Entry, service: Service, own: Collection[bytes]) -> bool:
    at = own if service.host_ip is None else (service.host_ip.packed,)
    return entry.asked in at and entry.answering != service.pod.packed


def _forget_each(table: Ctnetlink, addresses: Collection[IPAddress]) -> bool:
    """One request for each address and direction; False if these addresses cannot be asked for."""
    if len(addresses) > FEW or any(address.version != 4 for address in addresses):
        return False
    return all(
        table.delete_where(4, only)
        for address in addresses
        for only in (ctnetlink.begun_by(address), ctnetlink.answered_by(address))
    )


def _own_addresses() -> set[bytes]:
    with Rtnl() as rtnl:
        return {address.ip.packed for address in rtnl.addresses()}
