# SPDX-License-Identifier: Apache-2.0
"""Routing rules that earlier releases left, by which the kernel rejected packets to addresses of
nobody. nftables does it now (rejection.py), and a rule slows each lookup of the node.

Runs in the network namespace of the calling thread.
"""

from __future__ import annotations

import errno

from pycni.errors import SetupError
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.rtnl import Rtnl
from pycni.kernel.rules import FR_ACT_UNREACHABLE
from pycni.node.rejection import NOBODY

PRIORITY = 7079


def versions(ipr: Rtnl) -> list[int]:
    """The IP version of each such rule. Raises NetlinkError."""
    return [version for version in (4, 6) for _ in range(_count(ipr, version))]


def remove(ipr: Rtnl) -> None:
    """Delete them; no error if there are none. Raises SetupError."""
    try:
        for version in versions(ipr):
            ipr.delete_unreachable(version, NOBODY, PRIORITY)
    except NetlinkError as error:
        raise SetupError(
            f"the rules of an earlier release stay: {error.strerror}",
            hint=f"look with `ip rule` and `ip -6 rule` at the priority {PRIORITY}",
        ) from error


def _count(ipr: Rtnl, version: int) -> int:
    try:
        rules = ipr.listed_rules(version)
    except NetlinkError as error:
        if error.errno != errno.EAFNOSUPPORT:  # a kernel without rules
            raise
        return 0
    ours = NOBODY, FR_ACT_UNREACHABLE, PRIORITY
    return sum((one.mark, one.action, one.priority) == ours for one in rules)
