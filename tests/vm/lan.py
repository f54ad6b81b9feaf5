# SPDX-License-Identifier: Apache-2.0
"""The step of pods on the LAN: macvlan, and ipvlan in both modes, which few kernels have built in.

Raises like scenarios.py.
"""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any

from vm.cluster import Cluster, reaches
from vm.node import UPLINK, Node
from vm.qemu import GuestError

Json = dict[str, Any]

ADDRESSES = {
    "node-a": ("192.0.2.1/24", "2001:db8::1/64"),
    "node-b": ("192.0.2.2/24", "2001:db8::2/64"),
}
RANGES = {"node-a": (64, 79), "node-b": (96, 111)}
"""Of the last byte, by the node's name."""
WAYS: tuple[Json, ...] = (
    {"device": "macvlan"},
    {"device": "ipvlan"},
    {"device": "ipvlan", "mode": "l3"},
)
RP_FILTER = f"net.ipv4.conf.{UPLINK}.rp_filter"
PINGS: Json = {"count": 5, "interval": 0.02}


def lan(cluster: Cluster) -> None:
    """Pods reach each other, their node and, but in mode l3, the other node and its pods; the nodes
    reach them; CHECK, other modes on the same interface, DEL."""
    for node in cluster.nodes:
        for address in ADDRESSES[node.name]:
            nodad = ["nodad"] if ":" in address else []
            node.guest.check(["ip", "addr", "replace", address, "dev", UPLINK, *nodad])
    for way in WAYS:
        _way(cluster, way)


def _way(cluster: Cluster, way: Json) -> None:
    node, other = cluster.nodes
    before = _own_links(node)
    made = [(node, "lan1"), (node, "lan2")]
    if way.get("mode") != "l3":
        made.append((other, "lan1"))
    for each, pod in made:
        each.keys = _network(each, way)
        each.add(pod)
    own = [str(ip_interface(one).ip) for one in ADDRESSES[node.name]]
    pods = [address for name in ("lan1", "lan2") for address in node.pods[name]]
    _answered(way, "its pods to the node", node.echo_from_host(pods))
    beside = [*node.pods["lan2"], *own]
    _answered(way, "a pod beside it, and the node, to a pod", node.echo("lan1", beside, **PINGS))
    for address in node.pods["lan2"]:
        reaches(node, "lan1", node, address)
    if way.get("mode") != "l3":
        far = [str(ip_interface(one).ip) for one in ADDRESSES[other.name]]
        afar = [*other.pods["lan1"], *far]
        _answered(way, "the other node and its pod to a pod", node.echo("lan1", afar, **PINGS))
        everyone = [*other.pods["lan1"], *pods]
        _answered(way, "all pods to the other node", other.echo_from_host(everyone))
        for address in other.pods["lan1"]:
            reaches(node, "lan1", other, address)
        _refuses_taken(node, way, other.pods["lan1"][0])
    _refuses_others(node, way)
    for each, pod in made:
        each.check(pod)
        each.delete(pod)
    if way == {"device": "ipvlan"}:
        _refuses_strict(node, way)
    after = _own_links(node)
    assert after == before, f"{way}: {after}"


def _answered(way: Json, what: str, lost: dict[str, int]) -> None:
    assert not lost, f"{way}: not answered by {what}: {lost}"


def _network(node: Node, way: Json) -> Json:
    first, last = RANGES[node.name]
    ranges = [
        {"subnet": "192.0.2.0/24", "rangeStart": f"192.0.2.{first}", "rangeEnd": f"192.0.2.{last}"},
        {"subnet": "2001:db8::/64", "rangeStart": f"2001:db8::{first:x}",
         "rangeEnd": f"2001:db8::{last:x}"},
    ]  # fmt: skip
    return {**way, "ipMasq": False, "master": UPLINK, "ipam": {"ranges": ranges}}


def _refuses_others(node: Node, way: Json) -> None:
    """Another kind of link, or another mode, on the same interface."""
    for other in WAYS:
        if other != way:
            _refused(node, _network(node, other), UPLINK)


def _refuses_taken(node: Node, way: Json, address: str) -> None:
    """An address that a pod of the other node has."""
    keys = {**_network(node, way), "runtimeConfig": {"ips": [address]}}
    _refused(node, keys, f"{address} by ")


def _refuses_strict(node: Node, way: Json) -> None:
    """An interface that would drop what pods send to their node."""
    before = node.guest.check(["sysctl", "-n", RP_FILTER]).strip()
    node.guest.check(["sysctl", "-w", f"{RP_FILTER}=1"])
    _refused(node, _network(node, way), "rp_filter")
    node.guest.check(["sysctl", "-w", f"{RP_FILTER}={before}"])


def _refused(node: Node, keys: Json, word: str) -> None:
    node.keys = keys
    said = "a pod"
    try:
        node.add("none")
    except GuestError as error:
        said = str(error)
    assert word in said, f"{keys}: {said}"
    node.guest.check(["ip", "netns", "del", "none"])


def _own_links(node: Node) -> list[str]:
    """Names of the node's own links beside pods on the LAN, and files of leases."""
    links = node.guest.check(["ip", "-brief", "link"]).splitlines()
    found = [line.split("@")[0] for line in links if line.startswith("pcl")]
    return [*found, *node.guest.check(["sh", "-c", "ls /run/pycni/lan 2>&1 || true"]).split()]
