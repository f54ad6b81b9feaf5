# SPDX-License-Identifier: Apache-2.0
"""Rows about Services. Reads files or the cluster store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pycni.cluster import IPAddress
from pycni.errors import InvalidParameter
from pycni.services import objects
from pycni.services.endpoints import Endpoint, PortKey
from pycni.services.frontends import Frontend
from pycni.services.overview import Overview
from pycni.services.overview import survey as look
from pycni.services.selection import Place, Selection
from pycni.settings import Settings
from pycni.stores import manifests
from pycni.stores.kube.service_lists import ServiceLists

Row = dict[str, Any]

NODE_ADDRESSES = "node"
"""The address of a node port: the node's own."""
ELSEWHERE = "on another node"
STATES = {"": "forwards", "drop": "drops: endpoints are on other nodes only",
          "reject": "rejects: no endpoint"}  # fmt: skip


def survey(
    settings: Callable[[], Settings], *, files: Iterable[Path], node: str | None, zone: str | None
) -> Overview:
    """What a node makes of the objects in files, or else of the cluster's. Raises PycniError."""
    if paths := tuple(files):
        documents: Iterable[dict[str, Any]] = manifests.read(paths)
        place = Place(node or settings().node_name, zone or "")
        return look(objects.read(documents), place, external_ips=True, owned=_nobodys)
    own = settings()
    name = node or own.node_name
    listed = ServiceLists.open(own.store_url)
    place = Place(name, listed.zone(name) if zone is None else zone)
    return look(objects.read(listed.documents()), place, external_ips=True, owned=_of_pods(own))


def frontends(found: Overview) -> list[Row]:
    """One row for each address and port."""
    return [
        {
            "service": one.target.service,
            "port_name": one.target.port_name,
            "kind": one.kind.value,
            "address": str(one.address or f"{NODE_ADDRESSES} (IPv{one.target.version})"),
            "port": one.port,
            "protocol": one.protocol,
            "policy": one.policy,
            "endpoints": len(found.chosen(one)),
            "state": STATES[found.selection(one).refusal(one.policy)],
        }
        for one in sorted(found.frontends, key=_order)
    ]


def endpoints(found: Overview, name: str) -> list[Row]:
    """One row for each endpoint of a Service. Raises InvalidParameter if there is no such."""
    whole = name if "/" in name else f"default/{name}"
    known = {one.target.service for one in found.frontends} | {
        key.service for key in found.endpoints
    }
    if whole not in known:
        raise InvalidParameter(
            f"there is no Service {whole} that nodes forward",
            hint="`pycni services` lists all; write NAMESPACE/NAME. Headless Services, "
            "ExternalName, and Services of other proxies are not among them",
        )
    return [
        _endpoint(key, one, found.selections[key])
        for key, ones in sorted(found.endpoints.items(), key=lambda item: _key_order(item[0]))
        if key.service == whole
        for one in ones
    ]


def set_aside(found: Overview, name: str | None) -> Iterator[str]:
    """A line for each object or part that is not used; of one Service, if `name` says which."""
    whole = name if name is None or "/" in name else f"default/{name}"
    for one in found.set_aside:
        if whole is None or one.name.split(" ")[0] == whole or one.kind != "Service":
            yield f"not used: {one.kind} {one.name}: {one.reason}"


def strange(found: Overview, node: str) -> Iterator[str]:
    """A line if other nodes have endpoints, and `node` has none: it may be no node of theirs."""
    nodes = {one.node for ones in found.endpoints.values() for one in ones if one.node}
    if nodes and node not in nodes:
        yield f"this is how {node} sees it, which has no endpoint: --node NAME asks for another"


def _endpoint(key: PortKey, one: Endpoint, selection: Selection) -> Row:
    is_chosen, is_local = one in selection.cluster, one in selection.local
    return {
        "port_name": key.port_name,
        "address": str(one.address),
        "port": one.port,
        "protocol": key.protocol,
        "node": one.node or None,
        "cluster": is_chosen,
        "local": is_local,
        "why_not": selection.passed_over.get(one, "" if is_local else ELSEWHERE),
    }


def _of_pods(settings: Settings) -> Callable[[IPAddress], str]:
    def owner(address: IPAddress) -> str:
        return "a pod's" if any(address in cidr for cidr in settings.cluster_cidrs) else ""

    return owner


def _nobodys(_: IPAddress) -> str:
    return ""


def _order(one: Frontend) -> tuple[str, str, int, str, int, str]:
    target = one.target
    return (target.service, target.port_name, target.version, one.kind.value, one.port,
            str(one.address))  # fmt: skip


def _key_order(key: PortKey) -> tuple[str, str, str, int]:
    return (key.service, key.port_name, key.protocol, key.version)
