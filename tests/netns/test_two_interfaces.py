# SPDX-License-Identifier: Apache-2.0
"""A pod on two networks: what comes to either interface is answered by that interface."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pycni.kernel.routes import RT_TABLE_MAIN
from pycni.lab.cluster import Lab
from pycni.lab.layout import Pod
from pycni.pods.source_rules import PRIORITY, table_of
from support.flood import unanswered
from support.kernel import open_iproute
from support.plugin import Reply, execute
from support.snapshot import differences, take

SECOND = {"CNI_IFNAME": "eth1"}
BOTH_FAMILIES = (socket.AF_INET, socket.AF_INET6)
MISMATCH = 105

both_ways = pytest.mark.parametrize("alone", [False, True], ids=["by the agent", "without one"])


def rules(pod: Pod) -> set[tuple[str, int]]:
    """Source and table of our rules in the pod."""
    with open_iproute(pod.netns) as ipr:
        return {
            (rule.get("FRA_SRC"), rule.get("FRA_TABLE"))
            for family in BOTH_FAMILIES
            for rule in ipr.get_rules(family=family)
            if rule.get("FRA_PRIORITY") == PRIORITY
        }


def index(pod: Pod, ifname: str) -> int:
    with open_iproute(pod.netns) as ipr:
        return int(ipr.link_lookup(ifname=ifname)[0])


@pytest.fixture
def second(lab: Lab, spare: Pod) -> Iterator[Reply]:
    """The second interface of the spare pod, which has a first."""
    assert execute(lab, spare, "ADD").status == 0
    added = execute(lab, spare, "ADD", env=SECOND)
    assert added.status == 0, added.text
    yield added
    assert execute(lab, spare, "DEL", env=SECOND).status == 0


@both_ways
def test_both_interfaces_answer_and_leave_nothing(lab: Lab, spare: Pod, alone: bool) -> None:
    node = lab.layout.node(spare.node)
    before = take(node)

    first = execute(lab, spare, "ADD", alone=alone)
    added = execute(lab, spare, "ADD", alone=alone, env=SECOND)
    everyone = [node.netns, *(pod.netns for pod in lab.layout.pods)]
    addresses = [*first.addresses, *added.addresses]
    unreached = [unanswered(lab, one, addresses) for one in everyone]
    during = rules(spare)
    table = table_of(index(spare, "eth1"))
    deleted = [execute(lab, spare, "DEL", alone=alone, env=env).status for env in (SECOND, {})]

    assert (first.status, added.status, deleted) == (0, 0, [0, 0])
    assert unreached == [[]] * len(everyone)
    assert during == {(address, table) for address in added.addresses}
    assert rules(spare) == set()
    assert differences(before, take(node), without=("neighbours",)) == []


def test_the_first_interface_keeps_the_default_routes(spare: Pod, second: Reply) -> None:
    with open_iproute(spare.netns) as ipr:
        main = [
            route.get("RTA_OIF")
            for family in BOTH_FAMILIES
            for route in ipr.get_default_routes(family=family)
            if route.get("RTA_TABLE") == RT_TABLE_MAIN
        ]

    assert main == [index(spare, "eth0")] * len(BOTH_FAMILIES)
    assert second.document.get("routes", []) == []


def test_a_check_finds_a_rule_and_a_route_missing(lab: Lab, spare: Pod, second: Reply) -> None:
    def check() -> int:
        reply = execute(lab, spare, "CHECK", env=SECOND, prevResult=second.document)
        return int(reply.document.get("code", 0))

    whole = check()
    with open_iproute(spare.netns) as ipr:
        table = table_of(index(spare, "eth1"))
        ipr.rule("del", family=socket.AF_INET, priority=PRIORITY)
        without_rule = check()
        ipr.rule("add", family=socket.AF_INET, priority=PRIORITY, table=table,
                 src=second.addresses[0], src_len=32)  # fmt: skip
        again = check()
        ipr.flush_routes(family=socket.AF_INET6, table=table)
        without_route = check()

    assert (whole, without_rule, again, without_route) == (0, MISMATCH, 0, MISMATCH)


def test_an_add_that_fails_at_its_end_leaves_no_rule(lab: Lab, spare: Pod) -> None:
    node = lab.layout.node(spare.node)
    assert execute(lab, spare, "ADD").status == 0
    mapping = {"hostPort": 18099, "containerPort": 80, "protocol": "tcp"}
    ports = {"portMappings": [mapping]}
    held = execute(lab, spare, "ADD", env={"CNI_IFNAME": "eth9"}, runtimeConfig=ports)
    assert held.status == 0, held.text
    before, had = take(node), rules(spare)

    refused = execute(lab, spare, "ADD", env=SECOND, runtimeConfig=ports)

    assert refused.status == 1
    assert rules(spare) == had
    assert differences(before, take(node)) == []
    assert execute(lab, spare, "DEL", env={"CNI_IFNAME": "eth9"}).status == 0


def test_a_del_without_the_namespace_works(lab: Lab, spare: Pod, second: Reply) -> None:
    gone = execute(lab, spare, "DEL", env={**SECOND, "CNI_NETNS": None})

    assert gone.status == 0
    assert second.addresses
