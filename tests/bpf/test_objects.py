# SPDX-License-Identifier: Apache-2.0
"""The objects as they are shipped: every setting passes the verifier, every name is documented."""

from __future__ import annotations

import re
import struct

import pytest

from bpf.dataplane import Dataplane
from bpf.layout import ON, config, prefix
from bpf.outcomes import dropped, to_node, to_stack, with_macs
from bpf.world import GATEWAY_MAC, IPV4, IPV6, OVERLAY_MAC, Family, cluster
from loader import btf
from loader.bpf import Object
from loader.compile import SOURCES, Objects, compile_programs
from loader.places import PROGRAMS, SOCKETS
from loader.sockets import HOOKS

pytestmark = pytest.mark.root

# types.h: mask all ones and address zero where the family is off
NO_CLUSTER = bytes(16) + b"\xff" * 16

README = SOURCES / "README.md"

SETTINGS = {
    "both families": {},
    "IPv4 only": {"gateway6": bytes(16), "cluster6": NO_CLUSTER},
    "IPv6 only": {"gateway4": bytes(16), "cluster4": NO_CLUSTER},
    "a kernel before 6.0": {"tunnel_key_local": b"\0"},
    "own encapsulation": {"own_encap": b"\1"},
    "no VXLAN device": {"vxlan_ifindex": bytes(4)},
    "own encapsulation, no VXLAN device": {"own_encap": b"\1", "vxlan_ifindex": bytes(4)},
    "own encapsulation before 6.3": {"own_encap": b"\1", "decap_l3": b"\0"},
    "a kernel with netkit": {"netkit": b"\1"},
    "direct": {"direct": b"\1"},
    "direct, own encapsulation": {"direct": b"\1", "own_encap": b"\1"},
    "direct by routers": {"direct": b"\1", "routed": b"\1"},
    "direct by routers, own encapsulation": {"direct": b"\1", "routed": b"\1", "own_encap": b"\1"},
    "direct, no VXLAN device": {"direct": b"\1", "vxlan_ifindex": bytes(4)},
    "IPIP": {"ipip": ON},
    "IPIP before 6.3": {"ipip": ON, "decap_l3": b"\0"},
    "IPIP and direct, own encapsulation": {"ipip": ON, "direct": b"\1", "own_encap": b"\1"},
    "IPIP, no VXLAN device": {"ipip": ON, "vxlan_ifindex": bytes(4)},
    "IPIP on a kernel with netkit": {"ipip": ON, "netkit": b"\1"},
    "services": {"services": ON},
    "services, own encapsulation": {"services": ON, "own_encap": b"\1"},
    "services, direct by routers, IPIP, own encapsulation, a kernel with netkit": {
        "services": ON,
        "direct": b"\1",
        "routed": b"\1",
        "ipip": ON,
        "own_encap": b"\1",
        "netkit": b"\1",
    },
    "services, own encapsulation before 6.3": {
        "services": ON,
        "own_encap": b"\1",
        "decap_l3": b"\0",
    },
    "every drop an event": {"event_mask": struct.pack("=I", 0)},
    "dead ends": {"dead_end_mark": struct.pack("=I", 7)},
    "no masquerade mark": {"masquerade_mark": struct.pack("=I", 0)},
    "the whole world is the cluster": {"cluster4": prefix("0.0.0.0/0"), "cluster6": prefix("::/0")},
}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    return compile_programs(tmp_path_factory.mktemp("shipped"))


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_every_setting_passes_the_verifier(
    shipped: Objects, program: str, changes: dict[str, bytes]
) -> None:
    with Object.open(shipped.path(program)) as opened:
        opened.set_rodata(config(shipped, **changes))

        opened.load()

        assert opened.programs() == (program,)


@pytest.mark.parametrize(
    "changes", [{}, {"set_retval": ON}], ids=["without set_retval", "with set_retval"]
)
def test_programs_for_sockets_pass_the_verifier(
    shipped: Objects, changes: dict[str, bytes]
) -> None:
    with Object.open(shipped.path(SOCKETS)) as opened:
        opened.set_rodata(config(shipped, **changes))

        opened.load()

        assert opened.programs() == tuple(HOOKS)


def test_an_old_kernel_chooses_the_tunnels_source(recorded: Objects, family: Family) -> None:
    with Dataplane(recorded, IPV4, tunnel_key_local=b"\0") as dataplane:
        dataplane.fill(cluster(IPV4))
        packet = family.from_pod_one(family.pod_far)

        outcome = dataplane.run("from_container", packet)

    encapsulated = with_macs(packet, src=OVERLAY_MAC, dst=GATEWAY_MAC)
    assert outcome == to_node(IPV4.node_two, encapsulated)


def test_a_family_that_is_off_has_no_cluster(recorded: Objects) -> None:
    with Dataplane(recorded, IPV4, gateway6=bytes(16), cluster6=NO_CLUSTER) as dataplane:
        dataplane.fill(cluster(IPV4))
        packet6 = IPV6.from_pod_one(IPV6.nobody)
        packet4 = IPV4.from_pod_one(IPV4.nobody)

        assert dataplane.run("from_container", packet6) == to_stack(packet6)
        assert dataplane.run("from_container", packet4) == dropped("UNKNOWN_DESTINATION", packet4)


def test_the_readme_has_every_reason_and_no_other(shipped: Objects) -> None:
    types = btf.of_object(shipped.path("from_container"))
    reasons = types.enum("drop_reason").keys() - {"DROP_REASONS"}

    documented = re.findall(r"^\| `([A-Z0-9_]+)`", _chapter("Drop reasons"), re.M)

    assert sorted(f"DROP_{name}" for name in documented) == sorted(reasons)


def test_the_readme_has_every_path_and_no_other(shipped: Objects) -> None:
    types = btf.of_object(shipped.path("from_container"))
    paths = types.enum("packet_path").keys() - {"PATHS", "PATH_NONE"}

    documented = re.findall(r"^\| `([A-Z0-9_]+)`", _chapter("Paths"), re.M)

    assert sorted(f"PATH_{name}" for name in documented) == sorted(paths)


def test_the_readme_has_every_header() -> None:
    text = README.read_text()

    missing = [path.stem for path in SOURCES.glob("lib/*.h") if f"`{path.stem}`" not in text]

    assert missing == []


def _chapter(title: str) -> str:
    (found,) = re.findall(rf"^## {title}$(.*?)(?=^## |\Z)", README.read_text(), re.M | re.S)
    return str(found)
