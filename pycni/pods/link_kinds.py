# SPDX-License-Identifier: Apache-2.0
"""The kinds of links that connect pods, behind one protocol: `LinkKind`.

A kind knows how its link is made, how the programs are attached to it, and what CHECK expects of
it. To add a kind, write its class and add it to KINDS. All methods run in the node's network
namespace and reach the pod's through a descriptor.
"""

from __future__ import annotations

import errno
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from loader import LoaderError, attach_endpoint, netkit
from pycni.cni.result import Interface
from pycni.errors import DataplaneError, InterfaceExists, InvalidConfig, PycniError
from pycni.kernel import sysctl
from pycni.kernel.links import End
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.rtnl import Rtnl
from pycni.names import GATEWAY_MAC, NETKIT, VETH, AttachmentKey
from pycni.pods import host_end
from pycni.pods.lease import Lease

HEADROOM = 70
"""Bytes to leave free before a netkit pod's packets, for VXLAN over IPv6, so that no packet is
copied to make room. The kernel adds the Ethernet header and rounds up (LL_RESERVED_SPACE,
linux/netdevice.h)."""

AUTO = "auto"
"""The `device` of a network that takes netkit where the kernel has it, and veth elsewhere."""


@dataclass(frozen=True)
class NewLink:
    """What a link is made from."""

    key: AttachmentKey
    mac: str
    """Of the pod's end."""
    mtu: int
    """Bytes of an IP packet, at both ends."""
    netns_fd: int
    """The pod's network namespace."""


class LinkKind(Protocol):
    """One way to connect a pod to its node."""

    @property
    def name(self) -> str:
        """As the kernel and the network configuration name it."""

    def is_available(self) -> bool:
        """Whether this kernel has it."""

    def create(self, ipr: Rtnl, new: NewLink) -> int:
        """Make the link, down, with the pod's end in its namespace.

        Returns the index of the interface that the programs are attached to. The link is no lease
        yet (host_end.claim). Raises InterfaceExists if a name is taken, PycniError if the kernel
        refuses for another reason. After an error nothing of the link is left.
        """

    def attach(self, root: Path, ipr: Rtnl, lease: Lease, *, by_tcx: bool) -> None:
        """Attach the programs pinned in `root`. Raises DataplaneError; none is attached then.

        `by_tcx`: attach with tcx what the kernel can attach with tcx (loader/attach.py).
        """

    def interfaces(self, new: NewLink) -> tuple[Interface, ...]:
        """The node's part of the CNI result."""

    def problems(self, ipr: Rtnl, lease: Lease) -> list[str]:
        """What is no longer as ADD left it, a sentence each; changes nothing."""


class _Pair(ABC):
    """Two ends: one on the node, which carries the lease and the programs, and one in the pod."""

    name: ClassVar[str]

    def create(self, ipr: Rtnl, new: NewLink) -> int:
        self._make(ipr, new)
        try:
            _disable_ipv6(new.key.host_ifname)
            return socket.if_nametoindex(new.key.host_ifname)
        except BaseException:
            host_end.teardown(ipr, new.key.host_ifname)
            raise

    def attach(self, root: Path, ipr: Rtnl, lease: Lease, *, by_tcx: bool) -> None:
        what = f"cannot attach the programs to {lease.host_ifname}"
        on_netkit = self.name == NETKIT
        try:
            attach_endpoint(root, ipr, lease.ifindex, by_tcx=by_tcx, on_netkit=on_netkit)
        except LoaderError as error:
            raise DataplaneError(
                f"{what}: {error.message}", details=error.details, hint=error.hint
            ) from error
        except FileNotFoundError as error:
            raise DataplaneError(
                f"{what}: the pin {error.filename} is gone", hint="run: pycni setup"
            ) from error

    def interfaces(self, new: NewLink) -> tuple[Interface, ...]:
        return (Interface(new.key.host_ifname, mac=GATEWAY_MAC, mtu=new.mtu),)

    def problems(self, ipr: Rtnl, lease: Lease) -> list[str]:
        return host_end.problems(ipr, lease)

    def _make(self, ipr: Rtnl, new: NewLink) -> None:
        host = End(new.key.host_ifname, GATEWAY_MAC, new.mtu)
        peer = End(new.key.ifname, new.mac, new.mtu, new.netns_fd)
        try:
            self._add(ipr, host, peer)
        except NetlinkError as error:
            if error.errno == errno.EEXIST:
                raise InterfaceExists(
                    f"cannot create {peer.ifname} in the pod with {host.ifname} on the node: "
                    "one of the names is taken",
                    hint="run DEL for this attachment, or remove the interface that has the name",
                ) from error
            raise PycniError(
                f"cannot create the {self.name} pair of {peer.ifname}: {error.strerror}",
                details=f"errno {error.errno}, host end {host.ifname}, mtu {new.mtu}",
                hint=f"the kernel needs {self.name} (modprobe {self.name}); its log says "
                "more: journalctl -k",
            ) from error

    @abstractmethod
    def _add(self, ipr: Rtnl, host: End, peer: End) -> None:
        """The request that makes the pair. Raises NetlinkError."""


class Veth(_Pair):
    """A veth pair; every kernel that pycni runs on has it."""

    name = VETH

    def is_available(self) -> bool:
        return True

    def _add(self, ipr: Rtnl, host: End, peer: End) -> None:
        ipr.add_veth(host, peer)


class Netkit(_Pair):
    """A netkit pair (Linux 6.7): what the pod sends runs its program in the pod's own device."""

    name = NETKIT

    def is_available(self) -> bool:
        return netkit.available()

    def _add(self, ipr: Rtnl, host: End, peer: End) -> None:
        ipr.add_netkit(host, peer, headroom=HEADROOM)


KINDS: Mapping[str, LinkKind] = {VETH: Veth(), NETKIT: Netkit()}


def choose(device: str) -> LinkKind:
    """The kind for a network with that `device` in its configuration.

    Raises InvalidConfig if the network insists on a kind that this kernel does not have.
    """
    kind = KINDS[NETKIT if device == AUTO else device]
    if kind.is_available():
        return kind
    if device == AUTO:
        return KINDS[VETH]
    raise InvalidConfig(
        f'device = "{device}" in the network configuration: this kernel has no {device}',
        details=f"Linux {os.uname().release}",
        hint='set device to "auto" or "veth"; netkit needs Linux 6.7 with CONFIG_NETKIT',
    )


def of(lease: Lease) -> LinkKind:
    """The kind of a lease's link."""
    return KINDS.get(lease.kind, KINDS[VETH])


def _disable_ipv6(host_ifname: str) -> None:
    """The node's IPv6 does not use a host end: programs take every packet from it and put every
    packet on it. IPv6 would add multicast entries for each pod, and nothing else, so it is no error
    if the parameter cannot be written."""
    with suppress(OSError):
        sysctl.write(f"net/ipv6/conf/{host_ifname}/disable_ipv6", "1")
