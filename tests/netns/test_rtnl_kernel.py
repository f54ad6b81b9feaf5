# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/rtnl.py in the kernel: the same is there afterwards as after pyroute2's requests."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from pycni.errors import InvalidNetns
from pycni.kernel import namespaces
from pycni.kernel.addresses import Address
from pycni.kernel.links import IFF_UP, End, Vxlan
from pycni.kernel.netlink import FAMILIES, NetlinkError
from pycni.kernel.qdiscs import TC_H_ROOT, Qdisc
from pycni.kernel.routes import Hop, Route
from pycni.kernel.rtnl import Rtnl
from pycni.kernel.rules import Rule
from support.kernel import add_address, iproute, needs_root, netns, rtnl

pytestmark = needs_root

HOST_MAC, POD_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
HOST_MTU, POD_MTU = 1450, 1400
ALIAS = "pycni:1 key=x"
NO_ADDRESS = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", 1)]})]}
"""IN6_ADDR_GEN_MODE_NONE, linux/if_link.h."""
ADDRESSES = ((ip_address("198.51.100.2"), 24), (ip_address("2001:db8::2"), 128))
GATEWAY4, GATEWAY6 = ip_address("169.254.1.1"), ip_address("fe80::1")
POD4 = ip_address("198.51.100.2")
ANYWHERE4, ANYWHERE6 = ip_network("0.0.0.0/0"), ip_network("::/0")
ROUTES = [
    Route(ip_network("192.0.2.0/25"), 0),
    Route(ANYWHERE4, 0, GATEWAY4),
    Route(ip_network("2001:db8:1::/48"), 0),
    Route(ANYWHERE6, 0, GATEWAY6),
    Route(ip_network("203.0.113.0/24"), 0, table=100, priority=7),
    Route(ip_network("203.0.113.0/24"), 0, GATEWAY4, POD4, mtu=1300, advmss=1260),
    Route(ip_network("203.0.113.64/26"), 0, table=70790003, scope=253),
]
ROUTES_OF_PYROUTE2: list[dict[str, Any]] = [
    {"dst": "192.0.2.0/25", "family": 2},
    {"dst": "0.0.0.0/0", "family": 2, "gateway": str(GATEWAY4), "flags": ["onlink"]},
    {"dst": "2001:db8:1::/48", "family": 10},
    {"dst": "::/0", "family": 10, "gateway": str(GATEWAY6), "flags": ["onlink"]},
    {"dst": "203.0.113.0/24", "family": 2, "table": 100, "priority": 7},
    {"dst": "203.0.113.0/24", "family": 2, "gateway": str(GATEWAY4), "flags": ["onlink"],
     "prefsrc": str(POD4), "metrics": {"mtu": 1300, "advmss": 1260}},
    {"dst": "203.0.113.64/26", "family": 2, "table": 70790003, "scope": 253},
]  # fmt: skip


@pytest.fixture
def path() -> Iterator[str]:
    with netns() as made:
        yield made


@pytest.fixture
def pod_path() -> Iterator[str]:
    with netns() as made:
        yield made


def make_pair(ipr: Rtnl, pod_path: str) -> tuple[int, int]:
    """Of a link in each namespace; their indexes."""
    with Path(pod_path).open() as namespace, rtnl(pod_path) as pod:
        host, peer = End("host0", HOST_MAC, HOST_MTU), End("eth0", POD_MAC, POD_MTU)
        ipr.add_veth(host, peer._replace(netns_fd=namespace.fileno()))
        return ipr.ifindex("host0"), pod.ifindex("eth0")


def make_by_rtnl(host_path: str, pod_path: str) -> None:
    with rtnl(host_path) as host, rtnl(pod_path) as pod:
        index, inside = make_pair(host, pod_path)
        host.generate_no_address(index)
        host.set_up(index, alias=ALIAS)
        host.add_clsact(index)
        pod.generate_no_address(inside)
        pod.set_up(inside)
        for address, length in ADDRESSES:
            pod.add_address(inside, address, prefixlen=length)
        for route in ROUTES:
            pod.add_route(route._replace(ifindex=inside))


