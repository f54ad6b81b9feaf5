# SPDX-License-Identifier: Apache-2.0
"""Source rules of a pod's second (third, ...) interface: its routes stand in a table of its own,
which packets from its addresses look up first.

They are for destinations to which the first interface already has a route. Without them, answers
from the second interface would leave through the first, whose source check drops them. The number
of the table is FIRST_TABLE plus the interface's index in the pod. The routes go with the link, the
rules do not: DEL removes them if the namespace still exists. Source: ip-rule(8).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from contextlib import suppress

from pycni.cluster import IPAddress
from pycni.errors import InvalidNetns
from pycni.kernel import namespaces
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.rtnl import Rtnl
from pycni.kernel.rules import Rule

FIRST_TABLE = 70790000
PRIORITY = 7079
"""After the local table (0), before the main one (32766)."""


def table_of(index: int) -> int:
    """The table of the interface with that index in the pod."""
    return FIRST_TABLE + index


def setup(pod: Rtnl, index: int, addresses: Iterable[IPAddress]) -> None:
    """Make packets from `addresses` look up the interface's table. Raises NetlinkError."""
    for address in addresses:
        pod.add_rule(Rule(address, PRIORITY, table_of(index)))


def teardown(netns_fd: int, addresses: Iterable[IPAddress]) -> None:
    """Remove the rules; no error if they or their namespace are gone."""
    with suppress(InvalidNetns), namespaces.open_rtnl(netns_fd) as pod:
        remove(pod, addresses)


def remove(pod: Rtnl, addresses: Iterable[IPAddress]) -> None:
    """Like teardown, through an open socket."""
    for address in addresses:
        try:
            pod.delete_rule(Rule(address, PRIORITY))
        except NetlinkError as error:
            if error.errno not in (errno.ENOENT, errno.EAFNOSUPPORT):
                raise


def problems(pod: Rtnl, index: int, addresses: Iterable[IPAddress]) -> list[str]:
    """What is no longer as `setup` left it, a sentence each; changes nothing."""
    addresses = list(addresses)
    if not addresses:
        return []
    table = table_of(index)
    full = {
        route.dst.version
        for route in pod.routes()
        if (route.table, route.ifindex) == (table, index)
    }
    found = []
    for address in addresses:
        rules = {(rule.source, rule.table) for rule in pod.rules(address.version)}
        if (address, table) not in rules:
            found.append(f"the rule for packets from {address} is missing in the pod")
        if address.version not in full:
            found.append(f"the routing table {table} of {address} is empty in the pod")
    return found
