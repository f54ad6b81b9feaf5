# SPDX-License-Identifier: Apache-2.0
"""Requests of rtnetlink that are rare: those that pyroute2 does.

What an ADD, a DEL and an agent at rest ask is packed in rtnl.py instead: 20 µs for each request,
where an IPRoute takes 400. pyroute2 is imported with the first request here, which takes some
100 ms and 14 MB. Nothing of pyroute2 leaves this module: values are of our own types, refusals are
NetlinkError.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from pycni.cluster import IPAddress
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.netlink_socket import NetlinkSocket
from pycni.kernel.qdiscs import ETH_P_ALL, Qdisc

if TYPE_CHECKING:
    from pyroute2 import IPRoute


class RareRequests:
    """The part of `Rtnl` that an IPRoute does, on the same socket."""

    def __init__(self, asker: NetlinkSocket) -> None:
        """Owns the socket from now on."""
        self._asker = asker
        self._iproute: IPRoute | None = None

    def close(self) -> None:
        """Close the socket. A second call does nothing."""
        if self._iproute is not None:
            self._iproute.close()
            self._iproute = None
        self._asker.close()

    def add_bridge(self, ifname: str) -> None:
        """Make a bridge. Raises NetlinkError."""
        with self._asking() as ipr:
            ipr.link("add", ifname=ifname, kind="bridge")

    def add_tbf(self, ifindex: int, *, rate: int, burst: int, limit: int) -> None:
        """Make a token bucket the root qdisc of a link. Bytes (per second); tc-tbf(8).

        Raises NetlinkError.
        """
        with self._asking() as ipr:
            ipr.tc("add", "tbf", ifindex, rate=rate, burst=burst, limit=limit)

    def qdiscs(self, ifindex: int) -> list[Qdisc]:
        """The qdiscs of a link. Raises NetlinkError."""
        with self._asking() as ipr:
            return [_read_qdisc(one) for one in ipr.get_qdiscs(index=ifindex)]

    def delete_filter(self, ifindex: int, parent: int, *, priority: int, handle: int) -> None:
        """Delete a BPF filter for all protocols. Raises NetlinkError."""
        with self._asking() as ipr:
            ipr.tc(
                "del-filter", "bpf", ifindex, handle=handle, parent=parent, prio=priority,
                protocol=ETH_P_ALL,
            )  # fmt: skip

    def neighbour_addresses(self) -> set[IPAddress]:
        """The addresses that the neighbour table has entries for. Raises NetlinkError."""
        with self._asking() as ipr:
            found = {one.get("NDA_DST") for one in ipr.get_neighbours()}
        return {ip_address(address) for address in found if address}

    def fdb_addresses(self) -> set[IPAddress]:
        """Where forwarding entries of VXLAN devices lead to. Raises NetlinkError."""
        with self._asking() as ipr:
            found = {one.get("NDA_DST") for one in ipr.fdb("dump")}
        return {ip_address(address) for address in found if address}

    @contextmanager
    def _asking(self) -> Iterator[IPRoute]:
        """An IPRoute that raises NetlinkError for a refusal."""
        from pyroute2 import IPRoute

        if self._iproute is None:
            self._iproute = IPRoute(fileno=os.dup(self._asker.fileno()))
        with refusals():
            yield self._iproute


@contextmanager
def refusals() -> Iterator[None]:
    """Turn pyroute2's errors of refused requests into NetlinkError."""
    from pyroute2.netlink import exceptions

    try:
        yield
    except exceptions.NetlinkError as error:
        raise NetlinkError(error.code) from error


def _read_qdisc(one: Any) -> Qdisc:
    kind = str(one.get("TCA_KIND"))
    rate = int(one.get("TCA_OPTIONS").get("TCA_TBF_PARMS")["rate"]) if kind == "tbf" else 0
    return Qdisc(int(one["index"]), int(one["parent"]), kind, rate)
