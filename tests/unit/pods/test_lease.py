# SPDX-License-Identifier: Apache-2.0
"""Leases as links say them: names, aliases, and what is not ours."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.dataplane.maps import Endpoint
from pycni.kernel.links import ALIAS_MAX, Link
from pycni.names import GATEWAY_MAC, NETKIT, VETH, AttachmentKey
from pycni.pods.lease import Lease, is_ours, read_lease

KEY = AttachmentKey("podnet", "4f2a9c", "eth0")
POD = ip_address("10.244.1.5")
POD6 = ip_address("fd00:10:244:1::5")
LEASE = Lease(KEY.digest, "podnet", "4f2a9c", "eth0", KEY.mac, (POD, POD6), masquerade=True)


def link_of(ifname: str, *, kind: str = "", mac: str = "", alias: str = "") -> Link:
    return Link(7, ifname=ifname, kind=kind, mac=mac, alias=alias)


def test_a_lease_is_read_back_from_its_alias() -> None:
    link = link_of(KEY.host_ifname, alias=LEASE.alias())

    lease = read_lease(link)

    assert lease == replace(
        LEASE, key_digest=KEY.digest[:32], host_ifname=KEY.host_ifname, ifindex=7
    )


def test_an_alias_reads_as_it_always_did() -> None:
    """Links outlive an upgrade: their aliases are read by the versions that follow."""
    every = replace(LEASE, ports=True, shaped=True, forwards=True, dhcp=True, rules=(4, 6))

    assert every.alias() == (
        f"pycni:1 key={KEY.digest} if=eth0 mac={KEY.mac} ip={POD} ip={POD6} "
        "masq ports shaped forwards dhcp rules=46 net=podnet id=4f2a9c"
    )
    assert read_lease(link_of(KEY.host_ifname, alias=every.alias())) == replace(
        every, host_ifname=KEY.host_ifname, ifindex=7
    )


def test_an_endpoint_has_the_flags_of_its_lease_that_the_programs_know() -> None:
    every = replace(LEASE, ports=True, shaped=True, forwards=True, dhcp=True)

    assert every.endpoint == Endpoint(0, KEY.mac, masquerade=True, shaped=True, forwards=True)
    assert replace(LEASE, masquerade=False).endpoint == Endpoint(0, KEY.mac)


@pytest.mark.parametrize("rules", [(), (4,), (6,), (4, 6)])
def test_an_alias_says_which_addresses_have_a_table_of_their_own(rules: tuple[int, ...]) -> None:
    alias = replace(LEASE, rules=rules).alias()

    lease = read_lease(link_of(KEY.host_ifname, alias=alias))

    assert lease is not None
    assert lease.rules == rules
    assert [address.version for address in lease.ruled] == list(rules)


@given(
    network=st.text("abcdefgh-_.019", min_size=1, max_size=300),
    container=st.text("abcdefgh-_.019", min_size=1, max_size=300),
    ifname=st.text("abc019", min_size=1, max_size=15),
)
def test_an_alias_fits_the_kernel_whatever_the_names(
    network: str, container: str, ifname: str
) -> None:
    key = AttachmentKey(network, container, ifname)
    lease = replace(
        LEASE, key_digest=key.digest, network=network, container_id=container, ifname=ifname
    )

    found = read_lease(link_of(key.host_ifname, alias=lease.alias()))

    assert len(lease.alias().encode()) <= ALIAS_MAX
    assert len(key.host_ifname) == 15
    assert found is not None
    assert key.digest.startswith(found.key_digest)
    assert found.addresses == lease.addresses


def test_attachments_that_differ_in_one_part_have_other_names() -> None:
    keys = [
        KEY,
        replace(KEY, network="podnet2"),
        replace(KEY, container_id="4f2a9d"),
        replace(KEY, ifname="eth1"),
        AttachmentKey("podnet4f2a9c", "eth0", "x"),
    ]

    assert len({key.host_ifname for key in keys}) == len(keys)
    assert len({key.mac for key in keys}) == len(keys)


def test_a_mac_is_unicast_and_locally_administered() -> None:
    assert int(KEY.mac[:2], 16) & 0b11 == 0b10


@pytest.mark.parametrize(
    "link",
    [
        link_of("eth0", alias=LEASE.alias()),
        link_of(KEY.host_ifname),
        link_of(KEY.host_ifname, alias="uplink of rack 7"),
        link_of(KEY.host_ifname, alias=LEASE.alias().replace("ip=10", "ip=ten")),
        link_of(KEY.host_ifname, alias="pycni:1 key=1 net=a"),
    ],
    ids=["other name", "no alias", "other alias", "bad address", "cut alias"],
)
def test_a_link_that_does_not_say_it_all_is_no_lease(link: Link) -> None:
    assert read_lease(link) is None


@pytest.mark.parametrize("kind", [VETH, NETKIT])
def test_a_link_is_ours_by_its_alias_or_by_name_and_mac(kind: str) -> None:
    ours = {"kind": kind, "mac": GATEWAY_MAC}

    assert is_ours(link_of(KEY.host_ifname, **ours))
    assert is_ours(link_of(KEY.host_ifname, **ours, alias="somebody edited this"))
    assert not is_ours(link_of(KEY.host_ifname, kind=kind, mac="02:00:00:00:00:01"))
    assert not is_ours(link_of(KEY.host_ifname, kind="dummy", mac=GATEWAY_MAC))
    assert not is_ours(link_of("eth0", **ours))
    assert is_ours(link_of("eth0", kind=kind, mac=KEY.mac, alias=LEASE.alias()))
    assert not is_ours(link_of("eth0", kind="dummy", mac=GATEWAY_MAC, alias=LEASE.alias()))
