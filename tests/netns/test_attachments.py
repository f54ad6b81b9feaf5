# SPDX-License-Identifier: Apache-2.0
"""ADD, CHECK and DEL on real pods: what they make, and that they leave nothing else.

Each runs with the agent and without one: the same work in the plugin's own process.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from ipaddress import IPv6Address
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from loader import pins
from pycni.dataplane import maps
from pycni.kernel.routes import RT_TABLE_MAIN
from pycni.lab import checks, processes
from pycni.lab.cluster import Lab
from pycni.lab.layout import (
    POD_IFNAME,
    WORLD,
    LabNode,
    Pod,
)
from pycni.names import AttachmentKey
from pycni.settings import load
from support import agent_without_keeper
from support.flood import unanswered
from support.kernel import open_iproute
from support.labs import made_pod, prepared_lab, rows, setup
from support.plugin import execute
from support.snapshot import differences, take
from support.waiting import wait_until

INTERFACE_EXISTS = 100
DUPLICATE = 101
EXHAUSTED = 102
MISMATCH = 105
DATAPLANE = 107
UNKNOWN_CONTAINER = 3
NOT_AVAILABLE = 50

ENDPOINTS_MAX = 4096
STRANGER_MAC = "02:00:00:00:00:99"
HUNG = 5.0
"""Seconds a call may take that has nobody to wait for."""

both_ways = pytest.mark.parametrize("alone", [False, True], ids=["by the agent", "without one"])


@both_ways
def test_a_node_is_as_before_after_add_ping_and_del(lab: Lab, spare: Pod, alone: bool) -> None:
    node = lab.layout.node(spare.node)
    everyone = [address for pod in lab.layout.pods for address in lab.addresses(pod)]
    world = [str(address) for address in WORLD]
    assert unanswered(lab, node.netns, everyone + world) == []  # the node's neighbours are known
    before = take(node)

    added = execute(lab, spare, "ADD", alone=alone)
    assert added.status == 0, added.text
    assert unanswered(lab, spare.netns, everyone + world) == []
    for pod in lab.layout.pods:
        assert unanswered(lab, pod.netns, added.addresses) == []
    during = take(node)
    deleted = execute(lab, spare, "DEL", alone=alone)

    assert (deleted.status, deleted.document) == (0, {})
    assert differences(before, take(node)) == []
    new = differences(before, during, without=("sysctls",))
    sections = {line.partition(":")[0] for line in new}
    assert sections == {"+ links", "+ qdiscs", "+ filters", "+ maps"}, new
    with open_iproute(spare.netns) as pod:
        assert pod.link_lookup(ifname=POD_IFNAME) == []


@both_ways
def test_nothing_of_the_result_is_unlike_the_pod(lab: Lab, spare: Pod, alone: bool) -> None:
    result = execute(lab, spare, "ADD", alone=alone).document

    host, inside = result["interfaces"]
    with open_iproute(spare.netns) as pod:
        (link,) = pod.get_links(pod.link_lookup(ifname=POD_IFNAME)[0])
        addresses = {
            f"{entry.get('IFA_ADDRESS')}/{entry['prefixlen']}"
            for entry in pod.get_addr(index=link["index"])
            if not _v6(entry.get("IFA_ADDRESS")).is_link_local
        }
    assert addresses == {ip["address"] for ip in result["ips"]}
    assert (inside["name"], inside["mac"]) == (POD_IFNAME, link.get("address"))
    assert inside["sandbox"].endswith(spare.netns)
    with open_iproute(lab.layout.node(spare.node).netns) as node:
        assert node.link_lookup(ifname=host["name"]) != []


@both_ways
def test_a_second_add_is_refused_and_the_first_goes_on(lab: Lab, spare: Pod, alone: bool) -> None:
    node, other = lab.layout.node(spare.node), lab.layout.pods[-1]
    first = execute(lab, spare, "ADD", alone=alone)
    before = take(node)

    second = execute(lab, spare, "ADD", alone=alone)

    assert second.document["code"] == DUPLICATE
    assert spare.name in second.text
    assert differences(before, take(node)) == []
    assert unanswered(lab, other.netns, first.addresses) == []


@both_ways
def test_check_finds_what_is_no_longer_as_add_made_it(lab: Lab, spare: Pod, alone: bool) -> None:
    result = execute(lab, spare, "ADD", alone=alone).document
    assert execute(lab, spare, "CHECK", alone=alone, prevResult=result).status == 0

    with open_iproute(spare.netns) as pod:
        (index,) = pod.link_lookup(ifname=POD_IFNAME)
        pod.link("set", index=index, state="down")
    checked = execute(lab, spare, "CHECK", alone=alone, prevResult=result)

    assert checked.document["code"] == MISMATCH
    assert "down" in checked.text


def test_check_of_what_was_never_attached_fails(lab: Lab, spare: Pod) -> None:
    result = lab.results[lab.layout.pods[0].name]

    checked = execute(lab, spare, "CHECK", prevResult=result)

    assert checked.document["code"] == UNKNOWN_CONTAINER


@both_ways
def test_del_succeeds_any_number_of_times(lab: Lab, spare: Pod, alone: bool) -> None:
    before = take(lab.layout.node(spare.node))
    execute(lab, spare, "ADD", alone=alone)

    replies = [
        execute(lab, spare, "DEL", alone=alone),
        execute(lab, spare, "DEL", alone=alone),
        execute(lab, spare, "DEL", alone=alone, env={"CNI_NETNS": None}),
        execute(lab, spare, "DEL", alone=alone, env={"CNI_NETNS": "/run/netns/never-was"}),
    ]

    assert [(reply.status, reply.document) for reply in replies] == [(0, {})] * 4
    assert differences(before, take(lab.layout.node(spare.node))) == []


def test_addresses_are_not_reused_at_once(lab: Lab, spare: Pod) -> None:
    first = execute(lab, spare, "ADD").addresses
    execute(lab, spare, "DEL")

    second = execute(lab, spare, "ADD").addresses

    assert not set(first) & set(second)


@contextmanager
def strangers_bridge(ipr: IPRoute, name: str) -> Iterator[None]:
    """An interface of somebody else, which is still theirs at the end."""
    ipr.link("add", ifname=name, kind="bridge", address=STRANGER_MAC)
    try:
        yield
    finally:
        (index,) = ipr.link_lookup(ifname=name)
        (link,) = ipr.get_links(index)
        ipr.link("del", index=index)
    assert link.get("address") == STRANGER_MAC


@contextmanager
def pod_interface_taken(_lab: Lab, pod: Pod) -> Iterator[None]:
    with open_iproute(pod.netns) as ipr, strangers_bridge(ipr, POD_IFNAME):
        yield


@contextmanager
def host_interface_taken(lab: Lab, pod: Pod) -> Iterator[None]:
    name = AttachmentKey(lab.layout.name, pod.name, POD_IFNAME).host_ifname
    with open_iproute(lab.layout.node(pod.node).netns) as ipr, strangers_bridge(ipr, name):
        yield


@contextmanager
def endpoints_full(lab: Lab, pod: Pod, *, room: int = 0) -> Iterator[None]:
    root = load(lab.layout.node(pod.node).settings_path).pin_root
    filled = []
    with maps.open_endpoints(root) as table:
        try:
            for number in range(1 << 16):
                address = IPv6Address(f"2001:db8::{number:x}")
                try:
                    table.put(address, maps.Endpoint(1, STRANGER_MAC))
                except OSError:
                    break
                filled.append(address)
            assert len(filled) > ENDPOINTS_MAX / 2
            for address in filled[:room]:
                table.remove(address)
            yield
        finally:
            for address in filled:
                table.remove(address)


@contextmanager
def room_for_one_family(lab: Lab, pod: Pod) -> Iterator[None]:
    with endpoints_full(lab, pod, room=1):
        yield


@contextmanager
def map_pin_gone(lab: Lab, pod: Pod) -> Iterator[None]:
    pin = pins.map_path(load(lab.layout.node(pod.node).settings_path).pin_root, "endpoints")
    with away(pin):
        yield


@contextmanager
def program_pin_gone(lab: Lab, pod: Pod) -> Iterator[None]:
    current = pins.current(load(lab.layout.node(pod.node).settings_path).pin_root)
    assert current is not None
    # to_container comes second: from_container is attached by then
    with away(current / "to_container"):
        yield


@contextmanager
def record_gone(lab: Lab, pod: Pod) -> Iterator[None]:
    with away(lab.layout.node(pod.node).directory / "state" / "node.json"):
        yield


@contextmanager
def gateway_is_the_pods_own(lab: Lab, pod: Pod) -> Iterator[None]:
    """The last step fails: a route cannot lead by an address of the pod itself."""
    gateway = lab.results[lab.layout.node(pod.node).pods[0].name]["ips"][0]["gateway"]
    with open_iproute(pod.netns) as ipr:
        (loopback,) = ipr.link_lookup(ifname="lo")
        ipr.addr("add", index=loopback, address=gateway, prefixlen=32)
        try:
            yield
        finally:
            ipr.addr("del", index=loopback, address=gateway, prefixlen=32)


@contextmanager
def another_default_route(pod: Pod) -> Iterator[str]:
    """By an interface that another network made; gives its gateway."""
    with open_iproute(pod.netns) as ipr:
        ipr.link("add", ifname="other0", kind="bridge")
        (index,) = ipr.link_lookup(ifname="other0")
        ipr.link("set", index=index, state="up")
        ipr.addr("add", index=index, address="192.0.2.1", prefixlen=24)
        ipr.route("add", dst="default", gateway="192.0.2.2", oif=index)
        try:
            yield "192.0.2.2"
        finally:
            ipr.link("del", index=index)


@contextmanager
def away(path: Path) -> Iterator[None]:
    """Under another name for a while."""
    hidden = path.with_name(f"{path.name}-away")
    path.rename(hidden)
    try:
        yield
    finally:
        hidden.rename(path)


def in_namespace(netns: str, source: str) -> None:
    done = processes.run(netns, [sys.executable, "-IS", "-c", source])
    assert done.returncode == 0, done.stderr.decode()


Obstacle = Callable[[Lab, Pod], AbstractContextManager[None]]

OBSTACLES = [
    (pod_interface_taken, INTERFACE_EXISTS, POD_IFNAME),
    (host_interface_taken, INTERFACE_EXISTS, "pcn"),
    (endpoints_full, DATAPLANE, "full"),
    (room_for_one_family, DATAPLANE, "full"),
    (gateway_is_the_pods_own, 999, "default route"),
]
DAMAGES = [
    (record_gone, NOT_AVAILABLE, "setup"),
    (map_pin_gone, NOT_AVAILABLE, "setup"),
    (program_pin_gone, DATAPLANE, "to_container"),
]
"""What the agent's keeper would mend."""


