# SPDX-License-Identifier: Apache-2.0
"""Packets to cluster addresses of nobody: pods hear at once that nobody is there."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from pycni.errors import SetupError
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.rtnl import Rtnl
from pycni.kernel.rules import DeadEnd
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode, Pod
from pycni.node import dead_ends
from pycni.node.dead_ends import MARK, PRIORITY
from support.labs import agent_hung, drops, made_lab, setup, within, write_settings
from support.waiting import wait_until

NOBODY = {4: "10.244.77.7", 6: "fd00:10:244:77::7"}
PATIENCE = 5.0
"""Seconds; a client without an answer waits for more than a minute."""
SOON = 3.0
"""An error that comes while connect() still holds the socket counts at the next SYN, after 1 s."""
BOTH = [ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56")]
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
        assert within(node.netns, rules) == []
    finally:
        write_settings(node, answer_unreachable=True)
        setup(node)
    assert len(within(node.netns, rules)) == 2


def rules() -> list[DeadEnd]:
    with Rtnl() as ipr:
        return dead_ends.current(ipr)


def test_without_its_rules_a_node_drops_without_an_answer(lab: Lab) -> None:
    """Others may flush rules."""
    node = lab.layout.nodes[0]

    def flush() -> None:
        with Rtnl() as ipr:
            dead_ends.teardown(ipr)

    with agent_hung(lab, node):
        within(node.netns, flush)
        before = drops(lab, node).get(("UNKNOWN_DESTINATION", "to_overlay"), 0)

        found, _ = connect(node.pods[0], NOBODY[4])

        assert found is None
        wait_until(
            lambda: drops(lab, node)["UNKNOWN_DESTINATION", "to_overlay"] > before, "it is dropped"
        )
    setup(node)


def test_faults_say_what_is_missing_and_what_is_too_much(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    wanted = dead_ends.wanted(BOTH, answer=True)

    def look(rules: list[DeadEnd]) -> list[str]:
        with Rtnl() as ipr:
            return [fault.sentence for fault in dead_ends.faults(ipr, rules)]

    def without_ipv6() -> list[str]:
        with Rtnl() as ipr:
            ipr.delete_dead_end(DeadEnd(6, MARK, PRIORITY))
        return look(wanted)

    assert within(node.netns, lambda: look(wanted)) == []
    assert within(node.netns, lambda: look(wanted[:1])) == [
        "the IPv6 rule for mark 0x790021 is there, but not asked for"
    ]
    with agent_hung(lab, node):
        assert within(node.netns, without_ipv6) == ["the IPv6 rule for mark 0x790021 is gone"]
    setup(node)
    assert within(node.netns, lambda: look(wanted)) == []


def test_a_kernel_that_refuses_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NetlinkError(errno.EOPNOTSUPP)

    monkeypatch.setattr(Rtnl, "add_dead_end", refuse)
    node = lab.layout.nodes[0]
    other = [DeadEnd(4, MARK, PRIORITY + 1)]

    def make() -> None:
        with Rtnl() as ipr:
            dead_ends.setup(ipr, other)

    with pytest.raises(SetupError, match="rules for addresses of nobody") as caught:
        within(node.netns, make)

    assert "answer_unreachable" in caught.value.hint
