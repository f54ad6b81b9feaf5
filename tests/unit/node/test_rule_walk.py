# SPDX-License-Identifier: Apache-2.0
"""What rules of others do with pods' packets, as far as their text tells it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Any

import pytest

from pycni.kernel.nft_chains import BaseChain, Rule
from pycni.kernel.nft_elements import Answer
from pycni.node.passing import ESTABLISHED, NEW, Addresses, Packets, kinds
from pycni.node.rule_walk import End, Outcome, Stop, walk
from unit.node.test_overlay_guard import NODE

BASE = BaseChain("inet", "mine", "base", "prerouting", "accept", -150)
PODS = Addresses((ip_network("10.244.0.0/24"),))
WORLD = Addresses((ip_network("10.244.0.0/16"),), outside=True)
OUT = Packets("out", "prerouting", 4, frozenset({"pycni0"}), frozenset(), PODS, WORLD, NEW)
VXLAN = Packets("vxlan", "prerouting", 4, frozenset({"eth0"}), state=NEW, port=4789)

DROP, ACCEPT, RETURN = {"drop": None}, {"accept": None}, {"return": None}
COUNTER = {"counter": {"packets": 0, "bytes": 0}}


def match(left: dict[str, Any], right: object, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str, right: object, op: str = "==") -> dict[str, Any]:
    return match({"meta": {"key": key}}, right, op)


def field_of(protocol: str, name: str, right: object, op: str = "==") -> dict[str, Any]:
    return match({"payload": {"protocol": protocol, "field": name}}, right, op)


def net(address: str, length: int) -> dict[str, Any]:
    return {"prefix": {"addr": address, "len": length}}


def state(*words: str) -> dict[str, Any]:
    return match({"ct": {"key": "state"}}, list(words), "in")


def xt(kind: str, name: str) -> dict[str, Any]:
    return {"xt": {"type": kind, "name": name}}


FROM_PODS = field_of("ip", "saddr", net("10.244.0.0", 16))
BY_DEVICE = meta("iifname", "pycni0")


Sets = dict[str, list[str | int] | dict[str, Answer]]
"""By name: what a set has, or what it answers."""


@dataclass
class Table:
    """Chains by name, each as lists of expressions; and named sets."""

    chains: dict[str, list[list[dict[str, Any]]]]
    sets: Sets = field(default_factory=dict)

    def rules(self, chain: str) -> list[Rule] | None:
        rules = self.chains.get(chain, [])
        return [Rule(handle, "", tuple(one)) for handle, one in enumerate(rules, 7)]

    def look_up(self, name: str, element: str | int) -> Answer:
        known = self.sets[name]
        return known.get(element, False) if isinstance(known, dict) else element in known


def outcome(*rules: list[dict[str, Any]], packets: Packets = OUT, policy: str = "accept",
            sets: Sets | None = None, **chains: list[list[dict[str, Any]]],
            ) -> Outcome:  # fmt: skip
    table = Table({"base": list(rules), **chains}, sets or {})
    return walk(replace(BASE, policy=policy), packets, table)


@pytest.mark.parametrize(
    "condition",
    [
        FROM_PODS,
        field_of("ip", "saddr", {"set": [net("10.9.0.0", 16), net("10.244.0.0", 24)]}),
        field_of("ip", "saddr", {"range": ["10.243.0.0", "10.245.0.0"]}),
        BY_DEVICE,
        meta("iifname", "pyc*"),
        meta("iif", "pycni0"),
    ],
    ids=str,
)
def test_a_rule_about_all_of_pods_packets_stops_them(condition: dict[str, Any]) -> None:
    found = outcome([field_of("ip", "saddr", "192.0.2.9"), DROP], [condition, COUNTER, DROP])

    assert isinstance(found, Stop)
    assert (found.chain, found.number, found.names) == ("base", 2, True)
    assert found.rule is not None
    assert found.rule.handle == 8


@pytest.mark.parametrize(
    "conditions",
    [
        [field_of("ip", "saddr", net("10.9.0.0", 16))],
        [field_of("ip", "saddr", "10.244.0.5")],
        [field_of("ip6", "saddr", net("::", 0))],
        [field_of("ip", "saddr", net("10.244.0.0", 16), "!=")],
        [BY_DEVICE, field_of("tcp", "dport", 25)],
        [BY_DEVICE, meta("l4proto", "udp")],
        [BY_DEVICE, field_of("ip", "daddr", net("203.0.113.0", 24))],
        [BY_DEVICE, field_of("ip", "daddr", net("10.244.0.0", 16))],
        [BY_DEVICE, meta("mark", 1)],
        [BY_DEVICE, {"limit": {"rate": 5, "per": "second"}}],
        [BY_DEVICE, xt("match", "conntrack")],
        [BY_DEVICE, {"xt": None}],
        [BY_DEVICE, state("invalid")],
        [meta("nfproto", "ipv6"), BY_DEVICE],
        [match({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, right=False)],
        [match({"&": [{"meta": {"key": "mark"}}, 255]}, 1), BY_DEVICE],
        [field_of("ip", "saddr", "@bad")],
        [match({"concat": [{"meta": {"key": "iifname"}}]}, {"set": []})],
        [BY_DEVICE, field_of("ip", "ttl", 1)],
    ],
    ids=str,
)
def test_a_rule_about_some_packets_or_about_what_cannot_be_judged_is_no_fault(
    conditions: list[dict[str, Any]],
) -> None:
    sets: Sets = {"bad": ["198.51.100.1"]}

    assert outcome([*conditions, DROP], sets=sets) is End.OPEN


def test_conditions_that_are_not_met_by_others_than_pods_stop_them() -> None:
    inside_only = field_of("ip", "daddr", net("10.244.0.0", 16), "!=")

    assert isinstance(outcome([meta("iifname", "eth0", "!="), DROP]), Stop)
    assert isinstance(outcome([FROM_PODS, inside_only, DROP]), Stop)
    assert isinstance(outcome([BY_DEVICE, state("new", "untracked"), DROP]), Stop)
    assert isinstance(outcome([BY_DEVICE, xt("match", "comment"), xt("target", "REJECT")]), Stop)


def test_named_sets_are_looked_into() -> None:
    everybody: list[str | int] = ["10.244.0.1", "10.244.0.254"]

    found = outcome([field_of("ip", "saddr", "@pods"), DROP], sets={"pods": everybody})
    assert isinstance(found, Stop)
    assert found.names
    assert outcome([field_of("ip", "saddr", "@pods"), DROP], sets={"pods": everybody[:1]}
                   ) is End.OPEN  # fmt: skip
    inside = [meta("iifname", "@inside"), ACCEPT]
    assert outcome(inside, [DROP], sets={"inside": ["pycni0"]}) is End.PASSED


@pytest.mark.parametrize("kind", ["jump", "goto"])
def test_chains_that_a_chain_leads_to_are_followed(kind: str) -> None:
    def to(target: str) -> dict[str, Any]:
        return {kind: {"target": target}}

    found = outcome([BY_DEVICE, to("one")], one=[[to("two")]], two=[[COUNTER, DROP]])

    assert isinstance(found, Stop)
    assert (found.chain, found.number, found.names) == ("two", 1, True)
    assert outcome([meta("iifname", "eth7"), to("one")], one=[[DROP]]) is End.OPEN
    assert outcome([field_of("tcp", "dport", 22), to("one")], one=[[DROP]]) is End.OPEN
    assert outcome([to("one")], one=[[to("one")]]) is End.UNSURE


def test_a_return_leaves_a_chain_and_a_goto_does_not_come_back() -> None:
    jump, goto = {"jump": {"target": "one"}}, {"goto": {"target": "one"}}

    assert outcome([jump], [BY_DEVICE, ACCEPT], one=[[RETURN], [DROP]]) is End.PASSED
    assert outcome([goto], [BY_DEVICE, DROP], one=[[RETURN], [DROP]]) is End.OPEN
    assert outcome([goto], [ACCEPT], policy="drop", one=[]) == Stop("base")


def vmap(key: dict[str, Any], data: object) -> dict[str, Any]:
    return {"vmap": {"key": key, "data": data}}


def test_verdict_maps_are_read() -> None:
    by_name = vmap({"meta": {"key": "iifname"}}, {"set": [["lo", ACCEPT], ["pycni0", DROP]]})
    by_state = vmap({"ct": {"key": "state"}}, {"set": [["invalid", DROP], ["established", ACCEPT]]})

    assert isinstance(outcome([by_name]), Stop)
    assert isinstance(outcome([by_state], [BY_DEVICE, DROP]), Stop)
    assert outcome([by_state], [BY_DEVICE, DROP], packets=replace(OUT, state=ESTABLISHED)
                   ) is End.PASSED  # fmt: skip


def test_named_verdict_maps_are_asked_for_the_interfaces_of_the_packets() -> None:
    """As Docker's `filter-forward-in-jumps`."""

    def found(answer: Answer, *rules: list[dict[str, Any]], key: str = "iifname") -> Outcome:
        by_name = vmap({"meta": {"key": key}}, "@names")
        return outcome([by_name], *rules, sets={"names": {"pycni0": answer}}, one=[[DROP]])

    stopped = found({"jump": {"target": "one"}})
    assert isinstance(stopped, Stop)
    assert (stopped.chain, stopped.names) == ("one", True)
    assert isinstance(found(answer=False), End)
    assert isinstance(found(False, [BY_DEVICE, DROP]), Stop)
    assert found(ACCEPT, [DROP]) is End.PASSED
    assert found(None, [BY_DEVICE, DROP]) is End.UNSURE
    assert found(DROP, [BY_DEVICE, DROP], key="mark") is End.UNSURE