def add_fails_and_leaves_nothing(
    lab: Lab, pod: Pod, *, alone: bool, obstacle: Obstacle, code: int, word: str
) -> None:
    node = lab.layout.node(pod.node)
    with obstacle(lab, pod):
        before = take(node)

        added = execute(lab, pod, "ADD", alone=alone)
        # the agent answers a link's end by a sweep, which clears entries that no link stands for
        after = take(node)

    assert (added.status, added.document.get("code")) == (1, code), added.text + added.stderr
    assert word in added.text
    assert "Traceback" not in added.stderr
    without = ("maps",) if obstacle in (endpoints_full, room_for_one_family) else ()
    assert differences(before, after, without=without) == []
    with open_iproute(pod.netns) as ipr:
        assert ipr.link_lookup(ifname=POD_IFNAME) == []


@both_ways
@pytest.mark.parametrize(
    ("obstacle", "code", "word"), OBSTACLES, ids=[case[0].__name__ for case in OBSTACLES]
)
def test_a_failing_add_leaves_nothing(
    lab: Lab, spare: Pod, alone: bool, obstacle: Obstacle, code: int, word: str
) -> None:
    add_fails_and_leaves_nothing(lab, spare, alone=alone, obstacle=obstacle, code=code, word=word)


@pytest.fixture(scope="module")
def unheld() -> Iterator[Lab]:
    """A node whose agent mends nothing, so that damage stays."""
    with prepared_lab(nodes=1) as made:
        agent_without_keeper.start(made, made.layout.nodes[0])
        yield made


