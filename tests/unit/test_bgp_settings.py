# SPDX-License-Identifier: Apache-2.0
"""pycni/bgp_settings.py: the table [bgp] of the settings file, and every kind of mistake in it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from pycni import settings
from pycni.bgp_settings import BgpPeer
from pycni.errors import InvalidSettings
from pycni.settings import Settings

FILE = Path("/etc/pycni/pycni.toml")
PEERS = """
[[bgp.peers]]
address = "198.18.0.254"
asn = 64999
"""
WHOLE = f"""
store = "kube:"
node_name = "one"
[bgp]
asn = 64512
communities = ["64512:100"]
{PEERS}
password_file = "/etc/pycni/bgp.password"
bfd = true
communities = ["1:2:3"]
"""
SERVICES = "[bgp]\nasn = 1\n\nannounce = ['cluster-ips']\n"
STORE = f"""
store = "bgp:"
encap = "direct"
cluster_cidrs = ["10.244.0.0/16"]
[bgp]
asn = 64512
learn = ["pods"]
pod_cidrs = ["10.244.1.0/24"]
{PEERS}
"""


def parse(text: str) -> Settings:
    return settings.parse(text, FILE)


def refusal(text: str) -> str:
    with pytest.raises(InvalidSettings) as caught:
        parse(text)
    assert caught.value.hint
    return caught.value.message


def test_there_is_none_by_default():
    assert parse("").bgp is None


def test_a_table_is_read_with_its_defaults():
    found = parse(WHOLE).bgp

    assert found is not None
    (peer,) = found.peers
    assert peer == BgpPeer(
        address="198.18.0.254", asn=64999, password_file="/etc/pycni/bgp.password", bfd=True,
        communities=("1:2:3",),
    )  # fmt: skip
    assert (found.learn, found.announce) == ((), ("pods", "published"))
    assert (found.mesh, found.graceful_restart, found.hold_time) == (False, True, 90)


def test_as_the_store_it_gives_the_node_its_pod_cidrs():
    found = parse(STORE)

    assert found.learns_pods
    assert found.given_pod_cidrs == (ip_network("10.244.1.0/24"),)
    assert found.store_url == "bgp:/var/lib/pycni/bgp.db"
    assert found.store_file == Path("/var/lib/pycni/bgp.db")


def test_services_are_announced_where_they_are_listed():
    more = "service_networks = ['10.96.0.0/12']"
    found = parse(f"services_file = '/etc/services.yaml'\n{SERVICES}{more}{PEERS}")

    assert found.announces_services
    assert found.bgp is not None
    assert found.bgp.of_services == {"cluster-ips"}
    assert not parse("[bgp]\nasn = 1" + PEERS).announces_services
    assert not parse("").announces_services


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[bgp]\nasn = 0" + PEERS, "line 2: bgp.asn = 0: must be the number of an autonomous"),
        ("[bgp]\nmesh = true", "line 1: bgp.asn is missing"),
        ("[bgp]\nasn = 1\nasnn = 2" + PEERS, "line 3: unknown key bgp.asnn: did you mean asn?"),
        ("[bgp]\nasn = 1", "line 1: bgp: there is nobody to speak to"),
        ("[bgp]\nasn = 1" + PEERS + PEERS, "line 3: bgp.peers: 198.18.0.254 is there 2 times"),
        ("[bgp]\nasn = 1" + PEERS + "client = true", "line 3: bgp.peers.0: client = true"),
        ("[bgp]\nasn = 1" + PEERS + "multihop = 999", "bgp.peers.0.multihop = 999: must be 0"),
        ("[bgp]\nasn = 1" + PEERS + "communities = ['1']", "must be a community such as"),
        ("[bgp]\nasn = 1" + PEERS + "communities = ['1:70000']", "must be a community such as"),
        ("[bgp]\nasn = 1" + PEERS + "communities = ['1:\u0663']", "must be a community such as"),
        ("[bgp]\nasn = 1" + PEERS + "password = 'x'", "line 6: unknown key bgp.peers.0.password"),
        ("[bgp]\nasn = 1" + PEERS + "password_file = 'x'", "must be an absolute path"),
        ("[bgp]\nasn = 1\nhold_time = 2" + PEERS, "bgp.hold_time = 2: must be from 3 to"),
        ("[bgp]\nasn = 1\nrouter_id = 'x'" + PEERS, "must be four numbers"),
        ("[bgp]\nasn = 1\nrouter_id = '0.0.0.0'" + PEERS, "must be four numbers"),
        ("[bgp]\nasn = 1\nannounce = ['all']" + PEERS, 'must be "pods", "published"'),
        (
            SERVICES + "service_networks = ['10.96.0.0/12']" + PEERS,
            "line 4: bgp.announce: cluster-ips: the store has no Services",
        ),
        (SERVICES + PEERS, "line 4: bgp.announce: cluster-ips: say in bgp.service_networks"),
        (SERVICES + "service_networks = ['0.0.0.0/0']" + PEERS, "0.0.0.0/0 overlaps cluster_cidrs"),
        (SERVICES + "service_networks = ['10.96.0.1/12']" + PEERS, "has bits set after its prefix"),
        (
            "[bgp]\nasn = 1\nservice_networks = ['10.96.0.0/12']" + PEERS,
            "line 3: bgp.service_networks: service_networks: add 'cluster-ips'",
        ),
        ("[bgp]\nasn = 1\nreflectors = ['n']" + PEERS, "line 3: bgp.reflectors: reflectors are"),
        ("[bgp]\nasn = 1\nmesh = true\nreflectors = ['N!']", "must be the name of a node"),
        ("[bgp]\nasn = 1\nlearn = ['pods']" + PEERS, "line 3: bgp.learn: learn = ['pods']: the"),
        ("[bgp]\nasn = 1\npod_cidrs = ['10.244.1.0/24']" + PEERS, "the store gives nodes theirs"),
        ("[[bgp.peers]]\naddress = 'x'\nasn = 1", "line 2: bgp.peers.0.address = 'x': must be"),
        ("[[bgp.peers]]\naddress = 'fe80::1'\nasn = 1", "must be the IP address of a BGP speaker"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, problem: str):
    assert problem in refusal(text)


def test_the_second_of_two_peers_is_told_by_its_number_and_line():
    second = PEERS.replace("254", "253").replace("64999", "-1")

    assert "line 10: bgp.peers.1.asn = -1" in refusal("[bgp]\nasn = 1\n" + PEERS + second)


@pytest.mark.parametrize(
    ("was", "becomes", "problem"),
    [
        ("asn = 64512\n", "asn = 64512\nmesh = true\n", "bgp.mesh: mesh = true"),
        ('learn = ["pods"]', "learn = []", "bgp.learn: learn must have 'pods'"),
        ('encap = "direct"', 'encap = "auto"', "encap: encap = 'auto': with store = 'bgp:'"),
        ("10.244.1.0/24", "10.244.1.0/25", "must have one /24 out of 10.244.0.0/16"),
        ("10.244.1.0/24", "10.245.1.0/24", "must have one /24 out of 10.244.0.0/16"),
        ('pod_cidrs = ["10.244.1.0/24"]', "", "must have one /24 out of 10.244.0.0/16"),
        ('"10.244.1.0/24"', '"10.244.1.0/24", "fd00::/64"', "must have one /24"),
    ],
)
def test_as_the_store_it_needs_what_a_store_gives(was: str, becomes: str, problem: str):
    assert was in STORE

    assert problem in refusal(STORE.replace(was, becomes))


def test_bgp_as_the_store_without_a_table_is_refused():
    assert "takes the table [bgp]" in refusal('store = "bgp:"\nencap = "direct"')


def test_an_address_of_either_family_is_a_peer():
    found = parse("[bgp]\nasn = 1" + PEERS.replace("198.18.0.254", "fd00::1")).bgp

    assert found is not None
    assert found.peers[0].address == ip_address("fd00::1")
