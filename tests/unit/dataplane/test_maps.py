# SPDX-License-Identifier: Apache-2.0
"""The codecs of the tables, and what they are of in the compiled programs."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader import btf
from loader.bpf import MapInfo, Object
from loader.compile import Objects, compile_programs
from loader.migration import OF_PROGRAMS
from loader.places import OBJECTS
from pycni.cluster import IPAddress, IPNetwork
from pycni.dataplane import dumps, maps
from pycni.dataplane.maps import Config, Endpoint, Table, Vtep
from pycni.dataplane.reconcile import plan
from pycni.dataplane.records import pack_address
from pycni.settings import LINK_LOCAL_MAX

POD = ip_address("10.244.1.5")
POD6 = ip_address("fd00:10:244:1::5")
NODE_CIDR = ip_network("10.244.1.0/24")
NODE_CIDR6 = ip_network("fd00:10:244:1::/64")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    return compile_programs(tmp_path_factory.mktemp("abi") / "cache")


CONFIG = Config(
    vni=7,
    port=4789,
    stack_ifindex=12,
    vxlan_ifindex=13,
    overlay_mtu=1450,
    masquerade_mark=0x20000000,
    tunnel_key_local=True,
    own_encap=True,
    decap_l3=True,
    netkit=True,
    direct=True,
    routed=True,
    ipip=True,
    gateways=(ip_address("10.244.1.1"),),
    clusters=(ip_network("10.244.0.0/16"),),
    pod_cidrs=(NODE_CIDR,),
    link_local_services=(IPv4Address("169.254.169.254"), IPv4Address("169.254.20.10")),
    dead_end_mark=0x790021,
    services=True,
    reject_mark=0x790022,
)


def test_a_config_lands_in_the_members_it_is_meant_for(objects: Objects) -> None:
    types = btf.of_object(objects.path("from_container"))
    found = {
        member.name: CONFIG.pack()[member.offset : member.offset + member.size]
        for member, _ in types.members(types.find(btf.STRUCT, "config"))
    }

    assert struct.unpack("=I", found["vni"]) == (7,)
    assert struct.unpack("=I", found["stack_ifindex"]) == (12,)
    assert struct.unpack("=I", found["vxlan_ifindex"]) == (13,)
    assert struct.unpack("=I", found["overlay_mtu"]) == (1450,)
    assert struct.unpack("=I", found["masquerade_mark"]) == (0x20000000,)
    assert struct.unpack("!H", found["vxlan_port"]) == (4789,)
    assert found["gateway_mac"].hex(":") == maps.GATEWAY_MAC
    assert found["overlay_mac"].hex(":") == maps.OVERLAY_MAC
    assert found["tunnel_key_local"] == b"\x01"
    assert found["own_encap"] == b"\x01"
    assert found["decap_l3"] == b"\x01"
    assert found["netkit"] == b"\x01"
    assert found["direct"] == b"\x01"
    assert found["routed"] == b"\x01"
    assert found["ipip"] == struct.pack("=I", 1)
    assert found["gateway4"] == pack_address(ip_address("10.244.1.1"))
    assert found["gateway6"] == bytes(16)
    assert found["cluster4"][:16] == pack_address(ip_address("10.244.0.0"))
    assert found["cluster4"][16:] == b"\xff" * 14 + bytes(2)
    assert found["cluster6"] == bytes(16) + b"\xff" * 16
    assert found["node_prefix4"] == struct.pack("=I", 96 + 24) + b"\xff" * 15 + bytes(1)
    assert found["node_prefix6"] == bytes(20)
    assert struct.unpack("=I", found["dead_end_mark"]) == (0x790021,)
    assert struct.unpack("=I", found["services"]) == (1,)
    assert struct.unpack("=I", found["reject_mark"]) == (0x790022,)
    assert found["link_local"] == bytes([169, 254, 169, 254, 169, 254, 20, 10, *bytes(8)])


def test_there_is_room_for_as_many_link_local_services_as_the_settings_allow() -> None:
    most = tuple(IPv4Address("169.254.0.1") + number for number in range(LINK_LOCAL_MAX))
    config = replace(CONFIG, link_local_services=most)

    assert b"".join(one.packed for one in most) in config.pack()
    with pytest.raises(ValueError, match="5 link-local services"):
        replace(config, link_local_services=(*most, most[0])).pack()


@pytest.mark.parametrize("network", [NODE_CIDR, NODE_CIDR6, ip_network("10.244.9.9/32")])
def test_a_prefix_comes_back_as_it_went(network: IPNetwork) -> None:
    assert maps.REMOTES.key.unpack(maps.REMOTES.key.pack(network)) == network


def test_an_ipv4_prefix_counts_from_the_top_of_128_bits() -> None:
    length, _ = maps.REMOTE_KEY.unpack(maps.REMOTES.key.pack(NODE_CIDR))

    assert length == 96 + 24


@pytest.mark.parametrize("masquerade", [True, False])
@pytest.mark.parametrize("shaped", [True, False])
@pytest.mark.parametrize("forwards", [True, False])
@pytest.mark.parametrize("queued", [True, False])
def test_an_endpoint_comes_back_as_it_went(
    masquerade: bool, shaped: bool, forwards: bool, queued: bool
) -> None:
    endpoint = Endpoint(77, "02:00:00:00:00:05", masquerade, shaped, forwards, queued)

    assert maps.ENDPOINTS.value.unpack(maps.ENDPOINTS.value.pack(endpoint)) == endpoint


@pytest.mark.parametrize("used", [True, False])
def test_a_next_hop_comes_back_as_it_went(used: bool) -> None:
    hop = maps.NextHop(3, 1450, "02:00:00:00:00:05", "02:00:00:00:00:06", used=used)

    back = maps.NEXTHOPS.value.unpack(maps.NEXTHOPS.value.pack(hop))

    assert back == hop
    assert back.used == used


@pytest.mark.parametrize("vtep", [POD, POD6])
def test_what_is_said_of_the_node_comes_back_as_it_went(vtep: IPAddress) -> None:
    own = maps.Self(vtep, 1 << 40)

    assert maps.SELF.value.unpack(maps.SELF.value.pack(own)) == own


@pytest.mark.parametrize("vtep", [POD, POD6])
def test_a_remote_and_a_vtep_come_back_as_they_went(vtep: IPAddress) -> None:
    assert maps.REMOTES.value.unpack(maps.REMOTES.value.pack(vtep)) == vtep
    assert maps.VTEPS.value.unpack(maps.VTEPS.value.pack(Vtep(7, direct=True))) == Vtep(7, True)
    assert maps.VTEPS.key.unpack(maps.VTEPS.key.pack(vtep)) == vtep


def test_every_table_is_as_the_programs_declare_it(objects: Objects) -> None:
    """S-167"""
    declared: dict[str, MapInfo] = {}
    for program in OBJECTS:
        with Object.open(objects.path(program)) as opened:
            declared |= opened.maps()

    sizes = {name: (declared[name].key_size, declared[name].value_size) for name in maps.TABLES}

    assert sizes == {
        name: (codec.key.size, codec.value.layout.size) for name, codec in maps.TABLES.items()
    }
    assert {n for n, m in declared.items() if m.type_name not in OF_PROGRAMS} == set(maps.TABLES)
    assert {n for n, m in declared.items() if "percpu" in m.type_name} == set(dumps.COUNTERS)


class Entries(dict[bytes, bytes]):
    """A map in the kernel, and of which bytes it was asked for a digest."""

    but = range(0)

    def entries(self) -> dict[bytes, bytes]:
        return dict(self)

    def stream(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self.items())

    def marked(self, place: range) -> Iterator[tuple[bytes, bytes]]:
        return ((key, value) for key, value in self.items() if any(value[at] for at in place))

    def digest(self, *, but: range) -> bytes:
        self.but = but
        return b"digest"


@dataclass
class Opened:
    """An open table."""

    entries: list[tuple[object, object]]

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def items(self) -> list[tuple[object, object]]:
        return self.entries


PREFIXES: dict[IPNetwork, IPAddress] = {NODE_CIDR: POD, NODE_CIDR6: POD, ip_network("::/0"): POD6}


@given(st.sets(st.sampled_from(list(PREFIXES))), st.sets(st.sampled_from(list(PREFIXES))))
@pytest.mark.parametrize("synced", [True, False])
def test_a_plan_by_bytes_is_the_plan_by_values(
    synced: bool, have: set[IPNetwork], want: set[IPNetwork]
) -> None:
    stale = {one: POD6 if one == NODE_CIDR else PREFIXES[one] for one in have}
    wanted = {one: PREFIXES[one] for one in want}
    pack_key, pack_value = maps.REMOTES.key.pack, maps.REMOTES.value.pack
    entries = Entries({pack_key(one): pack_value(vtep) for one, vtep in stale.items()})

    found = Table(entries, maps.REMOTES).plan(wanted, synced=synced)  # type: ignore[arg-type]

    by_values = plan(stale, wanted, synced=synced)
    assert found.upserts == by_values.upserts
    assert set(found.deletes) == set(by_values.deletes)


def test_a_large_map_that_is_as_wanted_takes_little_memory() -> None:
    codec = maps.REMOTES
    wanted: dict[IPNetwork, IPAddress] = {
        ip_network((number << 8, 24)): POD for number in range(1, 5000)
    }

    def stream() -> Iterator[tuple[bytes, bytes]]:
        return ((codec.key.pack(one), codec.value.pack(vtep)) for one, vtep in wanted.items())

    pinned: Any = SimpleNamespace(stream=stream)
    table = Table(pinned, codec)
    tracemalloc.start()
    try:
        changes = table.plan(wanted, synced=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert not changes
    assert peak < len(wanted)  # less than a byte for each, and not hundreds


def test_every_table_has_rows_of_its_members(monkeypatch: pytest.MonkeyPatch) -> None:
    hop = maps.NextHop(3, 1450, "02:00:00:00:00:05", "02:00:00:00:00:06", used=True)
    tables = {"nexthops": [(POD, hop)], "remotes": [(NODE_CIDR, POD)], "vteps": [(POD6, Vtep(7))]}
    monkeypatch.setattr(maps, "open_table", lambda _, name: Opened(tables[name]))

    assert dumps.dump(Path("/nowhere"), "nexthops")[0] == [
        {"vtep": str(POD), "ifindex": 3, "mtu": 1450, "dst_mac": hop.dst_mac,
         "src_mac": hop.src_mac, "on_link": False, "direct": False, "unresolved": False,
         "ipip": False, "used": True}
    ]  # fmt: skip
    assert dumps.dump(Path("/nowhere"), "remotes")[0] == [
        {"prefix": str(NODE_CIDR), "vtep": str(POD)}
    ]
    assert dumps.dump(Path("/nowhere"), "vteps")[0] == [
        {"vtep": str(POD6), "node": 7, "direct": False, "routed": False, "ipip": False}
    ]


def test_only_entries_that_are_marked_are_read() -> None:
    hops = [
        maps.NextHop(3, 1450, "02:00:00:00:00:05", "02:00:00:00:00:06", used=used)
        for used in (True, False)
    ]
    pack = maps.NEXTHOPS.value.pack
    entries = Entries({pack_address(POD): pack(hops[0]), pack_address(POD6): pack(hops[1])})
    table = Table(entries, maps.NEXTHOPS)  # type: ignore[arg-type]

    assert list(table.marked("used")) == [(POD, hops[0])]
    assert table.digest(but="used") == b"digest"
    assert entries.but == range(22, 24)
    table.digest()
    assert entries.but == range(0)