@both_ways
@pytest.mark.parametrize(
    ("damage", "code", "word"), DAMAGES, ids=[case[0].__name__ for case in DAMAGES]
)
def test_an_add_that_fails_on_a_damaged_node_leaves_nothing(
    unheld: Lab, alone: bool, damage: Obstacle, code: int, word: str
) -> None:
    with made_pod(unheld, unheld.layout.nodes[0]) as pod:
        add_fails_and_leaves_nothing(
            unheld, pod, alone=alone, obstacle=damage, code=code, word=word
        )

        assert execute(unheld, pod, "ADD", alone=alone).status == 0
        assert execute(unheld, pod, "DEL", alone=alone).status == 0


def test_a_default_route_of_another_network_stays(lab: Lab, spare: Pod) -> None:
    near = lab.layout.node(spare.node).netns
    with another_default_route(spare) as gateway:
        added = execute(lab, spare, "ADD")

        assert added.status == 0, added.text
        with open_iproute(spare.netns) as pod:
            routes = pod.get_default_routes(family=socket.AF_INET)
            (route,) = (one for one in routes if one.get("RTA_TABLE") == RT_TABLE_MAIN)
        assert route.get("RTA_GATEWAY") == gateway
        assert [entry["dst"] for entry in added.document["routes"]] == ["::/0"]
        assert unanswered(lab, near, added.addresses) == []
        assert execute(lab, spare, "CHECK", prevResult=added.document).status == 0