def test_a_named_set_of_other_keys_says_nothing() -> None:
    sets: Sets = {
        "others": {},
        "silent": {"pycni0": None, "10.244.0.1": None, "10.244.0.254": None},
    }

    for condition in (meta("iif", "@silent"), field_of("ip", "saddr", "@silent")):
        assert outcome([condition, DROP], sets=sets) is End.OPEN
        assert outcome([condition, ACCEPT], [BY_DEVICE, DROP], sets=sets) is End.UNSURE
    assert outcome([field_of("ip", "saddr", "@others"), ACCEPT], [BY_DEVICE, DROP], sets=sets
                   ) == Stop("base", 2, Rule(8, "", (BY_DEVICE, DROP)), names=True)  # fmt: skip


def test_connections_to_published_ports_are_few() -> None:
    """firewalld accepts them before it looks at zones."""

    def status(word: str) -> list[dict[str, Any]]:
        return [match({"ct": {"key": "status"}}, word, "in"), ACCEPT]

    assert isinstance(outcome(status("dnat"), [BY_DEVICE, DROP]), Stop)
    assert outcome(status("dnat"), [ACCEPT], policy="drop") is End.PASSED
    assert outcome(status("snat"), [BY_DEVICE, DROP]) is End.UNSURE


def test_what_was_accepted_before_is_not_stopped() -> None:
    assert outcome([FROM_PODS, ACCEPT], [DROP]) is End.PASSED
    assert outcome([BY_DEVICE, field_of("tcp", "dport", 443), ACCEPT], [DROP]) is End.UNSURE
    assert outcome([meta("mark", 7), ACCEPT], [BY_DEVICE, DROP]) is End.UNSURE
    assert isinstance(outcome([field_of("tcp", "dport", 22), ACCEPT], [BY_DEVICE, DROP]), Stop)


