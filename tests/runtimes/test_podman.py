# SPDX-License-Identifier: Apache-2.0
"""Containers by podman with the CNI backend: the other dialect of calling a plugin."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface

import pytest

from pycni.lab import processes
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME
from runtimes import images
from runtimes.podman import Failed, Podman
from support import unchanged
from support.flood import unanswered
from support.flows import EVERY_ADDRESS, answering, ask
from support.kernel import open_iproute
from support.waiting import wait_until

REQUESTED_HOST = 77
"""Of the IPv4 pod CIDR of podman's node."""
NODE_PREFIX = 24
REQUESTED_MAC = "02:42:0a:58:00:4d"
PORT, HOST_PORT = 8080, 18081

Gone = Callable[[], None]


@pytest.fixture
def all_gone(podman_node: Podman) -> Callable[[], None]:
    """Asserts that nothing on the node is left of what the test made."""
    return unchanged.since_now(podman_node.node)


@contextmanager
def container(podman: Podman, *options: str, image: str = images.PAUSE) -> Iterator[str]:
    """A running container, removed at the end."""
    made = podman.run(*options, image=image)
    try:
        yield made
    finally:
        podman.remove(made)


def test_a_container_has_what_podman_says_it_has(podman_node: Podman, all_gone: Gone) -> None:
    with container(podman_node) as made:
        attached = podman_node.attached(made)
        with open_iproute(str(podman_node.netns(made))) as ipr:
            (index,) = ipr.link_lookup(ifname=POD_IFNAME)
            mac = ipr.get_links(index)[0].get("address")
            addresses = {str(one.get("IFA_ADDRESS")) for one in ipr.get_addr(index=index)}

    assert [ip_address(one).version for one in attached.addresses] == [4, 6]
    assert set(attached.addresses) <= addresses
    assert attached.mac == mac
    all_gone()


def test_a_container_pings_another(podman_node: Podman) -> None:
    with container(podman_node) as target, container(podman_node, image=images.BUSYBOX) as source:
        for address in podman_node.attached(target).addresses:
            podman_node("exec", source, "/bin/busybox", "ping", "-c", "1", "-W", "2", address)


def test_a_container_that_ends_by_itself_leaves_nothing(
    podman_node: Podman, all_gone: Gone
) -> None:
    podman_node("run", "--rm", "--cgroup-parent", f"/{podman_node.cgroup}", images.BUSYBOX,
                "/bin/busybox", "true")  # fmt: skip

    all_gone()


def test_conmon_detaches_a_container_that_was_killed(podman_node: Podman, all_gone: Gone) -> None:
    with container(podman_node) as made:
        pid, _ = podman_node.pids(made)

        os.kill(pid, signal.SIGKILL)

        all_gone()


def test_a_container_whose_conmon_was_killed_is_removed(
    podman_node: Podman, all_gone: Gone
) -> None:
    with container(podman_node) as made:
        pid, conmon = podman_node.pids(made)

        os.kill(conmon, signal.SIGKILL)
        wait_until(lambda: processes.start_time(conmon) is None, "conmon ends")
        assert processes.start_time(pid) is not None

    all_gone()


def test_a_restarted_container_is_reached_where_podman_says(
    cluster: Lab, podman_node: Podman, all_gone: Gone
) -> None:
    with container(podman_node) as made, container(podman_node) as other:
        podman_node.recorder.forget()

        podman_node("restart", "--time", "0", made)

        calls = podman_node.recorder.calls("ADD", "DEL", container_id=made)
        assert [call.command for call in calls] == ["DEL", "ADD"]
        addresses = podman_node.attached(made).addresses
        assert unanswered(cluster, str(podman_node.netns(other)), addresses) == []

    all_gone()


def test_a_stopped_container_has_no_network_and_a_started_one_has(
    podman_node: Podman, all_gone: Gone
) -> None:
    made = podman_node.run()
    podman_node("stop", "--time", "0", made)
    all_gone()

    podman_node("start", made)

    assert len(podman_node.attached(made).addresses) == 2
    podman_node.remove(made)
    all_gone()


def test_a_container_is_on_two_networks(cluster: Lab, podman_node: Podman, all_gone: Gone) -> None:
    networks = podman_node.network, podman_node.other_network
    with container(podman_node, "--network", ",".join(networks)) as made:
        addresses = [
            address
            for network in networks
            for address in podman_node.attached(made, network).addresses
        ]
        with container(podman_node) as other:
            silent = unanswered(cluster, str(podman_node.netns(other)), addresses)

    assert len(set(addresses)) == 4
    assert silent == []
    all_gone()


def test_a_running_container_joins_a_network_and_leaves_it(
    podman_node: Podman, all_gone: Gone
) -> None:
    with container(podman_node) as made:
        podman_node("network", "connect", podman_node.other_network, made)
        joined = podman_node.attached(made, podman_node.other_network).addresses
        podman_node("network", "disconnect", podman_node.other_network, made)
        with pytest.raises(KeyError):
            podman_node.attached(made, podman_node.other_network)

    assert len(joined) == 2
    all_gone()


def test_a_container_gets_the_address_it_asks_for(podman_node: Podman, all_gone: Gone) -> None:
    with container(podman_node) as any_container:
        taken = podman_node.attached(any_container).addresses[0]
    wanted = str(ip_interface(f"{taken}/{NODE_PREFIX}").network[REQUESTED_HOST])

    with container(podman_node, "--ip", wanted) as made:
        addresses = podman_node.attached(made).addresses
        with pytest.raises(Failed, match=wanted):
            podman_node.run("--ip", wanted, "--rm")

    assert addresses[0] == wanted
    all_gone()


def test_a_container_gets_the_mac_it_asks_for(
    cluster: Lab, podman_node: Podman, all_gone: Gone
) -> None:
    with container(podman_node, "--mac-address", REQUESTED_MAC) as made:
        attached = podman_node.attached(made)
        with container(podman_node) as other:
            silent = unanswered(cluster, str(podman_node.netns(other)), attached.addresses)

    assert attached.mac == REQUESTED_MAC
    assert silent == []
    all_gone()


def test_a_published_port_is_reached_from_the_world(
    cluster: Lab, podman_node: Podman, all_gone: Gone
) -> None:
    world = cluster.layout.underlay_netns
    with container(podman_node, "--publish", f"{HOST_PORT}:{PORT}") as made:
        for address in podman_node.node.underlay:
            with answering(
                str(podman_node.netns(made)), EVERY_ADDRESS[address.version], PORT, protocol="tcp"
            ):
                assert ask(world, str(address.ip), HOST_PORT, protocol="tcp") is not None

    assert ask(world, str(podman_node.node.underlay[0].ip), HOST_PORT, protocol="tcp") is None
    all_gone()
