# SPDX-License-Identifier: Apache-2.0
"""Plugins that come after the first in a list.

Sources: the READMEs of portmap, bandwidth, firewall and tuning (containernetworking/plugins).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pycni.setup.translation.finding import Conf, Finding, Key, Rules, needless, refused, walk

CAPABILITY = needless("pycni has the capability itself")
KUBELET = needless("pycni opens host ports itself, and in its own nftables table")
OPEN = refused("host ports are open to all sources: remove the key if that may be")

PORTMAP: Rules = {
    "type": needless("pycni opens host ports itself: the capability portMappings"),
    "capabilities": CAPABILITY,
    "snat": KUBELET,
    "backend": KUBELET,
    "masqall": KUBELET,
    "markmasqbit": KUBELET,
    "externalsetmarkchain": KUBELET,
    "conditionsv4": OPEN,
    "conditionsv6": OPEN,
}

LIMITS = refused(
    "limits are per pod: annotations kubernetes.io/ingress-bandwidth and egress-bandwidth. For one "
    'limit of all pods, put this plugin after pycni by hand, and "tcx": true into pycni\'s part'
)
BANDWIDTH: Rules = {
    "type": needless("pycni limits pods itself: the capability bandwidth"),
    "capabilities": CAPABILITY,
    **dict.fromkeys(("ingressrate", "ingressburst", "egressrate", "egressburst"), LIMITS),
    "unshapedsubnets": LIMITS,
    "shapedsubnets": LIMITS,
}

OPENED = needless("the agent opens iptables' FORWARD for pods itself")
FIREWALL: Rules = {
    "type": OPENED,
    "capabilities": OPENED,
    "backend": OPENED,
    "iptablesadminchainname": OPENED,
    "firewalldzone": OPENED,
    "ingresspolicy": refused("nothing enforces a policy between networks: remove the key"),
}

LOOPBACK: Rules = {"type": needless("runtimes see to a pod's loopback themselves")}

DROPPED = {"portmap": PORTMAP, "bandwidth": BANDWIDTH, "firewall": FIREWALL, "loopback": LOOPBACK}
"""By type: plugins whose work pycni or the runtime does."""

KEPT = ("tuning",)
"""Plugins that work after pycni as they are."""


def judge(conf: Conf, key: Key, chosen: str) -> Iterator[Finding]:
    """What becomes of a plugin after the first: `key` is the whole, `chosen` its `type`."""
    if chosen in KEPT:
        stays = key.becomes("stays as it is, after pycni")
        yield replace(stays, follower=key.value)
    elif chosen in DROPPED:
        yield from walk(conf, DROPPED[chosen])
    else:
        yield conf.keys["type"].refused(
            "nothing is known here of this plugin after pycni: remove it from a copy of this file, "
            "and put it into the new list by hand if it only changes links that are there"
        )
