# SPDX-License-Identifier: Apache-2.0
"""Connection tracking: makes the kernel forget connections to a host port.

A UDP client that goes on sending keeps its entry for ever, and with it the old destination. Entries
are listed by the port that the client asked for; the kernel filters by it (ctnetlink, Linux 5.8).
Runs in the network namespace of the calling thread. This is the door to pyroute2's Conntrack.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from pycni.cluster import IPAddress
from pycni.kernel.iproute import refusals
from pycni.kernel.netlink import FAMILIES, NetlinkError
from pycni.kernel.rtnl import Rtnl

if TYPE_CHECKING:
    from pyroute2 import Conntrack


def forget_answers(protocol: int, port: int, *, pod: IPAddress) -> None:
    """Delete the connections to a port (of an IP protocol, by number) that `pod` answers.

    Raises NetlinkError.
    """
    _delete(protocol, port, pod.version, lambda _, answering: answering == pod)


def forget_other_answers(
    protocol: int, port: int, *, host_ip: IPAddress | None, pod: IPAddress
) -> None:
    """Delete the connections to a port that somebody other than `pod` answers.

    Only those to `host_ip`; if that is None, those to any address of this node. Raises
    NetlinkError.
    """
    own = _own_addresses() if host_ip is None else {host_ip}
    _delete(protocol, port, pod.version, lambda asked, answering: asked in own and answering != pod)


def _delete(
    protocol: int, port: int, version: int, condemned: Callable[[IPAddress, IPAddress], bool]
) -> None:
    """`condemned` is given the address a client asked and the one that answers it."""
    from pyroute2 import Conntrack
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

    family = FAMILIES[version]
    wanted = NFCTAttrTuple(family=family, proto=protocol, dport=port)
    with refusals(), Conntrack(nfgen_family=family) as table:
        for entry in list(table.dump(tuple_orig=wanted)):
            original, reply = entry.get("CTA_TUPLE_ORIG"), entry.get("CTA_TUPLE_REPLY")
            if condemned(_address(original, "DST"), _address(reply, "SRC")):
                _delete_entry(table, family, original)


def _delete_entry(table: Conntrack, family: int, original: Any) -> None:
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

    ports = original.get("CTA_TUPLE_PROTO")
    entry = NFCTAttrTuple(
        family=family,
        saddr=str(_address(original, "SRC")),
        daddr=str(_address(original, "DST")),
        proto=ports.get("CTA_PROTO_NUM"),
        sport=ports.get("CTA_PROTO_SRC_PORT"),
        dport=ports.get("CTA_PROTO_DST_PORT"),
    )
    try:
        with refusals():
            table.entry("del", tuple_orig=entry)
    except NetlinkError as error:
        if error.errno != errno.ENOENT:  # it has timed out meanwhile
            raise


def _address(side: Any, end: str) -> IPAddress:
    addresses = side.get("CTA_TUPLE_IP")
    return ip_address(addresses.get(f"CTA_IP_V4_{end}") or addresses.get(f"CTA_IP_V6_{end}"))


def _own_addresses() -> set[IPAddress]:
    with Rtnl() as rtnl:
        return {address.ip for address in rtnl.addresses()}
