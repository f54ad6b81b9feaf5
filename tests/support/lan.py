# SPDX-License-Identifier: Apache-2.0
"""Pods on the LAN in labs: networks, ranges, calls of the plugin."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from pycni.kernel.rtnl import Rtnl
from pycni.lab.cluster import Lab
from pycni.lab.layout import UNDERLAY4, UNDERLAY6, LabNode, Pod
from pycni.lab.topology import open_rtnl
from pycni.lan import host_child, leases
from pycni.lan.leases import LanLease
from pycni.settings import load
from support.plugin import Reply, execute

WAYS = {
    "macvlan": {"device": "macvlan"},
    "ipvlan": {"device": "ipvlan"},
    "ipvlan-l3": {"device": "ipvlan", "mode": "l3"},
}
HOST_LOCAL = Path("/usr/lib/cni/host-local")
ROUTERS = [str(UNDERLAY4.ip), str(UNDERLAY6.ip)]
RANGES = {
    node: [
        {
            "subnet": str(UNDERLAY4.network),
            "rangeStart": f"198.18.0.{start}",
            "rangeEnd": f"198.18.0.{start + 15}",
        },
        {
            "subnet": str(UNDERLAY6.network),
            "rangeStart": f"fd00:99::{start:x}",
            "rangeEnd": f"fd00:99::{start + 15:x}",
        },
    ]
    for node, start in (("node1", 64), ("node2", 96))
}
NOT_AVAILABLE, DUPLICATE, EXHAUSTED, UNAVAILABLE, MISMATCH, UNKNOWN = 50, 101, 102, 104, 105, 3


@cache
def has(device: str) -> bool:
    """Whether this kernel has such links."""
    with Rtnl() as ipr:
        return ipr.has_kind(device)


HERE = [name for name, one in WAYS.items() if has(one["device"])]
AMONG_NEIGHBOURS = [name for name in HERE if WAYS[name].get("mode") != "l3"]


def call(lab: Lab, pod: Pod, command: str, way: dict[str, Any], **more: Any) -> Reply:
    """The plugin with a network of that way, with the node's own ranges."""
    config: dict[str, Any] = {"ipMasq": False, "ipam": {"ranges": RANGES[pod.node]}} | way | more
    return execute(lab, pod, command, **config)


def add(lab: Lab, pod: Pod, way: dict[str, Any], **more: Any) -> Reply:
    """ADD, which succeeds."""
    reply = call(lab, pod, "ADD", way, **more)
    assert reply.status == 0, reply.text
    return reply


def node_of(lab: Lab, pod: Pod) -> LabNode:
    return lab.layout.node(pod.node)


def own_addresses(node: LabNode) -> list[str]:
    return [str(address.ip) for address in node.underlay]


def has_child(node: LabNode) -> bool:
    with open_rtnl(node.netns) as ipr:
        return ipr.link(host_child.name_of("eth0")) is not None


def lease_files(node: LabNode) -> list[str]:
    return [one.container_id for one in leases.leases(load(node.settings_path).run_dir)]


def lease_of(lab: Lab, pod: Pod) -> LanLease:
    found = [one for one in leases.leases(run_dir(lab, pod)) if one.container_id == pod.name]
    (lease,) = found
    return lease


def run_dir(lab: Lab, pod: Pod) -> Path:
    return load(node_of(lab, pod).settings_path).run_dir
