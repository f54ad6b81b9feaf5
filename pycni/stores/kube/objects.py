# SPDX-License-Identifier: Apache-2.0
"""pycni's custom resources as documents: what is written, and what is believed of what is read.

All are cluster-scoped, of the group `pycni.dev` (deploy/kubernetes/crds.yaml). Reading never
raises: an object that is not as it should be becomes a record that records.py sets aside. Pure.
"""

from __future__ import annotations

import json
from calendar import timegm
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_network
from time import strptime

from pycni.cluster import Cluster, IPNetwork
from pycni.stores.records import Raw
from pycni.stores.registry import VXLAN, NodeRecord

Document = dict[str, object]

GROUP, VERSION = "pycni.dev", "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
ROOT = f"/apis/{API_VERSION}"
NODE_NETWORKS = f"{ROOT}/nodenetworks"
CLUSTER_NETWORK = f"{ROOT}/clusternetworks/default"
CLUSTER_NETWORKS = f"{ROOT}/clusternetworks"
POD_BLOCKS = f"{ROOT}/podblocks"
IP_POOLS = f"{ROOT}/ippools"
BGP_PEERS = f"{ROOT}/bgppeers"

RIVAL = f"{GROUP}/rival"
"""Annotation of a NodeNetwork: another machine that runs under its name, or tries to."""
TIME = "%Y-%m-%dT%H:%M:%SZ"
"""metav1.Time."""
IPV6_GROUPS = 8
NEVER = 2**62
"""The order of an object whose time of creation cannot be read: after all others."""


def node_network(record: NodeRecord, *, identity: str, instance: str, uid: str) -> Document:
    """The whole of what pycni writes of a NodeNetwork; `uid` is that of its Node. Empty fields are
    there, too: what is not applied stays as somebody else wrote it."""
    spec: Document = {
        "nodeID": record.node_id,
        "vtep": str(record.vtep),
        "podCIDRs": [str(cidr) for cidr in record.pod_cidrs],
        "extra": [str(prefix) for prefix in record.extra],
        "addresses": [str(address) for address in record.addresses],
        "machine": identity,
        "instance": instance,
    }
    if record.blocks:
        spec["blocks"] = [str(block) for block in record.blocks]
    if record.accepts:
        spec["accepts"] = [VXLAN, *record.accepts]
    return _object("NodeNetwork", record.name, spec, owner(record.name, uid))


def if_unchanged(document: Document, former: Document) -> Document:
    """What to apply so that nothing changes if the object is no longer as `former`, or is gone;
    without one, whatever is there. Only the UID keeps an object that is gone from coming back."""
    if not (version := version_of(former)):
        return document
    known = {"uid": text(metadata(former), "uid"), "resourceVersion": version}
    return document | {"metadata": metadata(document) | known}


def with_spec(former: Document, spec: Document) -> Document:
    """What to apply so that an object that was read gets another spec, unless it changed."""
    head: Document = {"name": name_of(former)}
    if references := metadata(former).get("ownerReferences"):
        head["ownerReferences"] = references
    whole: Document = {"apiVersion": API_VERSION, "kind": "NodeNetwork", "metadata": head,
                       "spec": spec}  # fmt: skip
    return if_unchanged(whole, former)


def pod_block(cidr: IPNetwork, node: str, uid: str) -> Document:
    """The claim of a node to a network: who creates it first has it."""
    return _object(
        "PodBlock", block_name(cidr), {"cidr": str(cidr), "node": node}, owner(node, uid)
    )


def cluster_network(cluster: Cluster) -> Document:
    """The parameters that all nodes agree on."""
    spec: Document = {
        "vni": cluster.vni,
        "port": cluster.port,
        "cidrs": [str(cidr) for cidr in cluster.cidrs],
        "nodePrefix": {
            f"ipv{cidr.version}": cluster.node_prefix(cidr.version) for cidr in cluster.cidrs
        },
    }
    return _object("ClusterNetwork", "default", spec, None)


def owner(node: str, uid: str) -> Document:
    """The ownerReference by which the garbage collector deletes what a Node leaves behind."""
    return {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid,
            "blockOwnerDeletion": False, "controller": False}  # fmt: skip


