"""A further interface of a pod: routes that another interface has in the main table get a table of
their own, which packets from this interface's addresses look up first.

Without it the answers of the further interface would leave by the first, whose source check drops
them. The table's number is FIRST_TABLE plus the interface's index in the pod. Its routes go with
the link, the rules do not: DEL takes them away while the namespace is there. Source: ip-rule(8).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from contextlib import suppress

from pycni.cluster import IPAddress
from pycni.errors import InvalidNetns
from pycni.kernel import namespaces
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.routes import Rule
from pycni.kernel.rtnl import Rtnl

FIRST_TABLE = 70790000
PRIORITY = 7079
"""After the local table (0), before the main one (32766)."""


def table_of(index: int) -> int:
    """The table of the interface with that index in the pod."""
    return FIRST_TABLE + index


def setup(pod: Rtnl, index: int, addresses: Iterable[IPAddress]) -> None:
    """Have packets from `addresses` look up the interface's table. NetlinkError if refused."""
    for address in addresses:
        pod.add_rule(Rule(address, PRIORITY, table_of(index)))


def teardown(netns_fd: int, addresses: Iterable[IPAddress]) -> None:
    """Remove the rules; no error if they are gone, or their namespace is."""
    with suppress(InvalidNetns), namespaces.open_rtnl(netns_fd) as pod:
        remove(pod, addresses)


def remove(pod: Rtnl, addresses: Iterable[IPAddress]) -> None:
    """The same through an open socket."""
    for address in addresses:
        try:
            pod.delete_rule(Rule(address, PRIORITY))
        except NetlinkError as error:
            if error.errno not in (errno.ENOENT, errno.EAFNOSUPPORT):
                raise


def problems(pod: Rtnl, index: int, addresses: Iterable[IPAddress]) -> list[str]:
    """What is not as `setup` left it, a sentence each."""
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
