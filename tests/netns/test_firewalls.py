# SPDX-License-Identifier: Apache-2.0
"""Firewalls of others on a node: pods' packets are accepted in them, or status says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from pycni.kernel import nft, nft_tables
from pycni.lab import processes
from pycni.lab.cluster import Lab
from pycni.lab.layout import WORLD, LabNode
from pycni.node import firewall_accepts, other_firewalls
from pycni.node.record import Node
from pycni.settings import load
from support import labs
from support.flows import answering, ask
from support.labs import agent_hung, prepared_lab, within
from support.snapshot import differences, take

IPTABLES = {4: "iptables-nft", 6: "ip6tables-nft"}

both_families = pytest.mark.parametrize("family", IPTABLES)


def iptables(node: LabNode, family: int, *words: str) -> str:
    done = processes.run(node.netns, [IPTABLES[family], *words])
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def problems(node: LabNode) -> list[str]:
    """What is wrong with iptables' chains."""
    record = Node.load(load(node.settings_path))
    return [one.sentence for one in within(node.netns, lambda: firewall_accepts.faults(record))]


def mend(node: LabNode) -> None:
    record = Node.load(load(node.settings_path))
    within(node.netns, lambda: firewall_accepts.setup(record))


def reaches_the_world(lab: Lab, family: int) -> bool:
    address = next(str(one) for one in WORLD if one.version == family)
    with answering(lab.layout.underlay_netns, address) as (port, _):
        return ask(lab.layout.pods[0].netns, address, port) is not None


@contextmanager
def in_iptables(lab: Lab, node: LabNode) -> Iterator[None]:
    """The agent mends nothing meanwhile; iptables' chains are new, and gone again afterwards."""
    with agent_hung(lab, node):
        remove_chains(node)  # plugins of others have used them, so ours are in them
        try:
            yield
        finally:
            remove_chains(node)


def remove_chains(node: LabNode) -> None:
    for family in ("ip", "ip6"):
        for table in ("filter", "nat", "mangle", "raw"):
            script = f"add table {family} {table}\ndelete table {family} {table}"
            within(node.netns, partial(nft.run, script, what="a test"))


@both_families
@pytest.mark.parametrize(
    "drop",
    [
        ("-P", "FORWARD", "DROP"),
        ("-A", "FORWARD", "-j", "DROP"),
        ("-A", "FORWARD", "-j", "REJECT"),
        ("-I", "FORWARD", "-i", "eth0", "-j", "DROP"),
    ],
    ids=["policy", "drop at the end", "reject at the end", "a rule"],
)
def test_pods_are_accepted_where_others_drop(lab: Lab, family: int, drop: tuple[str, ...]) -> None:
    node = lab.layout.nodes[0]
    with in_iptables(lab, node):
        iptables(node, family, *drop)
        closed = reaches_the_world(lab, family)
        mend(node)

        assert reaches_the_world(lab, family)
        assert not closed
        assert problems(node) == []


@both_families
def test_a_chain_of_another_chain_may_drop(lab: Lab, family: int) -> None:
    """As ufw's `ufw-reject-forward`."""
    node = lab.layout.nodes[0]
    with in_iptables(lab, node):
        iptables(node, family, "-N", "late")
        iptables(node, family, "-A", "late", "-j", "DROP")
        iptables(node, family, "-A", "FORWARD", "-j", "late")
        mend(node)

        assert reaches_the_world(lab, family)


@both_families
def test_flushed_rules_come_back_before_those_of_others(lab: Lab, family: int) -> None:
    node = lab.layout.nodes[0]
    with in_iptables(lab, node):
        iptables(node, family, "-P", "FORWARD", "DROP")
        mend(node)
        iptables(node, family, "-F", "FORWARD")
        iptables(node, family, "-A", "FORWARD", "-j", "REJECT")
        found = problems(node)
        mend(node)

        assert reaches_the_world(lab, family)
        (chain,) = found
        assert "FORWARD" in chain
        assert "without the rules of pycni" in chain


