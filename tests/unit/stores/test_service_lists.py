# SPDX-License-Identifier: Apache-2.0
"""Services and EndpointSlices of a (fake) Kubernetes API server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycni.errors import InvalidSettings, StoreError
from pycni.stores.kube import following, objects
from pycni.stores.kube.following import Phase
from pycni.stores.kube.service_lists import ServiceLists
from unit.services.objects_made import endpoint, endpoint_slice, service
from unit.stores.kube_api import NODES, OFF, ON, SERVICES, SLICES, Api, kubeconfig, serving


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


def test_slices_are_left_out_where_nobody_needs_them(api: Api, lists: ServiceLists) -> None:
    put(api, SERVICES, service())

    assert [one["kind"] for one in lists.documents(slices=False)] == ["Service"]
    assert api.asked("GET", SLICES) == []


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


class Heard:
    """What is there by what was told so far."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Any] = {}
        self.complete: set[str] = set()
        self._listed: set[tuple[str, str]] = set()

    def take(self, news: Any) -> None:
        if news is None:
            return
        kind, batch = news
        if batch.phase is Phase.BEGIN:
            self._listed -= {key for key in self._listed if key[0] == kind}
        for name, value in batch.values.items():
            self._listed.add((kind, name))
            if value is None:
                self.objects.pop((kind, name), None)
            else:
                self.objects[kind, name] = value
        if batch.phase is Phase.END:
            self.complete.add(kind)
            gone = {key for key in self.objects if key[0] == kind} - self._listed
            for key in gone:
                del self.objects[key]

    @property
    def names(self) -> set[str]:
        return {name for _, name in self.objects}


@pytest.mark.parametrize("streams", [ON, OFF], ids=["streamed", "in pages"])
def test_each_kind_is_listed_and_then_its_changes_are_told(
    api: Api, lists: ServiceLists, streams: str
) -> None:
    """S-003, S-031: also an object that gets a label of another proxy."""
    api.streams_lists = streams
    put(api, SERVICES, service())
    put(api, SLICES, endpoint_slice())
    stop, heard, steps = threading.Event(), Heard(), list[str]()

    for news in lists.follow(stop, lambda _, document: document):
        heard.take(news)
        match len(steps):
            case 0 if len(heard.complete) == 2:
                steps.append("listed")
                assert heard.names == {"shop/web", "shop/web-1"}
                put(api, SERVICES, service("other"))
            case 1 if "shop/other" in heard.names:
                steps.append("added")
                put(api, SERVICES, service("other", labels={"service.kubernetes.io/headless": ""}))
            case 2 if "shop/other" not in heard.names:
                steps.append("labelled")
                api.objects.delete(SLICES, "web-1")
            case 3 if "shop/web-1" not in heard.names:
                stop.set()

    assert heard.names == {"shop/web"}


def test_what_went_while_the_server_was_away_is_not_in_the_next_list(
    api: Api, lists: ServiceLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S-031"""
    monkeypatch.setattr(following, "HEALTHY", 0.0)
    put(api, SERVICES, service())
    put(api, SERVICES, service("other"))
    stop, heard, away = threading.Event(), Heard(), False

    for news in lists.follow(stop, lambda _, document: document):
        heard.take(news)
        if not away and len(heard.complete) == 2:
            away = True
            api.objects.delete(SERVICES, "other")
            api.objects.forget()
            api.break_all()
        elif away and heard.names == {"shop/web"}:
            stop.set()

    assert heard.names == {"shop/web"}


def test_a_right_that_is_missing_ends_the_following(api: Api, lists: ServiceLists) -> None:
    api.forbidden.add(("GET", SLICES))

    with pytest.raises(StoreError, match="endpointslices"):
        for _ in lists.follow(threading.Event(), lambda _, document: document):
            pass
