# SPDX-License-Identifier: Apache-2.0
"""Rules by which the kernel rejects what pods send and nobody takes, at its own rate
(icmp_ratelimit, ip-sysctl.rst). So a client fails at once, not after a timeout.

`from_container` gives such packets a mark, and hands them to the stack with the address that the
client used. Without the rules a packet to an address of nobody ends at `to_overlay`, which drops
it. Pods cannot set the marks, which have none of kube-proxy's bits: the kernel clears marks between
namespaces. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from pycni.settings import Settings

NOBODY = 0x00790021
"""To a cluster address that nobody has. Answer: ICMP "no route to the network", as a router's."""
UNTAKEN = 0x00790022
"""To a Service that does not take it. Answer, as of a closed port: a TCP reset, or ICMP "port
unreachable" from the Service's address."""


def rules(settings: Settings) -> Iterator[str]:
    """For a chain at `prerouting`, before any NAT, in nft(8)'s words."""
    if settings.answer_unreachable:
        yield f"meta mark {NOBODY:#x} reject with icmpx type no-route"
    if settings.services != "off":
        yield f"meta mark {UNTAKEN:#x} meta l4proto tcp reject with tcp reset"
        yield f"meta mark {UNTAKEN:#x} reject with icmpx type port-unreachable"
