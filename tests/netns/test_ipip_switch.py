# SPDX-License-Identifier: Apache-2.0
"""Nodes that go over to IPIP from each other way and back, one by one, under traffic in both
directions."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from netns.test_direct_switch import accepted, modes, node_record, switch, traffic
from pycni.lab.cluster import Lab
from pycni.node.record import record_path
from pycni.settings import load
from pycni.stores import DIRECT, IPIP, VXLAN
from support.flood import unanswered
from support.labs import made_lab
from support.waiting import wait_until

MODES = {
    "ipip": IPIP, "direct": DIRECT, "auto-direct": DIRECT, "kernel": VXLAN, "ebpf": VXLAN,
    "auto": VXLAN,
}  # fmt: skip
"""By `encap`, between nodes on one link."""
TOUR = ("ipip", "direct", "ipip", "auto-direct", "ipip", "kernel", "ipip", "ebpf", "ipip", "auto")
"""To IPIP from each other way, and back. The MTU changes each time."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with made_lab(nodes=2, pods=1) as made:
        for source, target in (made.layout.pods, made.layout.pods[::-1]):
            assert unanswered(made, source.netns, made.addresses(target)) == []
        yield made


def wait_for(lab: Lab, mode: str) -> None:
    nodes = lab.layout.nodes
    wait_until(lambda: all(modes(node) == [mode] for node in nodes), f"all nodes send {mode}")


def test_no_packet_is_lost_from_way_to_way(lab: Lab) -> None:
    for encap in TOUR:
        mode = MODES[encap]
        with traffic(lab):
            for node in lab.layout.nodes:
                switch(node, encap)
            wait_for(lab, mode)

        accepts = () if mode == VXLAN else (mode,)
        assert [accepted(node) for node in lab.layout.nodes] == [accepts] * 2, encap


@pytest.mark.parametrize("other", ["auto", "direct"])
def test_one_node_alone_gets_and_sends_vxlan(lab: Lab, other: str) -> None:
    one, two = lab.layout.nodes
    with traffic(lab):
        switch(two, other)
        switch(one, "ipip")
        wait_until(lambda: accepted(one) == (IPIP,), "the store knows")
        wait_for(lab, VXLAN)

    for node in (one, two):
        switch(node, "auto")


def test_the_door_is_closed_when_nobody_sends_any_more(lab: Lab) -> None:
    one = lab.layout.nodes[0]
    switch(one, "ipip")
    switch(one, "auto")
    lingers = node_record(one)
    assert not lingers.ipip
    assert lingers.ipip_until > time.time()

    path = record_path(load(one.settings_path))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ipip_until": 1.0}))

    with traffic(lab):
        wait_until(lambda: not node_record(one).takes_ipip, "the agent has closed the door")