def make_by_pyroute2(host_path: str, pod_path: str) -> None:
    with iproute(host_path) as host, iproute(pod_path) as pod:
        with Path(pod_path).open() as namespace:
            peer = {"ifname": "eth0", "address": POD_MAC, "mtu": POD_MTU,
                    "net_ns_fd": namespace.fileno()}  # fmt: skip
            host.link("add", ifname="host0", kind="veth", address=HOST_MAC, mtu=HOST_MTU, peer=peer)
        (index,) = host.link_lookup(ifname="host0")
        host.link("set", index=index, IFLA_AF_SPEC=NO_ADDRESS)
        host.link("set", index=index, state="up", IFLA_IFALIAS=ALIAS)
        host.tc("add", "clsact", index)
        (inside,) = pod.link_lookup(ifname="eth0")
        pod.link("set", index=inside, IFLA_AF_SPEC=NO_ADDRESS)
        pod.link("set", index=inside, state="up")
        for address, length in ADDRESSES:
            add_address(pod, inside, address, prefixlen=length)
        for route in ROUTES_OF_PYROUTE2:
            pod.route("add", oif=inside, **route)


def test_what_it_makes_is_what_pyroute2_makes(path: str, pod_path: str) -> None:
    with netns() as other_path, netns() as other_pod:
        make_by_pyroute2(other_path, other_pod)
        expected = [*_everything(other_path), *_everything(other_pod)]

    make_by_rtnl(path, pod_path)

    assert [*_everything(path), *_everything(pod_path)] == expected
    assert len(expected) > len(ROUTES)


def test_an_end_has_one_queue(path: str, pod_path: str) -> None:
    with rtnl(path) as ipr, iproute(path) as reader:
        make_pair(ipr, pod_path)

        (link,) = reader.link("get", ifname="host0")

    assert (link.get("num_tx_queues"), link.get("num_rx_queues")) == (1, 1)


def test_a_link_is_found_by_name_and_index_and_none_is_none(path: str, pod_path: str) -> None:
    with rtnl(path) as ipr:
        index, inside = make_pair(ipr, pod_path)

        link = ipr.link("host0")

        assert link is not None
        assert (link.ifindex, link.mac, link.mtu, link.kind) == (
            index, HOST_MAC, HOST_MTU, "veth",
        )  # fmt: skip
        assert (link.peer_ifindex, link.is_up, link.is_ethernet) == (inside, False, True)
        assert ipr.link_at(index) == link
        assert [one.ifname for one in ipr.links()] == ["lo", "host0"]
        assert ipr.link("other0") is None
        assert ipr.link_at(999) is None


def test_the_other_end_is_found_by_the_number_of_its_namespace(path: str, pod_path: str) -> None:
    with rtnl(path) as ipr:
        index, inside = make_pair(ipr, pod_path)
        host = ipr.link_at(index)
        assert host is not None
        assert host.peer_netnsid is not None

        peer = ipr.link_at(inside, netnsid=host.peer_netnsid)

        assert peer is not None
        assert peer.mac == POD_MAC
        with pytest.raises(NetlinkError) as caught:
            ipr.link_at(inside, netnsid=4711)
        assert caught.value.errno == errno.EINVAL


def test_what_is_deleted_is_gone_and_again_is_no_error(path: str, pod_path: str) -> None:
    with rtnl(path) as ipr:
        index, _ = make_pair(ipr, pod_path)

        assert ipr.delete_link(index)

        assert not ipr.delete_link(index)
        assert ipr.link("host0") is None


def test_a_name_that_is_taken_is_told_by_its_errno(path: str, pod_path: str) -> None:
    with rtnl(path) as ipr:
        make_pair(ipr, pod_path)

        with pytest.raises(NetlinkError) as caught:
            make_pair(ipr, pod_path)

    assert caught.value.errno == errno.EEXIST


def test_addresses_are_listed_and_taken_away(path: str) -> None:
    with rtnl(path) as ipr:
        ipr.set_up(1)
        ipr.add_address(1, POD4, prefixlen=24)

        listed = ipr.addresses(1)
        ipr.delete_address(1, POD4, prefixlen=24)

        assert [one._replace(flags=0) for one in listed] == [
            Address(1, ip_interface("127.0.0.1/8"), is_global=False),
            Address(1, ip_interface("198.51.100.2/24")),
            Address(1, ip_interface("::1/128"), is_global=False),
        ]
        assert POD4 not in {one.ip for one in ipr.addresses()}
        with pytest.raises(NetlinkError) as caught:
            ipr.delete_address(1, POD4, prefixlen=24)
        assert caught.value.errno == errno.EADDRNOTAVAIL


