# SPDX-License-Identifier: Apache-2.0
"""Pods on the LAN of their nodes: macvlan, and ipvlan in both modes, as far as the kernel has them.

tests/vm runs these on a kernel that has both. The LAN is the lab's underlay: its bridge is the
router.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from netns.test_bad_input import CONFIG, refused
from netns.test_dhcp import Dhcp, served
from pycni.kernel import sysctl
from pycni.kernel.links import RTM_NEWLINK, End, pack_down
from pycni.kernel.netlink import NLM_F_ACK
from pycni.kernel.rtnl import Rtnl
from pycni.lab.cluster import Lab
from pycni.lab.layout import BRIDGE, POD_IFNAME, UNDERLAY4, UNDERLAY6, LabNode, Pod
from pycni.lab.topology import open_rtnl, remove_netns
from pycni.lan import host_child, leases
from pycni.lan.leases import LanLease
from pycni.settings import load
from support import labs
from support.flood import unanswered
from support.plugin import Reply, execute
from support.snapshot import differences, take
from support.waiting import wait_until

WAYS = {
    "macvlan": {"device": "macvlan"},
    "ipvlan": {"device": "ipvlan"},
    "ipvlan-l3": {"device": "ipvlan", "mode": "l3"},
}
HOST_LOCAL = Path("/usr/lib/cni/host-local")
ROUTERS = [str(UNDERLAY4.ip), str(UNDERLAY6.ip)]
RANGES = {
    node: [
        {
            "subnet": str(UNDERLAY4.network),
            "rangeStart": f"198.18.0.{start}",
            "rangeEnd": f"198.18.0.{start + 15}",
        },
        {
            "subnet": str(UNDERLAY6.network),
            "rangeStart": f"fd00:99::{start:x}",
            "rangeEnd": f"fd00:99::{start + 15:x}",
        },
    ]
    for node, start in (("node1", 64), ("node2", 96))
}
NOT_AVAILABLE, DUPLICATE, EXHAUSTED, UNAVAILABLE, MISMATCH, UNKNOWN = 50, 101, 102, 104, 105, 3


@cache
def has(device: str) -> bool:
    """Whether this kernel has such links."""
    with Rtnl() as ipr:
        return ipr.has_kind(device)


HERE = [name for name, one in WAYS.items() if has(one["device"])]
AMONG_NEIGHBOURS = [name for name in HERE if WAYS[name].get("mode") != "l3"]


@pytest.fixture(params=HERE)
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What a network configuration says, beside its ranges."""
    found: dict[str, Any] = WAYS[request.param]
    return found


