# SPDX-License-Identifier: Apache-2.0
"""Nodes of one store that speak with each other, and with a router about the fabric: both families,
a reflector, BFD."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from pycni.lab import cluster, processes
from pycni.lab.layout import UNDERLAY4, LabNode
from support import fabric
from support.fabric import FOREIGN, NODE_ASN, ROUTER_ASN, Fabric
from support.labs import prepared_lab, setup, write_settings
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(
    not fabric.is_there() and os.environ.get("CI") != "true",
    reason="no BIRD on this machine: apt-get install bird2",
)

OWN = {
    f"node{number}": {f"10.244.{number - 1}.0/24", f"fd00:10:244:{number - 1:x}::/64"}
    for number in (1, 2, 3)
}
"""As the store gives them, in the order in which nodes come."""
OWN["node1"] = {"10.244.0.0/24", "fd00:10:244::/64"}


@pytest.fixture(scope="module")
def made() -> Iterator[Fabric]:
    with prepared_lab(nodes=3) as lab:
        found = Fabric(lab, is_parted=False)
        for node in found.nodes:
            write_settings(node, bgp=mesh(found, node))
            lab.start_agent(node)
            cluster.wait_for_agent(lab, node)
        cluster.wait_for_members(lab)
        try:
            found.start_router(again=False)
            for node in found.nodes:
                found.start_bird(node)
            yield found
        finally:
            for name in list(found.birds):
                found.stop_bird(name)


def mesh(made: Fabric, node: LabNode, **more: Any) -> dict[str, Any]:
    """Each speaks with each, and with the router."""
    secret = node.directory / "bgp.password"
    secret.touch(mode=0o600)
    secret.write_text(made.password)
    peer = {"address": str(UNDERLAY4.ip), "asn": ROUTER_ASN, "password_file": secret}
    table = {"asn": NODE_ASN, "mesh": True, "password_file": secret, "bfd": True}
    table |= {"communities": ["64512:100", "64512:7:8"], "peers": [peer], "learn": ["fabric"]}
    return table | more


def said(made: Fabric, node: LabNode, direction: str, session: str) -> set[str]:
    return {
        row["network"]
        for row in made.lab.pycni(node, "bgp", "routes")
        if (row["direction"], row["session"]) == (direction, session)
    }


def test_each_tells_each_its_own_networks(made: Fabric) -> None:
    one, two, _ = made.nodes
    to_two = f"node_{str(two.underlay[0].ip).replace('.', '_')}"
    wait_until(lambda: made.is_up(one), "all sessions are up")

    assert {row["name"] for row in made.sessions(one)} == {
        "node_198_18_0_2", "node_198_18_0_3", "peer_198_18_0_254",
    }  # fmt: skip
    wait_until(lambda: said(made, one, "announced", to_two) == OWN["node1"], "it tells its own")
    assert said(made, one, "received", to_two) == set()  # the store tells where pods are


def test_communities_go_with_them(made: Fabric) -> None:
    found = made.lab.pycni(made.nodes[0], "bgp", "routes")
    mine = next(row for row in found if row["direction"] == "announced")

    assert {"64512:100", "64512:7:8"} < set(mine["communities"])


def test_routes_of_the_fabric_are_the_kernels_and_none_to_pods(made: Fabric) -> None:
    one = made.nodes[0]

    def by_bird() -> set[str]:
        command = ["ip", "-4", "route", "show", "proto", "bird"]
        lines = processes.run(one.netns, command).stdout.decode().splitlines()
        return {line.split()[0] for line in lines}

    wait_until(lambda: bool(by_bird()), "the kernel has routes of the fabric")
    assert by_bird() == {"203.0.113.0/24", "default"}
    assert not set(FOREIGN[1:3]) & said(made, one, "received", "peer_198_18_0_254")


def test_a_reflector_passes_on_what_the_others_say(made: Fabric) -> None:
    one, two, three = made.nodes
    for node in made.nodes:
        write_settings(node, bgp=mesh(made, node, reflectors=[one.name], bfd=False))
        made.lab.stop_agent(node)
        made.lab.start_agent(node)
        cluster.wait_for_agent(made.lab, node)

    def is_reflected() -> bool:
        names = {row["name"] for row in made.sessions(two)}
        told = said(made, one, "announced", "node_198_18_0_2")
        return "node_198_18_0_3" not in names and told == OWN["node1"] | OWN["node3"]

    wait_until(is_reflected, "node one tells node two of node three's networks")
    assert three.name in OWN
    assert said(made, two, "received", "node_198_18_0_1") == set()


def test_settings_without_bgp_withdraw_all(made: Fabric) -> None:
    three = made.nodes[2]
    text = three.settings_path.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("bgp =")]
    three.settings_path.write_text("\n".join(lines) + "\n")
    setup(three)
    made.lab.stop_agent(three)
    made.lab.start_agent(three)
    cluster.wait_for_agent(made.lab, three)

    def is_gone() -> bool:
        told = said(made, made.nodes[0], "announced", "node_198_18_0_2")
        return not told & OWN["node3"]

    wait_until(is_gone, "node three's networks are announced no more")
    assert made.status(three, "bgp")[0]["state"] == "ok"
