# SPDX-License-Identifier: Apache-2.0
"""The kinds of links by which a pod is on the network of one of its node's interfaces, the parent.

To add a kind, write its class and add it to DEVICES. Methods run in the node's network namespace.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from typing import Protocol

from pycni.errors import InterfaceExists, InvalidConfig, PycniError
from pycni.kernel import sysctl
from pycni.kernel.children import IPVLAN_MODE_L2, IPVLAN_MODE_L3
from pycni.kernel.links import IFF_NOARP, IPV4_DEVCONF_RP_FILTER, End, Link
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.rtnl import Rtnl
from pycni.names import IPVLAN, MACVLAN

STRICT = 1
"""Of rp_filter (ip-sysctl.rst). The larger one of an interface's own and that of `all` counts."""


class Device(Protocol):
    """One way to be on the parent's network."""

    @property
    def name(self) -> str:
        """As the kernel and the network configuration name it."""

    @property
    def modes(self) -> tuple[str, ...]:
        """As the network configuration names them; the first one is the default."""

    @property
    def has_own_mac(self) -> bool:
        """Whether each pod has a MAC of its own; else all have the parent's."""

    def has_neighbours(self, mode: str, /) -> bool:
        """Whether pods ask the network's hosts by ARP and ND, and are asked."""

    def add(self, ipr: Rtnl, child: End, parent: int, mode: str, /) -> None:
        """Make a link on the parent, down. Raises NetlinkError."""

    def refuse(self, parent: Link, others: Iterable[Link], mode: str, /) -> None:
        """Raise InvalidConfig if the parent cannot have a link in this mode; `others` are the
        links of the node."""

    def child_flags(self) -> int:
        """IFF_* that the node's own child has."""

    def asker(self, parent: Link, child: Link, /) -> Link:
        """By which of the two the LAN is asked for an address: answers come to it alone."""

    def node_mac(self, parent: Link, child: Link, /) -> str:
        """The MAC at which pods reach their node: of the parent, or of the node's own child."""


class Macvlan:
    """A MAC for each pod, in bridge mode: pods of one parent reach each other on the node."""

    name = MACVLAN
    modes: tuple[str, ...] = ("bridge",)
    has_own_mac = True

    def has_neighbours(self, _: str, /) -> bool:
        return True

    def add(self, ipr: Rtnl, child: End, parent: int, _: str, /) -> None:
        ipr.add_macvlan(child, parent=parent)

    def refuse(self, _parent: Link, _others: Iterable[Link], _mode: str, /) -> None:
        """It can have any number."""

    def child_flags(self) -> int:
        return 0

    def asker(self, _: Link, child: Link, /) -> Link:
        """Other macvlans of the parent answer it, too."""
        return child

    def node_mac(self, _: Link, child: Link, /) -> str:
        """The kernel gives the parent nothing that one of its macvlans sends."""
        return child.mac


class Ipvlan:
    """The parent's MAC for all pods: the kernel tells them by their addresses."""

    name = IPVLAN
    modes: tuple[str, ...] = ("l2", "l3")
    has_own_mac = False

    def has_neighbours(self, mode: str, /) -> bool:
        return mode == "l2"

    def add(self, ipr: Rtnl, child: End, parent: int, mode: str, /) -> None:
        ipr.add_ipvlan(child, parent=parent, mode=MODES[mode])

    def refuse(self, parent: Link, others: Iterable[Link], mode: str, /) -> None:
        for one in others:
            if one.peer_ifindex == parent.ifindex and one.ipvlan_mode not in (None, MODES[mode]):
                raise InvalidConfig(
                    f"{parent.ifname} has ipvlan links in another mode than {mode}",
                    details=f"{one.ifname} has the other one; a parent has one mode for all",
                    hint=f"give all networks on {parent.ifname} one `mode`, or each a `master` of "
                    "its own",
                )
        everywhere = int(sysctl.read("net/ipv4/conf/all/rp_filter") or 0)
        own = parent.ipv4(IPV4_DEVCONF_RP_FILTER) or 0
        if self.has_neighbours(mode) and max(everywhere, own) == STRICT:
            raise InvalidConfig(
                f"{parent.ifname} drops what ipvlan pods send to this node: its rp_filter is 1",
                details="they come in by the parent, and answers leave by the node's ipvlan on it",
                hint=f"set net.ipv4.conf.{parent.ifname}.rp_filter=2 (loose), or take macvlan",
            )

    def child_flags(self) -> int:
        """Without ARP the kernel sends to the link's own MAC, which is right: all have it."""
        return IFF_NOARP

    def asker(self, parent: Link, _: Link, /) -> Link:
        """An answer is to nobody's address, and so for none of the parent's ipvlans."""
        return parent

    def node_mac(self, parent: Link, _: Link, /) -> str:
        return parent.mac


MODES = {"l2": IPVLAN_MODE_L2, "l3": IPVLAN_MODE_L3}
"""Of ipvlan, by name."""

DEVICES: Mapping[str, Device] = {MACVLAN: Macvlan(), IPVLAN: Ipvlan()}


def choose(ipr: Rtnl, name: str) -> Device:
    """The device with that name. Raises InvalidConfig if this kernel does not have it."""
    if not ipr.has_kind(name):
        raise InvalidConfig(
            f'device = "{name}" in the network configuration: this kernel has no {name}',
            details=f"Linux {os.uname().release}",
            hint=f"load its module (modprobe {name}), or take a kernel with CONFIG_{name.upper()}",
        )
    return DEVICES[name]


def mode_of(device: Device, asked: str) -> str:
    """The mode that a configuration asks for; "" is the default. Raises InvalidConfig."""
    mode = asked.lower() or device.modes[0]
    if mode not in device.modes:
        raise InvalidConfig(
            f'mode = "{asked}" in the network configuration: {device.name} has no such mode here',
            details=f"there is {', '.join(device.modes)}",
            hint="correct `mode`, or leave it out",
        )
    return mode


def add(ipr: Rtnl, device: Device, child: End, *, parent: Link, mode: str) -> None:
    """Make a link on the parent, down. Raises InterfaceExists, InvalidConfig, PycniError."""
    try:
        device.add(ipr, child, parent.ifindex, mode)
    except NetlinkError as error:
        if error.errno == errno.EEXIST:
            raise InterfaceExists(
                f"cannot create {child.ifname}: the name is taken",
                hint="remove the interface that has the name",
            ) from error
        if error.errno == errno.EBUSY:
            raise InvalidConfig(
                f"{parent.ifname} cannot have {device.name} links: something else has its packets",
                details="it is a port of a bridge or bond, or has links of the other kind "
                "(macvlan, ipvlan)",
                hint="name the bridge or bond itself as `master`, or use one kind on it",
            ) from error
        raise PycniError(
            f"cannot create the {device.name} {child.ifname} on {parent.ifname}: {error.strerror}",
            details=f"errno {error.errno}, mtu {child.mtu}",
            hint="the kernel's log says more: journalctl -k",
        ) from error
