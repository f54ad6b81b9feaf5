# SPDX-License-Identifier: Apache-2.0
"""The programs for processes of a node, at a control group that two nodes share: whose sockets they
touch, and how they come, are replaced, come back and go."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from loader import libbpf, sockets
from loader.places import SOCKETS as LINKS
from pycni.kernel import cgroups
from pycni.lab import cluster
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode, Pod
from pycni.settings import load
from support.host_clients import PROTOCOLS, a_socket, ask, host_lab, served, vip, web
from support.lab_services import PORT, File, address_of, entries
from support.labs import agent_hung, setup, teardown, within, write_settings
from support.waiting import wait_until

pytestmark = pytest.mark.root

LOOKS = 120.0
"""Seconds: an agent looks at everything each half minute, and then sets the node up."""

with_both_protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


@pytest.fixture(scope="module")
def services() -> Iterator[File]:
    with host_lab() as made:
        yield made


@pytest.fixture
def lab(services: File) -> Lab:
    return services.lab


@pytest.fixture
def node(lab: Lab) -> LabNode:
    """Whose processes are the clients. It has pods one and two."""
    return lab.layout.nodes[0]


@pytest.fixture
def pods(lab: Lab) -> tuple[Pod, Pod, Pod, Pod]:
    """One and two are on node one, three and four on node two."""
    one, two, three, four = lab.layout.pods
    return one, two, three, four


@with_both_protocols
def test_sockets_in_other_namespaces_are_left_alone(
    services: File, node: LabNode, pods: tuple[Pod, ...], protocol: str
) -> None:
    """S-112: a pod's packets are translated one by one, and a namespace of nobody has no route."""
    services.write(*web(services.lab, pods[2]))
    before = len(entries(node, "sockets"))

    with served(services.lab, pods[2]):
        assert ask(pods[0].netns, 4, protocol) in services.lab.addresses(pods[2])
        assert ask(services.lab.layout.underlay_netns, 4, protocol) == errno.ENETUNREACH

    assert len(entries(node, "sockets")) == before


def test_each_node_has_programs_and_tables_of_its_own(
    services: File, pods: tuple[Pod, ...]
) -> None:
    """S-112: though all are at one control group."""
    one, two = services.lab.layout.nodes
    services.write(*web(services.lab, pods[0]))
    before = [len(entries(node, "sockets")) for node in (one, two)]

    with served(services.lab, pods[0]):
        assert isinstance(ask(two.netns, 4, "TCP"), str)

    assert [len(entries(node, "sockets")) for node in (one, two)] == [before[0], before[1] + 1]


def test_a_killed_agent_changes_nothing(
    services: File, node: LabNode, pods: tuple[Pod, ...]
) -> None:
    services.write(*web(services.lab, pods[0]))

    with served(services.lab, pods[0]):
        services.lab.stop_agent(node, kill=True)
        found = [ask(node.netns, 4, protocol) for protocol in PROTOCOLS]
        services.lab.start_agent(node)
        cluster.wait_for_agent(services.lab, node)

    assert set(found) == {address_of(services.lab, pods[0], 4)}


def test_no_call_fails_while_endpoints_come_and_go(
    services: File, node: LabNode, pods: tuple[Pod, ...]
) -> None:
    """As in a rolling update; a call may look in the moment in which its endpoint goes."""
    services.write(*web(services.lab, pods[0]))
    results, done = Counter[int](), threading.Event()

    def call() -> None:
        while not done.is_set():
            with a_socket(4, "UDP") as client:
                results[client.connect_ex((vip(4), PORT))] += 1

    calling = threading.Thread(target=within, args=(node.netns, call))
    calling.start()
    try:
        for number in range(8):
            services.write(*web(services.lab, pods[(number + 1) % 2]))
    finally:
        done.set()
        calling.join()

    assert results.keys() == {0}


def test_an_upgrade_under_calls_fails_none(
    services: File, node: LabNode, pods: tuple[Pod, ...]
) -> None:
    """Programs are replaced in their links."""
    services.write(*web(services.lab, pods[0]))
    before, results = programs(node), Counter[str | int]()
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            results[ask(node.netns, 4, "TCP")] += 1

    with served(services.lab, pods[0]):
        calling = threading.Thread(target=call)
        calling.start()
        try:
            for mtu in (1400, 0):  # a constant of the programs
                write_settings(node, mtu=mtu)
                setup(node)
        finally:
            done.set()
            calling.join()

    assert results.keys() == {address_of(services.lab, pods[0], 4)}
    assert programs(node).keys() == before.keys()
    assert not set(programs(node).values()) & set(before.values())


def programs(node: LabNode) -> dict[str, int]:
    """The kernel's numbers of the programs in the pinned links."""
    found = {}
    for pin in (load(node.settings_path).pin_root / LINKS).iterdir():
        with sockets.Link.open_pinned(pin) as link:
            found[pin.name] = link.program
    return found


def attached(group: Path) -> list[int]:
    """How many programs are at each hook of a control group."""
    fd = os.open(group, os.O_RDONLY)
    try:
        return [len(libbpf.query(fd, kind)) for kind in sockets.HOOKS.values()]
    finally:
        os.close(fd)


def test_switched_to_pods_only_the_own_programs_go_and_come_back(
    services: File, node: LabNode, pods: tuple[Pod, ...]
) -> None:
    """The other node's stay at the same control group."""
    group = cgroups.root()
    assert group is not None
    services.write(*web(services.lab, pods[0]))
    with served(services.lab, pods[0]):
        both = attached(group.path)
        write_settings(node, services="pods")
        setup(node)
        one = attached(group.path)
        calls = [ask(at.netns, 4, "TCP") for at in services.lab.layout.nodes]
        pins = list(load(node.settings_path).pin_root.rglob("sockets"))
        write_settings(node, services="pods+host")
        setup(node)

        wait_until(
            lambda: isinstance(ask(node.netns, 4, "TCP"), str), "the node's processes are served"
        )

    count = len(sockets.HOOKS)
    assert (both, one, attached(group.path)) == ([2] * count, [1] * count, [2] * count)
    assert isinstance(calls[1], str)
    assert not isinstance(calls[0], str)
    assert pins == []


def test_a_hook_that_somebody_took_is_told_of_and_comes_back(
    services: File, node: LabNode, pods: tuple[Pod, ...]
) -> None:
    lab, root = services.lab, load(node.settings_path).pin_root
    services.write(*web(lab, pods[0]))

    with agent_hung(lab, node):
        (root / LINKS / "connect4").unlink()
        rows = [one for one in lab.pycni(node, "status") if "connect4" in one["cause"]]

    assert [(one["name"], one["state"]) for one in rows] == [("sockets", "broken")]
    with served(lab, pods[0]):
        wait_until(
            lambda: ask(node.netns, 4, "TCP") == address_of(lab, pods[0], 4),
            "the hook is back",
            seconds=LOOKS,
        )


def test_a_teardown_leaves_nothing(services: File, node: LabNode) -> None:
    """Of the last test: the node is made again."""
    group = cgroups.root()
    assert group is not None
    services.lab.stop_agent(node)

    teardown(node)

    assert attached(group.path) == [1] * len(sockets.HOOKS)
    assert not load(node.settings_path).pin_root.exists()
