# SPDX-License-Identifier: Apache-2.0
"""The parts in nftables: our tables, and what packets of pods need in those of others."""

from __future__ import annotations

from collections.abc import Iterable

from pycni.faults import Fault
from pycni.node import firewall_accepts, masquerade, other_firewalls, overlay_guard
from pycni.pods import port_upkeep
from pycni.upkeep import host_ports
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen


def masquerade_faults(d: Description, _: Seen) -> Iterable[Fault]:
    """Of the table of ipMasq."""
    return masquerade.faults(d.settings, d.node)


def mend_masquerade(d: Description, _: Seen) -> None:
    """Write it. Raises SetupError."""
    masquerade.setup(d.settings, d.node)


def nftables_state(_: Description, seen: Seen) -> object:
    """All that nftables has. Raises OSError."""
    return seen.nft_generation


def guard_faults(d: Description, _: Seen) -> Iterable[Fault]:
    """Of the table that guards the overlay."""
    return overlay_guard.faults(d.settings, d.node)


def guard_state(d: Description, seen: Seen) -> object:
    """All that nftables has, and the maps that its sets are a copy of. Raises NotAvailable or
    OSError."""
    root = d.settings.pin_root
    return seen.nft_generation, seen.digest(root, "vteps"), seen.digest(root, "remotes")


def mend_guard(d: Description, _: Seen) -> None:
    """Write it. Raises SetupError."""
    overlay_guard.setup(d.settings, d.node)


def accept_faults(d: Description, _: Seen) -> Iterable[Fault]:
    """Of our rules in the chains of iptables."""
    return firewall_accepts.faults(d.node)


def mend_accepts(d: Description, _: Seen) -> None:
    """Put them where they are missing. Raises SetupError."""
    firewall_accepts.setup(d.node)


def firewall_faults(d: Description, seen: Seen) -> Iterable[Fault]:
    """Of other people's firewalls, which are never changed."""
    return other_firewalls.faults(d.node, _ways_out(seen))


def firewall_state(_: Description, seen: Seen) -> object:
    """What they have, and which interfaces lead to the world. Raises SetupError, OSError."""
    return other_firewalls.state(), _ways_out(seen)


def _ways_out(seen: Seen) -> list[str]:
    """Names of the interfaces of all default routes."""
    around = seen.around
    routes = (route for version in (4, 6) for route in around.default_routes(version))
    return sorted({link.ifname for route in routes for link in around.links_of(route)})


def leave(_: Description, __: Seen) -> None:
    """What belongs to others is theirs to mend."""


def port_faults(d: Description, seen: Seen) -> Iterable[Fault]:
    """Of the table of host ports and the ports of living pods."""
    return host_ports.faults(seen.ipr, d.settings, d.node)


def ports_state(d: Description, seen: Seen) -> object:
    """All that nftables has, the records, and whose they are. Raises NetlinkError, OSError."""
    return seen.nft_generation, port_upkeep.state(seen.links, d.settings)


def mend_ports(d: Description, seen: Seen) -> None:
    """Write what is missing. Raises SetupError, NetlinkError, FileError."""
    host_ports.mend(seen.ipr, d.settings, d.node)