@pytest.mark.parametrize(
    "condition",
    [
        meta("l4proto", {"set": ["icmp", "tcp", "udp"]}),
        field_of("ip", "protocol", "tcp"),
        field_of("tcp", "dport", 25, "!="),
        field_of("tcp", "dport", 1024, ">="),
        field_of("tcp", "sport", {"range": [1024, 65535]}),
        field_of("ip", "daddr", net("10.0.0.0", 8), "!="),
        field_of("ip", "daddr", {"set": [net("0.0.0.0", 1), net("128.0.0.0", 1)]}),
        field_of("ip", "daddr", "@countries"),
        field_of("ip", "daddr", "@banned", "!="),
    ],
    ids=str,
)
def test_where_most_may_have_passed_nothing_is_said(condition: dict[str, Any]) -> None:
    sets: Sets = {"countries": [], "banned": []}

    assert outcome([condition, ACCEPT], policy="drop", sets=sets) is End.UNSURE


@pytest.mark.parametrize(
    "conditions",
    [
        [meta("l4proto", "icmp")],
        [field_of("icmp", "type", "echo-request"), {"limit": {"rate": 5, "per": "second"}}],
        [field_of("tcp", "dport", {"set": [22, {"range": [8000, 8100]}]}), xt("match", "recent")],
        [field_of("ip", "daddr", {"set": [net("10.0.0.0", 8), net("172.16.0.0", 12)]})],
        [field_of("ip", "saddr", "@admins"), field_of("tcp", "dport", 22)],
    ],
    ids=str,
)
def test_where_a_few_have_passed_the_others_are_stopped(conditions: list[dict[str, Any]]) -> None:
    found = outcome([*conditions, ACCEPT], policy="drop", sets={"admins": []})

    assert found == Stop("base")


