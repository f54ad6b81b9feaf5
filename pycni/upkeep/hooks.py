# SPDX-License-Identifier: Apache-2.0
"""Part "hooks": the pinned programs, and no others of ours, at each interface where they belong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from loader import Hook, attach, repair
from loader.errors import LoaderError
from loader.places import PLACES, Device
from pycni.faults import Fault
from pycni.kernel.links import Link
from pycni.kernel.rtnl import Rtnl
from pycni.node.overlay import DEVICE
from pycni.pods.lease import Lease, leases
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "hooks"
NAMED = 3
"""Programs of others that are named."""

OUTSIDE = next(place.program for place in PLACES if place.device is Device.UPLINK)
"""The program of interfaces by which packets of other machines come in."""


def wanted(ipr: Rtnl, overlay_ifindex: int, outer: Iterable[Link]) -> list[Hook]:
    """The hooks for the pods there are now. An ifindex of 0: there is no such interface.

    `outer` are the interfaces of node/underlay.py. Those without an Ethernet header, as a WireGuard
    tunnel's, get no program: the kernel takes VXLAN from there, and `from_overlay` checks it.
    """
    return _hooks([lease.ifindex for lease in leases(ipr)], overlay_ifindex, outer)


def faults(d: Description, seen: Seen) -> Iterator[Fault]:
    """Compares the kernel's numbers of programs: those of another load would look alike."""
    names = _names(seen)
    for hook in _missing(d, seen):
        strange = repair.stranger(seen.ipr, hook)
        found = "that of another load" if strange else "gone"
        yield Fault(PART, f"{hook.program} at {names[hook.ifindex]}", found)


def mend(d: Description, seen: Seen) -> None:
    """Attach the pinned programs where they are missing. Raises LoaderError."""
    repair.attach_again(d.settings.pin_root, seen.ipr, _missing(d, seen))


def details(d: Description, seen: Seen) -> str:
    """How the programs are attached, and what of others runs before them: that is no fault, since
    most of it only counts packets."""
    ways = Counter(attach.way(hook).value for hook in _wanted(seen))
    text = ", ".join(f"{count} by {way}" for way, count in sorted(ways.items()))
    first = _ahead(d, seen)
    if not first:
        return text
    more = f" and {len(first) - NAMED} more" if len(first) > NAMED else ""
    return f"{text}; before them, and able to stop packets: {', '.join(first[:NAMED])}{more}"


def _ahead(d: Description, seen: Seen) -> list[str]:
    try:
        numbers = repair.numbers(d.settings.pin_root)
    except (LoaderError, FileNotFoundError):  # programs.py says so
        return []
    names = _names(seen)
    return [
        f"{name} at {names[hook.ifindex]}"
        for hook in _wanted(seen)
        for name in attach.ahead(seen.ipr, hook, numbers[hook.program])
    ]


def _missing(d: Description, seen: Seen) -> list[Hook]:
    try:
        numbers = repair.numbers(d.settings.pin_root)
    except (LoaderError, FileNotFoundError):  # programs.py says so
        return []
    return repair.missing(seen.ipr, _wanted(seen), numbers)


def _wanted(seen: Seen) -> list[Hook]:
    pods = [lease.ifindex for _, lease in seen.pods]
    return _hooks(pods, _index(seen.link(DEVICE)), seen.around.outer)


def _names(seen: Seen) -> dict[int, str]:
    device = seen.link(DEVICE)
    own = seen.around.outer if device is None else (device, *seen.around.outer)
    return {link.ifindex: link.ifname for link in own} | {
        lease.ifindex: title(lease) for _, lease in seen.pods
    }


def title(lease: Lease) -> str:
    """A pod's link, as a person knows it."""
    return f"{lease.host_ifname} ({lease.ifname} of {lease.container_id[:13]})"


def _index(link: Link | None) -> int:
    return 0 if link is None else link.ifindex


def _hooks(pods: list[int], overlay_ifindex: int, outer: Iterable[Link]) -> list[Hook]:
    devices = {
        Device.ENDPOINT: pods,
        Device.OVERLAY: [overlay_ifindex],
        Device.UPLINK: [link.ifindex for link in outer if link.is_ethernet],
    }
    return [
        Hook(ifindex, place.program)
        for place in PLACES
        for ifindex in devices[place.device]
        if ifindex
    ]
