# SPDX-License-Identifier: Apache-2.0
"""Documents of Services and EndpointSlices for tests, as the API has them."""

from __future__ import annotations

from typing import Any

from pycni.services.objects import EndpointSlice, Service, read

PORTS = ({"name": "http", "port": 80, "protocol": "TCP"},)
CLUSTER_IP = "10.96.0.10"


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    """`spec` is laid over that of a ClusterIP Service with one port."""
    labels, status, created = (spec.pop(key, None) for key in ("labels", "status", "created"))
    whole = {"clusterIP": CLUSTER_IP, "clusterIPs": [CLUSTER_IP], "ports": list(PORTS)} | spec
    return {
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"uid-{name}",
            "labels": labels,
            "creationTimestamp": created,
        },
        "spec": whole,
        "status": status or {},
    }


def endpoint(
    *addresses: str, node: str = "", ready: bool | None = None, **more: Any
) -> dict[str, Any]:
    """`more` may have serving, terminating, zones and nodes, and other fields as they are."""
    hints: dict[str, Any] = {}
    for key, field in (("zones", "forZones"), ("nodes", "forNodes")):
        if key in more:
            hints[field] = [{"name": one} for one in more.pop(key)]
    conditions = {"ready": ready}
    for key in ("serving", "terminating"):
        if key in more:
            conditions[key] = more.pop(key)
    return {"addresses": list(addresses), "conditions": conditions, "nodeName": node or None,
            "hints": hints or None} | more  # fmt: skip


def endpoint_slice(*endpoints: dict[str, Any], name: str = "web-1", **more: Any) -> dict[str, Any]:
    """A slice of the Service `web`."""
    labels = {"kubernetes.io/service-name": "web"} | more.pop("labels", {})
    return {
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "shop", "labels": labels},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    } | more


def services(*documents: dict[str, Any]) -> tuple[Service, ...]:
    return read(documents).services


def slices(*documents: dict[str, Any]) -> tuple[EndpointSlice, ...]:
    return read(documents).slices
