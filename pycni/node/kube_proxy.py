# SPDX-License-Identifier: Apache-2.0
"""Whether kube-proxy forwards here what comes to Services from outside: by what it made in the
kernel, which forwards also while it does not run. Looked at, never changed.

Its names are the same in all releases (kubernetes/pkg/proxy: iptables, ipvs, nftables). Runs in the
node's network namespace.
"""

from __future__ import annotations

from pycni.kernel import nft, xtables
from pycni.kernel.nft_tables import DORMANT
from pycni.kernel.rtnl import Rtnl

FAMILIES = {4: "ip", 6: "ip6"}
TABLE = "kube-proxy"
"""Of its mode nftables, in both families."""
NAT, CHAIN = "nat", "KUBE-SERVICES"
"""Of its mode iptables."""
IPVS = "kube-ipvs0"
"""The device of its mode ipvs, with all addresses of Services."""
WHAT = "the tables of kube-proxy"


def versions() -> frozenset[int]:
    """The IP versions (4, 6) of the Services that it forwards to. Raises SetupError or OSError."""
    with Rtnl() as ipr:
        if ipr.link(IPVS) is not None:
            return frozenset(FAMILIES)
    tables = nft.flags(what=WHAT)
    return frozenset(
        version
        for version, family in FAMILIES.items()
        if not tables.get((family, TABLE), DORMANT) & DORMANT
        or nft.has_chain(family, NAT, CHAIN, what=WHAT)
        or xtables.has_chain(version, NAT, CHAIN)
    )