def test_check_takes_what_plugins_before_us_made(lab: Lab, spare: Pod) -> None:
    """Their interface in the pod, and a route by it."""
    with another_default_route(spare) as gateway, open_iproute(spare.netns) as ipr:
        (index,) = ipr.link_lookup(ifname="other0")
        ipr.route("add", dst="198.51.100.0/24", gateway=gateway, oif=index)
        theirs = {
            "interfaces": [{"name": "other0", "sandbox": f"/run/netns/{spare.netns}"}],
            "ips": [{"address": "192.0.2.1/24", "interface": 0}],
            "routes": [{"dst": "198.51.100.0/24", "gw": gateway}],
        }
        added = execute(lab, spare, "ADD", prevResult=theirs)

        checked = execute(lab, spare, "CHECK", prevResult=added.document)
        ipr.route("del", dst="198.51.100.0/24")
        again = execute(lab, spare, "CHECK", prevResult=added.document)

    assert (added.status, checked.status) == (0, 0), checked.text
    assert "198.51.100.0/24" in again.text


def test_a_pod_made_without_ipv6_gets_it_on_its_interface(lab: Lab, spare: Pod) -> None:
    """Some runtimes disable it in every new namespace."""
    in_namespace(
        spare.netns,
        "for where in ('default', 'all'):\n"
        "    open(f'/proc/sys/net/ipv6/conf/{where}/disable_ipv6', 'w').write('1')\n",
    )

    added = execute(lab, spare, "ADD")

    assert added.status == 0, added.text
    assert unanswered(lab, lab.layout.pods[-1].netns, added.addresses) == []