@both_families
def test_iptables_shows_our_rules_and_keeps_its_own(lab: Lab, family: int) -> None:
    node = lab.layout.nodes[0]
    with in_iptables(lab, node):
        iptables(node, family, "-P", "FORWARD", "DROP")
        iptables(node, family, "-A", "FORWARD", "-s", ("192.0.2.1", "2001:db8::1")[family == 6],
                 "-j", "ACCEPT")  # fmt: skip
        before = iptables(node, family, "-S")
        mend(node)
        shown = iptables(node, family, "-S", "FORWARD").splitlines()
        within(node.netns, firewall_accepts.teardown)

        assert shown[1:4] == [
            '-A FORWARD -i pycni0 -m comment --comment "pycni: from pods" -j ACCEPT',
            '-A FORWARD -o pycni0 -m comment --comment "pycni: to pods" -j ACCEPT',
            '-A FORWARD -i pcn+ -m comment --comment "pycni: from limited pods" -j ACCEPT',
        ]
        assert iptables(node, family, "-S") == before


def test_rules_are_mended_once(lab: Lab) -> None:
    """A second `setup` changes nothing."""
    node = lab.layout.nodes[0]
    with in_iptables(lab, node):
        iptables(node, 4, "-P", "FORWARD", "DROP")
        mend(node)
        before = iptables(node, 4, "-S")
        mend(node)

        assert iptables(node, 4, "-S") == before


