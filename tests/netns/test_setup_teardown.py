# SPDX-License-Identifier: Apache-2.0
"""`pycni setup` and `pycni teardown` on a bare host: what they make, and that it all goes."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from loader import Hook, libbpf, pins, tcx
from loader.places import INGRESS
from pycni.ipam.pools import ROTATION_FILE
from pycni.lab import processes
from pycni.lab.cluster import Lab
from pycni.lab.layout import NODE_UPLINK, LabNode
from pycni.lab.topology import open_rtnl
from pycni.names import AWAY_NOTE, GATEWAY_MAC, NAME_HEAD
from pycni.pods.lease import is_ours
from pycni.settings import load
from support.flood import unanswered
from support.kernel import open_iproute
from support.labs import (
    made_pod,
    prepared_lab,
    pycni,
    rows,
    setup,
    teardown,
    within,
    write_settings,
)
from support.plugin import execute
from support.snapshot import Snapshot, differences, take

ETH_P_ALL = 3
FOREIGN_PRIORITY = 10
DEGRADED = 1
"""Exit status of `pycni status`."""
FOREIGN_TABLE = """
import ctypes
nft = ctypes.CDLL("libnftables.so.1")
nft.nft_ctx_new.restype = ctypes.c_void_p
context = ctypes.c_void_p(nft.nft_ctx_new(0))
commands = (
    b"add table inet foreign;"
    b"add chain inet foreign c { type filter hook input priority 0; }"
)
assert nft.nft_run_cmd_from_buffer(context, commands) == 0
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two hosts that pycni has not touched."""
    with prepared_lab(nodes=2) as lab:
        yield lab


def unlike(before: Snapshot, after: Snapshot) -> list[str]:
    """Differences that teardown must not leave; directories are kept."""
    return [
        line
        for line in differences(before, after, without=("neighbours",))
        if "files: state" not in line
    ]


def add_foreign_filter(node: LabNode) -> None:
    """Another program's clsact qdisc, with a filter that passes everything on."""
    with open_iproute(node.netns) as ipr:
        (uplink,) = ipr.link_lookup(ifname=NODE_UPLINK)
        ipr.tc("add", "clsact", uplink)
        ipr.tc(
            "add-filter",
            "u32",
            uplink,
            parent=INGRESS,
            prio=FOREIGN_PRIORITY,
            protocol=ETH_P_ALL,
            target=0x10000,
            keys=["0x0/0x0+0"],
        )


def add_foreign_table(node: LabNode) -> None:
    done = processes.run(node.netns, [sys.executable, "-IS", "-c", FOREIGN_TABLE])
    assert done.returncode == 0, done.stderr.decode()


