# SPDX-License-Identifier: Apache-2.0
"""What a node makes of all Services: frontends, and the endpoints behind each. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pycni.services.endpoints import Endpoint, PortKey, collect
from pycni.services.frontends import Frontend, Kind, Owned, frontends
from pycni.services.objects import Objects, SetAside
from pycni.services.selection import Place, Selection, select

NOTHING = Selection()

PORTS_DIFFER = "SCTP with another targetPort: its checksum covers ports, and nothing can mend it"
"""RFC 9260, section 6.8; no BPF helper computes CRC32c."""


@dataclass(frozen=True)
class Overview:
    """The whole, for one node."""

    frontends: tuple[Frontend, ...]
    endpoints: Mapping[PortKey, tuple[Endpoint, ...]]
    selections: Mapping[PortKey, Selection]
    set_aside: tuple[SetAside, ...]

    def selection(self, one: Frontend) -> Selection:
        """The sets behind a frontend; both empty where no slice has such a port."""
        return self.selections.get(one.target, NOTHING)

    def chosen(self, one: Frontend) -> tuple[Endpoint, ...]:
        """The endpoints that clients outside of the node get by a frontend; of a ClusterIP, that
        pods and processes of this node get."""
        return self.selection(one).of_policy(one.policy)


def survey(objects: Objects, place: Place, *, external_ips: bool, owned: Owned) -> Overview:
    """Look at all objects as the node at `place` does. The rest as in `frontends`."""
    endpoints, bad_endpoints = collect(objects.slices, place.node)
    fronts, refused = frontends(objects.services, external_ips=external_ips, owned=owned)
    selections = {key: select(ones, place) for key, ones in endpoints.items()}
    aside = (*objects.set_aside, *bad_endpoints, *refused, *untranslatable(fronts, endpoints))
    return Overview(tuple(fronts), endpoints, selections, tuple(dict.fromkeys(aside)))


def untranslatable(
    fronts: list[Frontend], endpoints: Mapping[PortKey, tuple[Endpoint, ...]]
) -> Iterator[SetAside]:
    """The frontends that nothing can translate: SCTP works only where no port changes."""
    for one in fronts:
        ones = endpoints.get(one.target, ())
        if one.protocol == "SCTP" and any(end.port != one.port for end in ones):
            where = one.kind.value if one.kind is Kind.NODE_PORT else str(one.address)
            yield SetAside("Service", one.target.service, f"{where} {one.port}: {PORTS_DIFFER}")
