# SPDX-License-Identifier: Apache-2.0
"""Networks that ask for netkit: on a kernel that has it, and on one that has not.

tests/vm boots both. Which of them this one is decides what is seen here.
"""

from __future__ import annotations

import pytest

from loader import netkit
from netns.test_bad_input import CONFIG, config, refused
from pycni.lab.cluster import Lab
from pycni.lab.layout import Pod
from pycni.lab.topology import open_rtnl
from pycni.pods.lease import leases
from support.flood import unanswered
from support.plugin import execute
from support.snapshot import differences, take

HAS_NETKIT = netkit.available()


def kind_of(lab: Lab, pod: Pod) -> str:
    """Of a pod's link."""
    with open_rtnl(lab.layout.node(pod.node).netns) as ipr:
        (index,) = (one.ifindex for one in leases(ipr) if one.container_id == pod.name)
        link = ipr.link_at(index)
        assert link is not None
        return link.kind


@pytest.mark.parametrize("alone", [False, True], ids=["by the agent", "without one"])
def test_netkit_is_what_a_pod_gets_or_an_error_that_says_what_is_missing(
    lab: Lab, spare: Pod, alone: bool
) -> None:
    if not HAS_NETKIT:
        refused(lab, spare, CONFIG, "CONFIG_NETKIT", stdin=config(device="netkit"), alone=alone)
        return
    attaches_and_detaches(lab, spare, device="netkit", kind="netkit", alone=alone)


def test_a_network_that_cannot_have_its_links_is_not_ready(lab: Lab, spare: Pod) -> None:
    ready = {
        device: execute(lab, spare, "STATUS", cniVersion="1.1.0", device=device).document.get(
            "code"
        )
        for device in ("veth", "auto", "netkit")
    }

    assert ready == {"veth": None, "auto": None, "netkit": None if HAS_NETKIT else CONFIG}


def test_auto_is_netkit_where_the_kernel_has_it(lab: Lab, spare: Pod) -> None:
    kind = "netkit" if HAS_NETKIT else "veth"

    attaches_and_detaches(lab, spare, device="auto", kind=kind, alone=False)


def attaches_and_detaches(lab: Lab, pod: Pod, *, device: str, kind: str, alone: bool) -> None:
    """ADD makes a link of that kind, which reaches all and is as it should be; DEL leaves none."""
    node = lab.layout.node(pod.node)
    everyone = [address for one in lab.layout.pods for address in lab.addresses(one)]
    assert unanswered(lab, node.netns, everyone) == []  # the node's neighbours are known
    before = take(node)

    added = execute(lab, pod, "ADD", alone=alone, device=device)
    assert added.status == 0, added.text
    found = kind_of(lab, pod)
    reached = unanswered(lab, pod.netns, everyone)
    checked = execute(lab, pod, "CHECK", device=device, prevResult=added.document)
    deleted = execute(lab, pod, "DEL", alone=alone, device=device)

    assert (found, reached) == (kind, [])
    assert (checked.status, deleted.status) == (0, 0), checked.text
    assert differences(before, take(node)) == []
