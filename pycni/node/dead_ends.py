# SPDX-License-Identifier: Apache-2.0
"""Rules by which the kernel answers packets to cluster addresses of nobody: ICMP "unreachable", at
its own rate (icmp_ratelimit, ip-sysctl.rst). So a pod's client fails at once, not after a timeout.

`from_container` gives such packets MARK and hands them to the stack. Without the rules they end at
`to_overlay`, which drops them. Functions run in the node's network namespace.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from pycni.cluster import IPNetwork
from pycni.errors import SetupError
from pycni.faults import Fault, Weight
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.rtnl import Rtnl
from pycni.kernel.rules import DeadEnd

MARK = 0x00790021
"""Has none of kube-proxy's bits. Pods cannot set it: the kernel clears marks between namespaces."""
PART = "rules"
PRIORITY = 7079
"""After the local table (0), before the main one (32766)."""


def wanted(clusters: Iterable[IPNetwork], *, answer: bool) -> list[DeadEnd]:
    """The rules that a node has, one per family of its pods; none if it shall not answer."""
    versions = sorted({cluster.version for cluster in clusters})
    return [DeadEnd(version, MARK, PRIORITY) for version in versions if answer]


def current(ipr: Rtnl) -> list[DeadEnd]:
    """The rules that are there, each once. Raises NetlinkError."""
    found: dict[DeadEnd, None] = {}
    for version in (4, 6):
        try:
            rules = ipr.dead_ends(version)
        except NetlinkError as error:
            if error.errno != errno.EAFNOSUPPORT:
                raise
            rules = []
        found.update(dict.fromkeys(rule for rule in rules if rule.mark == MARK))
    return list(found)


def setup(ipr: Rtnl, rules: Iterable[DeadEnd]) -> None:
    """Make the rules be just these. Raises SetupError."""
    rules = list(rules)
    try:
        have = current(ipr)
        for rule in rules:
            if rule not in have:
                ipr.add_dead_end(rule)
        for rule in have:
            if rule not in rules:
                ipr.delete_dead_end(rule)
    except NetlinkError as error:
        raise SetupError(
            f"cannot make the rules for addresses of nobody: {error.strerror}",
            hint="the kernel needs IP_MULTIPLE_TABLES and IPV6_MULTIPLE_TABLES; "
            "or set answer_unreachable = false",
        ) from error


def teardown(ipr: Rtnl) -> None:
    """Delete the rules; no error if they are gone."""
    setup(ipr, ())


def faults(ipr: Rtnl, rules: Iterable[DeadEnd]) -> list[Fault]:
    """What differs from `rules`; changes nothing. Raises NetlinkError."""
    have, rules = current(ipr), list(rules)
    missing = [(rule, "gone") for rule in rules if rule not in have]
    others = [(rule, "there, but not asked for") for rule in have if rule not in rules]
    return [
        Fault(PART, f"the IPv{rule.version} rule for mark {MARK:#x}", found, weight=Weight.DEGRADED)
        for rule, found in missing + others
    ]