@pytest.fixture(params=[name for name in HERE if name == "macvlan"])
def macvlan(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = WAYS[request.param]
    return found


@pytest.fixture
def pods(lab: Lab) -> Iterator[list[Pod]]:
    """Two pods of the first node and one of the second, with nothing attached."""
    first, second = lab.layout.nodes
    with ExitStack() as made:
        found = [made.enter_context(labs.made_pod(lab, node)) for node in (first, first, second)]
        yield found
        for pod in found:
            assert execute(lab, pod, "DEL").status == 0


def call(lab: Lab, pod: Pod, command: str, way: dict[str, Any], **more: Any) -> Reply:
    """The plugin with a network of that way, with the node's own ranges."""
    config: dict[str, Any] = {"ipMasq": False, "ipam": {"ranges": RANGES[pod.node]}} | way | more
    return execute(lab, pod, command, **config)


def add(lab: Lab, pod: Pod, way: dict[str, Any], **more: Any) -> Reply:
    """ADD, which succeeds."""
    reply = call(lab, pod, "ADD", way, **more)
    assert reply.status == 0, reply.text
    return reply


def node_of(lab: Lab, pod: Pod) -> LabNode:
    return lab.layout.node(pod.node)


def own_addresses(node: LabNode) -> list[str]:
    return [str(address.ip) for address in node.underlay]


def has_child(node: LabNode) -> bool:
    with open_rtnl(node.netns) as ipr:
        return ipr.link(host_child.name_of("eth0")) is not None


def lease_files(node: LabNode) -> list[str]:
    return [one.container_id for one in leases.leases(load(node.settings_path).run_dir)]


def test_pods_reach_each_other_their_node_and_the_lan(
    lab: Lab, pods: list[Pod], way: dict[str, Any]
) -> None:
    one, beside, _ = pods
    node = node_of(lab, one)

    mine, other = (add(lab, pod, way) for pod in (one, beside))

    lan = [] if way.get("mode") == "l3" else ROUTERS
    assert unanswered(lab, one.netns, [*other.addresses, *own_addresses(node), *lan]) == []
    assert unanswered(lab, node.netns, [*mine.addresses, *other.addresses]) == []


@pytest.mark.parametrize("way", AMONG_NEIGHBOURS, indirect=True)
def test_pods_of_two_nodes_reach_each_other_and_both_nodes(
    lab: Lab, pods: list[Pod], way: dict[str, Any]
) -> None:
    """In L3 mode routers must know which node has which pods, which those of the lab do not."""
    one, _, far = pods

    mine, other = add(lab, one, way), add(lab, far, way)

    everyone = [address for node in lab.layout.nodes for address in own_addresses(node)]
    assert unanswered(lab, one.netns, [*other.addresses, *everyone]) == []
    assert unanswered(lab, far.netns, [*mine.addresses, *everyone]) == []
    assert unanswered(lab, node_of(lab, one).netns, other.addresses) == []


def test_a_result_says_what_the_pod_has_and_check_agrees(
    lab: Lab, pods: list[Pod], way: dict[str, Any]
) -> None:
    one, *_ = pods

    added = add(lab, one, way)

    (interface,) = added.document["interfaces"]
    with open_rtnl(one.netns) as pod, open_rtnl(node_of(lab, one).netns) as ipr:
        link, uplink = pod.link(POD_IFNAME), ipr.link("eth0")
    assert link is not None
    assert uplink is not None
    assert (interface["name"], interface["mac"]) == (POD_IFNAME, link.mac)
    assert (link.mac == uplink.mac) == (way["device"] == "ipvlan")
    assert link.mtu == uplink.mtu
    assert call(lab, one, "CHECK", way, prevResult=added.document).status == 0


def test_del_leaves_the_node_as_it_was(lab: Lab, pods: list[Pod], way: dict[str, Any]) -> None:
    one, beside, _ = pods
    node = node_of(lab, one)
    assert unanswered(lab, node.netns, ROUTERS) == []
    before = take(node)

    for pod in (one, beside):
        add(lab, pod, way)
    assert has_child(node)
    first = call(lab, one, "DEL", way)
    assert has_child(node)
    again = [call(lab, pod, "DEL", way) for pod in (one, beside, beside)]

    assert [reply.status for reply in (first, *again)] == [0] * 4
    assert differences(before, take(node)) == []
    with open_rtnl(one.netns) as inside:
        assert [link.ifname for link in inside.links()] == ["lo"]


def test_a_pod_whose_namespace_is_gone_gives_its_addresses_back(
    lab: Lab, macvlan: dict[str, Any]
) -> None:
    node = lab.layout.nodes[0]
    before = take(node)
    with labs.made_pod(lab, node) as pod:
        add(lab, pod, macvlan)
        remove_netns(pod.netns)

        deleted = call(lab, pod, "DEL", macvlan)

        assert deleted.status == 0
        assert differences(before, take(node)) == []


def test_a_second_add_is_refused_and_harms_nothing(
    lab: Lab, pods: list[Pod], way: dict[str, Any]
) -> None:
    one, *_ = pods
    added = add(lab, one, way)

    again = call(lab, one, "ADD", way)

    assert again.document["code"] == DUPLICATE, again.text
    assert unanswered(lab, node_of(lab, one).netns, added.addresses) == []
    assert call(lab, one, "CHECK", way, prevResult=added.document).status == 0


def test_addresses_of_a_pod_that_ended_without_a_del_are_given_again(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any]
) -> None:
    one, beside, _ = pods
    node = node_of(lab, one)
    single = {"ipam": {"ranges": [RANGES[one.node][0] | {"rangeEnd": "198.18.0.64"}]}}
    with labs.made_pod(lab, node) as gone:
        add(lab, gone, macvlan, **single)
        full = call(lab, one, "ADD", macvlan, **single)

    added = add(lab, beside, macvlan, alone=True, **single)

    assert full.document["code"] == EXHAUSTED, full.text
    assert added.addresses == ["198.18.0.64"]