def test_routes_are_listed_replaced_and_taken_away(path: str, pod_path: str) -> None:
    make_by_rtnl(path, pod_path)
    with rtnl(pod_path) as pod:
        index = pod.ifindex("eth0")
        wanted = [route._replace(ifindex=index) for route in ROUTES]
        narrow = Route(ANYWHERE4, index, GATEWAY4, mtu=1280)

        listed = pod.routes()
        pod.replace_route(narrow)
        replaced = [one for one in pod.routes() if one.dst == ANYWHERE4]
        pod.delete_route(narrow)

        by_default = 1024  # the priority that IPv6 gives a route without one
        assert set(wanted) <= {
            one._replace(priority=one.priority % by_default, hops=()) for one in listed
        }
        assert replaced == [narrow._replace(hops=(Hop(index, GATEWAY4),))]
        assert ANYWHERE4 not in {one.dst for one in pod.routes()}
        with pytest.raises(NetlinkError) as caught:
            pod.delete_route(narrow)
        assert caught.value.errno == errno.ESRCH


def test_an_ipv4_route_may_have_an_ipv6_gateway(path: str, pod_path: str) -> None:
    """RFC 8950."""
    make_by_rtnl(path, pod_path)
    with rtnl(pod_path) as pod, iproute(pod_path) as reader:
        pod.add_route(Route(ip_network("233.252.0.0/24"), pod.ifindex("eth0"), GATEWAY6))

        (found,) = reader.get_routes(dst="233.252.0.0/24", family=2)

    assert found.get("RTA_VIA")["addr"] == str(GATEWAY6)


@pytest.mark.parametrize("source", [POD4, ip_address("2001:db8::2")], ids=["IPv4", "IPv6"])
def test_rules_are_added_listed_and_taken_away(path: str, source: Any) -> None:
    rule = Rule(source, 7079, 70790003)
    with rtnl(path) as ipr:
        ipr.add_rule(rule)

        listed = ipr.rules(source.version)
        ipr.delete_rule(Rule(source, 7079))

        assert listed == [rule]
        assert ipr.rules(source.version) == []
        with pytest.raises(NetlinkError) as caught:
            ipr.delete_rule(rule)
        assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize(
    ("version", "given", "network"),
    [(4, "10.1.2.3", "10.1.0.0/16"), (6, "2001:db8::3", "2001::/16")],
    ids=["IPv4", "IPv6"],
)
def test_others_may_make_rules_with_bits_that_are_not_compared(
    path: str, version: int, given: str, network: str
) -> None:
    with rtnl(path) as ipr, iproute(path) as writer:
        family = FAMILIES[version]
        common = {"family": family, "table": 100}
        writer.rule("add", src=given, src_len=16, priority=50, **common)
        writer.rule("add", dst=given, dst_len=16, priority=51, **common)

        assert ipr.rules(version) == []
        assert ipr.rule_destinations(version) == [ip_network(network)]


def test_a_vxlan_device_is_made_and_recognised(path: str) -> None:
    with rtnl(path) as ipr:
        ipr.add_vxlan("vx0", mac=HOST_MAC, mtu=1400, port=4789)

        link = ipr.link("vx0")

    assert link is not None
    assert (link.kind, link.mac, link.mtu) == ("vxlan", HOST_MAC, 1400)
    assert link.vxlan == Vxlan(4789, collects_metadata=True)


def test_a_port_joins_a_bridge_and_its_mtu_changes(path: str, pod_path: str) -> None:
    with rtnl(path) as ipr, iproute(path) as reader:
        index, _ = make_pair(ipr, pod_path)
        ipr.add_bridge("br0")

        ipr.set_master(index, ipr.ifindex("br0"))
        ipr.set_mtu(index, 1300)

        (link,) = reader.get_links(index)
        assert (link.get("IFLA_MASTER"), link.get("mtu")) == (ipr.ifindex("br0"), 1300)
        with pytest.raises(NetlinkError) as caught:
            ipr.add_bridge("br0")
        assert caught.value.errno == errno.EEXIST


