# SPDX-License-Identifier: Apache-2.0
"""IPPools: read from the Kubernetes API, whoever wrote them there."""

from __future__ import annotations

from ipaddress import ip_network

from pycni.cluster import Cluster
from pycni.stores.ip_pools import IPPool, Pools
from pycni.stores.kube import objects
from pycni.stores.kube.client import Client
from pycni.stores.kube.objects import IP_POOLS, Document
from pycni.stores.kube.pages import pages
from pycni.stores.records import printable


def read(client: Client, cluster: Cluster) -> Pools:
    """All pools. Raises StoreError."""
    found: list[IPPool] = []
    broken: dict[str, str] = {}
    for page in pages(client, IP_POOLS):
        for document in page.items:
            name = printable(objects.name_of(document))
            try:
                found.append(_pool(name, document))
            except ValueError as error:
                broken[name] = str(error)
    return Pools.checked(found, cluster, broken=broken)


def _pool(name: str, document: Document) -> IPPool:
    """Raises ValueError, which says what is wrong with it."""
    spec = objects.fields(document.get("spec"))
    text = objects.text(spec, "cidr")
    try:
        cidr = ip_network(text)
    except ValueError:
        raise ValueError(f"its CIDR {printable(text)!r} is no network") from None
    selector = objects.fields(spec.get("nodeSelector"))
    return IPPool(
        name=name,
        cidr=cidr,
        disabled=spec.get("disabled") is True,
        selector=tuple(sorted((key, str(value)) for key, value in selector.items())),
        age=(objects.created(document), name),
    )
