# SPDX-License-Identifier: Apache-2.0
"""Whether pods of this host can have the MTU that a network list asks for.

Looks at the node's record. On a host that is no node yet, at the settings and the uplink.
"""

from __future__ import annotations

from pycni.cluster import IPV6_MTU_MIN
from pycni.cni.netconf import MTU_MIN
from pycni.errors import InvalidConfig, PycniError
from pycni.kernel.rtnl import Rtnl
from pycni.node import uplink
from pycni.node.record import Node
from pycni.node.uplink import Wish
from pycni.settings import MTU_MAX, Settings
from pycni.setup import plan


def check(settings: Settings, mtu: int, *, hint: str) -> None:
    """Raise InvalidConfig with `hint` for an MTU in bytes with which every ADD would fail."""
    node = Node.load_if_any(settings)
    if node is not None:
        try:
            node.pod_mtu(mtu)
        except InvalidConfig as error:
            raise InvalidConfig(error.message, details=error.details, hint=hint) from error
        return
    largest, because = _largest(settings)
    refuse(settings, mtu, largest=largest, because=because, hint=hint)


def check_offline(settings: Settings, mtu: int, *, hint: str) -> None:
    """The same by the settings alone, for a list that is written for another machine."""
    largest = settings.mtu or MTU_MAX
    refuse(settings, mtu, largest=largest, because=", by the settings", hint=hint)


def refuse(settings: Settings, mtu: int, *, largest: int, because: str, hint: str) -> None:
    """Raise InvalidConfig if an MTU is larger, or smaller than the pods' IP versions need."""
    smallest = IPV6_MTU_MIN if settings.cluster.has_family(6) else MTU_MIN
    if not smallest <= mtu <= largest:
        raise InvalidConfig(
            f"this node cannot give pods an MTU of {mtu}",
            details=f"it must be from {smallest} to {largest}{because}",
            hint=hint,
        )


def _largest(settings: Settings) -> tuple[int, str]:
    """The largest MTU in bytes as far as one can know before setup, and why."""
    if settings.mtu:
        return settings.mtu, ", the `mtu` of the settings"
    try:
        with Rtnl() as ipr:
            found = uplink.find(ipr, Wish.of(settings, None))
        return plan.overlay_mtu(settings, found), f", what the uplink {found.ifname} leaves"
    except (PycniError, OSError):  # setup says it, on a host that is ready for it
        return MTU_MAX, ""