def test_qdiscs_are_told_by_place_and_kind(path: str, pod_path: str) -> None:
    with rtnl(path) as ipr:
        index, _ = make_pair(ipr, pod_path)
        bare = ipr.ingress_qdisc(index)

        ipr.add_clsact(index)
        ipr.add_tbf(index, rate=125_000, burst=10_000, limit=100_000)

        assert bare is None
        assert ipr.ingress_qdisc(index) == "clsact"
        assert Qdisc(index, TC_H_ROOT, "tbf", 125_000) in ipr.qdiscs(index)
        ipr.delete_clsact(index)
        assert ipr.ingress_qdisc(index) is None


def test_what_forwards_frames_and_packets_is_told_by_its_addresses(
    path: str, pod_path: str
) -> None:
    near, far = ip_address("198.51.100.7"), ip_address("192.0.2.7")
    with rtnl(path) as ipr, iproute(path) as writer:
        index, _ = make_pair(ipr, pod_path)
        writer.neigh("add", dst=str(near), lladdr=POD_MAC, ifindex=index, state=0x80)
        writer.link("add", ifname="vx0", kind="vxlan", vxlan_id=7, vxlan_port=4789)
        writer.fdb("append", ifindex=ipr.ifindex("vx0"), lladdr=POD_MAC, dst=str(far))

        assert near in ipr.neighbour_addresses()
        assert ipr.fdb_addresses() == {far}


def test_both_ways_of_one_socket_can_take_turns(path: str, pod_path: str) -> None:
    with rtnl(path) as ipr:
        for _ in range(3):
            index, _ = make_pair(ipr, pod_path)
            ipr.add_tbf(index, rate=125_000, burst=10_000, limit=100_000)
            assert ipr.link_at(index) == ipr.link("host0")
            assert [one.kind for one in ipr.qdiscs(index)] == ["tbf"]
            ipr.delete_link(index)
        assert ipr.link("host0") is None


def test_all_of_many_links_are_listed(path: str) -> None:
    with rtnl(path) as ipr:
        for number in range(100):
            ipr.add_veth(End(f"a{number}"), End(f"b{number}"))

        names = {link.ifname for link in ipr.links()}

    assert names == {"lo", *(f"{end}{number}" for end in "ab" for number in range(100))}


def test_a_socket_in_another_namespace_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(namespaces, "inside", lambda _descriptor, work: work())
    with Path(path).open() as namespace:
        before = os.listdir("/proc/self/fd")

        with pytest.raises(InvalidNetns, match="another namespace"):
            namespaces.open_rtnl(namespace.fileno())

        assert os.listdir("/proc/self/fd") == before


def _everything(path: str) -> list[str]:
    """Links, addresses, routes and clsact qdiscs of a namespace, numbers of links put as names.

    Without the route of multicast, which the kernel makes some time after a link is up.
    """
    with iproute(path) as ipr:
        links = list(ipr.get_links())
        names = {link["index"]: str(link.get("ifname")) for link in links}
        qdiscs = [one for one in ipr.get_qdiscs() if one.get("TCA_KIND") == "clsact"]
        found = [
            *(_told(one, names, "ifname address mtu ifalias") for one in links),
            *(f"{names[one['index']]} {_mode(one)}" for one in links),
            *(
                _told(one, names, "prefixlen scope IFA_ADDRESS IFA_LOCAL IFA_FLAGS")
                for one in ipr.get_addr()
            ),
            *(
                _told(
                    one,
                    names,
                    "family dst_len proto scope type flags tos RTA_DST RTA_GATEWAY RTA_TABLE "
                    "RTA_PRIORITY RTA_PREFSRC RTA_METRICS RTA_OIF",
                )
                for one in ipr.get_routes()
                if one.get("RTA_DST") != "ff00::"
            ),
            *(_told(one, names, "parent handle TCA_KIND") for one in qdiscs),
        ]
    return sorted(found)


def _told(one: Any, names: dict[int, str], fields: str) -> str:
    index = one.get("RTA_OIF") if "dst_len" in one else one["index"]
    values = {name: one.get(name) for name in fields.split()}
    if "RTA_OIF" in values:
        values["RTA_OIF"] = names.get(index)
    return f"{names.get(index)} {values}"


def _mode(link: Any) -> str:
    spec = link.get("af_spec")
    inet6 = spec.get("af_inet6") if spec is not None else None
    up = bool(link["flags"] & IFF_UP)  # whether it runs already is up to the kernel's own work
    return f"{up=} mode={inet6.get('inet6_addr_gen_mode') if inet6 is not None else None}"
