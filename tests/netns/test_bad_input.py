# SPDX-License-Identifier: Apache-2.0
"""Wrong input of every kind: a clear error with its code, and the host as it was before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from loader import probe
from pycni.lab import processes
from pycni.lab.cluster import Lab, pycni_command
from pycni.lab.layout import NODE_UPLINK, LabNode, Pod
from pycni.lab.topology import NETNS_DIR, make_netns, open_rtnl, remove_netns
from pycni.names import GATEWAY_MAC
from support import setup_without as without
from support.flood import unanswered
from support.flows import port_held
from support.kernel import open_iproute
from support.labs import prepared_lab, pycni, setup, write_settings
from support.plugin import execute
from support.snapshot import differences, take
from support.underlay import ip

VERSION, PARAMETER, DECODING, CONFIG, NETNS = 1, 4, 6, 7, 8

PORT = 4789
OTHER = "203.0.113.1"
STRANGER_MAC = "02:00:00:00:00:99"
NO_PROGRAMS = "/nonexistent"
SETUP_WITHOUT = Path(without.__file__)

BROKEN = 2
"""Exit status of `pycni status`."""


def config(**changes: Any) -> bytes:
    """A network configuration; None takes a key out."""
    document = {"cniVersion": "1.0.0", "name": "net", "type": "pycni"} | changes
    return json.dumps({k: v for k, v in document.items() if v is not None}).encode()


ENVIRONMENTS = [
    ("no container ID", {"CNI_CONTAINERID": None}, PARAMETER, "CNI_CONTAINERID"),
    ("a bad container ID", {"CNI_CONTAINERID": "../x"}, PARAMETER, "CNI_CONTAINERID"),
    ("no interface name", {"CNI_IFNAME": None}, PARAMETER, "CNI_IFNAME"),
    ("a long interface name", {"CNI_IFNAME": "e" * 16}, PARAMETER, "CNI_IFNAME"),
    ("a slash in the interface name", {"CNI_IFNAME": "a/b"}, PARAMETER, "CNI_IFNAME"),
    ("no namespace", {"CNI_NETNS": None}, PARAMETER, "CNI_NETNS"),
    ("an unknown command", {"CNI_COMMAND": "FROB"}, PARAMETER, "CNI_COMMAND"),
    ("a namespace that is not there", {"CNI_NETNS": "/run/netns/never-was"}, NETNS, "CNI_NETNS"),
    ("a plain file", {"CNI_NETNS": "/etc/passwd"}, NETNS, "CNI_NETNS"),
    ("a directory", {"CNI_NETNS": "/run"}, NETNS, "CNI_NETNS"),
    ("a device", {"CNI_NETNS": "/dev/zero"}, NETNS, "CNI_NETNS"),
    ("a mount namespace", {"CNI_NETNS": "/proc/self/ns/mnt"}, NETNS, "no network namespace"),
]

DOCUMENTS = [
    ("nothing", b"", DECODING, "JSON"),
    ("no JSON", b"{", DECODING, "JSON"),
    ("no object", b"[]", DECODING, "object"),
    ("no text", b"\xff\xfe\x00", DECODING, "JSON"),
    ("an unknown version", config(cniVersion="9.9.9"), VERSION, "9.9.9"),
    ("no name", config(name=None), CONFIG, "name"),
    ("a bad name", config(name="a b"), CONFIG, "name"),
    ("a wrong ipMasq", config(ipMasq="maybe"), CONFIG, "ipMasq"),
    ("a large MTU", config(mtu=9000), CONFIG, "mtu"),
    ("a small MTU", config(mtu=100), CONFIG, "mtu"),
]


def refused(lab: Lab, pod: Pod, code: int, word: str, **call: Any) -> None:
    """ADD fails with the code, says the word, and the node is as before."""
    node = lab.layout.node(pod.node)
    before = take(node)

    reply = execute(lab, pod, "ADD", **call)

    assert (reply.status, reply.document.get("code")) == (1, code), reply.text
    assert word in reply.text
    assert "Traceback" not in reply.stderr
    assert differences(before, take(node)) == []
    with open_iproute(pod.netns) as ipr:
        assert [str(link.get("ifname")) for link in ipr.get_links()] == ["lo"]


@pytest.mark.parametrize(
    ("env", "code", "word"), [c[1:] for c in ENVIRONMENTS], ids=[c[0] for c in ENVIRONMENTS]
)
def test_add_refuses_a_wrong_environment(
    lab: Lab, spare: Pod, env: dict[str, str | None], code: int, word: str
) -> None:
    refused(lab, spare, code, word, env=env)


@pytest.mark.parametrize(
    ("stdin", "code", "word"), [c[1:] for c in DOCUMENTS], ids=[c[0] for c in DOCUMENTS]
)
def test_add_refuses_a_wrong_configuration(
    lab: Lab, spare: Pod, stdin: bytes, code: int, word: str
) -> None:
    refused(lab, spare, code, word, stdin=stdin)


@pytest.mark.parametrize("alone", [False, True], ids=["by the agent", "without one"])
def test_add_refuses_the_nodes_own_namespace(lab: Lab, spare: Pod, alone: bool) -> None:
    own = str(NETNS_DIR / lab.layout.node(spare.node).netns)

    refused(lab, spare, NETNS, "of the node itself", env={"CNI_NETNS": own}, alone=alone)


def test_a_namespace_that_ended_is_refused(lab: Lab, spare: Pod) -> None:
    """Its path is still there, as a plain file."""
    path = NETNS_DIR / f"{lab.layout.name}-ended"
    path.touch()
    try:
        refused(lab, spare, NETNS, "CNI_NETNS", env={"CNI_NETNS": str(path)})
    finally:
        path.unlink()


Obstacle = Callable[[LabNode], AbstractContextManager[object]]


@contextmanager
def links(node: LabNode) -> Iterator[IPRoute]:
    with open_iproute(node.netns) as ipr:
        yield ipr


def other_vxlan_device(node: LabNode) -> AbstractContextManager[object]:
    with links(node) as ipr:
        ipr.link("add", ifname="stranger0", kind="vxlan", vxlan_id=9, vxlan_port=PORT)
    return nullcontext()


@contextmanager
def overlay_moved_away(node: LabNode) -> Iterator[None]:
    """As a container's network setup does it with what has a certain name. The port stays taken
    where the device was made."""
    elsewhere = f"{node.netns}-else"
    make_netns(elsewhere)
    try:
        with open_rtnl(node.netns) as ipr:
            ipr.add_vxlan("pycni0", mac=GATEWAY_MAC, mtu=1450, port=PORT)
        ip(node.netns, "link", "set", "pycni0", "netns", NETNS_DIR / elsewhere)
        yield
    finally:
        remove_netns(elsewhere)


def name_taken(node: LabNode) -> AbstractContextManager[object]:
    with links(node) as ipr:
        ipr.link("add", ifname="pycni0", kind="bridge", address=STRANGER_MAC)
    return nullcontext()


def no_default_route(node: LabNode) -> AbstractContextManager[object]:
    with links(node) as ipr:
        for family in (2, 10):
            ipr.route("del", dst="default", family=family)
    return nullcontext()


def small_uplink(node: LabNode) -> AbstractContextManager[object]:
    with links(node) as ipr:
        ipr.link("set", index=ipr.link_lookup(ifname=NODE_UPLINK)[0], mtu=1300)
    return nullcontext()


def uplink_without_address(node: LabNode) -> AbstractContextManager[object]:
    with links(node) as ipr:
        ipr.flush_addr(index=ipr.link_lookup(ifname=NODE_UPLINK)[0], scope=0)
        for address in ipr.get_addr(family=10, scope=0):
            if address["prefixlen"] == 64:
                ipr.addr(
                    "del",
                    index=address["index"],
                    address=address.get("IFA_ADDRESS"),
                    prefixlen=64,
                )
    write_settings(node, uplink=NODE_UPLINK)
    return nullcontext()


def no_bpffs_possible(node: LabNode) -> AbstractContextManager[object]:
    (node.directory / "bpf" / "something").write_text("in the way")
    return nullcontext()


def no_uplink_of_that_name(node: LabNode) -> AbstractContextManager[object]:
    write_settings(node, uplink="eth7")
    return nullcontext()


def a_vtep_that_is_not_ours(node: LabNode) -> AbstractContextManager[object]:
    write_settings(node, vtep="198.18.0.99")
    return nullcontext()


def a_vtep_of_another_interface(node: LabNode) -> AbstractContextManager[object]:
    """One that leads to other machines, unlike a dummy, whose address any uplink may serve."""
    with links(node) as ipr:
        ipr.link("add", ifname="other0", kind="bridge", state="up")
        ipr.addr("add", index=ipr.link_lookup(ifname="other0")[0], address=OTHER, prefixlen=24)
    write_settings(node, vtep=OTHER, uplink=NODE_UPLINK)
    return nullcontext()


def no_etcd(node: LabNode) -> AbstractContextManager[object]:
    write_settings(node, store="etcd://127.0.0.1:1")
    return nullcontext()


def overlapping_networks(node: LabNode) -> AbstractContextManager[object]:
    write_settings(node, cluster_cidrs=["198.18.0.0/16"])
    return nullcontext()


def large_mtu(node: LabNode) -> AbstractContextManager[object]:
    write_settings(node, mtu=1500)
    return nullcontext()


def unknown_key(node: LabNode) -> AbstractContextManager[object]:
    write_settings(node, vnii=7)
    return nullcontext()


def no_toml(node: LabNode) -> AbstractContextManager[object]:
    node.settings_path.write_text("= =")
    return nullcontext()


def unknown_store(node: LabNode) -> AbstractContextManager[object]:
    write_settings(node, store="etcd:http://127.0.0.1")
    return nullcontext()


def port_of_another_process(node: LabNode) -> AbstractContextManager[object]:
    return port_held(node.netns, "0.0.0.0", PORT)


OBSTACLES: list[tuple[Obstacle, str]] = [
    (other_vxlan_device, "stranger0"),
    (overlay_moved_away, f"UDP port {PORT} is taken by a VXLAN device that somebody moved"),
    (port_of_another_process, f"{PORT}"),
    (name_taken, "pycni0"),
    (no_default_route, "default route"),
    (small_uplink, "1300"),
    (uplink_without_address, "no global address"),
    (no_bpffs_possible, "not empty"),
    (no_uplink_of_that_name, "eth7"),
    (a_vtep_that_is_not_ours, "no interface of this node has the address 198.18.0.99"),
    (a_vtep_of_another_interface, f"{OTHER} is not an address of the uplink {NODE_UPLINK}"),
    (no_etcd, "does not answer: 127.0.0.1:1: Connection refused"),
    (overlapping_networks, "overlaps"),
    (large_mtu, "mtu = 1500"),
    (unknown_key, "did you mean vni"),
    (no_toml, "not TOML"),
    (unknown_store, "etcd"),
]


@pytest.fixture
def bare() -> Iterator[Lab]:
    """Two hosts that pycni has not touched."""
    with prepared_lab(nodes=2) as lab:
        yield lab


@pytest.mark.parametrize(
    ("obstacle", "word"), OBSTACLES, ids=[case[0].__name__ for case in OBSTACLES]
)
def test_setup_refuses_and_leaves_the_host_as_it_was(
    bare: Lab, obstacle: Obstacle, word: str
) -> None:
    node, other = bare.layout.nodes
    readable = take(node)
    with obstacle(node):
        before = readable if obstacle in (unknown_key, no_toml) else take(node)

        failed = pycni(node, "setup")

        said = failed.stderr.decode()
        assert failed.returncode == 1, said
        assert word in said
        assert "to do:" in said
        assert "Traceback" not in said
        if obstacle not in (unknown_key, no_toml):
            assert unlike(before, take(node)) == []
    setup(other)
    assert [row["name"] for row in bare.pycni(other, "nodes")] == [other.name]


def test_the_holder_of_the_port_is_named(bare: Lab) -> None:
    node = bare.layout.nodes[0]
    with port_held(node.netns, "0.0.0.0", PORT) as pid:
        said = pycni(node, "setup").stderr.decode()

    assert f"pid {pid}" in said


def test_a_port_held_on_one_address_is_a_port_in_use(bare: Lab) -> None:
    node = bare.layout.nodes[0]
    before = take(node)
    with port_held(node.netns, "127.0.0.1", PORT) as pid:
        failed = pycni(node, "setup")

    assert failed.returncode == 1
    assert f"pid {pid}" in failed.stderr.decode()
    assert unlike(before, take(node)) == []


def test_a_node_with_other_cluster_parameters_is_refused(bare: Lab) -> None:
    first, second = bare.layout.nodes
    setup(first)
    write_settings(second, vni=8)
    before = take(second)

    failed = pycni(second, "setup")

    assert failed.returncode == 1
    assert b"vni is 7 in the store and 8 here" in failed.stderr
    assert unlike(before, take(second)) == []


NEEDED_HELPERS = [
    (probe.HELPER_REDIRECT_PEER, "redirect_peer", "bpf_redirect_peer"),
    (probe.HELPER_SET_TUNNEL_KEY, "set_tunnel_key", "bpf_skb_set_tunnel_key"),
]


def setup_without(node: LabNode, helper: int) -> subprocess.CompletedProcess[bytes]:
    command: list[str | Path] = [sys.executable, SETUP_WITHOUT, node.settings_path, str(helper)]
    return processes.run(node.netns, command)


@pytest.mark.parametrize(
    ("helper", "feature", "name"), NEEDED_HELPERS, ids=[case[1] for case in NEEDED_HELPERS]
)
def test_a_kernel_without_a_needed_helper_is_refused(
    bare: Lab, helper: int, feature: str, name: str
) -> None:
    node, other = bare.layout.nodes
    before = take(node)

    failed = setup_without(node, helper)

    said = failed.stderr.decode()
    assert failed.returncode == 1, said
    assert f"this kernel ({os.uname().release}) lacks {feature}" in said
    assert name in said
    assert "to do:" in said
    assert "Linux 5.10" in said
    assert "Traceback" not in said
    assert unlike(before, take(node)) == []
    setup(other)
    assert [row["name"] for row in bare.pycni(other, "nodes")] == [other.name]


def test_a_kernel_without_a_helper_that_has_a_fallback_serves(bare: Lab) -> None:
    node = bare.layout.nodes[0]

    done = setup_without(node, probe.HELPER_KTIME_COARSE)

    assert done.returncode == 0, done.stderr.decode()
    assert pycni(node, "status").returncode != BROKEN


def without_clang(node: LabNode) -> subprocess.CompletedProcess[bytes]:
    command = ["/usr/bin/env", f"PATH={NO_PROGRAMS}", *pycni_command(node, "setup")]
    return processes.run(node.netns, command)


def test_no_clang_and_no_object_compiled_before_is_said(bare: Lab) -> None:
    node = bare.layout.nodes[0]
    write_settings(node, cache_dir=node.directory / "cache")
    before = take(node)

    failed = without_clang(node)

    assert failed.returncode == 1
    assert b"apt install clang" in failed.stderr
    assert unlike(before, take(node)) == []


def test_without_clang_an_object_compiled_before_serves(bare: Lab) -> None:
    first, second = bare.layout.nodes
    setup(first)  # fills the cache of the session

    done = without_clang(second)

    assert done.returncode == 0, done.stderr.decode()
    assert pycni(second, "status").returncode != BROKEN


def test_a_failed_second_setup_leaves_a_working_node(lab: Lab) -> None:
    node, far = lab.layout.nodes[0], lab.layout.nodes[1].pods[0]
    text = node.settings_path.read_text()
    before = take(node)
    write_settings(node, mtu=9000)

    failed = pycni(node, "setup")
    node.settings_path.write_text(text)

    assert failed.returncode == 1
    assert differences(before, take(node)) == []
    assert unanswered(lab, node.pods[0].netns, lab.addresses(far)) == []


def unlike(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """Differences that a refused setup must not leave; the empty private directories may stay."""
    return [
        line
        for line in differences(before, after, without=("neighbours",))
        if not line.startswith(("+ files: state/. ", "+ files: run/. "))
    ]
