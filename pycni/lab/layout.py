# SPDX-License-Identifier: Apache-2.0
"""Names and addresses of a lab; pure.

Underlay addresses are of RFC 2544's benchmarking range and a ULA, "the world" has documentation
addresses (RFC 5737, RFC 3849): none of them can be the machine's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path

BASE = Path("/run/pycni-lab")
NODES_LIMIT = 200
UNDERLAY4 = IPv4Interface("198.18.0.254/24")
UNDERLAY6 = IPv6Interface("fd00:99::fe/64")
WORLD = (IPv4Address("203.0.113.1"), IPv6Address("2001:db8:77::1"))
"""Addresses outside the cluster, behind the underlay's router."""

BRIDGE = "br0"
NODE_UPLINK = "eth0"
POD_IFNAME = "eth0"


@dataclass(frozen=True)
class Pod:
    """A pod of the lab; `name` is also its container ID."""

    name: str
    node: str
    netns: str


@dataclass(frozen=True)
class LabNode:
    """A node of the lab: its namespace, underlay addresses and directories."""

    name: str
    netns: str
    port: str
    """Name of its link on the underlay's bridge."""
    underlay: tuple[IPv4Interface | IPv6Interface, ...]
    directory: Path
    pods: tuple[Pod, ...]

    @property
    def settings_path(self) -> Path:
        return self.directory / "pycni.toml"

    @property
    def bin_dir(self) -> Path:
        return self.directory / "bin"

    @property
    def conf_dir(self) -> Path:
        return self.directory / "net.d"

    @property
    def log_path(self) -> Path:
        return self.directory / "agent.log"


@dataclass(frozen=True)
class Layout:
    """The whole lab."""

    name: str
    directory: Path
    underlay_netns: str
    nodes: tuple[LabNode, ...]

    @property
    def pods(self) -> tuple[Pod, ...]:
        return tuple(pod for node in self.nodes for pod in node.pods)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Every namespace of the lab, pods first: the order to remove them in."""
        return (
            *(pod.netns for pod in self.pods),
            *(node.netns for node in self.nodes),
            self.underlay_netns,
        )

    def node(self, name: str) -> LabNode:
        return next(node for node in self.nodes if node.name == name)


def draw(name: str, *, nodes: int, pods: int, base: Path = BASE) -> Layout:
    """A lab of `nodes` nodes with `pods` pods each; names begin with the lab's name."""
    return Layout(
        name=name,
        directory=base / name,
        underlay_netns=f"{name}-underlay",
        nodes=tuple(_draw_node(name, number, pods, base) for number in range(1, nodes + 1)),
    )


def _draw_node(lab: str, number: int, pods: int, base: Path) -> LabNode:
    name = f"node{number}"
    return LabNode(
        name=name,
        netns=f"{lab}-{name}",
        port=f"port{number}",
        underlay=(
            IPv4Interface(f"{UNDERLAY4.network.network_address + number}/24"),
            IPv6Interface(f"{UNDERLAY6.network.network_address + number}/64"),
        ),
        directory=base / lab / name,
        pods=tuple(
            Pod(f"{name}-pod{pod}", name, f"{lab}-{name}-pod{pod}") for pod in range(1, pods + 1)
        ),
    )
