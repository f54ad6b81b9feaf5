# SPDX-License-Identifier: Apache-2.0
"""Somebody gave a pod's host end another name or MAC: it is ours all the same, by its alias."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from netns.test_delegation import Ipam
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, Pod
from pycni.names import AttachmentKey
from support.kernel import open_iproute
from support.labs import agent_hung, setup
from support.plugin import execute
from support.snapshot import differences, take

NAME, MAC = "wan7", "02:00:00:00:00:42"
DUPLICATE = 101
PORTS = {"portMappings": [{"hostPort": 18098, "containerPort": 80, "protocol": "tcp"}]}

both_ways = pytest.mark.parametrize("alone", [False, True], ids=["by the agent", "without one"])
either = pytest.mark.parametrize("change", [{"ifname": NAME}, {"address": MAC}], ids=str)


def alter(lab: Lab, pod: Pod, **change: str) -> None:
    """Change the host end of a pod."""
    name = AttachmentKey(lab.layout.name, pod.name, POD_IFNAME).host_ifname
    with open_iproute(lab.layout.node(pod.node).netns) as ipr:
        (index,) = ipr.link_lookup(ifname=name)
        ipr.link("set", index=index, state="down")
        ipr.link("set", index=index, state="up", **change)


def kept(*pods: Pod) -> dict[str, Any]:
    """What a runtime says to GC that has these pods."""
    listed = [{"containerID": pod.name, "ifname": POD_IFNAME} for pod in pods]
    return {"cniVersion": "1.1.0", "cni.dev/valid-attachments": listed}


@pytest.fixture
def ipam(tmp_path: Path) -> Ipam:
    return Ipam(tmp_path)


@both_ways
@either
def test_del_removes_it(lab: Lab, spare: Pod, alone: bool, change: dict[str, str]) -> None:
    node = lab.layout.node(spare.node)
    before = take(node)
    assert execute(lab, spare, "ADD").status == 0
    alter(lab, spare, **change)

    deleted = execute(lab, spare, "DEL", alone=alone)

    assert deleted.status == 0, deleted.text
    assert differences(before, take(node)) == []


@both_ways
@either
def test_gc_collects_it(lab: Lab, spare: Pod, alone: bool, change: dict[str, str]) -> None:
    node = lab.layout.node(spare.node)
    before = take(node)
    assert execute(lab, spare, "ADD").status == 0
    alter(lab, spare, **change)

    collected = execute(lab, spare, "GC", alone=alone, **kept(*lab.layout.pods))

    assert collected.status == 0, collected.text
    assert differences(before, take(node)) == []


@both_ways
def test_a_setup_gives_it_its_name_and_keeps_its_ports(lab: Lab, spare: Pod, alone: bool) -> None:
    node = lab.layout.node(spare.node)
    assert execute(lab, spare, "ADD", runtimeConfig=PORTS).status == 0
    before = take(node)
    with agent_hung(lab, node) if alone else nullcontext():
        alter(lab, spare, ifname=NAME)

        setup(node)

        assert differences(before, take(node)) == []


@both_ways
def test_the_lease_that_ipam_keeps_is_no_orphan(
    lab: Lab, spare: Pod, ipam: Ipam, alone: bool
) -> None:
    assert execute(lab, spare, "ADD", env=ipam.path, ipam=ipam.conf()).status == 0
    alter(lab, spare, ifname=NAME)

    again = execute(lab, spare, "ADD", alone=alone, env=ipam.path, ipam=ipam.conf())
    collected = execute(
        lab, spare, "GC", alone=alone, env=ipam.path, **kept(spare, *lab.layout.pods)
    )
    leases = ipam.leases()
    deleted = execute(lab, spare, "DEL", env=ipam.path, ipam=ipam.conf())

    assert again.document["code"] == DUPLICATE, again.text
    assert (collected.status, deleted.status) == (0, 0), collected.text + deleted.text
    assert leases == [spare.name]
    assert ipam.calls() == ["ADD", "DEL"]