def test_the_agent_hears_of_a_namespace_that_ends(lab: Lab, macvlan: dict[str, Any]) -> None:
    node = lab.layout.nodes[0]
    before = take(node)

    with labs.made_pod(lab, node) as pod:
        add(lab, pod, macvlan)
        assert lease_files(node)

    wait_until(lambda: not lease_files(node), "its lease is gone")
    wait_until(lambda: differences(before, take(node)) == [], "the node is as before")


def test_what_a_killed_add_left_goes_with_the_next_del_or_add(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any]
) -> None:
    one, beside, _ = pods
    for pod, command in ((one, "DEL"), (beside, "ADD")):
        add(lab, pod, macvlan)
        _as_if_killed(lab, pod)

        reply = call(lab, pod, command, macvlan)

        assert reply.status == 0, reply.text
        with open_rtnl(pod.netns) as inside:
            left = [link.ifname for link in inside.links()]
        assert left == (["lo"] if command == "DEL" else ["lo", POD_IFNAME])


def _as_if_killed(lab: Lab, pod: Pod) -> None:
    """The lease and the link are as an ADD has them right after it made the link."""
    lease = lease_of(lab, pod)
    with open_rtnl(pod.netns) as inside:
        link = inside.link(POD_IFNAME)
        assert link is not None
        inside.rename(link, lease.key.host_ifname)
    leases.write(run_dir(lab, pod), replace(lease, ifindex=0))


def lease_of(lab: Lab, pod: Pod) -> LanLease:
    found = [one for one in leases.leases(run_dir(lab, pod)) if one.container_id == pod.name]
    (lease,) = found
    return lease


def run_dir(lab: Lab, pod: Pod) -> Path:
    return load(node_of(lab, pod).settings_path).run_dir


def test_gc_removes_what_is_not_listed(lab: Lab, pods: list[Pod], way: dict[str, Any]) -> None:
    one, beside, _ = pods
    kept = add(lab, one, way)
    add(lab, beside, way)
    valid = [{"containerID": one.name, "ifname": POD_IFNAME}]

    collected = call(
        lab, one, "GC", way, cniVersion="1.1.0", **{"cni.dev/valid-attachments": valid}
    )

    assert collected.status == 0, collected.text
    with open_rtnl(beside.netns) as pod:
        assert pod.link(POD_IFNAME) is None
    assert unanswered(lab, node_of(lab, one).netns, kept.addresses) == []


def test_check_finds_what_changed(lab: Lab, pods: list[Pod], way: dict[str, Any]) -> None:
    one, *_ = pods
    added = add(lab, one, way)

    def checked() -> int:
        reply = call(lab, one, "CHECK", way, prevResult=added.document, alone=True)
        code = reply.document.get("code", 0)
        assert isinstance(code, int)
        return code

    with open_rtnl(one.netns) as pod:
        index = pod.ifindex(POD_IFNAME)
        address = ip_address(added.addresses[0])
        bits = 32 if way.get("mode") == "l3" else 24
        pod.delete_address(index, address, prefixlen=bits)
        without_address = checked()
        pod.delete_link(index)

    assert (without_address, checked()) == (MISMATCH, UNKNOWN)