def test_an_input_chain_that_drops_lets_vxlan_in(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    with in_iptables(lab, node):
        iptables(node, 4, "-P", "INPUT", "DROP")
        mend(node)
        shown = iptables(node, 4, "-S", "INPUT")

        assert problems(node) == []
        assert f"-d {node.underlay[0].ip}/32 -p udp -m udp --dport 4789" in shown


def test_a_setup_opens_and_a_teardown_leaves_others_firewall_as_it_was() -> None:
    with prepared_lab(nodes=1) as lab:
        (node,) = lab.layout.nodes
        for family in IPTABLES:
            iptables(node, family, "-P", "FORWARD", "DROP")
            iptables(node, family, "-A", "FORWARD", "-j", "REJECT")
        before = take(node)
        labs.setup(node)
        opened = iptables(node, 4, "-S", "FORWARD")
        labs.teardown(node)

        assert "-i pycni0" in opened
        assert differences(before, take(node), without=["files"]) == []


LEGACY = {4: "iptables-legacy", 6: "ip6tables-legacy"}


@both_families
@pytest.mark.parametrize(
    "drop", [("-P", "FORWARD", "DROP"), ("-A", "FORWARD", "-j", "REJECT")], ids=["policy", "rule"]
)
def test_the_older_iptables_is_named_with_what_opens_it(
    lab: Lab, family: int, drop: tuple[str, ...]
) -> None:
    """Its tables are not nftables', so none of our rules can be there."""
    node = lab.layout.nodes[0]
    record = Node.load(load(node.settings_path))

    def found() -> list[str]:
        return [one.todo for one in within(node.netns, lambda: other_firewalls.faults(record))]

    def legacy(*words: str) -> None:
        assert processes.run(node.netns, [LEGACY[family], *words]).returncode == 0

    try:
        legacy(*drop)
        (todo,) = found()
        for command in todo.removeprefix("run: ").split("; "):
            assert processes.run(node.netns, command.split()).returncode == 0

        assert reaches_the_world(lab, family)
        assert found() == []
    finally:
        legacy("-P", "FORWARD", "ACCEPT")
        legacy("-F", "FORWARD")


OTHERS = """
table inet {table} {{
    chain later {{
        {later}
    }}
    chain forward {{
        type filter hook forward priority 10; policy {policy};
        ct state established,related accept
        jump later
        {end}
    }}
}}
"""


FLAGGED = """
table inet flagged {{
    flags dormant;
    set inside {{
        type ifname
        elements = {{ {known} }}
    }}
    chain forward {{
        type filter hook forward priority 10; policy drop;
        iifname @inside accept
        oifname @inside accept
    }}
}}
"""


@contextmanager
def other_firewall(
    node: LabNode, *, table: str, policy: str = "accept", **rules: str
) -> Iterator[list[str]]:
    """A table of somebody else; yields what pycni finds wrong with it, and the hint."""
    words = {"later": "", "end": ""} | rules
    script = OTHERS.format(table=table, policy=policy, **words)
    within(node.netns, lambda: nft.run(script, what="a test"))
    record = Node.load(load(node.settings_path))
    try:
        found = within(node.netns, lambda: other_firewalls.faults(record))
        yield [f"{one.sentence}; {one.todo}" for one in found]
    finally:
        within(node.netns, lambda: nft.run(f"delete table inet {table}", what="a test"))


def test_a_table_of_others_that_drops_is_named_and_left_alone(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    with other_firewall(node, table="mine", policy="drop") as (found,):
        assert found.startswith(
            "chain forward of table inet mine is dropping what it does not know"
        )
        assert "nft insert rule inet mine forward iifname pycni0 accept" in found
    with other_firewall(node, table="firewalld", end="reject with icmpx admin-prohibited") as (
        found,
    ):
        assert "firewall-cmd --permanent --zone=trusted --change-interface=pycni0" in found


def test_a_table_of_others_that_knows_pods_is_no_fault(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    accept = 'iifname "pycni0" accept; oifname "pycni0" accept'
    with other_firewall(node, table="mine", policy="drop", later=accept) as found:
        assert found == []
    networks = "ip saddr 10.244.0.0/16 accept; ip6 saddr fd00:10:244::/48 accept"
    with other_firewall(node, table="mine", policy="drop", later=networks) as found:
        assert found == []
    with other_firewall(node, table="mine", end='iifname "eth9" drop') as found:
        assert found == []


def test_a_dormant_table_stops_nothing(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    script = """
        table inet mine {
            flags dormant
            chain away { type filter hook output priority 0; policy drop; }
            chain through { type filter hook forward priority 0; policy drop; }
        }"""
    with table_of_others(node, script):
        assert stopping(node) == []
        assert reaches_the_world(lab, 4)


@pytest.mark.parametrize("last", ["new : accept", "new : jump known"])
def test_a_chain_that_lets_all_pass_before_it_drops_is_no_fault(lab: Lab, last: str) -> None:
    node = lab.layout.nodes[0]
    script = f"""
        table inet mine {{
            chain known {{ meta l4proto {{ tcp, udp, icmp, icmpv6 }} accept; accept; }}
            chain into {{
                type filter hook input priority 0; policy drop;
                ct state vmap {{ established : accept, related : accept, {last} }}
            }}
            chain through {{
                type filter hook forward priority 0; policy drop;
                ct state new,established,related accept
            }}
        }}"""
    with table_of_others(node, script):
        assert stopping(node) == []
        assert reaches_the_world(lab, 4)


@pytest.mark.parametrize(
    ("rule", "faults"),
    [
        ("-m state --state NEW,ESTABLISHED,RELATED -j ACCEPT", 0),
        ("-m conntrack ! --ctstate INVALID -j ACCEPT", 0),
        ("-m conntrack --ctstate NEW --ctorigdst 192.0.2.1 -j ACCEPT", 0),
        ("-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT", 1),
    ],
)
def test_what_iptables_asks_of_a_connections_state_is_known(
    lab: Lab, rule: str, faults: int
) -> None:
    node = lab.layout.nodes[0]
    with in_iptables(lab, node):
        iptables(node, 4, "-A", "OUTPUT", *rule.split())
        iptables(node, 4, "-P", "OUTPUT", "DROP")
        found = stopping(node)
        iptables(node, 4, "-P", "OUTPUT", "ACCEPT")

    assert len(found) == faults, found


HOST_FIREWALL = """
table {family} host {{
    chain into {{
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        iifname lo accept
        tcp dport {{ 22, 10250 }} accept
        {more}
    }}
}}
"""
"""As the example that Debian's nftables brings."""


@pytest.mark.parametrize(
    ("family", "more", "faults"),
    [
        ("inet", "", 1),
        ("ip", "", 1),
        ("ip6", "", 0),
        ("inet", "udp dport 4789 accept", 0),
        ("inet", "udp dport { 53, 4789 } accept", 0),
    ],
    ids=["closed", "for IPv4", "for the other version", "open", "open by a set"],
)
def test_a_host_firewall_that_lets_no_vxlan_in_is_named(
    lab: Lab, family: str, more: str, faults: int
) -> None:
    node = lab.layout.nodes[0]
    record = Node.load(load(node.settings_path))
    script = HOST_FIREWALL.format(family=family, more=more)
    within(node.netns, lambda: nft.run(script, what="a test"))
    try:
        found = within(node.netns, lambda: other_firewalls.faults(record))
    finally:
        within(node.netns, lambda: nft.run(f"delete table {family} host", what="a test"))

    assert len(found) == faults, found
    for fault in found:
        assert fault.sentence.startswith(f"chain into of table {family} host is dropping")
        assert fault.todo.endswith(f"nft insert rule {family} host into udp dport 4789 accept")


@pytest.mark.parametrize(("known", "faults"), [("eth7", 1), ("pycni0", 0)])
def test_a_table_of_others_with_flags_is_never_listed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, known: str, faults: int
) -> None:
    """libnftables 1.0.6 may end the process that does (kernel/nft_tables.py)."""
    node = lab.layout.nodes[0]
    listed: list[str] = []
    run = nft.run

    def record(
        commands: str | Sequence[dict[str, Any]], *, what: str, elements: bool = True
    ) -> list[dict[str, Any]]:
        listed.extend(one for command in commands for one in command["list"])  # type: ignore[index]
        return run(commands, what=what, elements=elements)

    within(node.netns, lambda: run(FLAGGED.format(known=known), what="a test"))
    monkeypatch.setattr(nft, "run", record)
    monkeypatch.setattr(nft_tables, "DORMANT", 0)  # other flags only live as long as their owner
    try:
        found = within(
            node.netns, lambda: other_firewalls.faults(Node.load(load(node.settings_path)))
        )
    finally:
        within(node.netns, lambda: run("delete table inet flagged", what="a test"))

    assert len(found) == faults, found
    assert "chains" in listed
    assert not {"table", "tables"} & {*listed}


STOPPING = {
    "prerouting": """
        table ip mine {
            chain early {
                type filter hook prerouting priority -300; policy accept;
                ip saddr 192.0.2.77 drop
                ip saddr 10.244.0.0/16 drop
            }
        }""",
    "prerouting of IPv6": """
        table inet mine {
            chain early {
                type filter hook prerouting priority -300; policy accept;
                meta nfproto ipv4 accept
                iifname "pycni*" drop
            }
        }""",
    "a chain that is jumped to": """
        table inet mine {
            set inside {
                type ifname
                elements = { "pycni0" }
            }
            chain last {
                counter reject
            }
            chain later {
                meta mark 0 tcp dport 25 drop
                iifname @inside goto last
            }
            chain base {
                type filter hook forward priority 5; policy accept;
                ct state established,related accept
                jump later
            }
        }""",
    "postrouting": """
        table ip mine {
            chain base {
                type filter hook postrouting priority 0; policy accept;
                ip saddr 10.0.0.0/8 oifname != "pycni0" drop
            }
        }""",
    "answers at postrouting": """
        table inet mine {
            chain base {
                type filter hook postrouting priority 0; policy drop;
                oifname { "eth0", "lo" } accept
            }
        }""",
    "ingress of an interface": """
        table netdev mine {
            chain base {
                type filter hook ingress device "pycni0" priority 0; policy accept;
                ip saddr 10.244.0.0/16 drop
            }
        }""",
    "ingress in a table of IP": """
        table inet mine {
            chain base {
                type filter hook ingress device "pycni0" priority 0; policy drop;
            }
        }""",
}
"""Tables of others that stop pods of IPv4, or in the second of IPv6, on their way to the world."""
HARMLESS = """
table inet mine {
    set bad {
        type ipv4_addr
        elements = { 198.51.100.7 }
    }
    chain early {
        type filter hook prerouting priority -300; policy accept;
        meta nfproto ipv6 fib saddr . iif oif missing drop
        ip saddr @bad drop
        iifname "pycni0" limit rate over 100000/second drop
        ip saddr 10.244.0.0/16 tcp dport 25 drop
        ip daddr 100.127.0.0/16 drop
    }
    chain out {
        type filter hook output priority 0; policy drop;
        oifname "lo" accept
        ct state vmap { invalid : drop, established : accept, new : goto new }
    }
    chain new {
        skuid 65534 drop
        accept
    }
}
"""


def stopping(node: LabNode) -> list[str]:
    record = Node.load(load(node.settings_path))
    found = within(node.netns, lambda: other_firewalls.faults(record))
    return [f"{one.sentence}; {one.todo}" for one in found]


@contextmanager
def table_of_others(node: LabNode, script: str) -> Iterator[None]:
    within(node.netns, lambda: nft.run(script, what="a test"))
    _, family, name, *_ = script.split()
    try:
        yield
    finally:
        within(node.netns, lambda: nft.run(f"delete table {family} {name}", what="a test"))


@pytest.mark.parametrize("hook", STOPPING)
def test_a_rule_that_stops_pods_is_named_at_every_hook(lab: Lab, hook: str) -> None:
    node, family = lab.layout.nodes[0], 6 if "IPv6" in hook else 4
    assert stopping(node) == []
    with table_of_others(node, STOPPING[hook]):
        found = stopping(node)

        assert not reaches_the_world(lab, family)
    assert reaches_the_world(lab, family)
    assert any("mine" in one and "stopping" in one and "IPv" in one for one in found), found
    assert all("nft" in one for one in found), found


def test_the_rule_is_told_by_its_place_and_how_to_see_it(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    with table_of_others(node, STOPPING["prerouting"]):
        (early,) = stopping(node)
    with table_of_others(node, STOPPING["a chain that is jumped to"]):
        (later,) = stopping(node)

    assert early.startswith(
        "rule 2 of chain early of table ip mine is stopping pods' IPv4 packets to the world, "
        "pods' IPv4 answers to this node, at the hook prerouting; see it: "
        "nft -a list chain ip mine early; "
    ), early
    assert later.startswith("rule 1 of chain last of table inet mine is stopping pods'")
    assert "at the hook forward (from chain base)" in later


@both_families
@pytest.mark.parametrize(
    ("place", "table"),
    [(("PREROUTING",), "raw"), (("FORWARD",), "mangle"), (("FORWARD",), "filter")],
    ids=["prerouting", "mangle", "forward"],
)
def test_a_rule_of_iptables_is_named_with_its_chain(
    lab: Lab, family: int, place: tuple[str, ...], table: str
) -> None:
    node = lab.layout.nodes[0]
    source = next(str(one) for one in Node.load(load(node.settings_path)).pod_cidrs
                  if one.version == family)  # fmt: skip
    with in_iptables(lab, node):
        iptables(node, family, "-t", table, "-N", "mine")
        iptables(node, family, "-t", table, "-A", "mine", "-s", source, "-j", "DROP")
        iptables(node, family, "-t", table, "-I", *place, "-j", "mine")
        (found,) = stopping(node)

        assert not reaches_the_world(lab, family)
    name = "iptables" if family == 4 else "ip6tables"
    assert f"rule 1 of chain mine of table {('ip', 'ip6')[family == 6]} {table}" in found
    assert f"see it: {name} -t {table} -S mine" in found


def test_the_rules_of_pycni_before_a_rule_of_others_let_pods_pass(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    with in_iptables(lab, node):
        iptables(node, 4, "-A", "FORWARD", "-s", "10.244.0.0/16", "-j", "DROP")
        before = stopping(node)
        mend(node)

        assert stopping(node) == []
        assert reaches_the_world(lab, 4)
        assert len(before) == 1


@pytest.mark.parametrize("hook", ["prerouting", "input", "output", "postrouting"])
def test_a_rule_that_stops_vxlan_is_named(lab: Lab, hook: str) -> None:
    node = lab.layout.nodes[0]
    script = f"""
        table inet mine {{
            chain base {{
                type filter hook {hook} priority 0; policy accept;
                udp dport {{ 53, 4789 }} drop
            }}
        }}"""
    with table_of_others(node, script):
        (found,) = stopping(node)

    assert "stopping VXLAN" in found
    assert f"at the hook {hook}" in found


def test_rules_that_stop_some_packets_or_cannot_be_judged_are_no_fault(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    with table_of_others(node, HARMLESS):
        assert stopping(node) == []
        assert reaches_the_world(lab, 4)
    with in_iptables(lab, node):
        docker = ("-d", "172.17.0.2", "!", "-i", "docker0", "-j", "DROP")
        iptables(node, 4, "-t", "raw", "-A", "PREROUTING", *docker)
        iptables(node, 4, "-A", "OUTPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
        iptables(node, 4, "-A", "OUTPUT", "-m", "owner", "--uid-owner", "65534", "-j", "REJECT")

        assert stopping(node) == []
