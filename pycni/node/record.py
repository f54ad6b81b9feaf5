# SPDX-License-Identifier: Apache-2.0
"""The node's record: its place in the cluster, and the host as `setup` found it.

ADD needs the record when there is no store and no agent; teardown needs it to put the host back as
it was. The record outlives a reboot. Pins, links and filters do not, and `setup` makes them again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from pycni.cluster import IPAddress, IPNetwork, gateway
from pycni.errors import InvalidConfig, NotAvailable
from pycni.files import replace_file
from pycni.settings import Settings

RECORD = "node.json"

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading a file that is no record raises."""


@dataclass(frozen=True)
class Node:
    """This node, as it was set up."""

    name: str
    node_id: int
    vtep: IPAddress
    pod_cidrs: tuple[IPNetwork, ...]
    cluster_cidrs: tuple[IPNetwork, ...]
    uplink: str
    mtu: int
    """Largest IP packet that fits the overlay, in bytes."""
    port: int
    encap: str = "kernel"
    """What makes VXLAN on this node: "ebpf", our programs, or "kernel", the overlay device."""
    sysctls: dict[str, str] = field(default_factory=dict)
    """Kernel parameters as they were before setup, for teardown to write back."""
    mounted_bpffs: bool = False
    """Whether setup mounted the BPF file system, so that teardown unmounts it."""
    blocks: tuple[IPNetwork, ...] = ()
    """Further networks that this node gives addresses of (agent/blocks.py)."""
    direct: bool = False
    """Whether this node sends packets without outer headers to nodes that take them, and takes
    them itself (direct.py)."""
    direct_until: float = 0.0
    """Unix time in seconds until which it still takes them, though it sends none; 0: it does not.
    The next setup after that ends it."""
    routed: bool = False
    """Whether it sends such packets by routers, too, and takes them from these."""
    routed_until: float = 0.0
    """As `direct_until`, for packets from routers."""
    ipip: bool = False
    """Whether this node sends IPIP to nodes that take it, and takes it itself (ipip.py)."""
    ipip_until: float = 0.0
    """As `direct_until`, for IPIP."""

    @property
    def networks(self) -> tuple[IPNetwork, ...]:
        """All networks of this node's pods, its pod CIDRs first."""
        return (*self.pod_cidrs, *self.blocks)

    @property
    def takes_direct(self) -> bool:
        """Whether its programs take packets without outer headers."""
        return self.direct or self.direct_until > 0

    @property
    def takes_routed(self) -> bool:
        """Whether they take them from routers, too."""
        return self.routed or self.routed_until > 0

    @property
    def takes_ipip(self) -> bool:
        """Whether its programs take IPIP."""
        return self.ipip or self.ipip_until > 0

    @property
    def door_open_until(self) -> float:
        """When the next setup closes a door, as Unix time in seconds; 0: none is to be closed."""
        times = self.direct_until, self.routed_until, self.ipip_until
        return min((until for until in times if until), default=0.0)

    @property
    def gateways(self) -> tuple[IPAddress, ...]:
        """The pods' default gateways, one per family: the first address of each pod CIDR."""
        return tuple(gateway(cidr) for cidr in self.pod_cidrs)

    def pod_mtu(self, wanted: int | None) -> int:
        """MTU of a pod's interface, in bytes: `wanted` by the network configuration, or the node's.

        Raises InvalidConfig if it is larger than the overlay carries, or too small for the family.
        """
        if wanted is None:
            return self.mtu
        smallest = 1280 if any(cidr.version == 6 for cidr in self.pod_cidrs) else 68
        if not smallest <= wanted <= self.mtu:
            raise InvalidConfig(
                f"this node cannot give pods an MTU of {wanted}",
                details=f"it must be from {smallest} to {self.mtu}",
                hint="correct `mtu` in the network configuration, or leave it out",
            )
        return wanted

    def save(self, settings: Settings) -> None:
        """Write the record to the state directory. Raises FileError."""
        document = {
            "name": self.name,
            "node_id": self.node_id,
            "vtep": str(self.vtep),
            "pod_cidrs": [str(cidr) for cidr in self.pod_cidrs],
            "cluster_cidrs": [str(cidr) for cidr in self.cluster_cidrs],
            "uplink": self.uplink,
            "mtu": self.mtu,
            "port": self.port,
            "encap": self.encap,
            "sysctls": self.sysctls,
            "mounted_bpffs": self.mounted_bpffs,
            "blocks": [str(block) for block in self.blocks],
            "direct": self.direct,
            "direct_until": self.direct_until,
            "routed": self.routed,
            "routed_until": self.routed_until,
            "ipip": self.ipip,
            "ipip_until": self.ipip_until,
        }
        replace_file(record_path(settings), json.dumps(document, indent=2).encode())

    @classmethod
    def load(cls, settings: Settings) -> Node:
        """Read the record; keys of a later version are ignored. Raises NotAvailable if this node
        was never set up, or if the file cannot be read."""
        path = record_path(settings)
        try:
            document: dict[str, Any] = json.loads(path.read_bytes())
            known = {one.name for one in fields(cls)}
            return cls(
                **{key: value for key, value in document.items() if key in known}
                | {
                    "vtep": ip_address(document["vtep"]),
                    "pod_cidrs": tuple(map(ip_network, document["pod_cidrs"])),
                    "cluster_cidrs": tuple(map(ip_network, document["cluster_cidrs"])),
                    "blocks": tuple(map(ip_network, document.get("blocks", []))),
                }
            )
        except FileNotFoundError:
            raise NotAvailable(
                f"this node is not set up for pycni: there is no {path}", hint="run: pycni setup"
            ) from None
        except UNREADABLE as error:
            raise NotAvailable(
                f"the node's record {path} cannot be read: {error}", hint="run: pycni setup"
            ) from error

    @classmethod
    def load_if_any(cls, settings: Settings) -> Node | None:
        """As `load`, but None if there is no record that can be read."""
        try:
            return cls.load(settings)
        except NotAvailable:
            return None


def record_path(settings: Settings) -> Path:
    """Where the record is; there may be none."""
    return settings.state_dir / RECORD