@pytest.mark.parametrize(
    ("config", "code", "word"),
    [
        ({"ipMasq": True}, CONFIG, "ipMasq"),
        (
            {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}},
            CONFIG,
            "portMappings",
        ),
        (
            {"runtimeConfig": {"bandwidth": {"ingressRate": 8000, "ingressBurst": 8000}}},
            CONFIG,
            "bandwidth",
        ),
        ({"ipam": {}}, CONFIG, "ipam.ranges"),
        ({"ipam": {"ranges": [{"subnet": "10.244.7.0/24"}]}}, CONFIG, "not on the LAN"),
        ({"mode": "vepa"}, CONFIG, "no such mode"),
        ({"master": "nothing0"}, NOT_AVAILABLE, "nothing0"),
        ({"master": "lo"}, CONFIG, "no network"),
        ({"mtu": 9000}, CONFIG, "MTU"),
        ({"runtimeConfig": {"ips": ["198.18.0.1"]}}, UNAVAILABLE, "this node's own"),
        ({"runtimeConfig": {"ips": ["192.0.2.1"]}}, UNAVAILABLE, "in no network"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    lab: Lab, spare: Pod, way: dict[str, Any], config: dict[str, Any], code: int, word: str
) -> None:
    base = {"ipMasq": False, "ipam": {"ranges": RANGES[spare.node]}}
    with_mode = way if "mode" not in config else {"device": way["device"]}

    refused(lab, spare, code, word, **(base | with_mode | config))


def test_a_pod_gets_the_address_that_it_asks_for_unless_another_has_it(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any]
) -> None:
    one, beside, _ = pods
    asked = {"runtimeConfig": {"ips": ["198.18.0.70", "fd00:99::46"]}}

    added = add(lab, one, macvlan, **asked)
    second = call(lab, beside, "ADD", macvlan, **asked)

    assert added.addresses == ["198.18.0.70", "fd00:99::46"]
    assert (second.document["code"], one.name in second.text) == (UNAVAILABLE, True)


@pytest.fixture
def second_parent(lab: Lab) -> Iterator[str]:
    """One more interface of the first node, up; a test may remove it."""
    with open_rtnl(lab.layout.nodes[0].netns) as ipr:
        ipr.add_veth(End("lan0"), End("lan1"))
        for name in ("lan0", "lan1"):
            ipr.set_up(ipr.ifindex(name))
        yield "lan0"
        if (link := ipr.link("lan1")) is not None:
            ipr.delete_link(link.ifindex)


def test_a_parent_that_is_down_or_gone_is_named(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any], second_parent: str
) -> None:
    one, *_ = pods
    node = node_of(lab, one)
    way = macvlan | {"master": second_parent, "cniVersion": "1.1.0"}
    added = add(lab, one, way)
    assert call(lab, one, "STATUS", way).status == 0

    with open_rtnl(node.netns) as ipr:
        link = ipr.link(second_parent)
        assert link is not None
        ipr._asker.request(RTM_NEWLINK, NLM_F_ACK, pack_down(link.ifindex))
        down = [call(lab, one, "STATUS", way), call(lab, pods[1], "ADD", way)]
        checked = call(lab, one, "CHECK", way, prevResult=added.document)
        ipr.delete_link(link.ifindex)
    gone = [call(lab, one, "STATUS", way), call(lab, pods[1], "ADD", way)]

    for reply in (*down, *gone):
        assert reply.document["code"] == NOT_AVAILABLE, reply.text
        assert second_parent in reply.text
    assert (checked.document["code"], "down" in checked.text) == (MISMATCH, True)
    wait_until(lambda: not lease_files(node), "the lease of a link that went with its parent")


def test_status_fails_when_no_address_is_free(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any]
) -> None:
    one, *_ = pods
    only = {"ipam": {"ranges": [RANGES[one.node][0] | {"rangeEnd": "198.18.0.64"}]}}
    way = macvlan | only | {"cniVersion": "1.1.0"}
    free = call(lab, one, "STATUS", way)

    add(lab, one, way)
    full = call(lab, one, "STATUS", way)

    assert free.status == 0, free.text
    assert full.document["code"] == NOT_AVAILABLE, full.text


def test_the_agent_makes_the_nodes_own_link_and_its_routes_again(
    lab: Lab, pods: list[Pod], way: dict[str, Any]
) -> None:
    one, *_ = pods
    node = node_of(lab, one)
    added = add(lab, one, way)

    with open_rtnl(node.netns) as ipr:
        ipr.delete_link(ipr.ifindex(host_child.name_of("eth0")))

    wait_until(lambda: has_child(node), "the link is there again")
    wait_until(lambda: unanswered(lab, node.netns, added.addresses) == [], "the pod answers")


