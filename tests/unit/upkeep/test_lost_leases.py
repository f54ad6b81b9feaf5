# SPDX-License-Identifier: Apache-2.0
"""Pods' links that lost their alias, their name, or both; and what an agent remembers of them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from pycni.kernel.links import IFF_UP, Link
from pycni.names import GATEWAY_MAC, host_ifname
from pycni.pods.lease import Lease
from pycni.upkeep import lost_leases
from pycni.upkeep.seen import Seen

LEASE = Lease("0123456789abcdef" * 2, "net", "one", "eth0", "02:00:00:00:00:01",
              (ip_address("10.244.0.5"),), masquerade=False)  # fmt: skip
OTHER = replace(LEASE, key_digest="fedcba9876543210" * 2, container_id="two")
NAME = host_ifname(LEASE.key_digest)
HOST = Link(7, IFF_UP, NAME, GATEWAY_MAC, 1450, LEASE.alias(), kind="veth")


class FakeRtnl:
    """A kernel with some links."""

    def __init__(self, *links: Link) -> None:
        self.kept = {link.ifindex: link for link in links}

    def links(self) -> list[Link]:
        return list(self.kept.values())

    def link(self, ifname: str) -> Link | None:
        return next((one for one in self.links() if one.ifname == ifname), None)

    def set_alias(self, ifindex: int, alias: str) -> None:
        self.kept[ifindex] = self.kept[ifindex]._replace(alias=alias)

    def rename(self, link: Link, ifname: str) -> None:
        assert self.link(ifname) is None
        self.kept[link.ifindex] = self.kept[link.ifindex]._replace(ifname=ifname)


def look(kernel: FakeRtnl, known: dict[int, str] | None) -> list[tuple[str, str]]:
    d: Any = None
    return [(one.sentence, one.todo) for one in lost_leases.faults(d, seen(kernel, known))]


def mend(kernel: FakeRtnl, known: dict[int, str]) -> None:
    d: Any = None
    lost_leases.mend(d, seen(kernel, known))


def seen(kernel: FakeRtnl, known: dict[int, str] | None) -> Seen:
    ipr: Any = kernel
    return Seen(ipr, aliases=known)


@pytest.mark.parametrize(
    "changed",
    [
        HOST._replace(ifname="lan7"),
        HOST._replace(alias="mine"),
        HOST._replace(ifname="lan7", alias="mine"),
        HOST._replace(ifname="lan7", alias="", mac="02:00:00:00:00:77"),
        HOST._replace(alias=OTHER.alias()),
        HOST._replace(ifname=host_ifname(OTHER.key_digest), alias=OTHER.alias()),
    ],
    ids=["name", "alias", "both", "and the MAC", "another's alias", "all of another"],
)
def test_what_was_seen_before_comes_back(changed: Link) -> None:
    kernel, known = FakeRtnl(HOST), dict[int, str]()
    assert look(kernel, known) == []
    kernel.kept[HOST.ifindex] = changed

    ((sentence, todo),) = look(kernel, known)
    mend(kernel, known)

    assert sentence.startswith(f"{NAME} is ")
    assert todo == ""
    now = kernel.kept[HOST.ifindex]
    assert (now.ifname, now.alias) == (NAME, LEASE.alias())
    assert look(kernel, known) == []


def test_a_lease_that_changed_is_remembered_as_it_is_now() -> None:
    kernel, known = FakeRtnl(HOST), dict[int, str]()
    look(kernel, known)
    kernel.set_alias(HOST.ifindex, replace(LEASE, rules=(4,)).alias())

    assert look(kernel, known) == []
    assert "rules=4" in known[HOST.ifindex]


def test_what_nobody_remembers_is_for_a_person() -> None:
    kernel = FakeRtnl(HOST._replace(ifname="lan7", alias="mine"))

    ((sentence, todo),) = look(kernel, {})

    assert sentence == "lan7 is without its lease: somebody changed its alias"
    assert "made anew" in todo


def test_a_name_that_another_link_has_is_for_a_person() -> None:
    taken = Link(8, IFF_UP, NAME, "02:00:00:00:00:88", kind="dummy")
    kernel = FakeRtnl(HOST._replace(ifname="lan7"), taken)

    ((sentence, todo),) = look(kernel, {})
    mend(kernel, {})

    assert sentence == f"{NAME} is renamed: it is lan7 now"
    assert f"ip link show {NAME}" in todo
    assert kernel.kept[HOST.ifindex].ifname == "lan7"


def test_links_with_each_others_names_get_their_own_back() -> None:
    names = [host_ifname(str(number) * 32) for number in range(3)]
    links = [
        Link(20 + number, IFF_UP, names[(number + 1) % 3], GATEWAY_MAC, 1450,
             replace(LEASE, key_digest=str(number) * 32).alias(), kind="veth")
        for number in range(3)
    ]  # fmt: skip
    kernel = FakeRtnl(*links)

    assert [todo for _, todo in look(kernel, {})] == [""] * 3
    mend(kernel, {})

    assert [kernel.kept[20 + number].ifname for number in range(3)] == names
    assert look(kernel, {}) == []


def test_links_of_others_are_left_alone() -> None:
    others = [
        Link(9, IFF_UP, "veth9", "02:00:00:00:00:99", alias="mine", kind="veth"),
        Link(10, IFF_UP, "pycni0", GATEWAY_MAC, kind="vxlan"),
        HOST._replace(flags=0, alias=""),
    ]

    assert look(FakeRtnl(*others), {}) == []


def test_an_index_that_is_gone_is_forgotten() -> None:
    known = dict[int, str]()
    look(FakeRtnl(HOST), known)

    look(FakeRtnl(), known)

    assert known == {}
