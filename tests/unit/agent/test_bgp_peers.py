# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/bgp_peers.py, against a (fake) Kubernetes API server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pycni.agent import bgp_peers
from pycni.bgp import resources
from pycni.errors import StoreError
from pycni.settings import Settings
from support.waiting import wait_until
from unit.agent.runs import OneRun
from unit.bgp.samples import BGP
from unit.stores.kube_api import BGP_PEERS, NODES, Api, kubeconfig, serving

SPEC = {"address": "192.0.2.1", "asn": 64512}


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as server:
        label(server, rack="1")
        yield server


@pytest.fixture
def settings(api: Api, tmp_path: Path) -> Settings:
    store = f"kube:{kubeconfig(tmp_path, api)}"
    return Settings(node_name="one", state_dir=tmp_path / "state", store=store, bgp=BGP)


def label(api: Api, **labels: str) -> None:
    api.objects.put(NODES, "one", {"metadata": {"name": "one", "labels": labels}})


def put(api: Api, name: str, **change: Any) -> None:
    api.objects.put(BGP_PEERS, name, {"metadata": {"name": name}, "spec": SPEC | change})


@contextmanager
def following(settings: Settings) -> Iterator[list[Exception]]:
    """The loop, in a thread; yields what it failed by."""
    run, failed = OneRun(), list[Exception]()

    def follow() -> None:
        try:
            bgp_peers.follow(settings, run)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield failed
    finally:
        run.end()
        thread.join()


def used(settings: Settings) -> list[int]:
    return [peer.asn for peer in resources.load(settings).peers.values()]


def test_what_comes_changes_and_goes_is_followed(api: Api, settings: Settings) -> None:
    put(api, "a", asn=1)
    with following(settings) as failed:
        wait_until(lambda: used(settings) == [1], "what is there")
        put(api, "b", asn=2, address="192.0.2.2")
        wait_until(lambda: used(settings) == [1, 2], "what comes")
        put(api, "a", asn=3)
        wait_until(lambda: used(settings) == [3, 2], "what changes")
        put(api, "b", asn=0)
        wait_until(lambda: list(resources.load(settings).set_aside) == ["b"], "what gets bad")
        api.objects.delete(BGP_PEERS, "a")
        wait_until(lambda: used(settings) == [], "what goes")
    assert not failed


def test_labels_of_the_node_are_followed(
    api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bgp_peers, "LABELS_SECONDS", 0.1)
    put(api, "a", asn=1, nodeSelector={"rack": "1"})
    put(api, "b", asn=2, nodeSelector={"rack": "2"})
    with following(settings) as failed:
        wait_until(lambda: used(settings) == [1], "by its labels")
        label(api, rack="2")
        wait_until(lambda: used(settings) == [2], "by others")
    assert not failed


def test_the_node_is_not_asked_for_where_no_resource_asks_for_labels(
    api: Api, settings: Settings
) -> None:
    put(api, "a", asn=1)
    with following(settings):
        wait_until(lambda: used(settings) == [1], "what is there")

    assert not api.asked("GET", "/nodes/")


@pytest.mark.parametrize("lacks", ["forbidden", "absent"])
def test_a_list_that_cannot_be_had_changes_nothing(
    api: Api, settings: Settings, lacks: str
) -> None:
    """An upgrade with the kinds or the rights of the release before."""
    kept = resources.choose({"a": resources.read(SPEC)}, {}, BGP)
    resources.save(settings, kept)
    if lacks == "forbidden":
        api.forbidden.add(("GET", BGP_PEERS))
    else:
        api.absent.add(BGP_PEERS)

    with following(settings) as failed:
        wait_until(lambda: bool(failed), "it is told")

    (error,) = failed
    assert isinstance(error, StoreError)
    assert {"forbidden": "rbac.yaml", "absent": "crds.yaml"}[lacks] in error.hint
    assert resources.load(settings) == kept


def test_what_went_while_nobody_looked_is_gone(settings: Settings) -> None:
    resources.save(settings, resources.choose({"a": resources.read(SPEC)}, {}, BGP))

    with following(settings):
        wait_until(lambda: used(settings) == [], "the list has none")
