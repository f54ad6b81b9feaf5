# SPDX-License-Identifier: Apache-2.0
"""Packets to cluster addresses of nobody: pods hear at once that nobody is there."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pycni import settings
from pycni.kernel import nft
from pycni.kernel.rtnl import Rtnl
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode, Pod
from pycni.node import old_rules as old_rules_of_node
from pycni.node import overlay_guard
from pycni.node.record import Node
from pycni.node.rejection import NOBODY as NOBODY_MARK
from support.kernel import open_iproute
from support.labs import (
    agent_hung,
    drops,
    made_lab,
    prepared_lab,
    setup,
    teardown,
    within,
    write_settings,
)
from support.waiting import wait_until

NOBODY = {4: "10.244.77.7", 6: "fd00:10:244:77::7"}
PATIENCE = 5.0
"""Seconds; a client without an answer waits for more than a minute."""
SOON = 3.0
"""An error that comes while connect() still holds the socket counts at the next SYN, after 1 s."""
ICMP_DEST_UNREACH = 3
IP_RECVERR = 11
UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with made_lab(nodes=1, pods=1) as made:
        yield made


def connect(pod: Pod, address: str) -> tuple[int | None, float]:
    """The errno of a TCP connection, None if none came, and the seconds until then."""

    def attempt() -> tuple[int | None, float]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        begin = time.monotonic()
        with socket.socket(family) as client:
            client.settimeout(PATIENCE)
            try:
                client.connect((address, 80))
            except TimeoutError:
                return None, time.monotonic() - begin
            except OSError as error:
                return error.errno, time.monotonic() - begin
        return 0, time.monotonic() - begin

    return within(pod.netns, attempt)


def unknown(lab: Lab, node: LabNode) -> int:
    return drops(lab, node).get(("UNKNOWN_DESTINATION", "from_container"), 0)


@pytest.mark.parametrize("family", [4, 6])
def test_a_client_fails_at_once_and_it_is_counted(lab: Lab, family: int) -> None:
    node = lab.layout.nodes[0]
    before = unknown(lab, node)

    found, seconds = connect(node.pods[0], NOBODY[family])

    assert found in UNREACHABLE
    assert seconds < SOON
    assert unknown(lab, node) > before


@pytest.mark.parametrize("family", [4, 6])
def test_who_wants_no_answer_gets_none(lab: Lab, family: int) -> None:
    node = lab.layout.nodes[0]
    write_settings(node, answer_unreachable=False)
    setup(node)
    try:
        before = unknown(lab, node)

        found, _ = connect(node.pods[0], NOBODY[family])

        assert found is None
        assert unknown(lab, node) > before
    finally:
        write_settings(node, answer_unreachable=True)
        setup(node)
    assert connect(node.pods[0], NOBODY[family])[0] in UNREACHABLE


def test_who_asks_hears_it_from_the_gateway(lab: Lab) -> None:
    """As from a router: no error may come from the address of nobody itself."""
    node = lab.layout.nodes[0]
    pod = node.pods[0]

    def asked() -> str:
        listener = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        with listener, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            listener.settimeout(PATIENCE)
            client.sendto(b"hello", (NOBODY[4], 9))
            while True:
                packet, (sender, _) = listener.recvfrom(2048)
                if packet[20] == ICMP_DEST_UNREACH:
                    return str(sender)

    gateways = Node.load(settings.load(node.settings_path)).gateways
    assert within(pod.netns, asked) == str(gateways[0])


@pytest.mark.parametrize("protocol", [socket.IPPROTO_UDP, socket.IPPROTO_ICMP, 132])
def test_whatever_it_sends_a_pod_hears_it(lab: Lab, protocol: int) -> None:
    pod = lab.layout.nodes[0].pods[0]

    def asked() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as client:
            client.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            client.settimeout(PATIENCE)
            client.connect((NOBODY[4], 0))
            client.send(bytes((8, 0, 0xF7, 0xFF, 0, 0, 0, 0)))  # an ICMP echo, or a UDP header
            try:
                client.recv(2048)
            except TimeoutError:
                return 0
            except OSError as error:
                return error.errno or 0
        return 0

    assert within(pod.netns, asked) in UNREACHABLE


def test_without_its_rules_a_node_drops_without_an_answer(lab: Lab) -> None:
    """Others may flush tables."""
    node = lab.layout.nodes[0]

    def flush() -> None:
        nft.run(f"flush chain inet {overlay_guard.TABLE} from_pods", what=overlay_guard.WHAT)

    with agent_hung(lab, node):
        within(node.netns, flush)
        before = drops(lab, node).get(("UNKNOWN_DESTINATION", "to_overlay"), 0)

        found, _ = connect(node.pods[0], NOBODY[4])

        assert found is None
        wait_until(
            lambda: drops(lab, node)["UNKNOWN_DESTINATION", "to_overlay"] > before, "it is dropped"
        )
    setup(node)
    assert connect(node.pods[0], NOBODY[4])[0] in UNREACHABLE


def old_rule() -> dict[str, Any]:
    """As earlier releases had it in each family."""
    return {
        "fwmark": NOBODY_MARK,
        "fwmask": 2**32 - 1,
        "priority": old_rules_of_node.PRIORITY,
        "action": "unreachable",
    }


def old_rules(node: LabNode) -> list[int]:
    def listed() -> list[int]:
        with Rtnl() as ipr:
            return old_rules_of_node.versions(ipr)

    return within(node.netns, listed)


def test_the_rules_of_an_earlier_release_go_and_no_others(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    other = old_rule() | {"fwmark": 0x1000, "family": 2}
    with open_iproute(node.netns) as writer:
        for family in (2, 10):
            writer.rule("add", family=family, **old_rule())
        writer.rule("add", **other)
        assert old_rules(node) == [4, 6]

        setup(node)

        assert old_rules(node) == []
        assert len(writer.get_rules(family=2, priority=other["priority"])) == 1
        writer.rule("del", **other)
    assert connect(node.pods[0], NOBODY[4])[0] in UNREACHABLE


def test_teardown_takes_the_rules_of_an_earlier_release() -> None:
    """As from a node that no release since has set up."""
    with prepared_lab(nodes=1) as lab:
        (node,) = lab.layout.nodes
        setup(node)
        with open_iproute(node.netns) as writer:
            for family in (2, 10):
                writer.rule("add", family=family, **old_rule())

        teardown(node)

        assert old_rules(node) == []
