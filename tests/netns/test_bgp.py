# SPDX-License-Identifier: Apache-2.0
"""Nodes that know each other by BGP alone, with BIRD on each and on the router between them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from pycni.bgp import file
from pycni.lab import processes
from pycni.lab.layout import UNDERLAY4
from pycni.settings import load
from support import fabric
from support.fabric import FAR_NODE, FAR_ROUTER, FOREIGN, PASSWORD, Fabric
from support.flood import Flood, unanswered
from support.labs import rows, teardown
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(
    not fabric.is_there() and os.environ.get("CI") != "true",
    reason="no BIRD on this machine: apt-get install bird2",
)

Record = Callable[[str, object], None]
NEAR_ROUTER = str(UNDERLAY4.ip)
ONE, TWO, THREE = (f"10.244.{number}.0/24" for number in (1, 2, 3))


@pytest.fixture(scope="module")
def made() -> Iterator[Fabric]:
    with fabric.fabric() as found:
        found.start_router(again=False)
        for node in found.nodes:
            found.start_bird(node)
        wait_until(lambda: all(map(found.is_up, found.nodes)), "all sessions are up")
        wait_until(lambda: all(len(found.next_hops(node)) == 2 for node in found.nodes),
                   "each node has learnt two others")  # fmt: skip
        yield found


def took(what: Callable[[], bool], words: str) -> float:
    began = time.monotonic()
    wait_until(what, words)
    return time.monotonic() - began


def pod(made: Fabric, number: int) -> str:
    return made.lab.addresses(made.lab.layout.pods[number])[0]


def test_pods_are_behind_the_node_on_the_link_and_behind_the_router_elsewhere(made: Fabric) -> None:
    one, _, three = made.nodes

    assert made.next_hops(one) == {TWO: made.vtep(made.nodes[1]), THREE: NEAR_ROUTER}
    assert made.next_hops(three) == {ONE: FAR_ROUTER, TWO: FAR_ROUTER}


def test_packets_go_there_without_outer_headers(made: Fabric) -> None:
    for source in made.lab.layout.pods:
        others = [pod(made, number) for number in range(3)]
        assert unanswered(made.lab, source.netns, others) == []

    modes = {row["vtep"]: row["mode"] for row in made.lab.pycni(made.nodes[0], "nodes")}
    assert set(modes.values()) == {None, "direct"}
    assert made.status(made.nodes[0], "bgp")[0]["state"] == "ok"


def test_nothing_foreign_is_believed(made: Fabric) -> None:
    for node in made.nodes:
        heard = [row for row in made.lab.pycni(node, "bgp", "routes")
                 if row["direction"] == "received"]  # fmt: skip
        routes = processes.run(node.netns, ["ip", "route", "show", "table", "all"]).stdout.decode()

        assert not {row["network"] for row in heard} & set(FOREIGN)
        assert len(rows(made.lab, node, "remotes")) == 2
        assert "proto bird" not in routes
        assert "unreachable 10.244" not in routes


def test_the_routes_are_shown_both_ways(made: Fabric) -> None:
    found = made.lab.pycni(made.nodes[0], "bgp", "routes")
    (session,) = made.sessions(made.nodes[0])

    said = {(row["direction"], row["network"]) for row in found if row["used"] is not False}
    assert said == {("announced", ONE), ("received", TWO), ("received", THREE)}
    assert (session["speaker"], session["asn"]) == (NEAR_ROUTER, fabric.ROUTER_ASN)
    assert (session["received"], session["announced"]) == (2, 1)


def test_the_file_is_for_root_alone(made: Fabric) -> None:
    path = file.config_path(load(made.nodes[0].settings_path))

    assert path.stat().st_mode & 0o777 == 0o600
    assert PASSWORD in path.read_text()


@pytest.mark.parametrize("who", ["node3", "router"])
def test_a_killed_speaker_costs_no_packet(made: Fabric, who: str, record_property: Record) -> None:
    one, three = made.lab.layout.pods[0], made.lab.layout.pods[2]
    with (
        Flood(one, [pod(made, 2)], count=2000, interval=0.003) as there,
        Flood(three, [pod(made, 0)], count=2000, interval=0.003) as back,
    ):
        made.stop_bird(who, kill=True)
        time.sleep(2)  # for this time there is none
        if who == "router":
            made.start_router()
        else:
            made.start_bird(made.nodes[2])
        seconds = took(lambda: all(map(made.is_up, made.nodes)), "all sessions are up again")
        time.sleep(4)  # routes that are not told again would be forgotten now
        lost = {**there.lost(), **back.lost()}

    record_property("sessions up again", f"{seconds:.1f} s, lost {lost}")
    assert set(lost.values()) == {0}
    assert len(made.next_hops(made.nodes[0])) == 2


def test_a_dead_bird_is_told_and_nothing_is_forgotten(made: Fabric) -> None:
    one = made.nodes[0]
    made.stop_bird(one.name, kill=True)
    try:
        (row,) = made.status(one, "bgp")
        time.sleep(3)

        assert row["state"] == "degraded"
        assert "BIRD does not run" in row["cause"]
        assert "pycni-bird" in row["to_do"]
        assert len(made.next_hops(one)) == 2
        assert unanswered(made.lab, made.lab.layout.pods[0].netns, [pod(made, 2)]) == []
    finally:
        made.start_bird(one)
        wait_until(lambda: made.is_up(one), "the session is up again")


def test_two_announcers_of_one_network_are_a_fault(made: Fabric) -> None:
    one = made.nodes[0]
    made.told.append(ONE)
    made.tell_router()
    try:
        wait_until(lambda: made.status(one, "bgp")[0]["state"] == "degraded", "it is a fault")
        (row,) = made.status(one, "bgp")

        assert f"this node's network {ONE} is announced by another, too" in row["cause"]
    finally:
        made.told.remove(ONE)
        made.tell_router()
    wait_until(lambda: made.status(one, "bgp")[0]["state"] == "ok", "it is none any more")


def test_another_password_is_no_session(made: Fabric) -> None:
    made.password = "another one"
    made.tell_router()
    try:
        wait_until(lambda: not made.is_up(made.nodes[0]), "the session is down")
        (row,) = made.status(made.nodes[0], "bgp")

        assert row["cause"].startswith(f"the session with {NEAR_ROUTER} (AS 64999) is not up")
        assert "password" in row["to_do"]
    finally:
        made.password = PASSWORD
        made.tell_router()
        wait_until(lambda: all(map(made.is_up, made.nodes)), "all sessions are up again")
    wait_until(lambda: all(len(made.next_hops(node)) == 2 for node in made.nodes), "all is learnt")


def test_a_dead_agent_costs_no_packet_and_no_session(made: Fabric) -> None:
    three = made.nodes[2]
    with Flood(made.lab.layout.pods[0], [pod(made, 2)], count=500, interval=0.003) as flood:
        made.lab.stop_agent(three, kill=True)
        assert made.is_up(three)
        lost = flood.lost()
    made.lab.start_agent(three)

    assert set(lost.values()) == {0}


def test_a_node_that_leaves_is_forgotten(made: Fabric, record_property: Record) -> None:
    """Last: node three is none afterwards. By then it serves again."""
    one, _, three = made.nodes
    wait_until(lambda: load(three.settings_path).socket_path.exists(), "its agent serves")
    wait_until(lambda: FAR_NODE in str(made.sessions(three)) or made.is_up(three), "it speaks")
    began = time.monotonic()
    teardown(three)
    torn = time.monotonic() - began
    wait_until(lambda: THREE not in made.next_hops(one), "it is forgotten")

    record_property("left", f"{torn:.1f} s, forgotten {time.monotonic() - began:.1f} s")
    assert list(made.next_hops(one)) == [TWO]
    assert not file.config_path(load(three.settings_path)).exists()
