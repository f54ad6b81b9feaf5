# SPDX-License-Identifier: Apache-2.0
"""Services and EndpointSlices of a (fake) Kubernetes API server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycni.errors import InvalidSettings, StoreError
from pycni.stores.kube import objects
from pycni.stores.kube.service_lists import ServiceLists
from unit.services.objects_made import endpoint, endpoint_slice, service
from unit.stores.kube_api import NODES, SERVICES, SLICES, Api, kubeconfig, serving


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as server:
        yield server


@pytest.fixture
def lists(api: Api, tmp_path: Path) -> ServiceLists:
    return ServiceLists.open(f"kube:{kubeconfig(tmp_path, api)}")


def put(api: Api, path: str, document: dict[str, Any]) -> None:
    """As the server stores it: without a kind."""
    bare = {key: value for key, value in document.items() if key != "kind"}
    api.objects.put(path, document["metadata"]["name"], bare)


def told(lists: ServiceLists) -> list[tuple[str, str]]:
    return [(str(one["kind"]), objects.name_of(one)) for one in lists.documents()]


def test_each_object_has_its_kind(api: Api, lists: ServiceLists) -> None:
    put(api, SERVICES, service())
    put(api, SLICES, endpoint_slice(endpoint("10.244.0.2")))

    assert told(lists) == [("Service", "web"), ("EndpointSlice", "web-1")]


def test_lists_of_many_pages_are_whole(api: Api, lists: ServiceLists) -> None:
    for number in range(1201):
        put(api, SERVICES, service(f"web{number:04}"))

    assert len(told(lists)) == 1201
    assert len(api.asked("GET", "/services")) == 3


@pytest.mark.parametrize("label", ["service-proxy-name", "headless"])
def test_what_is_for_others_is_not_asked_for(api: Api, lists: ServiceLists, label: str) -> None:
    """S-003, S-004: in the selector, so that it costs no memory."""
    labels = {f"service.kubernetes.io/{label}": ""}
    put(api, SERVICES, service(labels=labels))
    put(api, SLICES, endpoint_slice(labels=labels))

    assert told(lists) == []


def test_a_node_has_the_zone_of_its_label(api: Api, lists: ServiceLists) -> None:
    api.objects.put(NODES, "one", {"metadata": {"labels": {"topology.kubernetes.io/zone": "east"}}})
    api.objects.put(NODES, "two", {"metadata": {}})

    assert [lists.zone(name) for name in ("one", "two", "nobody")] == ["east", "", ""]


@pytest.mark.parametrize("path", [SERVICES, SLICES])
def test_a_right_that_is_missing_is_named(api: Api, lists: ServiceLists, path: str) -> None:
    api.forbidden.add(("GET", path))

    with pytest.raises(StoreError, match=path.rsplit("/", 1)[-1]) as failed:
        told(lists)
    assert "rbac.yaml" in failed.value.hint


def test_other_stores_have_no_services() -> None:
    with pytest.raises(InvalidSettings, match="only Kubernetes has them") as failed:
        ServiceLists.open("etcd://127.0.0.1:2379")
    assert "pycni services -f" in failed.value.hint
