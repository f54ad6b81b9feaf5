# SPDX-License-Identifier: Apache-2.0
"""What the maps shall say of each service port: its addresses, and its endpoints here. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pycni.cluster import IPAddress
from pycni.dataplane.service_maps import PROTOCOLS, FrontendKey
from pycni.services.endpoints import Endpoint
from pycni.services.frontends import Frontend
from pycni.services.objects import LOCAL
from pycni.services.selection import Selection

End = tuple[IPAddress, int]
"""Address and port of an endpoint."""

NO_ENDPOINT = Selection()


@dataclass(frozen=True)
class Use:
    """For which new flows an endpoint may be chosen."""

    all: bool = False
    """In the Cluster set."""
    local: bool = False
    """In the Local set."""


USES = {(all, local): Use(all, local) for all in (False, True) for local in (False, True)}


@dataclass(frozen=True)
class WantedPort:
    """One service port of one family."""

    frontends: Mapping[FrontendKey, bool]
    """What leads to it, and whether only by the Local set."""
    ends: Mapping[End, Use]
    """Those that have flows, or may get some."""
    affinity: int = 0
    """Seconds; 0: none."""

    def chosen(self) -> list[End]:
        """The Cluster set, and behind it the Local set."""
        everywhere = [end for end, use in self.ends.items() if use.all]
        return everywhere + [end for end, use in self.ends.items() if use.local]

    @property
    def all_count(self) -> int:
        """Size of the Cluster set."""
        return sum(use.all for use in self.ends.values())


def wanted(
    fronts: Iterable[Frontend], endpoints: Sequence[Endpoint], selection: Selection
) -> WantedPort | None:
    """Of the frontends, endpoints and sets of one service port; None if nothing leads to it, or if
    nothing can translate what does."""
    fronts = list(fronts)
    if not fronts or any(not _is_translatable(one, endpoints) for one in fronts):
        return None
    keys = {
        FrontendKey(one.address, one.port, PROTOCOLS[one.protocol]): one.policy == LOCAL
        for one in fronts
        if one.address is not None
    }
    # by identity, as in `select`, which hands on the very objects
    everywhere, here = set(map(id, selection.cluster)), set(map(id, selection.local))
    ends = {
        (one.address, one.port): USES[id(one) in everywhere, id(one) in here]
        for one in endpoints
        if _has_flows(one, fronts[0].protocol)
    }
    return WantedPort(keys, ends, fronts[0].affinity)


def _has_flows(one: Endpoint, protocol: str) -> bool:
    """Whether flows to an endpoint may go on. Datagrams go elsewhere as soon as it does not serve;
    a connection cannot, and stays until the endpoint is gone."""
    return protocol != "UDP" or one.ready or one.serving


def _is_translatable(one: Frontend, endpoints: Iterable[Endpoint]) -> bool:
    """SCTP works only where no port changes (overview.py)."""
    return one.protocol != "SCTP" or all(end.port == one.port for end in endpoints)
