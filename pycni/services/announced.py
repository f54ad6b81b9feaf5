# SPDX-License-Identifier: Apache-2.0
"""Which addresses of Services a node tells routers of, so that clients outside get to them by it.
Pure.

By the policy of an address (Frontend.policy): with Cluster all nodes tell it, and with Local those
that have an endpoint that is ready. One that ends is none, though it may still serve: so routers
send elsewhere before it is gone (KEP-1669).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pycni.bgp_settings import CLUSTER_IPS, EXTERNAL_IPS, LOAD_BALANCERS
from pycni.cluster import IPAddress, IPNetwork
from pycni.services.endpoints import Endpoint, PortKey
from pycni.services.frontends import Frontend, Kind
from pycni.services.objects import LOCAL

KINDS = {
    Kind.CLUSTER_IP: CLUSTER_IPS,
    Kind.EXTERNAL_IP: EXTERNAL_IPS,
    Kind.LOAD_BALANCER: LOAD_BALANCERS,
}
"""As the settings name them."""


@dataclass(frozen=True)
class Choice:
    """What the settings name."""

    kinds: frozenset[str] = frozenset()
    """Among the values of KINDS."""
    networks: tuple[IPNetwork, ...] = ()
    """No other addresses than theirs are told."""

    def of(self, fronts: Iterable[Frontend]) -> Iterator[Frontend]:
        """Those that may be announced."""
        for one in fronts:
            if KINDS.get(one.kind) in self.kinds and any(
                one.address in network for network in self.networks
            ):
                yield one


def announced(
    fronts: Iterable[Frontend], endpoints: Callable[[PortKey], Iterable[Endpoint]], node: str
) -> frozenset[IPAddress]:
    """The addresses that the node `node` tells, out of those that may be. One address may have
    several ports: one with an endpoint here is enough."""
    return frozenset(
        one.address
        for one in fronts
        if one.address is not None
        and (
            one.policy != LOCAL
            or any(end.ready and end.node == node for end in endpoints(one.target))
        )
    )
