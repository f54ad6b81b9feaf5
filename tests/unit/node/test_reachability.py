# SPDX-License-Identifier: Apache-2.0
"""pycni/node/reachability.py: when a node is asked, and what answers mean."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address, ip_network

import pytest

from pycni.cluster import IPAddress
from pycni.faults import Weight
from pycni.node.reachability import (
    MISSES,
    RATE,
    SENT_TO,
    Local,
    Peer,
    Schedule,
    Way,
    faults,
)
from pycni.stores import DIRECT, IPIP, NodeRecord

INTERVAL = 20.0
MANY = 5000


def nodes(count: int) -> list[IPAddress]:
    return [ip_address("198.18.0.0") + number for number in range(1, count + 1)]


def asked(schedule: Schedule, begin: float, seconds: float) -> list[tuple[float, IPAddress]]:
    """Whom the schedule gives in that time, to somebody who waits as it says."""
    now, found = begin, []
    while now < begin + seconds:
        node = schedule.take(now)
        if node is not None:
            found.append((now, node))
        now += max(schedule.wait(now), 0.001)
    return found


def test_each_of_a_few_nodes_is_asked_each_interval() -> None:
    schedule = Schedule(INTERVAL)
    schedule.set_nodes(nodes(3), 0.0)

    found = Counter(node for _, node in asked(schedule, 0.0, 10 * INTERVAL))

    assert set(found) == set(nodes(3))
    assert set(found.values()) <= {10, 11}


def test_any_number_of_nodes_is_asked_at_a_bounded_rate_and_each_comes_its_turn() -> None:
    schedule = Schedule(INTERVAL)
    schedule.set_nodes(nodes(MANY), 0.0)

    found = asked(schedule, 0.0, 1500.0)

    assert len(found) <= 1500 * RATE + 1
    assert {node for _, node in found} == set(nodes(MANY))


def test_a_node_that_packets_are_sent_to_comes_first_among_thousands() -> None:
    schedule = Schedule(INTERVAL)
    schedule.set_nodes(nodes(MANY), 0.0)
    asked(schedule, 0.0, 700.0)  # all have been asked
    chosen = nodes(MANY)[-1]
    schedule.sent_to([chosen, ip_address("192.0.2.1")], 700.0)

    times = [now for now, node in asked(schedule, 700.0, SENT_TO) if node == chosen]

    assert len(times) >= 4
    assert times[0] <= 700.0 + 2 * INTERVAL


def test_a_node_that_is_gone_is_asked_no_more() -> None:
    schedule = Schedule(INTERVAL)
    schedule.set_nodes(nodes(2), 0.0)
    schedule.set_nodes(nodes(1), 0.0)
    schedule.hasten(nodes(2)[1], 0.0)

    assert {node for _, node in asked(schedule, 0.0, 100.0)} == set(nodes(1))


def test_a_node_that_did_not_answer_is_asked_again_soon() -> None:
    schedule = Schedule(INTERVAL, uniform=lambda low, _: low)
    (node,) = nodes(1)
    schedule.set_nodes([node], 0.0)
    assert schedule.take(0.0) == node

    schedule.hasten(node, 2.0)

    assert schedule.take(3.9) is None
    assert schedule.take(4.0) == node


def test_nobody_is_asked_where_nobody_is() -> None:
    schedule = Schedule(INTERVAL)

    assert schedule.take(0.0) is None
    assert schedule.wait(0.0) == INTERVAL


@pytest.mark.parametrize(
    ("answered", "misses", "works"),
    [(None, 0, None), (None, 1, None), (None, MISSES, False), (5.0, 0, True),
     (5.0, MISSES - 1, True), (5.0, MISSES, False)],
)  # fmt: skip
def test_a_way_works_until_several_requests_in_a_row_were_in_vain(
    answered: float | None, misses: int, works: bool | None
) -> None:
    assert Way(answered, misses).works is works


def peer(name: str, overlay: Way, beside: Way) -> Peer:
    cidr = ip_network("10.244.2.0/24")
    return Peer(NodeRecord(name, 2, ip_address("192.0.2.2"), (cidr,)), overlay, beside)


WORKS, FAILS, UNKNOWN = Way(7.0), Way(5.0, MISSES), Way()


def test_a_node_was_seen_when_anything_came_back() -> None:
    assert peer("n", FAILS, WORKS).row == {
        "name": "n",
        "forwards": False,
        "answers": True,
        "seen": 7.0,
    }
    assert peer("n", UNKNOWN, UNKNOWN).row["seen"] is None


def test_what_answers_beside_and_not_through_the_overlay_names_the_port() -> None:
    (fault,) = faults([peer("n2", FAILS, WORKS).row], port=4789, silent=())

    assert fault.part == "reachability"
    assert fault.weight is Weight.DEGRADED
    assert "node n2 is not reached through the overlay, though it answers" in fault.sentence
    assert "UDP port 4789" in fault.todo


def test_a_node_that_gets_no_vxlan_is_not_said_to_lack_its_port() -> None:
    (fault,) = faults([peer("n2", FAILS, WORKS).row], port=4789, silent=(), modes={"n2": DIRECT})

    assert "node n2 is not reached without VXLAN, though it answers beside it" in fault.sentence
    assert "4789" not in fault.todo
    assert 'encap = "auto"' in fault.todo


def test_for_a_node_that_gets_ipip_the_protocols_are_named() -> None:
    (fault,) = faults([peer("n2", FAILS, WORKS).row], port=4789, silent=(), modes={"n2": IPIP})

    assert "drops IPIP (IP protocols 4 and 41)" in fault.sentence
    assert "4789" not in fault.todo
    assert 'encap = "auto"' in fault.todo


def test_what_does_not_answer_at_all_is_a_fault_unless_it_is_down() -> None:
    rows = [peer("n2", FAILS, FAILS).row, peer("n3", FAILS, UNKNOWN).row]

    found = faults(rows, port=4789, silent={"n3"})

    assert [fault.thing for fault in found] == ["node n2"]
    assert "forget n2" in found[0].todo


NO_WAY = Local("underlay", "the way to node n2 is nowhere", beside=True, node="n2")
GUARD = Local("guard", "nftables table inet pycni_guard is gone", beside=False)


def test_a_cause_on_this_node_is_named_before_others() -> None:
    lost, eaten = peer("n2", FAILS, FAILS).row, peer("n3", FAILS, WORKS).row

    first, second = faults([lost, eaten], port=4789, silent=(), local=[GUARD, NO_WAY])

    assert "not reached in any way; this node's row underlay may say why" in first.found
    assert "the way to node n2 is nowhere" in first.found
    assert "though it answers beside it; this node's row guard may say why" in second.found
    assert "first do what the row guard says" in second.todo
    assert not any("4789" in one.todo or "forget" in one.todo for one in (first, second))


def test_a_cause_that_is_not_about_a_node_is_not_named_for_it() -> None:
    lost, eaten = peer("n3", FAILS, FAILS).row, peer("n4", FAILS, WORKS).row

    first, second = faults([lost, eaten], port=4789, silent=(), local=[NO_WAY])
    (third,) = faults([lost], port=4789, silent=(), local=[GUARD])

    assert "at n4, and on the way; on n4, too: pycni status" in second.todo
    assert "at this node's way to it" in first.todo
    assert first == third


def test_a_node_that_is_down_is_no_fault_of_this_one() -> None:
    row = peer("n2", FAILS, FAILS).row

    assert faults([row], port=4789, silent={"n2"}, local=[NO_WAY]) == []


@pytest.mark.parametrize("beside", [WORKS, FAILS, UNKNOWN])
def test_what_answers_through_the_overlay_may_refuse_echo_beside_it(beside: Way) -> None:
    assert faults([peer("n2", WORKS, beside).row], port=4789, silent=()) == []