def test_another_plugin_may_give_the_addresses(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any]
) -> None:
    if not HOST_LOCAL.exists():
        pytest.skip(f"missing: {HOST_LOCAL} (apt install containernetworking-plugins)")
    one, beside, _ = pods
    node = node_of(lab, one)
    ipam = {
        "type": "host-local",
        "ranges": [[RANGES[one.node][0]]],
        "routes": [{"dst": "0.0.0.0/0", "gw": ROUTERS[0]}],
        "dataDir": str(node.directory / "host-local"),
    }
    env = {"CNI_PATH": str(HOST_LOCAL.parent)}

    def called(pod: Pod, command: str, **more: Any) -> Reply:
        config = macvlan | {"ipMasq": False, "ipam": ipam} | more
        return execute(lab, pod, command, env=env, **config)

    first, second = called(one, "ADD"), called(beside, "ADD")
    reached = unanswered(lab, one.netns, [*second.addresses, ROUTERS[0]])
    checked = called(one, "CHECK", prevResult=first.document)
    ended = [called(pod, "DEL") for pod in (one, beside)]

    assert (reached, checked.status) == ([], 0), checked.text
    assert [reply.status for reply in ended] == [0, 0]
    assert list((node.directory / "state" / "delegated").glob("*.json")) == []


def test_a_parent_has_one_kind_of_links_in_one_mode(
    lab: Lab, pods: list[Pod], way: dict[str, Any]
) -> None:
    one, beside, _ = pods
    added = add(lab, one, way)
    others = [WAYS[name] for name in HERE if WAYS[name] != way]

    replies = [call(lab, beside, "ADD", other) for other in others]

    for reply in replies:
        assert (reply.document["code"], "eth0" in reply.text) == (CONFIG, True), reply.text
    assert unanswered(lab, node_of(lab, one).netns, added.addresses) == []


def test_a_teardown_removes_pods_on_the_lan_too(macvlan: dict[str, Any]) -> None:
    with labs.prepared_lab(nodes=1, pods=1) as lab:
        node = lab.layout.nodes[0]
        (pod,) = node.pods
        before = take(node)
        labs.setup(node)
        add(lab, pod, macvlan, alone=True)

        labs.teardown(node)

        assert [one for one in differences(before, take(node)) if "pcl" in one] == []
        with open_rtnl(pod.netns) as inside:
            assert inside.link(POD_IFNAME) is None


@pytest.fixture
def host_on_lan(lab: Lab) -> Iterator[dict[str, str]]:
    """A host of the LAN with the first addresses of the first node's ranges; its MAC by address."""
    ranges = RANGES[lab.layout.nodes[0].name]
    addresses = [ip_address(one["rangeStart"]) for one in ranges]
    with open_rtnl(lab.layout.underlay_netns) as ipr:
        bridge = ipr.link(BRIDGE)
        assert bridge is not None
        for address in addresses:
            ipr.add_address(bridge.ifindex, address)
        yield {str(address): bridge.mac for address in addresses}
        for address in addresses:
            ipr.delete_address(bridge.ifindex, address, prefixlen=address.max_prefixlen)


@pytest.mark.parametrize("way", AMONG_NEIGHBOURS, indirect=True)
def test_an_address_that_a_host_of_the_lan_has_is_left_to_it(
    lab: Lab, pods: list[Pod], way: dict[str, Any], host_on_lan: dict[str, str]
) -> None:
    one, beside, _ = pods
    first = {
        "ipam": {"ranges": [one_range | {"rangeEnd": one_range["rangeStart"]}
                            for one_range in RANGES[one.node]]}
    }  # fmt: skip

    added = [add(lab, pod, way) for pod in (one, beside)]
    with labs.made_pod(lab, node_of(lab, one)) as third:
        narrow = call(lab, third, "ADD", way, **first)
        wanted = call(lab, third, "ADD", way, runtimeConfig={"ips": list(host_on_lan)})

    given = {address for reply in added for address in reply.addresses}
    assert not given & set(host_on_lan)
    for reply in (narrow, wanted):
        assert reply.document["code"] == UNAVAILABLE, reply.text
        for address, mac in host_on_lan.items():
            assert f"{address} by {mac}" in reply.text


