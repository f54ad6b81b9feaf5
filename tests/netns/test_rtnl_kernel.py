"""pycni/kernel/rtnl.py in the kernel: the same is there afterwards as after pyroute2's requests."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from pycni.errors import InvalidNetns
from pycni.kernel import namespaces
from pycni.kernel.links import (
    IFF_UP,
    add_address,
    delete_link,
    find_link,
    generate_no_address,
)
from pycni.kernel.rtnl import Rtnl
from support.kernel import iproute, needs_root, netns

pytestmark = needs_root

HOST_MAC, POD_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
HOST_MTU, POD_MTU = 1450, 1400
GATEWAY4, GATEWAY6 = "169.254.1.1", "fe80::1"
ROUTES: list[dict[str, Any]] = [
    {"dst": "192.0.2.0/25", "family": 2},
    {"dst": "0.0.0.0/0", "family": 2, "gateway": GATEWAY4, "flags": ["onlink"]},
    {"dst": "2001:db8:1::/48", "family": 10},
    {"dst": "::/0", "family": 10, "gateway": GATEWAY6, "flags": ["onlink"]},
    {"dst": "203.0.113.0/24", "family": 2, "table": 100, "priority": 7},
]

Open = Callable[[str], Any]


@contextmanager
def rtnl(path: str) -> Iterator[Rtnl]:
    with Path(path).open() as namespace, namespaces.open_rtnl(namespace.fileno()) as opened:
        yield opened


def make_pair(ipr: Any, pod: str) -> None:
    with Path(pod).open() as namespace:
        peer = {
            "ifname": "eth0", "address": POD_MAC, "mtu": POD_MTU, "net_ns_fd": namespace.fileno(),
        }  # fmt: skip
        ipr.link("add", ifname="host0", kind="veth", address=HOST_MAC, mtu=HOST_MTU, peer=peer)


def configure(host: Any, pod: Any) -> None:
    (index,) = host.link_lookup(ifname="host0")
    generate_no_address(host, index)
    host.link("set", index=index, flags=IFF_UP, change=IFF_UP, IFLA_IFALIAS="pycni:1 key=x")
    host.tc("add", "clsact", index)
    (index,) = pod.link_lookup(ifname="eth0")
    generate_no_address(pod, index)
    pod.link("set", index=index, flags=IFF_UP, change=IFF_UP)
    for text, length in (("198.51.100.2", 24), ("2001:db8::2", 128)):
        add_address(pod, index, ip_address(text), prefixlen=length)
    for route in ROUTES:
        pod.route("add", oif=index, **route)


def made_with(opened: Open) -> list[str]:
    """What is in a node's and a pod's namespace after `configure`."""
    with netns() as node_path, netns() as pod_path:
        with opened(node_path) as node, opened(pod_path) as pod:
            make_pair(node, pod_path)
            configure(node, pod)
        return [*_everything(node_path), *_everything(pod_path)]


def test_what_it_makes_is_what_pyroute2_makes() -> None:
    expected = made_with(iproute)

    assert made_with(rtnl) == expected
    assert len(expected) > len(ROUTES)


def test_an_end_has_one_queue() -> None:
    with netns() as path, netns() as pod, rtnl(path) as ipr:
        make_pair(ipr, pod)

        with iproute(path) as reader:
            (link,) = reader.link("get", ifname="host0")

        assert (link.get("num_tx_queues"), link.get("num_rx_queues")) == (1, 1)


@pytest.mark.parametrize("opened", [rtnl, iproute])
def test_a_link_is_found_by_name_and_none_is_none(opened: Open) -> None:
    with netns() as path, netns() as pod, opened(path) as ipr:
        make_pair(ipr, pod)

        link = find_link(ipr, "host0")

        assert link is not None
        assert (link["index"], link.get("address")) == (
            ipr.link_lookup(ifname="host0")[0],
            HOST_MAC,
        )
        assert link.get(("linkinfo", "kind")) == "veth"
        assert find_link(ipr, "other0") is None
        assert delete_link(ipr, "host0")
        assert not delete_link(ipr, "host0")


@pytest.mark.parametrize("opened", [rtnl, iproute])
def test_a_name_that_is_taken_is_told_by_its_errno(opened: Open) -> None:
    with netns() as path, netns() as pod, opened(path) as ipr:
        make_pair(ipr, pod)

        with pytest.raises(NetlinkError) as caught:
            make_pair(ipr, pod)

        assert caught.value.code == errno.EEXIST


def test_both_ways_of_one_socket_can_take_turns() -> None:
    with netns() as path, netns() as pod, rtnl(path) as ipr:
        for _ in range(3):
            make_pair(ipr, pod)
            (index,) = ipr.link_lookup(ifname="host0")
            assert [link["index"] for link in ipr.get_links(index)] == [index]
            ipr.link("del", index=index)
        assert find_link(ipr, "host0") is None


def test_a_socket_in_another_namespace_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(namespaces, "inside", lambda _descriptor, work: work())
    with netns() as path, Path(path).open() as namespace:
        before = os.listdir("/proc/self/fd")

        with pytest.raises(InvalidNetns, match="another namespace"):
            namespaces.open_rtnl(namespace.fileno())

        assert os.listdir("/proc/self/fd") == before


def _everything(path: str) -> list[str]:
    """Links, addresses, routes and clsact qdiscs of a namespace, numbers of links put as names."""
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
                    "family dst_len proto scope type flags tos "
                    "RTA_DST RTA_GATEWAY RTA_TABLE RTA_PRIORITY RTA_OIF",
                )
                for one in ipr.get_routes()
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
