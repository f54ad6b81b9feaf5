# SPDX-License-Identifier: Apache-2.0
"""A pod that changes its links as fast as it can: what that costs the agent, and who suffers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from pycni.faults import Fault
from pycni.kernel.event_socket import EventSocket
from pycni.kernel.netlink_socket import RTMGRP_TC
from pycni.kernel.rtnl import Rtnl
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, Pod
from pycni.settings import load
from pycni.upkeep import endpoints
from pycni.upkeep.description import describe
from pycni.upkeep.seen import Seen
from support.kernel import open_iproute
from support.labs import made_lab, rows, within
from support.waiting import wait_until

pytestmark = pytest.mark.root

STORM = 4.0
"""Seconds."""
LIMIT = 0.05
"""Of a processor. The budget of the loops (agent/budget.py) is less: a loop rests after its work,
not before it, and to read an event costs something, too."""
IDLE = 0.05
"""Seconds of processor time in a second."""
NEW_MAC = "02:00:00:00:00:42"
Change = Callable[[IPRoute, int, int], None]
"""The link with an index is changed, for the n-th time."""
TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with made_lab(nodes=1, pods=2) as made:
        yield made


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def is_idle(pid: int) -> bool:
    """Whether a process uses next to nothing for a second: what it began with is done."""
    before = cpu(pid)
    time.sleep(1.0)
    return cpu(pid) - before < IDLE


def rage(pod: Pod, change: Change) -> int:
    """Change the pod's link until the storm is over; how often."""
    with open_iproute(pod.netns) as ipr:
        (index,) = ipr.link_lookup(ifname=POD_IFNAME)
        end, count = time.monotonic() + STORM, 0
        while time.monotonic() < end:
            change(ipr, index, count)
            count += 1
    return count


def other_mac(ipr: IPRoute, index: int, count: int) -> None:
    ipr.link("set", index=index, address=f"02:00:00:00:{count >> 8 & 255:02x}:{count & 255:02x}")


def up_and_down(ipr: IPRoute, index: int, count: int) -> None:
    ipr.link("set", index=index, state="down" if count % 2 else "up")


def other_address(ipr: IPRoute, index: int, count: int) -> None:
    ipr.addr("add" if count % 2 == 0 else "del", index=index, address="192.0.2.77", prefixlen=32)


def other_queue(ipr: IPRoute, index: int, count: int) -> None:
    ipr.tc("add" if count % 2 == 0 else "del", "pfifo", index, "1:", limit=10)


@pytest.mark.parametrize("change", [other_mac, up_and_down, other_address, other_queue])
def test_a_storm_costs_little_and_makes_one_line(lab: Lab, change: Change) -> None:
    (node,) = lab.layout.nodes
    pod = node.pods[0]
    log = node.directory / "agent.log"
    agent = lab.agents[node.name].pid
    wait_until(lambda: is_idle(agent), "the agent is idle")
    before, lines = cpu(agent), len(log.read_text().splitlines())

    count = rage(pod, change)
    used = cpu(agent) - before

    new = log.read_text().splitlines()[lines:]
    assert count > 100
    assert used < LIMIT * STORM, f"{used:.2f} s for {count} changes"
    assert len(new) <= 1, new


def test_who_follows_a_storm_makes_no_events_of_its_own(lab: Lab) -> None:
    """Such events would keep the keeper at work, which hears of qdiscs, too."""
    (node,) = lab.layout.nodes

    def events_of_a_storm() -> int:
        with EventSocket(RTMGRP_TC) as events:
            rage(node.pods[0], other_mac)
            return len(events.take() or [])

    rage(node.pods[0], other_mac)  # what is asked once is known
    assert within(node.netns, events_of_a_storm) == 0


def test_the_last_change_of_a_storm_counts(lab: Lab) -> None:
    (node,) = lab.layout.nodes
    pod = node.pods[0]
    rage(pod, other_mac)

    with open_iproute(pod.netns) as ipr:
        (index,) = ipr.link_lookup(ifname=POD_IFNAME)
        ipr.link("set", index=index, address=NEW_MAC)

    wait_until(
        lambda: NEW_MAC in {row["mac"] for row in rows(lab, node, "endpoints")},
        "the endpoint has the last MAC",
        seconds=2,
    )


def test_a_link_that_changes_all_the_time_is_no_fault(lab: Lab) -> None:
    """The agent's loop that follows links is about to write it."""
    (node,) = lab.layout.nodes
    settings = load(node.settings_path)

    def faults_of_an_old_look() -> list[Fault]:
        with Rtnl() as ipr:
            d, seen = describe(settings), Seen(ipr)
            assert d is not None
            assert seen.pods_ends
            with open_iproute(node.pods[0].netns) as inside:
                (index,) = inside.link_lookup(ifname=POD_IFNAME)
                other_mac(inside, index, 0xFFFF)
            wait_until(
                lambda: any(row["mac"].endswith("ff:ff") for row in rows(lab, node, "endpoints")),
                "the endpoint has the new MAC",
            )
            return list(endpoints.faults(d, seen))

    assert within(node.netns, faults_of_an_old_look) == []


def test_a_pod_that_makes_up_links_hides_no_change_of_another(lab: Lab) -> None:
    """A link in the pod whose peer has the victim's index seems to be the victim's other end."""
    (node,) = lab.layout.nodes
    pod, victim = node.pods
    address = lab.addresses(victim)[0]
    (host,) = (row["ifindex"] for row in rows(lab, node, "endpoints") if row["address"] == address)
    with open_iproute(pod.netns) as ipr:
        ipr.link("add", ifname="fake0", kind="veth", address=NEW_MAC,
                 peer={"ifname": "fake1", "index": host})  # fmt: skip
        time.sleep(0.5)

    with open_iproute(victim.netns) as ipr:
        (index,) = ipr.link_lookup(ifname=POD_IFNAME)
        ipr.link("set", index=index, address=NEW_MAC)

    wait_until(
        lambda: any(
            (row["address"], row["mac"]) == (address, NEW_MAC)
            for row in rows(lab, node, "endpoints")
        ),
        "the victim's new MAC",
        seconds=3,
    )
