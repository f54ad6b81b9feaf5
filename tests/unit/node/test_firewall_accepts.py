# SPDX-License-Identifier: Apache-2.0
"""Which of iptables' chains need rules of ours; the rest is tested in namespaces."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pycni.faults import Weight
from pycni.kernel import nft_chains
from pycni.kernel.nft_chains import BaseChain, Rule
from pycni.node import firewall_accepts, other_firewalls
from pycni.node.firewall_accepts import Found
from unit.node.test_overlay_guard import NODE, VTEP6

FORWARD = BaseChain("ip", "filter", "FORWARD", "forward", "accept")
FORWARD6 = replace(FORWARD, family="ip6")
INPUT = BaseChain("ip", "filter", "INPUT", "input", "accept")
COUNTER = {"counter": {"packets": 0, "bytes": 0}}
MATCH = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}}
REJECT = {"xt": {"type": "target", "name": "REJECT"}}

DROP_ALL = Rule(90, "", (COUNTER, {"drop": None}))
DROP_SOME = Rule(91, "", (MATCH, COUNTER, {"drop": None}))


def dropping(chain):
    return replace(chain, policy="drop")


def comments(node, chain):
    return [rule.comment for rule in firewall_accepts.wanted(node, chain)]


def in_place(chain, node=NODE):
    return tuple(
        Rule(number, rule.comment, rule.expressions)
        for number, rule in enumerate(firewall_accepts.wanted(node, chain))
    )


def problems(monkeypatch, chain, *rules, node=NODE):
    monkeypatch.setattr(firewall_accepts, "_look", lambda: iter([Found(chain, rules)]))
    return [(one.found, one.weight) for one in firewall_accepts.faults(node)]


@pytest.mark.parametrize("chain", [FORWARD, FORWARD6, INPUT])
def test_an_unused_chain_needs_nothing(monkeypatch, chain) -> None:
    assert problems(monkeypatch, chain) == []


@pytest.mark.parametrize("chain", [FORWARD, FORWARD6])
def test_a_forward_chain_that_drops_breaks_pods(monkeypatch, chain) -> None:
    assert problems(monkeypatch, dropping(chain)) == [
        ("without the rules of pycni (policy drop)", Weight.BROKEN)
    ]
    assert problems(monkeypatch, dropping(chain), *in_place(chain)) == []


def test_a_forward_chain_with_rules_of_others_needs_ours(monkeypatch) -> None:
    assert problems(monkeypatch, FORWARD, DROP_SOME) == [
        ("without the rules of pycni (policy accept)", Weight.DEGRADED)
    ]


def test_an_input_chain_needs_ours_only_if_it_drops_all(monkeypatch) -> None:
    assert problems(monkeypatch, INPUT, DROP_SOME) == []
    assert problems(monkeypatch, INPUT, DROP_SOME, DROP_ALL) != []
    assert problems(monkeypatch, dropping(INPUT), *in_place(INPUT)) == []


def test_ours_stand_before_a_rule_that_drops_all(monkeypatch) -> None:
    ours = in_place(FORWARD)

    assert problems(monkeypatch, FORWARD, *ours, DROP_ALL) == []
    assert problems(monkeypatch, FORWARD, DROP_SOME, *ours) == []
    assert problems(monkeypatch, FORWARD, ours[0], DROP_ALL, *ours[1:]) == [
        ("dropping all packets before the rules of pycni", Weight.DEGRADED)
    ]


def test_the_accept_of_a_former_vtep_is_no_accept(monkeypatch) -> None:
    before = in_place(INPUT)

    assert problems(monkeypatch, dropping(INPUT), *before, node=replace(NODE, port=8472)) != []


def test_families_that_the_cluster_does_not_have_are_left_alone() -> None:
    node = replace(NODE, cluster_cidrs=NODE.cluster_cidrs[:1])

    assert comments(node, FORWARD6) == []
    assert len(comments(node, FORWARD)) == 3
    assert comments(node, replace(INPUT, family="ip6")) == []
    assert comments(replace(node, vtep=VTEP6), replace(INPUT, family="ip6")) == [
        "pycni: VXLAN to fd00:99::1 port 4789"
    ]


@pytest.mark.parametrize(
    ("expressions", "stops"),
    [
        ((COUNTER, {"drop": None}), True),
        (({"reject": {"type": "icmpx"}},), True),
        ((COUNTER, REJECT), True),
        ((COUNTER, {"xt": None}), True),
        ((COUNTER, {"xt": {"type": "target", "name": "LOG"}}), False),
        (({"xt": {"type": "match", "name": "conntrack"}}, COUNTER, {"drop": None}), False),
        ((MATCH, {"drop": None}), False),
        ((COUNTER, {"accept": None}), False),
        ((), False),
    ],
)
def test_what_lets_no_packet_pass(expressions, stops) -> None:
    assert Rule(1, "", expressions).stops_all is stops


def test_firewalld_is_opened_in_its_own_words(monkeypatch) -> None:
    table = BaseChain("inet", "firewalld", "filter_FORWARD", "forward", "drop")
    chains = [table, replace(table, name="filter_INPUT", hook="input")]
    monkeypatch.setattr(nft_chains, "base_chains", lambda *_, **__: chains)
    monkeypatch.setattr(nft_chains, "rules_in", lambda *_, **__: {})
    monkeypatch.setattr(other_firewalls, "_names", lambda *_: False)

    (forward, into_host) = other_firewalls.faults(NODE)

    assert "firewall-cmd --permanent --zone=trusted --change-interface=pycni0" in forward.todo
    assert "firewall-cmd --permanent --add-port=4789/udp" in into_host.todo
    assert {forward.weight, into_host.weight} == {Weight.DEGRADED}