def test_teardown_restores_a_bare_host(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    before = take(node)

    setup(node)
    assert unlike(before, take(node)) != []
    (load(node.settings_path).run_dir / AWAY_NOTE).write_text("1")  # a runtime asked for STATUS
    teardown(node)

    assert unlike(before, take(node)) == []
    assert lab.pycni(node, "nodes") == []


def test_teardown_leaves_what_is_others(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    add_foreign_filter(node)
    add_foreign_table(node)
    before = take(node)
    assert before["filters"] != []

    setup(node)
    during = take(node)
    teardown(node)

    assert set(before["filters"]) < set(during["filters"])
    assert set(before["nft"]) < set(during["nft"])
    assert unlike(before, take(node)) == []


def test_teardown_keeps_sysctls_that_were_on_already(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    command = "from pathlib import Path as P\nP('/proc/sys/net/ipv4/ip_forward').write_text('1')"
    processes.run(node.netns, [sys.executable, "-c", command])
    before = take(node)
    assert "net/ipv4/ip_forward = 1" in before["sysctls"]

    setup(node)
    teardown(node)

    assert unlike(before, take(node)) == []


def test_teardown_takes_the_pods_links_along(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    before = take(node)
    setup(node)
    with made_pod(lab, node) as pod:
        assert execute(lab, pod, "ADD").status == 0
        rotation = load(node.settings_path).state_dir / ROTATION_FILE
        assert rotation.exists()

        teardown(node)

        assert unlike(before, take(node)) == []
        assert not rotation.exists()
        assert execute(lab, pod, "DEL").status == 0
        with open_iproute(pod.netns) as ipr:
            assert ipr.link_lookup(ifname="eth0") == []


def test_teardown_takes_what_a_killed_add_left_along(lab: Lab) -> None:
    """A link without its alias, and one that somebody renamed."""
    node = lab.layout.nodes[0]
    before = take(node)
    setup(node)
    with made_pod(lab, node) as pod, open_iproute(node.netns) as ipr:
        assert execute(lab, pod, "ADD").status == 0
        with open_rtnl(node.netns) as rtnl:
            (index,) = [one.ifindex for one in rtnl.links() if is_ours(one)]
        ipr.link("set", index=index, state="down")
        ipr.link("set", index=index, ifname="wan7")
        ipr.link("add", ifname=f"{NAME_HEAD}0", kind="veth", address=GATEWAY_MAC, peer="left0")

        teardown(node)

        assert unlike(before, take(node)) == []


def test_setup_works_again_after_teardown(lab: Lab) -> None:
    first, second = lab.layout.nodes
    setup(second)
    setup(first)
    before = take(first)
    teardown(first)

    setup(first)

    after = take(first)
    assert [row["prefix"] for row in rows(lab, first, "remotes")] != []
    for section in ("addresses", "nft", "sysctls", "mounts", "qdiscs", "maps"):
        assert before[section] == after[section], section
    with made_pod(lab, first) as one, made_pod(lab, second) as other:
        assert execute(lab, one, "ADD").status == 0
        far = execute(lab, other, "ADD")
        setup(second)  # no agents here: it learns of the first node anew
        assert unanswered(lab, one.netns, far.addresses) == []


def test_a_second_setup_changes_nothing(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    setup(node)
    before = take(node)

    again = pycni(node, "setup")

    assert again.returncode == 0
    assert b"unchanged" in again.stdout
    assert b"compiling" not in again.stderr
    assert differences(before, take(node)) == []


def test_teardown_of_a_host_that_is_no_node_changes_nothing(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    before = take(node)

    done = [pycni(node, "teardown", "--yes") for _ in range(2)]

    assert [one.returncode for one in done] == [0, 0]
    assert all(b"was not set up" in one.stdout for one in done)
    assert [one.stderr for one in done] == [b"", b""]
    assert differences(before, take(node)) == []


def test_teardown_clears_a_node_that_is_half_gone(lab: Lab) -> None:
    """Device, record and a pin removed by hand, as an operator in despair does."""
    node = lab.layout.nodes[0]
    before = take(node)
    setup(node)
    with open_iproute(node.netns) as ipr:
        ipr.link("del", index=ipr.link_lookup(ifname="pycni0")[0])
    pins.map_path(load(node.settings_path).pin_root, "vteps").unlink()

    teardown(node)

    assert unlike(before, take(node)) == []


def test_teardown_takes_a_renamed_device_along(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    before = take(node)
    setup(node)
    with open_rtnl(node.netns) as ipr:
        device = ipr.link("pycni0")
        assert device is not None
        ipr.rename(device, "vx9")

    teardown(node)

    assert unlike(before, take(node)) == []


def test_setup_repairs_a_node_that_is_half_gone(lab: Lab) -> None:
    first, second = lab.layout.nodes
    setup(second)
    setup(first)
    before = take(first)
    with open_iproute(first.netns) as ipr:
        ipr.link("del", index=ipr.link_lookup(ifname="pycni0")[0])
        uplink = Hook(ipr.link_lookup(ifname=NODE_UPLINK)[0], "from_underlay")
    assert within(first.netns, lambda: tcx.detach(uplink))
    pins.map_path(load(first.settings_path).pin_root, "remotes").unlink()

    setup(first)

    after = take(first)
    for section in ("addresses", "routes", "nft", "maps", "qdiscs"):
        assert before[section] == after[section], section
    assert len(after["filters"]) == len(before["filters"])
    assert pycni(first, "status").returncode == DEGRADED  # no agent


def test_setup_repairs_a_lost_endpoints_map_with_its_entries(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    setup(node)
    with made_pod(lab, node) as one, made_pod(lab, node) as other:
        assert execute(lab, one, "ADD").status == 0
        far = execute(lab, other, "ADD")
        before = take(node)["maps"]
        pins.map_path(load(node.settings_path).pin_root, "endpoints").unlink()

        setup(node)

        assert take(node)["maps"] == before
        assert unanswered(lab, one.netns, far.addresses) == []


def test_a_bpffs_that_was_mounted_before_stays(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    libbpf.mount_bpffs(node.directory / "bpf")
    before = take(node)

    setup(node)
    teardown(node)

    assert unlike(before, take(node)) == []
    assert len(take(node)["mounts"]) == 1


@pytest.mark.parametrize("choice", [{"uplink": "eth1"}, {"vtep": "198.19.0.1"}], ids=str)
def test_a_node_that_moves_to_another_uplink_is_guarded_at_both(
    lab: Lab, choice: dict[str, str]
) -> None:
    node = lab.layout.nodes[0]
    with open_iproute(node.netns) as ipr:
        ipr.link("add", ifname="eth1", kind="veth", peer={"ifname": "eth1p"})
        (index,) = ipr.link_lookup(ifname="eth1")
        ipr.link("set", index=index, state="up")
        ipr.addr("add", index=index, address="198.19.0.1", prefixlen=24)
    before = take(node)
    setup(node)
    write_settings(node, **choice)

    setup(node)
    during = take(node)
    teardown(node)

    for ifname in (NODE_UPLINK, "eth1"):
        assert any(line.startswith(f"{ifname} ") for line in during["filters"])
    assert unlike(before, take(node)) == []


def test_an_ipv4_only_cluster_leaves_ipv6_alone() -> None:
    with prepared_lab(nodes=1, cluster_cidrs=["10.244.0.0/16"]) as lab:
        (node,) = lab.layout.nodes
        setup(node)
        forwarding = "net/ipv6/conf/all/forwarding = 0"
        assert forwarding in take(node)["sysctls"]
        with made_pod(lab, node) as pod:
            added = execute(lab, pod, "ADD")
            assert len(added.addresses) == 1
            assert unanswered(lab, node.netns, added.addresses) == []
            with open_iproute(pod.netns) as ipr:
                assert list(ipr.get_default_routes(family=socket.AF_INET6)) == []
            assert execute(lab, pod, "DEL").status == 0