def test_where_one_of_two_interfaces_is_let_pass_nothing_is_said() -> None:
    both = replace(OUT, oifs=frozenset({"eth0", "eth1"}))

    assert outcome([meta("oifname", "eth0"), ACCEPT], packets=both, policy="drop") is End.UNSURE


def test_vxlan_may_be_exempt_from_tracking() -> None:
    known = [state("established", "untracked"), ACCEPT]

    assert outcome(known, packets=VXLAN, policy="drop") is End.UNSURE
    assert outcome(known, policy="drop") == Stop("base")
    ports = [field_of("udp", "sport", {"range": [1024, 65535]}), ACCEPT]
    assert outcome(ports, packets=VXLAN, policy="drop") is End.UNSURE


def test_what_iptables_accepts_by_state_is_not_new() -> None:
    known = [xt("match", "conntrack"), COUNTER, ACCEPT]

    assert isinstance(outcome(known, [BY_DEVICE, DROP]), Stop)
    answers = replace(OUT, state=ESTABLISHED)
    assert outcome(known, [BY_DEVICE, DROP], packets=answers) is End.UNSURE


def test_what_iptables_names_of_states_is_judged() -> None:
    def asking(*words: str, is_all: bool = True) -> dict[str, Any]:
        return {"xt": {"type": "match", "name": "conntrack", "states": [*words], "all": is_all}}

    assert outcome([asking("new", "established"), ACCEPT], policy="drop") is End.PASSED
    assert outcome([asking("established"), ACCEPT], policy="drop") == Stop("base")
    assert outcome([asking("new", is_all=False), ACCEPT], policy="drop") is End.UNSURE
    assert isinstance(outcome([BY_DEVICE, asking("new"), DROP]), Stop)
    assert outcome([asking("invalid"), DROP]) is End.OPEN


def test_a_policy_stops_what_comes_to_the_end() -> None:
    assert outcome(policy="drop") == Stop("base")
    assert outcome([state("established"), ACCEPT], policy="drop") == Stop("base")
    assert outcome([xt("target", "MARK")], [xt("target", "NFQUEUE")], policy="drop") is End.UNSURE


@pytest.mark.parametrize(
    ("condition", "stops"),
    [
        (field_of("udp", "dport", 4789), True),
        (field_of("th", "dport", {"set": [53, {"range": [4000, 5000]}]}), True),
        (meta("l4proto", "udp"), True),
        (field_of("ip", "protocol", {"set": ["tcp", 17]}), True),
        (field_of("udp", "dport", "@ports"), True),
        (field_of("udp", "dport", "@other ports"), False),
        (field_of("udp", "dport", 8472), False),
        (field_of("udp", "dport", 4789, "!="), False),
        (field_of("tcp", "dport", 4789, "!="), False),
        (field_of("udp", "sport", 4789), False),
        (meta("l4proto", "tcp"), False),
    ],
    ids=str,
)
def test_vxlan_is_known_by_its_port(condition: dict[str, Any], stops: bool) -> None:
    sets: Sets = {"ports": [53, 4789], "other ports": [53]}

    assert isinstance(outcome([condition, DROP], packets=VXLAN, sets=sets), Stop) is stops


def met(hook: str, family: str = "inet", priority: int = 0, **more: Any) -> Iterator[Packets]:
    chain = replace(BASE, hook=hook, family=family, priority=priority, **more)
    found = (packets.at(chain) for packets in kinds(NODE, {"eth0"}))
    return (one for one in found if one is not None)


def test_packets_meet_chains_of_their_version_and_interface() -> None:
    assert {one.version for one in met("prerouting", "ip6")} == {6}
    assert {one.version for one in met("prerouting")} == {4, 6}
    assert [one.what for one in met("ingress", "netdev", devices=("eth7",))] == []
    assert {one.iifs for one in met("ingress", "netdev", devices=("pycni0", "eth7"))} == {
        frozenset({"pycni0"})
    }


def test_before_connections_are_tracked_no_state_is_known() -> None:
    assert {one.state for one in met("prerouting", priority=-300)} == {""}
    assert {one.state for one in met("prerouting", priority=-150)} == {NEW, ESTABLISHED}


def test_behind_nat_sources_are_not_known() -> None:
    out = [one for one in met("postrouting", priority=300) if not one.port]

    assert {one.source for one in out} == {None}
