# SPDX-License-Identifier: Apache-2.0
"""IPAM by Debian's `dhcp`: a pod gets its address from a DHCP server of its node, over its link."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from pycni.kernel.links import link_local
from pycni.lab import processes
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, LabNode, Pod
from pycni.node.overlay import DEVICE
from pycni.node.record import Node
from pycni.settings import load
from support.flood import unanswered
from support.kernel import open_iproute
from support.labs import made_pod, rows, setup
from support.plugin import Reply, execute, invocation, network
from support.snapshot import differences, take
from support.waiting import wait_until

DEBIAN = Path("/usr/lib/cni")
ENV: dict[str, str | None] = {"CNI_PATH": str(DEBIAN)}
LEASE_SECONDS = 120
"""dnsmasq gives none that is shorter."""
ONE_MAC = "02:00:00:00:00:77"
BROADCAST = "255.255.255.255"
"""A neighbour that the kernel makes for whoever sends to it: the server does."""
DUPLICATE, UNAVAILABLE = 101, 104

pytestmark = pytest.mark.skipif(
    not (DEBIAN / "dhcp").exists(), reason="missing: containernetworking-plugins"
)


@dataclass(frozen=True)
class Dhcp:
    """dnsmasq on a node's overlay device, and the daemon of the `dhcp` plugin."""

    directory: Path
    server: int
    """Its pid."""

    @property
    def socket(self) -> Path:
        return self.directory / "dhcp.sock"

    def conf(self) -> dict[str, Any]:
        return {"type": "dhcp", "daemonSocketPath": str(self.socket)}

    def leased(self) -> dict[str, str]:
        """MAC to address, by the server's own record."""
        lines = (self.directory / "leases").read_text().splitlines()
        return {mac: address for _, mac, address, *_ in map(str.split, lines)}

    def asked(self) -> bool:
        """Whether the daemon has begun to ask for an address."""
        return b"acquiring lease" in (self.directory / "daemon.log").read_bytes()


@contextmanager
def served(
    node: LabNode,
    directory: Path,
    *options: str,
    at: str = "",
    on: str = DEVICE,
    ranged: tuple[str, str, str] | None = None,
) -> Iterator[Dhcp]:
    """The plugin's daemon on a node, and a server there, or in the namespace `at` by the interface
    `on`, which has these addresses (first, last, netmask)."""
    network = Node.load(load(node.settings_path)).pod_cidrs[0]
    first, last, mask = ranged or (str(network[100]), str(network[150]), "255.255.255.0")
    server = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--user=root",
        f"--interface={on}",
        "--no-ping",
        f"--dhcp-range={first},{last},{mask},{LEASE_SECONDS}",
        f"--dhcp-leasefile={directory / 'leases'}",
        f"--pid-file={directory / 'dnsmasq.pid'}",
        f"--log-facility={directory / 'dnsmasq.log'}",
        *options,
    ]
    daemon: list[str | Path] = [
        DEBIAN / "dhcp",
        "daemon",
        "-socketpath",
        directory / "dhcp.sock",
        "-timeout",
        "2s",
    ]
    with (
        subprocess.Popen(processes.inside(at or node.netns, server)) as one,
        (directory / "daemon.log").open("wb") as log,
        subprocess.Popen(processes.inside(node.netns, daemon), stderr=log) as other,
    ):
        found = Dhcp(directory, one.pid)
        try:
            wait_until(found.socket.exists, "the dhcp daemon listens")
            wait_until((directory / "leases").exists, "the server listens")
            yield found
        finally:
            one.kill()
            other.kill()


@pytest.fixture
def dhcp(lab: Lab, spare: Pod, tmp_path: Path) -> Iterator[Dhcp]:
    with served(lab.layout.node(spare.node), tmp_path, "--dhcp-broadcast") as found:
        yield found


@pytest.fixture
def clean(lab: Lab, spare: Pod) -> Iterator[None]:
    """The node is as before when a test has ended."""
    node = lab.layout.node(spare.node)
    everyone = [one for pod in lab.layout.pods for one in lab.addresses(pod)]
    assert unanswered(lab, node.netns, everyone) == []  # the node's neighbours are known
    before = take(node)
    yield
    assert [one for one in differences(before, take(node)) if BROADCAST not in one] == []
    assert list((node.directory / "state" / "delegated").glob("*")) == []


def mac_of(reply: Reply) -> str:
    (mac,) = [one["mac"] for one in reply.document["interfaces"] if one["name"] == POD_IFNAME]
    return str(mac)


