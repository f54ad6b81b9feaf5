# SPDX-License-Identifier: Apache-2.0
"""The addresses that random packets have: everybody in the world of the packet tables, and nobody.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from bpf.world import (
    FAMILIES,
    FOREIGN_MAC,
    GATEWAY_MAC,
    IPV4,
    IPV6,
    LINK_LOCAL_SERVICE,
    POD_ONE_MAC,
    POD_TWO_MAC,
    Family,
)

PUBLISHED = {
    IPV4.name: ("203.0.113.1", "203.0.113.7"),
    IPV6.name: ("2001:db8:cc::1", "2001:db8:cc::7"),
}
"""Addresses outside of the cluster's networks: of pod one, and of a pod of node two."""


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def link_local(text: str) -> str:
    """Of a MAC (RFC 4291, appendix A)."""
    raw = mac(text)
    host = bytes([raw[0] ^ 2, *raw[1:3], 0xFF, 0xFE, *raw[3:]])
    return str(ip_address(b"\xfe\x80" + bytes(6) + host))


@dataclass(frozen=True)
class Pools:
    """The addresses of one family, packed: those that are likely, and all."""

    own: tuple[bytes, ...]
    """Of pod one, which sends."""
    far: tuple[bytes, ...]
    """Of node two, which sends."""
    here: tuple[bytes, ...]
    """Of node one."""
    all: tuple[bytes, ...]


def pools(family: Family) -> Pools:
    """Everybody in the world of the packet tables, and addresses of nobody."""
    odd: tuple[str, ...]
    if family is IPV4:
        odd = (
            "0.0.0.0", "0.1.2.3", "255.255.255.255", "240.0.0.1", "169.254.169.254",
            LINK_LOCAL_SERVICE, "224.0.0.1", "127.0.0.1",
        )  # fmt: skip
    else:
        odd = (
            "::", "::1", f"::{IPV4.pod_two}", f"::ffff:{IPV4.pod_two}", f"::ffff:0:{IPV4.world}",
            "fe80::1", link_local(POD_ONE_MAC), link_local(POD_TWO_MAC), "ff02::1", "ff02::2",
        )  # fmt: skip
    here, far = PUBLISHED[family.name]
    names = (
        family.pod_one, family.pod_two, family.pod_far, family.pod_third, family.nobody,
        family.gateway, family.far_gateway, family.node_one, family.node_two, family.node_three,
        family.stranger, family.world, family.group, family.loopback, *family.seconds, here, far,
        *odd,
    )  # fmt: skip
    own = (family.pod_one,) * 6 + (here, *((link_local(POD_ONE_MAC),) if family is IPV6 else ()))
    return Pools(
        _packed(own),
        _packed((family.pod_far,) * 2 + (family.far_gateway, family.node_two, family.seconds[1])),
        _packed((family.pod_one, family.pod_two, family.gateway, family.node_one)),
        _packed(names),
    )


def _packed(names: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(ip_address(name).packed for name in names)


POOLS = {family.bits: pools(family) for family in FAMILIES}
MACS = tuple(map(mac, (POD_ONE_MAC,) * 12 + (POD_TWO_MAC, GATEWAY_MAC, FOREIGN_MAC)))
GROUP_MACS = tuple(map(mac, ("ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01", "01:00:5e:01:02:03")))
TARGET_MACS = (*(mac(GATEWAY_MAC),) * 12, mac(POD_TWO_MAC), *GROUP_MACS[:2])
OWN_MAC = bytes(6)
"""Of the uplink: test_run's packets come in on the loopback device."""