def test_another_nodes_pod_is_a_host_of_the_lan_too(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any]
) -> None:
    one, _, far = pods
    added = add(lab, one, macvlan)

    other = call(
        lab,
        far,
        "ADD",
        macvlan,
        ipam={"ranges": RANGES[one.node]},
        runtimeConfig={"ips": added.addresses},
    )

    with open_rtnl(one.netns) as pod:
        link = pod.link(POD_IFNAME)
    assert link is not None
    assert (other.document["code"], link.mac in other.text) == (UNAVAILABLE, True), other.text


@pytest.mark.parametrize("device", ["macvlan", "ipvlan"])
def test_a_kernel_without_the_device_is_told_apart(lab: Lab, spare: Pod, device: str) -> None:
    if has(device):
        add(lab, spare, {"device": device})
        return
    config = {"ipMasq": False, "ipam": {"ranges": RANGES[spare.node]}}

    refused(lab, spare, CONFIG, f"CONFIG_{device.upper()}", device=device, **config)


def test_a_parent_that_would_drop_what_pods_send_to_the_node_is_refused(
    lab: Lab, pods: list[Pod], way: dict[str, Any]
) -> None:
    one, *_ = pods
    node = node_of(lab, one)
    name = "net/ipv4/conf/eth0/rp_filter"
    before = labs.within(node.netns, lambda: sysctl.write(name, "1"))

    reply = call(lab, one, "ADD", way)

    labs.within(node.netns, lambda: sysctl.write(name, before or "1"))
    if way == WAYS["ipvlan"]:
        assert (reply.document["code"], "rp_filter" in reply.text) == (CONFIG, True), reply.text
    else:
        assert unanswered(lab, node.netns, reply.addresses) == []


@pytest.mark.parametrize("way", AMONG_NEIGHBOURS, indirect=True)
def test_nodes_share_a_range_by_their_places(
    lab: Lab, pods: list[Pod], way: dict[str, Any]
) -> None:
    one, beside, far = pods
    network = str(UNDERLAY4.network)
    shared = {"subnet": network, "rangeStart": "198.18.0.130", "rangeEnd": "198.18.0.133"}
    ipam = {"ranges": [shared], "perNode": 2}

    given = [add(lab, pod, way, ipam=ipam).addresses for pod in (one, beside, far)]
    with labs.made_pod(lab, node_of(lab, one)) as third:
        full = call(lab, third, "ADD", way, ipam=ipam)

    first, second = (
        {int(ip_address(a)) & 0xFF for (a,) in part} for part in (given[:2], given[2:])
    )
    parts = ({130, 131}, {132, 133})
    assert first in parts
    assert second <= (parts[0] | parts[1]) - first
    assert full.document["code"] == EXHAUSTED, full.text


@pytest.fixture
def dhcp(lab: Lab, tmp_path: Path) -> Iterator[Dhcp]:
    """A DHCP server of the LAN, on its router, and the daemon of the `dhcp` plugin on node 1."""
    node = lab.layout.nodes[0]
    ranged = "198.18.0.160", "198.18.0.170", str(UNDERLAY4.netmask)
    with served(node, tmp_path, at=lab.layout.underlay_netns, on=BRIDGE, ranged=ranged) as found:
        yield found


def test_a_pod_may_ask_the_lan_by_dhcp(
    lab: Lab, pods: list[Pod], macvlan: dict[str, Any], dhcp: Dhcp
) -> None:
    one, *_ = pods
    node = node_of(lab, one)

    def called(command: str, **more: Any) -> Reply:
        config = macvlan | {"ipMasq": False, "ipam": dhcp.conf()} | more
        return execute(lab, one, command, env={"CNI_PATH": str(HOST_LOCAL.parent)}, **config)

    added = called("ADD")
    assert added.status == 0, added.text
    (address,) = added.addresses
    leased = dhcp.leased()
    reached = unanswered(lab, node.netns, [address])
    out = unanswered(lab, one.netns, [ROUTERS[0], own_addresses(node)[0]])
    checked = called("CHECK", prevResult=added.document)
    ended = called("DEL")

    assert list(leased.values()) == [address]
    assert (reached, out) == ([], [])
    assert (checked.status, ended.status) == (0, 0), checked.text
    assert lease_files(node) == []
    wait_until(lambda: dhcp.leased() == {}, "the server has the address again")