def entries(lab: Lab, pod: Pod) -> set[str]:
    return {row["address"] for row in rows(lab, lab.layout.node(pod.node), "endpoints")}


def ipv4_of(lab: Lab, pod: Pod) -> list[str]:
    return [one for one in lab.addresses(pod) if ip_address(one).version == 4]


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("alone", [False, True])
def test_a_pod_has_the_address_that_the_server_gave(
    lab: Lab, spare: Pod, dhcp: Dhcp, alone: bool
) -> None:
    node, far = lab.layout.node(spare.node), lab.layout.pods[-1]
    how: dict[str, Any] = {"alone": alone, "env": ENV, "ipam": dhcp.conf()}

    added = execute(lab, spare, "ADD", **how)

    assert added.status == 0, added.text
    (address,) = added.addresses
    assert dhcp.leased() == {mac_of(added): address}
    assert {address, str(link_local(mac_of(added)))} <= entries(lab, spare)
    assert unanswered(lab, spare.netns, ipv4_of(lab, far)) == []
    assert unanswered(lab, far.netns, [address]) == []
    setup(node)
    assert execute(lab, spare, "ADD", **how).document["code"] == DUPLICATE
    checked = execute(lab, spare, "CHECK", prevResult=added.document, **how)
    assert checked.status == 0, checked.text
    deleted = execute(lab, spare, "DEL", **how)
    assert deleted.status == 0, deleted.text
    wait_until(lambda: not dhcp.leased(), "the server has the address back")


def test_a_server_may_answer_to_the_address_it_offers(lab: Lab, spare: Pod, tmp_path: Path) -> None:
    node = lab.layout.node(spare.node)
    with served(node, tmp_path) as dhcp:
        added = execute(lab, spare, "ADD", env=ENV, ipam=dhcp.conf())
        deleted = execute(lab, spare, "DEL", env=ENV, ipam=dhcp.conf())

    assert added.status == deleted.status == 0, added.text
    with open_iproute(node.netns) as ipr:  # the server has made it, to have somebody to answer to
        (overlay,) = ipr.link_lookup(ifname=DEVICE)
        ipr.neigh("del", dst=added.addresses[0], ifindex=overlay)


@pytest.mark.usefixtures("clean")
def test_without_the_daemon_nothing_is_left(lab: Lab, spare: Pod, tmp_path: Path) -> None:
    conf = {"type": "dhcp", "daemonSocketPath": str(tmp_path / "none.sock")}

    added = execute(lab, spare, "ADD", env=ENV, ipam=conf)

    assert added.status != 0
    assert "none.sock" in added.text


@pytest.mark.usefixtures("clean")
def test_two_pods_with_one_mac_cannot_both_ask(lab: Lab, spare: Pod, dhcp: Dhcp) -> None:
    how: dict[str, Any] = {"env": ENV, "ipam": dhcp.conf(), "runtimeConfig": {"mac": ONE_MAC}}
    with made_pod(lab, lab.layout.node(spare.node)) as other:
        first = execute(lab, other, "ADD", **how)
        second = execute(lab, spare, "ADD", **how)
        deleted = execute(lab, other, "DEL", **how)

    assert first.status == deleted.status == 0, first.text
    assert second.document["code"] == UNAVAILABLE
    assert ONE_MAC in second.text


@pytest.mark.usefixtures("clean")
def test_an_add_killed_while_it_asks_can_be_done_again(lab: Lab, spare: Pod, dhcp: Dhcp) -> None:
    node = lab.layout.node(spare.node)
    before = entries(lab, spare)
    os.kill(dhcp.server, signal.SIGSTOP)
    program, env = invocation(lab, spare, "ADD", alone=True, env=ENV)
    command = processes.inside(node.netns, [program])
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE) as adding:
        assert adding.stdin is not None
        adding.stdin.write(json.dumps(network(lab, ipam=dhcp.conf())).encode())
        adding.stdin.close()
        wait_until(lambda: len(entries(lab, spare) - before) == 1, "the pod may ask")
        wait_until(dhcp.asked, "the pod asks")
        adding.kill()
    os.kill(dhcp.server, signal.SIGCONT)

    added = execute(lab, spare, "ADD", env=ENV, ipam=dhcp.conf())
    deleted = execute(lab, spare, "DEL", env=ENV, ipam=dhcp.conf())

    assert added.status == deleted.status == 0, added.text
