# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/probes.py: who is asked, who answers, and what is said of it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from types import SimpleNamespace

import pytest

from pycni.agent import probes
from pycni.agent.probes import PATIENCE, Asker, Traffic
from pycni.kernel.echo_socket import TOKEN
from pycni.node.reachability import BESIDE, MISSES, OVERLAY
from pycni.node.report import PEERS
from pycni.stores import NodeRecord
from unit.agent.runs import OneRun

TWO = NodeRecord("n2", 2, ip_address("192.0.2.2"), (ip_network("10.244.1.0/24"),))
GATEWAY_TWO = ip_address("10.244.1.1")
INTERVAL = 20


class Wire:
    """An EchoSocket: what is sent comes back from those who answer."""

    def __init__(self) -> None:
        self.sent: list[tuple[object, bytes]] = []
        self.answering = True
        self.waiting: list[tuple[object, bytes]] = []
        self.error: OSError | None = None

    def send(self, destination, token):
        if self.error:
            raise self.error
        self.sent.append((destination, token))
        if self.answering:
            self.waiting.append((destination, token))

    def replies(self):
        taken, self.waiting = self.waiting, []
        return iter(taken)


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.asker = Asker(INTERVAL, lambda: self.now)
        self.overlay, self.beside = Wire(), Wire()
        self.asker.sockets = {BESIDE: self.beside, OVERLAY: self.overlay}  # type: ignore[dict-item]
        self.asker.set_nodes((TWO,))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.asker.ask()
            self.asker.hear()
            self.now += max(self.asker.wait(), 0.01)
        self.asker.hear()

    @property
    def row(self):
        return dict(self.asker.rows())[str(TWO.vtep)]


@pytest.fixture
def world() -> World:
    return World()


def test_a_node_is_asked_at_its_address_and_at_its_pods_gateway(world: World) -> None:
    world.run(10)

    assert [one for one, _ in world.beside.sent] == [TWO.vtep]
    assert [one for one, _ in world.overlay.sent] == [GATEWAY_TWO]
    assert (world.row["answers"], world.row["forwards"]) == (True, True)
    assert world.row["seen"] >= 1000.0


def test_before_the_first_answer_nothing_is_known(world: World) -> None:
    assert (world.row["answers"], world.row["forwards"], world.row["seen"]) == (None, None, None)


def test_an_underlay_that_eats_vxlan_is_found_out_within_seconds(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.overlay.answering = False

    world.run(20)

    assert (world.row["answers"], world.row["forwards"]) == (True, False)
    (line,) = caplog.messages
    assert line == (
        "node not reached through the overlay node=n2 vtep=192.0.2.2 answers_beside=yes"
    )
    assert len(world.overlay.sent) >= MISSES


def test_a_node_that_answers_again_is_said_to(world: World, caplog) -> None:
    caplog.set_level("INFO")
    world.run(10)
    world.overlay.answering = False
    world.run(60)

    world.overlay.answering = True
    world.run(60)

    assert world.row["forwards"] is True
    assert caplog.messages[-1] == "node reached again node=n2 vtep=192.0.2.2"


def test_one_lost_answer_is_no_failure(world: World, caplog) -> None:
    world.run(10)
    world.overlay.answering = False
    while len(world.overlay.sent) < 2:
        world.run(1)
    world.overlay.answering = True
    world.run(30)

    assert world.row["forwards"] is True
    assert caplog.messages == []


def test_a_node_without_a_route_does_not_answer(world: World) -> None:
    world.beside.error = OSError("no route")

    world.run(20)

    assert world.row["answers"] is False


@pytest.mark.parametrize("forged", ["token", "sender", "late"])
def test_an_answer_that_is_none_counts_for_nothing(world: World, forged: str) -> None:
    world.overlay.answering = False
    while not world.overlay.sent:
        world.run(0.5)
    destination, token = world.overlay.sent[0]
    if forged == "late":
        world.now += PATIENCE
        world.asker.hear()
    world.overlay.waiting = [
        (ip_address("10.244.1.99") if forged == "sender" else destination,
         bytes(TOKEN) if forged == "token" else token)
    ]  # fmt: skip

    world.asker.hear()

    assert world.row["forwards"] is None


def test_what_is_known_of_a_node_outlives_others_and_not_itself(world: World) -> None:
    world.run(10)
    three = NodeRecord("n3", 3, ip_address("192.0.2.3"), (ip_network("10.244.2.0/24"),))

    world.asker.set_nodes((TWO, three))
    assert world.row["forwards"] is True

    heir = NodeRecord("n4", 4, TWO.vtep, TWO.pod_cidrs)
    world.asker.set_nodes((heir,))
    assert world.row == {"name": "n4", "forwards": None, "answers": None, "seen": None}


def test_an_answer_of_a_node_that_is_gone_meanwhile_is_none(world: World) -> None:
    while not world.overlay.sent:
        world.asker.ask()
        world.now += 0.1
    world.asker.set_nodes(())

    world.asker.hear()

    assert dict(world.asker.rows()) == {}


def test_changes_are_reported_soon_and_all_in_time(world: World) -> None:
    assert world.asker.report_is_due()
    world.now += probes.REPORT_CHANGES
    assert not world.asker.report_is_due()
    world.now += probes.REPORT_ALL
    assert world.asker.report_is_due()


def test_traffic_is_taken_once() -> None:
    traffic = Traffic()
    traffic.add([TWO.vtep])
    traffic.add([GATEWAY_TWO])

    assert traffic.take() == {TWO.vtep, GATEWAY_TWO}
    assert traffic.take() == set()


def test_a_node_that_moved_asks_from_its_new_address(monkeypatch: pytest.MonkeyPatch) -> None:
    one = OneRun()
    opened: list[str] = []
    reports: list[tuple[str, object]] = []

    class Socket(Wire):
        def __init__(self, source):
            super().__init__()
            opened.append(str(source))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    def load(_):
        where = "192.0.2.1" if len(opened) < 2 and not reports else "192.0.2.9"
        return SimpleNamespace(vtep=ip_address(where), gateways=(ip_address("10.244.0.1"),))

    def put(section, rows):
        reports.append((section, rows))
        if len(opened) == 4:
            one.end()

    monkeypatch.setattr(probes, "EchoSocket", Socket)
    monkeypatch.setattr(probes.Node, "load", load)
    monkeypatch.setattr(probes, "select", lambda *_: None)
    monkeypatch.setattr(probes.Asker, "report_is_due", lambda _: True)

    probes.follow(
        SimpleNamespace(probe_interval=INTERVAL),
        one,
        others=lambda: (TWO,),
        traffic=Traffic(),
        report=SimpleNamespace(put_table=put),
    )

    assert opened == ["192.0.2.1", "10.244.0.1", "192.0.2.9", "10.244.0.1"]
    assert {section for section, _ in reports} == {PEERS}
