# SPDX-License-Identifier: Apache-2.0
"""Connection tracking: makes the kernel forget connections.

A UDP client that goes on sending keeps its entry for ever, and with it the old translation. So
whoever takes an address or a port from a pod, or gives it to another, has the entries forgotten.

However many addresses or ports there are, the kernel's table is read once for each IP version at
most. All functions work in the network namespace of the calling thread, and raise NetlinkError.
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
    forget_listed(forget_each(addresses))


def forget_each(addresses: Collection[IPAddress]) -> list[IPAddress]:
    """The same as far as it is cheap, 0.2 ms for each; returns the addresses that are left.

    The kernel deletes by itself: for IPv4, since Linux 6.12.
    """
    few = [address for address in addresses if address.version == 4]
    if not few or len(few) > FEW:
        return list(addresses)
    with Ctnetlink() as table:
        done = all(
            table.delete_where(4, only)
            for address in few
            for only in (ctnetlink.begun_by(address), ctnetlink.answered_by(address))
        )
    return [address for address in addresses if not done or address.version != 4]


def forget_listed(addresses: Collection[IPAddress]) -> None:
    """The same by reading the whole table, which takes 10 ms and more. Nobody can delete a link
    meanwhile: the kernel holds up RCU while it looks at an empty part of its table."""
    if not addresses:
        return
    with Ctnetlink() as table:
        for version in (4, 6):
            own = [address for address in addresses if address.version == version]
            if own:
                table.delete(version, list(table.entries_of(own)))


def forget_other_answers(services: Iterable[Service]) -> None:
    """Delete the connections to these services that somebody other than their pod answers."""
    by_protocol: dict[tuple[int, int], dict[int, list[Service]]] = {}
    for one in services:
        same = by_protocol.setdefault((one.pod.version, one.protocol), {})
        same.setdefault(one.port, []).append(one)
    if not by_protocol:
        return
    own = _own_addresses()
    with Ctnetlink() as table:
        for (version, protocol), by_port in by_protocol.items():
            stale = [
                entry
                for entry in table.entries_to(version, protocol, by_port)
                if any(_is_misled(entry, one, own) for one in by_port[entry.port])
            ]
            table.delete(version, stale)


def _is_misled(entry: Entry, service: Service, own: Collection[bytes]) -> bool:
    at = own if service.host_ip is None else (service.host_ip.packed,)
    return entry.asked in at and entry.answering != service.pod.packed


def _own_addresses() -> set[bytes]:
    with Rtnl() as rtnl:
        return {address.ip.packed for address in rtnl.addresses()}
