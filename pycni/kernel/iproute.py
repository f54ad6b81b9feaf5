# SPDX-License-Identifier: Apache-2.0
"""Requests of rtnetlink that are rare, or whose answers are large: those that pyroute2 does.

What an ADD and a DEL ask is packed in rtnl.py instead: 20 µs for each request, where an IPRoute
takes 400. pyroute2 is imported with the first request here, which takes some 100 ms. Nothing of
pyroute2 leaves this module: values are of our own types, refusals are NetlinkError.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from pycni.cluster import IPAddress, IPNetwork
from pycni.kernel.netlink import FAMILIES, NetlinkError
from pycni.kernel.netlink_socket import NetlinkSocket
from pycni.kernel.qdiscs import ETH_P_ALL, Qdisc
from pycni.kernel.routes import DeadEnd, Rule

if TYPE_CHECKING:
    from pyroute2 import IPRoute

FR_ACT_UNREACHABLE, WHOLE_MARK = 7, 2**32 - 1
"""linux/fib_rules.h; the mask that compares all of a mark."""

BITS = {4: 32, 6: 128}
"""Length of an address, by IP version."""


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

    def add_vxlan(self, ifname: str, *, mac: str, mtu: int, port: int) -> None:
        """Make a VXLAN device that takes its tunnels from packets' metadata.

        `mtu` is in bytes of an inner IP packet, `port` the UDP port. Raises NetlinkError.
        """
        with self._asking() as ipr:
            ipr.link(
                "add",
                ifname=ifname,
                kind="vxlan",
                address=mac,
                mtu=mtu,
                vxlan_collect_metadata=True,
                vxlan_learning=False,
                vxlan_port=port,
                vxlan_udp_zero_csum6_tx=True,
                vxlan_udp_zero_csum6_rx=True,
            )

    def add_bridge(self, ifname: str) -> None:
        """Make a bridge. Raises NetlinkError."""
        with self._asking() as ipr:
            ipr.link("add", ifname=ifname, kind="bridge")

    def add_rule(self, rule: Rule) -> None:
        """Add a rule. Raises NetlinkError."""
        self._change_rule("add", rule)

    def delete_rule(self, rule: Rule) -> None:
        """Delete a rule. Raises NetlinkError, ENOENT if there is none."""
        self._change_rule("del", rule)

    def rules(self, version: int) -> list[Rule]:
        """The rules of an IP version that select packets from one address. Raises NetlinkError."""
        with self._asking() as ipr:
            found = ipr.get_rules(family=FAMILIES[version])
            return [_read_rule(one) for one in found if one["src_len"] == BITS[version]]

    def rule_destinations(self, version: int) -> list[IPNetwork]:
        """Where packets go that rules of an IP version select by that.

        Raises NetlinkError, EAFNOSUPPORT if the kernel has no rules for that version.
        """
        with self._asking() as ipr:
            found = ipr.get_rules(family=FAMILIES[version])
            return [
                ip_network((one.get("FRA_DST"), one["dst_len"])) for one in found if one["dst_len"]
            ]

    def add_dead_end(self, rule: DeadEnd) -> None:
        """Add a rule. Raises NetlinkError, EEXIST if there is such a rule."""
        self._change_dead_end("add", rule)

    def delete_dead_end(self, rule: DeadEnd) -> None:
        """Delete a rule. Raises NetlinkError, ENOENT if there is none."""
        self._change_dead_end("del", rule)

    def dead_ends(self, version: int) -> list[DeadEnd]:
        """The rules of an IP version that make packets with a mark unreachable.

        Raises NetlinkError, EAFNOSUPPORT if the kernel has no rules for that version.
        """
        with self._asking() as ipr:
            found = ipr.get_rules(family=FAMILIES[version])
            return [
                DeadEnd(version, int(one.get("FRA_FWMARK")), int(one.get("FRA_PRIORITY") or 0))
                for one in found
                if one["action"] == FR_ACT_UNREACHABLE and one.get("FRA_FWMARK")
            ]

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

    def _change_rule(self, command: str, rule: Rule) -> None:
        with self._asking() as ipr:
            ipr.rule(
                command,
                family=FAMILIES[rule.source.version],
                src=str(rule.source),
                src_len=rule.source.max_prefixlen,
                priority=rule.priority,
                **({"table": rule.table} if rule.table else {}),
            )

    def _change_dead_end(self, command: str, rule: DeadEnd) -> None:
        with self._asking() as ipr:
            ipr.rule(
                command,
                family=FAMILIES[rule.version],
                fwmark=rule.mark,
                fwmask=WHOLE_MARK,
                priority=rule.priority,
                action="unreachable",
            )

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


def _read_rule(one: Any) -> Rule:
    source = ip_address(one.get("FRA_SRC"))
    return Rule(source, int(one.get("FRA_PRIORITY") or 0), int(one.get("FRA_TABLE") or 0))


def _read_qdisc(one: Any) -> Qdisc:
    kind = str(one.get("TCA_KIND"))
    rate = int(one.get("TCA_OPTIONS").get("TCA_TBF_PARMS")["rate"]) if kind == "tbf" else 0
    return Qdisc(int(one["index"]), int(one["parent"]), kind, rate)
