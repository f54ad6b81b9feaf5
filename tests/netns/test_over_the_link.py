# SPDX-License-Identifier: Apache-2.0
"""IPAM by a plugin named `dhcp`, whatever it is: it has the pod's link from its ADD to its DEL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from netns.test_delegation import Ipam
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, Pod
from pycni.names import AttachmentKey
from support.kernel import open_iproute
from support.plugin import execute
from support.snapshot import differences, take

UNKNOWN_CONTAINER = 3

both_ways = pytest.mark.parametrize("alone", [False, True], ids=["by the agent", "without one"])


@pytest.fixture
def dhcp(tmp_path: Path) -> Ipam:
    plugin = Ipam(tmp_path)
    plugin.rename("dhcp")
    return plugin


def host_ifname(lab: Lab, pod: Pod) -> str:
    return AttachmentKey(lab.layout.name, pod.name, POD_IFNAME).host_ifname


def lose_addresses(lab: Lab, pod: Pod) -> None:
    """The lease is as it was before its addresses were written to it."""
    with open_iproute(lab.layout.node(pod.node).netns) as ipr:
        (link,) = ipr.get_links(ipr.link_lookup(ifname=host_ifname(lab, pod)))
        words = link.get("ifalias").split()
        alias = " ".join(word for word in words if not word.startswith("ip="))
        ipr.link("set", index=link["index"], IFLA_IFALIAS=alias)


@both_ways
@pytest.mark.parametrize("command", ["DEL", "GC"])
def test_what_ends_an_attachment_has_it_give_back_while_the_link_is_there(
    lab: Lab, spare: Pod, dhcp: Ipam, alone: bool, command: str
) -> None:
    kept = [{"containerID": pod.name, "ifname": POD_IFNAME} for pod in lab.layout.pods]
    mine: dict[str, Any] = {
        "ipam": dhcp.conf(),
        "cniVersion": "1.1.0",
        "cni.dev/valid-attachments": kept,
    }
    added = execute(lab, spare, "ADD", alone=alone, env=dhcp.path, **mine)

    ended = execute(lab, spare, command, alone=alone, env=dhcp.path, **mine)

    assert (added.status, ended.status) == (0, 0), added.text + ended.text
    assert host_ifname(lab, spare) in dhcp.links_at_del()
    assert dhcp.leases() == []


@both_ways
def test_an_add_killed_between_its_addresses_and_its_lease_leaves_none(
    lab: Lab, spare: Pod, dhcp: Ipam, alone: bool
) -> None:
    how: dict[str, Any] = {"alone": alone, "env": dhcp.path, "ipam": dhcp.conf()}
    before = take(lab.layout.node(spare.node))
    added = execute(lab, spare, "ADD", **how)
    lose_addresses(lab, spare)

    checked = execute(lab, spare, "CHECK", prevResult=added.document, **how)
    deleted = execute(lab, spare, "DEL", **how)

    assert added.status == 0, added.text
    assert checked.document["code"] == UNKNOWN_CONTAINER, checked.text
    assert deleted.status == 0, deleted.text
    assert differences(before, take(lab.layout.node(spare.node))) == []
