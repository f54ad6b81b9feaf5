# SPDX-License-Identifier: Apache-2.0
"""ipMasq and strict reverse-path filtering, by what the other side sees as source."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from pycni.lab import checks, processes
from pycni.lab.cluster import Lab
from pycni.lab.layout import WORLD, LabNode, Pod
from support.flood import unanswered
from support.flows import FAMILIES, answering, ask
from support.plugin import execute
from support.snapshot import take

both_families = pytest.mark.parametrize("family", FAMILIES)

SYSCTL_OF_ALL = """
import sys
from pathlib import Path
for path in Path("/proc/sys/net/ipv4/conf").glob("*/rp_filter"):
    path.write_text(sys.argv[1])
"""
STRICT, OFF = "1", "0"


def of_family(family: int, addresses: list[str]) -> str:
    return next(one for one in addresses if ip_address(one).version == family)


def world(family: int) -> str:
    return of_family(family, [str(address) for address in WORLD])


def underlay(node: LabNode, family: int) -> str:
    return of_family(family, [str(interface.ip) for interface in node.underlay])


@both_families
def test_with_masquerading_the_world_sees_the_node_and_answers(lab: Lab, family: int) -> None:
    pod = lab.layout.pods[0]
    node = lab.layout.node(pod.node)
    with answering(lab.layout.underlay_netns, world(family)) as (port, _):
        seen = ask(pod.netns, world(family), port)

    assert seen == underlay(node, family)


@both_families
def test_without_masquerading_the_world_sees_the_pod(lab: Lab, spare: Pod, family: int) -> None:
    """And has no way back to it."""
    added = execute(lab, spare, "ADD", ipMasq=False)
    with answering(lab.layout.underlay_netns, world(family)) as (port, heard):
        answer = ask(spare.netns, world(family), port)

        assert heard()["source"] == of_family(family, added.addresses)
    assert answer is None


@both_families
def test_a_pod_of_another_node_sees_the_pod(lab: Lab, family: int) -> None:
    source, target = lab.layout.pods[0], lab.layout.pods[-1]
    address = of_family(family, lab.addresses(target))
    with answering(target.netns, address) as (port, _):
        seen = ask(source.netns, address, port)

    assert seen == of_family(family, lab.addresses(source))


def test_another_node_sees_the_pod(lab: Lab) -> None:
    """By its VTEP, the address that the cluster knows it by."""
    source, node = lab.layout.pods[0], lab.layout.nodes[1]
    with answering(node.netns, underlay(node, 4)) as (port, _):
        seen = ask(source.netns, underlay(node, 4), port)

    assert seen == of_family(4, lab.addresses(source))


@both_families
def test_a_pods_own_node_sees_the_pod(lab: Lab, family: int) -> None:
    source = lab.layout.pods[0]
    node = lab.layout.node(source.node)
    with answering(node.netns, underlay(node, family)) as (port, _):
        seen = ask(source.netns, underlay(node, family), port)

    assert seen == of_family(family, lab.addresses(source))


def test_no_rule_names_a_pod(lab: Lab) -> None:
    for node in lab.layout.nodes:
        rules = "\n".join(take(node)["nft"])

        assert "pycni" in rules
        for pod in node.pods:
            for address in lab.addresses(pod):
                assert address not in rules


@contextmanager
def strict_reverse_path_filters(lab: Lab) -> Iterator[None]:
    def write(value: str) -> None:
        for node in lab.layout.nodes:
            done = processes.run(node.netns, [sys.executable, "-IS", "-c", SYSCTL_OF_ALL, value])
            assert done.returncode == 0, done.stderr.decode()

    write(STRICT)
    try:
        yield
    finally:
        write(OFF)


def test_strict_reverse_path_filters_stop_nothing(lab: Lab, spare: Pod) -> None:
    with strict_reverse_path_filters(lab):
        added = execute(lab, spare, "ADD")  # its veth is made with the strict default

        paths = [*checks.matrix(lab), *checks.hosts_and_world(lab)]
        everywhere = [str(address) for address in WORLD] + [
            underlay(node, family) for node in lab.layout.nodes for family in FAMILIES
        ]
        unreached = unanswered(lab, spare.netns, everywhere)
        for node in lab.layout.nodes:
            unreached += unanswered(lab, node.netns, added.addresses)
        assert execute(lab, spare, "DEL").status == 0

    assert [check for check in paths if not check.passed] == []
    assert unreached == []
