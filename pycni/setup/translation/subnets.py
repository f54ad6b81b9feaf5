# SPDX-License-Identifier: Apache-2.0
"""Networks of pods: those of the whole cluster, and the part that one node has of them."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, ip_network
from typing import Any

from pycni.cluster import IPNetwork
from pycni.setup.translation import modes, values
from pycni.setup.translation.finding import Conf, Finding, Key, Unfit

PROTOTYPE_PREFIX = 24
"""Length of each node's network (simple-k8s-cni, consts/consts.go: DEFAULT_MASK_NUM)."""

NODES_OWN = (
    "which part this node gets is the store's to say; with store = 'kube:' it is the Node's podCIDR"
)


def cluster(key: Key) -> Iterator[Finding]:
    """The network of all pods."""
    yield key.becomes(settings={"cluster_cidrs": [str(values.network(key.value))]})


def prototype(key: Key) -> Iterator[Finding]:
    """The network of all pods; each node has a /24 of it."""
    network = whole(key.value)
    if mode := modes.on_lan(key.conf):
        yield _of_lan(key, mode)
        return
    if network.version == 4 and network.prefixlen > PROTOTYPE_PREFIX:
        raise Unfit(f"has no /{PROTOTYPE_PREFIX} for each node: write a larger network")
    settings: dict[str, Any] = {"cluster_cidrs": [str(network)]}
    if network.version == 4:
        settings["node_prefix"] = {"ipv4": PROTOTYPE_PREFIX}
    yield key.becomes(settings=settings)


def _of_lan(key: Key, mode: str) -> Finding:
    """It goes on with the range that is in it."""
    ipam = key.conf.get("ipam")
    names = {name.lower() for name in ipam} if isinstance(ipam, dict) else set()
    if not {"rangestart", "rangeend"} <= names:
        raise Unfit(
            f"with {mode} it is the LAN's, and not all of it is for pods of this node: add "
            "rangeStart and rangeEnd to `ipam`"
        )
    return key.needless("it is the LAN's: the range in it says it, too")


def whole(value: Any) -> IPNetwork:
    """The prototype's network. Without a prefix length the first octet that is 0 numbers the nodes
    (simple-k8s-cni, ipam/ipam.go). Raises Unfit."""
    if "/" in values.text(value):
        return values.network(value)
    address = values.address(value)
    octets = [*str(address).split("."), "0"]
    if isinstance(address, IPv4Address) and 0 < (place := octets.index("0")) < 3:
        return ip_network(f"{address}/{8 * place}", strict=False)
    raise Unfit("must be a network with its prefix length, such as 10.244.0.0/16")


def node(key: Key) -> Iterator[Finding]:
    """This node's part of the network of all pods: its length is all that goes on."""
    part = values.network(key.value)
    around = [one for one in clusters(key.conf) if one.version == part.version]
    if not around:
        raise Unfit(
            "it is only this node's part of the network of all pods, which the file does not name: "
            "give that with --cluster-cidr, as kube-controller-manager has it; for a single node: "
            f"--cluster-cidr {part}"
        )
    if not any(part.subnet_of(one) for one in around):  # type: ignore[arg-type]
        raise Unfit(f"is not in the pods' network {around[0]}: correct one of the two")
    settings = {"node_prefix": {f"ipv{part.version}": part.prefixlen}}
    yield key.becomes(NODES_OWN, settings=settings)


def clusters(conf: Conf) -> list[IPNetwork]:
    """The networks of all pods as far as they are known, and right."""
    found = []
    while conf.outer is not None:
        conf = conf.outer
    for one in (*conf.cluster, conf.get("network")):
        try:
            found.append(values.network(one))
        except Unfit:
            continue
    return found
