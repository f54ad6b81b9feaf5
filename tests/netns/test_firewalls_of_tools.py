# SPDX-License-Identifier: Apache-2.0
"""Rule sets as well-known tools make them, cut down: what they do to pods' packets is what the row
`firewalls` says of it."""

from __future__ import annotations

import time

import pytest

from netns.test_firewalls import (
    in_iptables,
    iptables,
    mend,
    reaches_the_world,
    stopping,
    table_of_others,
)
from pycni.lab.cluster import Lab
from pycni.node import other_firewalls
from pycni.node.record import Node
from pycni.settings import load
from support.labs import within

FIREWALLD = """
table inet firewalld {{
    {sets}
    chain filter_FORWARD {{
        type filter hook forward priority 10; policy accept;
        ct state {{ established, related }} accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        jump filter_FORWARD_ZONES
        reject with icmpx admin-prohibited
    }}
    chain filter_FORWARD_ZONES {{
        {zones}
    }}
    chain filter_FWD_internal {{
        oifname "pycni0" accept
    }}
    chain filter_FWD_trusted {{
        accept
    }}
    chain filter_FWD_drop {{
        drop
    }}
}}
"""
TRUSTED = "goto filter_FWD_trusted"


@pytest.mark.parametrize(
    ("zones", "stopped"),
    [
        (TRUSTED, ()),
        ('iifname "pycni0" goto filter_FWD_trusted; goto filter_FWD_internal', ()),
        ('iifname "pycni0" goto filter_FWD_internal; goto filter_FWD_trusted', (4, 6)),
        ("ip saddr 10.244.0.0/16 goto filter_FWD_trusted; goto filter_FWD_internal", (6,)),
        (f"ip saddr @sources goto filter_FWD_drop; {TRUSTED}", (4,)),
    ],
    ids=["trusted", "pods are trusted", "pods are internal", "IPv4 is trusted", "a source"],
)
def test_the_zones_of_firewalld(lab: Lab, zones: str, stopped: tuple[int, ...]) -> None:
    node = lab.layout.nodes[0]
    sets = "set sources { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; }"
    with table_of_others(node, FIREWALLD.format(zones=zones, sets=sets)):
        found = stopping(node)

        assert {family for family in (4, 6) if not reaches_the_world(lab, family)} == {*stopped}
    assert len(found) == bool(stopped), found
    for family in stopped:
        assert f"pods' IPv{family} packets to the world" in found[0]
        assert "firewall-cmd --permanent --zone=trusted --change-interface=pycni0" in found[0]


BY_MAPS = """
table ip docker-bridges {{
    map filter-forward-in-jumps {{
        type ifname : verdict
        elements = {{ "docker0" : jump filter-forward-in, {more} }}
    }}
    chain filter-FORWARD {{
        type filter hook forward priority 0; policy accept;
        oifname vmap @filter-forward-in-jumps
        {end}
    }}
    chain filter-forward-in {{
        ct state established,related counter accept
        counter drop
    }}
}}
"""


@pytest.mark.parametrize(
    ("more", "end", "faults"),
    [
        ('"docker1" : drop', "", 0),
        ('"eth0" : jump filter-forward-in', "", 1),
        ('"eth0" : drop', "", 1),
        ('"docker1" : drop', 'oifname "eth0" drop', 1),
        ('"eth0" : accept', 'oifname "eth0" drop', 0),
    ],
    ids=["others", "jumps", "drops", "drops behind it", "accepts"],
)
def test_the_maps_of_docker(lab: Lab, more: str, end: str, faults: int) -> None:
    node = lab.layout.nodes[0]
    with table_of_others(node, BY_MAPS.format(more=more, end=end)):
        found = stopping(node)

        assert reaches_the_world(lab, 4) == (not faults)
    assert len(found) == faults, found