def test_an_exhausted_pool_is_said_and_recovers() -> None:
    """A /29 has a network address, a gateway, a broadcast address and five for pods."""
    with ExitStack() as stack:
        lab = stack.enter_context(prepared_lab(nodes=1, node_prefix={"ipv4": 29, "ipv6": 64}))
        (node,) = lab.layout.nodes
        setup(node)
        pods = [stack.enter_context(made_pod(lab, node)) for _ in range(6)]
        assert [execute(lab, pod, "ADD").status for pod in pods[:5]] == [0] * 5
        before = take(node)

        refused = execute(lab, pods[5], "ADD")

        assert refused.document["code"] == EXHAUSTED
        assert "no IP addresses available" in refused.text
        assert differences(before, take(node)) == []
        assert execute(lab, pods[0], "DEL").status == 0
        assert execute(lab, pods[5], "ADD").status == 0


def test_a_namespace_that_ends_without_del_takes_its_entries_along(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    before = take(node)
    with made_pod(lab, node) as pod:
        added = execute(lab, pod, "ADD")
        assert added.status == 0
    gone = set(added.addresses)

    wait_until(
        lambda: not gone & {row["address"] for row in rows(lab, node, "endpoints")},
        "the agent sweeps the endpoints table",
    )

    assert execute(lab, pod, "DEL").status == 0
    assert differences(before, take(node)) == []


def test_del_without_agent_clears_what_a_namespace_left(lab: Lab) -> None:
    """The agent's sweep may come first; then there is nothing left to do."""
    node = lab.layout.nodes[0]
    before = take(node)
    with made_pod(lab, node) as pod:
        assert execute(lab, pod, "ADD", alone=True).status == 0

    wait_until(lambda: not _has_link(node, lab, pod), "the kernel removes the link")
    deleted = execute(lab, pod, "DEL", alone=True)

    assert deleted.status == 0
    assert differences(before, take(node)) == []


def test_many_pods_at_once_get_addresses_of_their_own(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    before = take(node)
    with ExitStack() as stack:
        pods = [stack.enter_context(made_pod(lab, node)) for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            # by the agent and by plugins of their own, side by side
            replies = list(
                pool.map(lambda one: execute(lab, one[1], "ADD", alone=one[0] % 4 == 0),
                         enumerate(pods))
            )  # fmt: skip
            addresses = [address for reply in replies for address in reply.addresses]
            unreached = unanswered(lab, lab.layout.pods[-1].netns, addresses)
            deleted = list(pool.map(lambda pod: execute(lab, pod, "DEL").status, pods))

    assert len(set(addresses)) == 2 * len(pods)
    assert unreached == []
    assert deleted == [0] * len(pods)
    assert differences(before, take(node)) == []


def test_the_kernel_has_no_entry_per_pod_or_per_node(lab: Lab) -> None:
    found = [check for check in checks.kernel_tables(lab) if not check.passed]

    assert found == []


def test_each_other_node_is_one_remote_per_family(lab: Lab) -> None:
    for node, other in zip(lab.layout.nodes, reversed(lab.layout.nodes), strict=True):
        remotes = rows(lab, node, "remotes")

        assert len(remotes) == 2
        assert {row["vtep"] for row in remotes} == {str(other.underlay[0].ip)}


def test_a_call_takes_no_longer_than_it_must(lab: Lab, spare: Pod) -> None:
    begin = time.monotonic()

    execute(lab, spare, "ADD")
    execute(lab, spare, "DEL")

    assert time.monotonic() - begin < HUNG


def _has_link(node: LabNode, lab: Lab, pod: Pod) -> bool:
    name = AttachmentKey(lab.layout.name, pod.name, POD_IFNAME).host_ifname
    with open_iproute(node.netns) as ipr:
        return bool(ipr.link_lookup(ifname=name))


def _v6(text: str) -> IPv6Address:
    return IPv6Address(text if ":" in text else f"::ffff:{text}")
