# SPDX-License-Identifier: Apache-2.0
"""This node's own record in the store: what is wrong with it, and who may put it right."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.faults import Fault, Weight
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import Former, NodeRecord
from pycni.upkeep import registration
from pycni.upkeep.description import Description

CLUSTER = ip_network("10.244.0.0/16")
SEEN: Any = None


def record(number: int, *, name: str = "") -> NodeRecord:
    cidr = ip_network(f"10.244.{number - 1}.0/24")
    return NodeRecord(name or f"node{number}", number, ip_address(f"192.0.2.{number}"), (cidr,))


ONE, TWO, THREE = record(1), record(2), record(3)


def faults(own: NodeRecord, *listed: NodeRecord, known: bool = True) -> list[Fault]:
    node = Node(
        own.name, own.node_id, own.vtep, own.pod_cidrs, (CLUSTER,), "eth0", mtu=1450, port=4789
    )
    d = Description(Settings(node_name=own.name), node, listed if known else None)
    return list(registration.faults(d, SEEN))


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Former]]:
    """A store that decides about places itself, and what it was asked."""
    found: list[tuple[str, Former]] = []
    store = SimpleNamespace(keeps=lambda name, had: found.append((name, had)))
    monkeypatch.setattr(registration, "open_store", lambda *_, **__: store)
    return found


def decide(monkeypatch: pytest.MonkeyPatch, *, keeps: bool) -> None:
    """Somebody else decides about places, such as Kubernetes."""
    store = SimpleNamespace(keeps=lambda *_: keeps)
    monkeypatch.setattr(registration, "open_store", lambda *_, **__: store)


def test_a_record_that_is_there_is_no_fault() -> None:
    assert faults(TWO, ONE, TWO, THREE) == []


def test_without_a_store_nothing_is_known() -> None:
    assert faults(TWO, known=False) == []


def test_a_record_that_is_gone_is_written_again_if_its_place_is_free() -> None:
    (fault,) = faults(TWO, ONE, THREE)

    assert (fault.found, fault.todo, fault.weight) == ("not in the store", "", Weight.DEGRADED)


@pytest.mark.parametrize(
    "listed",
    [
        pytest.param((), id="a store that lost all its data"),
        pytest.param((ONE, TWO, replace(record(3), name="thief")), id="another node has the place"),
    ],
)
def test_a_place_that_is_not_free_takes_a_person(listed: tuple[NodeRecord, ...]) -> None:
    (fault,) = faults(THREE, *listed)

    assert "pycni setup" in fault.todo


def test_a_place_that_is_free_is_taken_again_though_it_is_not_the_first(
    asked: list[tuple[str, Former]],
) -> None:
    (fault,) = faults(THREE, TWO)

    assert fault.todo == ""
    assert asked == [("node3", Former(THREE.pod_cidrs))]


@pytest.mark.parametrize(("keeps", "todo"), [(True, ""), (False, registration.ASK)])
def test_where_others_decide_about_places_they_are_asked(
    monkeypatch: pytest.MonkeyPatch, keeps: bool, todo: str
) -> None:
    """There is no other node: it does not matter."""
    decide(monkeypatch, keeps=keeps)

    (fault,) = faults(THREE)

    assert fault.todo == todo


def test_a_place_that_another_record_has_is_not_taken_whoever_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decide(monkeypatch, keeps=True)

    (fault,) = faults(THREE, replace(THREE, name="thief"))

    assert fault.todo == registration.ASK


@pytest.mark.parametrize(
    ("heir", "todo"),
    [
        pytest.param(ONE, "", id="the node of before"),
        pytest.param(
            replace(ONE, name="heir", vtep=ip_address("192.0.2.9")), registration.ASK, id="an heir"
        ),
    ],
)
def test_a_store_that_gave_anothers_place_away_takes_a_person(
    monkeypatch: pytest.MonkeyPatch, heir: NodeRecord, todo: str
) -> None:
    """To be in it again would mean to believe it, and to send the other's packets to the heir."""
    remotes = nullcontext({ONE.pod_cidrs[0]: ONE.vtep})
    monkeypatch.setattr(registration.maps, "open_remotes", lambda _: remotes)

    (fault,) = faults(TWO, heir)

    assert fault.todo == todo


def test_another_address_is_written_again() -> None:
    (fault,) = faults(TWO, ONE, replace(TWO, vtep=ip_address("192.0.2.99")))

    assert ("192.0.2.99" in fault.found, fault.todo) == (True, "")


def test_other_pod_cidrs_take_a_person() -> None:
    (fault,) = faults(TWO, ONE, replace(TWO, pod_cidrs=THREE.pod_cidrs))

    assert "10.244.2.0/24" in fault.found
    assert fault.todo