def test_a_set_of_interfaces_is_asked_by_their_numbers(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    script = """
        table inet mine {
            set inside { type iface_index; elements = { "pycni0" }; }
            chain base {
                type filter hook forward priority 0; policy accept;
                iif @inside drop
            }
        }"""
    with table_of_others(node, script):
        (found,) = stopping(node)

    assert "rule 1 of chain base of table inet mine" in found


@pytest.mark.parametrize(
    ("policy", "rule", "faults"),
    [("accept", "ip saddr 10.244.0.0/16 drop", 1), ("drop", "ip saddr 10.0.0.0/8 accept", 1),
     ("drop", "iifname @inside accept; oifname @inside accept", 0)],
    ids=["a rule", "closed", "open by a set"],
)  # fmt: skip
def test_the_large_set_of_crowdsec_is_not_listed(
    lab: Lab, policy: str, rule: str, faults: int
) -> None:
    """libnftables takes a second and 130 MB to read 100,000 elements."""
    node = lab.layout.nodes[0]
    record = Node.load(load(node.settings_path))
    banned = ", ".join(
        f"198.{19 + at // 65536}.{at // 256 % 256}.{at % 256}" for at in range(60000)
    )
    script = f"""
        table inet crowdsec {{
            set inside {{ type ifname; elements = {{ "pycni0" }}; }}
            set banned {{ type ipv4_addr; elements = {{ {banned} }}; }}
            chain base {{
                type filter hook forward priority -10; policy {policy};
                ip saddr @banned drop
                {rule}
            }}
        }}"""

    def look() -> tuple[int, float]:
        begin = time.thread_time()
        return len(other_firewalls.faults(record)), time.thread_time() - begin

    with table_of_others(node, script):
        number, seconds = within(node.netns, look)

    assert number == faults
    assert seconds < 0.2


def test_an_output_that_csf_closes_is_named_beside_the_rules_of_pycni(lab: Lab) -> None:
    """Which are in the same table, and name the overlay device."""
    node = lab.layout.nodes[0]
    with in_iptables(lab, node):
        iptables(node, 4, "-P", "FORWARD", "DROP")
        mend(node)
        for rule in (
            "-o lo -j ACCEPT",
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-p udp -m conntrack --ctstate NEW -m udp --dport 53 -j ACCEPT",
        ):
            iptables(node, 4, "-A", "OUTPUT", *rule.split())
        iptables(node, 4, "-P", "OUTPUT", "DROP")
        found = stopping(node)
        iptables(node, 4, "-P", "OUTPUT", "ACCEPT")

    (one,) = found
    assert one.startswith("the policy of chain OUTPUT of table ip filter is stopping this node's")


def test_an_input_without_a_rule_for_answers_is_named(lab: Lab) -> None:
    """As kube-proxy's rules leave it under a policy of somebody else. Ours let VXLAN in alone."""
    node = lab.layout.nodes[0]
    with in_iptables(lab, node):
        iptables(node, 4, "-A", "INPUT", "-m", "mark", "--mark", "0x8000/0x8000", "-j", "DROP")
        iptables(node, 4, "-P", "INPUT", "DROP")
        mend(node)
        found = stopping(node)
        iptables(node, 4, "-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j",
                 "ACCEPT")  # fmt: skip
        opened = stopping(node)
        iptables(node, 4, "-P", "INPUT", "ACCEPT")

    (one,) = found
    assert "stopping pods' IPv4 answers to this node, at the hook input" in one
    assert opened == []


@pytest.mark.parametrize(
    ("rules", "faults"),
    [
        (["-p udp -m multiport --dports 53,4700:4800 -j DROP"], 1),
        (["-p udp -m multiport --dports 53,4790 -j DROP"], 0),
        (["-p udp -m multiport ! --dports 53,68 -j DROP"], 1),
        (["-p tcp -m multiport --dports 22,4789 -j DROP"], 0),
        (["-p udp -m multiport --dports 4789 -j ACCEPT", "-i lo -j ACCEPT",
          "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-j DROP"], 0),
    ],
    ids=["a range", "others", "all but", "tcp", "accepted"],
)  # fmt: skip
def test_the_several_ports_of_iptables_are_known(lab: Lab, rules: list[str], faults: int) -> None:
    node = lab.layout.nodes[0]
    with in_iptables(lab, node):
        for rule in rules:
            iptables(node, 4, "-t", "mangle", "-A", "INPUT", *rule.split())
        found = stopping(node)

    assert len(found) == faults, found
    assert all("stopping VXLAN of other nodes" in one for one in found), found


def test_a_firewall_that_lets_pods_reach_private_networks_alone_is_named(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    script = """
        table inet mine {
            chain base {
                type filter hook forward priority 0; policy accept;
                oifname "eth0" ip daddr != { 10.0.0.0/8, 192.168.0.0/16 } drop
            }
        }"""
    with table_of_others(node, script):
        (found,) = stopping(node)

        assert not reaches_the_world(lab, 4)
    assert "stopping pods' IPv4 packets to the world" in found


def test_the_panic_mode_of_firewalld_is_ended_by_its_own_command(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    chain = "chain raw_{0} {{ type filter hook {0} priority -310; policy drop; }}"
    chains = "\n".join(chain.format(hook) for hook in ("prerouting", "output"))
    with table_of_others(node, f"table inet firewalld_policy_drop {{ {chains}\n }}"):
        found = stopping(node)

    assert len(found) == 2
    assert all(one.endswith("; run: firewall-cmd --panic-off") for one in found)
