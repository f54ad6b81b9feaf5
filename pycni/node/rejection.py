# SPDX-License-Identifier: Apache-2.0
"""Rules by which the kernel rejects what pods send to Services that do not take it: a TCP reset, or
ICMP "port unreachable". So a client fails at once, as at a closed port.

`from_container` gives such packets MARK, and hands them to the stack with the address that the
client used, which is then the address that answers. Pure.
"""

from __future__ import annotations

from pycni.settings import Settings

MARK = 0x00790022
"""Has none of kube-proxy's bits. Pods cannot set it: the kernel clears marks between namespaces."""


def rules(settings: Settings) -> tuple[str, ...]:
    """For a chain at `prerouting`, before any NAT, in nft(8)'s words; none if Services are off."""
    if settings.services == "off":
        return ()
    return (
        f"meta mark {MARK:#x} meta l4proto tcp reject with tcp reset",
        f"meta mark {MARK:#x} reject with icmpx type port-unreachable",
    )