def block_name(cidr: IPNetwork) -> str:
    """A DNS label for a network, such as `10-244-3-0-24`; IPv6 with all its digits."""
    address = cidr.network_address.exploded.replace(".", "-").replace(":", "-")
    return f"{address}-{cidr.prefixlen}"


def named_network(name: str) -> IPNetwork | None:
    """The network that `block_name` gives that name; None for another name."""
    *parts, length = name.split("-")
    address = (".", ":")[len(parts) == IPV6_GROUPS].join(parts)
    try:
        network = ip_network(f"{address}/{length}")
    except ValueError:
        return None
    return network if block_name(network) == name else None


def read_parameters(document: Mapping[str, object]) -> dict[str, str]:
    """What `parameters` gives for the cluster that a ClusterNetwork describes."""
    spec = fields(document.get("spec"))
    prefixes = fields(spec.get("nodePrefix"))
    found: dict[str, str] = {key: str(spec[key]) for key in ("vni", "port") if key in spec}
    cidrs = spec.get("cidrs")
    for text in cidrs if isinstance(cidrs, list) else ():
        try:
            version = ip_network(text).version
        except (ValueError, TypeError):
            found[f"cluster_cidr.{text}"] = str(text)
            continue
        found[f"cluster_cidr.ipv{version}"] = str(text)
        found[f"node_prefix.ipv{version}"] = str(prefixes.get(f"ipv{version}", "absent"))
    return found


def raw(document: Mapping[str, object]) -> Raw:
    """A NodeNetwork as an unchecked record. Keeps no more than a record needs."""
    order = created(document)
    spec = document.get("spec")
    if not isinstance(spec, dict):
        return Raw(None, order)
    return Raw(
        {
            "node_id": spec.get("nodeID"),
            "vtep": spec.get("vtep"),
            "pod_cidrs": spec.get("podCIDRs"),
            "extra": spec.get("extra", []),
            "addresses": spec.get("addresses", []),
            "blocks": spec.get("blocks", []),
            "accepts": spec.get("accepts", []),
            "identity": spec.get("machine", ""),
        },
        order,
    )


def created(document: Mapping[str, object]) -> int:
    """Unix time in seconds at which the API server made an object. The older has the right to what
    two claim."""
    try:
        return timegm(strptime(text(metadata(document), "creationTimestamp"), TIME))
    except (ValueError, OverflowError):
        return NEVER


def metadata(document: Mapping[str, object]) -> Document:
    return fields(document.get("metadata"))


def fields(value: object) -> Document:
    """A JSON object; empty for anything else."""
    return value if isinstance(value, dict) else {}


def text(document: Mapping[str, object], key: str) -> str:
    """A text of a JSON object; empty for anything else."""
    value = document.get(key)
    return value if isinstance(value, str) else ""


def name_of(document: Mapping[str, object]) -> str:
    return text(metadata(document), "name")


def key_of(document: Mapping[str, object]) -> str:
    """The name, behind the namespace and a slash if it has one."""
    namespace = text(metadata(document), "namespace")
    return f"{namespace}/{name_of(document)}" if namespace else name_of(document)


def version_of(document: Mapping[str, object]) -> str:
    """The resourceVersion: a text that means nothing but equality."""
    return text(metadata(document), "resourceVersion")


def owner_uid(document: Mapping[str, object]) -> str:
    """The UID of the Node that an object belongs to; empty without one."""
    references = metadata(document).get("ownerReferences")
    for one in references if isinstance(references, list) else ():
        if fields(one).get("kind") == "Node":
            return text(fields(one), "uid")
    return ""


def networks(spec: Document, field: str) -> tuple[IPNetwork, ...]:
    """A list of networks in a spec, without what is none."""
    found = []
    values = spec.get(field)
    for one in values if isinstance(values, list) else ():
        with suppress(ValueError):
            found.append(ip_network(str(one)))
    return tuple(found)


def decode(json_text: bytes | str) -> Document | None:
    """A JSON object; None for anything else."""
    try:
        document = json.loads(json_text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _object(kind: str, name: str, spec: Document, owned_by: Document | None) -> Document:
    head: Document = {"name": name}
    if owned_by is not None:
        head["ownerReferences"] = [owned_by]
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": head, "spec": spec}
