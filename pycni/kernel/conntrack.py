"""Connection tracking: forgetting what the kernel remembers of a host port's past.

A UDP client that keeps on sending keeps its entry, and by it its old destination, for ever. Entries
are listed by the port the client asked for, which the kernel filters by (ctnetlink, Linux 5.8).
Runs in the network namespace of the calling thread.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from pyroute2 import Conntrack, IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

from pycni.cluster import IPAddress

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def forget_answers(protocol: int, port: int, *, pod: IPAddress) -> None:
    """Delete the connections to a port (of an IP protocol, by number) that `pod` answers."""
    _delete(protocol, port, pod.version, lambda _, answering: answering == pod)


def forget_other_answers(
    protocol: int, port: int, *, host_ip: IPAddress | None, pod: IPAddress
) -> None:
    """Delete the connections to a port that another than `pod` answers.

    Only those to `host_ip`, or, if that is None, to any address of this node.
    """
    own = _own_addresses() if host_ip is None else {host_ip}
    _delete(protocol, port, pod.version, lambda asked, answering: asked in own and answering != pod)


def _delete(
    protocol: int, port: int, version: int, condemned: Callable[[IPAddress, IPAddress], bool]
) -> None:
    """`condemned` is given the address a client asked and the one that answers it."""
    family = FAMILIES[version]
    wanted = NFCTAttrTuple(family=family, proto=protocol, dport=port)
    with Conntrack(nfgen_family=family) as table:
        for entry in list(table.dump(tuple_orig=wanted)):
            original, reply = entry.get("CTA_TUPLE_ORIG"), entry.get("CTA_TUPLE_REPLY")
            if condemned(_address(original, "DST"), _address(reply, "SRC")):
                _delete_entry(table, family, original)


def _delete_entry(table: Conntrack, family: int, original: Any) -> None:
    ports = original.get("CTA_TUPLE_PROTO")
    try:
        table.entry(
            "del",
            tuple_orig=NFCTAttrTuple(
                family=family,
                saddr=str(_address(original, "SRC")),
                daddr=str(_address(original, "DST")),
                proto=ports.get("CTA_PROTO_NUM"),
                sport=ports.get("CTA_PROTO_SRC_PORT"),
                dport=ports.get("CTA_PROTO_DST_PORT"),
            ),
        )
    except NetlinkError as error:
        if error.code != errno.ENOENT:  # it has timed out meanwhile
            raise


def _address(side: Any, end: str) -> IPAddress:
    addresses = side.get("CTA_TUPLE_IP")
    return ip_address(addresses.get(f"CTA_IP_V4_{end}") or addresses.get(f"CTA_IP_V6_{end}"))


def _own_addresses() -> set[IPAddress]:
    with IPRoute() as ipr:
        return {
            ip_address(message.get("IFA_LOCAL") or message.get("IFA_ADDRESS"))
            for message in ipr.get_addr()
        }
