"""The formats of maps.py against the BTF of the compiled programs, and the codecs."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network

import pytest

from loader import btf
from loader.compile import Objects, compile_programs
from pycni.cluster import IPAddress, IPNetwork
from pycni.dataplane import events, maps
from pycni.dataplane.maps import Config, Endpoint

MIRRORS = {
    "endpoint": (maps.ENDPOINT_FORMAT, (4, 6, 2)),
    "remote_key": (maps.REMOTE_KEY_FORMAT, (4, 16)),
    "vtep": (maps.VTEP_FORMAT, (4,)),
    "nexthop": (maps.NEXTHOP_FORMAT, (4, 4, 6, 6, 4)),
    "self": (maps.SELF_FORMAT, (16, 8)),
    "drop_count": (maps.DROP_COUNT_FORMAT, (8, 8)),
    "path_count": (maps.PATH_COUNT_FORMAT, (8, 8)),
    "event": (maps.EVENT_FORMAT, (2, 2, 4)),
    "drop_event": (maps.DROP_EVENT_FORMAT, (8, 8, 4, 4, 1, 1, 2, 4, 64)),
    "config": (
        maps.CONFIG_FORMAT,
        (4, 4, 4, 4, 4, 4, 6, 6, 2, 1, 1, 1, 1, 2, 16, 16, 32, 32, 20, 20),
    ),
}
"""Struct in C, its mirror in Python, and the sizes of the members that the mirror stands for."""

POD = ip_address("10.244.1.5")
POD6 = ip_address("fd00:10:244:1::5")
NODE_CIDR = ip_network("10.244.1.0/24")
NODE_CIDR6 = ip_network("fd00:10:244:1::/64")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    return compile_programs(tmp_path_factory.mktemp("abi") / "cache")


@pytest.mark.parametrize("name", MIRRORS)
def test_every_member_is_where_python_packs_it(objects: Objects, name: str) -> None:
    mirror, sizes = MIRRORS[name]

    members = [m for p in ("from_container", "from_overlay") for m in _members(objects, p, name)]

    assert members
    assert tuple(member.size for member in members[: len(sizes)]) == sizes
    ends = [0, *(member.offset + member.size for member in members[: len(sizes)])]
    assert [member.offset for member in members[: len(sizes)]] == ends[:-1]
    assert ends[-1] == mirror.size


def test_a_config_lands_in_the_members_it_is_meant_for(objects: Objects) -> None:
    config = Config(
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
        gateways=(ip_address("10.244.1.1"),),
        clusters=(ip_network("10.244.0.0/16"),),
        pod_cidrs=(NODE_CIDR,),
    )
    found = {
        member.name: config.pack()[member.offset : member.offset + member.size]
        for member in btf.struct(objects.path("from_container"), "config")
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
    assert found["gateway4"] == maps.pack_address(ip_address("10.244.1.1"))
    assert found["gateway6"] == bytes(16)
    assert found["cluster4"][:16] == maps.pack_address(ip_address("10.244.0.0"))
    assert found["cluster4"][16:] == b"\xff" * 14 + bytes(2)
    assert found["cluster6"] == bytes(16) + b"\xff" * 16
    assert found["node_prefix4"] == struct.pack("=I", 96 + 24) + b"\xff" * 15 + bytes(1)
    assert found["node_prefix6"] == bytes(20)


def test_the_flags_are_those_of_the_programs(objects: Objects) -> None:
    flags = btf.enum(objects.path("from_container"), "endpoint_flag")

    assert flags == {name: getattr(maps, name) for name in vars(maps) if name in flags}
    assert flags.keys() == {name for name in vars(maps) if name.startswith("ENDPOINT_")} - {
        "ENDPOINT_FORMAT"
    }


def test_the_events_are_those_of_the_programs(objects: Objects) -> None:
    kinds = btf.enum(objects.path("from_container"), "event_kind")

    assert kinds == {"EVENT_DROP": events.EVENT_DROP}


@pytest.mark.parametrize("address", [POD, POD6])
def test_an_address_comes_back_as_it_went(address: IPAddress) -> None:
    assert maps.unpack_address(maps.pack_address(address)) == address


def test_ipv4_addresses_are_v4_mapped_in_network_order() -> None:
    assert maps.pack_address(POD).hex() == "00000000000000000000ffff0af40105"


@pytest.mark.parametrize("network", [NODE_CIDR, NODE_CIDR6, ip_network("10.244.9.9/32")])
def test_a_prefix_comes_back_as_it_went(network: IPNetwork) -> None:
    assert maps.REMOTES.unpack_key(maps.REMOTES.pack_key(network)) == network


def test_an_ipv4_prefix_counts_from_the_top_of_128_bits() -> None:
    length, _ = maps.REMOTE_KEY_FORMAT.unpack(maps.REMOTES.pack_key(NODE_CIDR))

    assert length == 96 + 24


@pytest.mark.parametrize("masquerade", [True, False])
@pytest.mark.parametrize("shaped", [True, False])
@pytest.mark.parametrize("forwards", [True, False])
@pytest.mark.parametrize("queued", [True, False])
def test_an_endpoint_comes_back_as_it_went(
    masquerade: bool, shaped: bool, forwards: bool, queued: bool
) -> None:
    endpoint = Endpoint(77, "02:00:00:00:00:05", masquerade, shaped, forwards, queued)

    assert maps.ENDPOINTS.unpack_value(maps.ENDPOINTS.pack_value(endpoint)) == endpoint


@pytest.mark.parametrize("used", [True, False])
def test_a_next_hop_comes_back_as_it_went(used: bool) -> None:
    hop = maps.NextHop(3, 1450, "02:00:00:00:00:05", "02:00:00:00:00:06", used=used)

    back = maps.NEXTHOPS.unpack_value(maps.NEXTHOPS.pack_value(hop))

    assert back == hop
    assert back.used == used


@pytest.mark.parametrize("vtep", [POD, POD6])
def test_what_is_said_of_the_node_comes_back_as_it_went(vtep: IPAddress) -> None:
    own = maps.Self(vtep, 1 << 40)

    assert maps.SELF.unpack_value(maps.SELF.pack_value(own)) == own


def _members(objects: Objects, program: str, name: str) -> list[btf.Member]:
    try:
        return btf.struct(objects.path(program), name)
    except btf.LayoutError:  # this program does not use the struct
        return []
