# SPDX-License-Identifier: Apache-2.0
"""A table as a script, and its comparison with what libnftables lists."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from pycni.kernel import nft_table
from pycni.kernel.nft_table import AddressSet, Chain, Count, Difference, Hook, Table

ONE, TWO = ip_address("192.0.2.1"), ip_address("192.0.2.2")
RULE, OTHER_RULE = 'iifname "eth0" counter name bad drop', "accept"
INPUT = Chain("input", (RULE, OTHER_RULE), Hook("filter", "input", -10))
HELPER = Chain("helper", (OTHER_RULE,))
TABLE = Table("ours", (INPUT, HELPER), ("bad",), (AddressSet("nodes4", 4, frozenset({ONE, TWO})),))
SETS = {"nodes4": 2}
BASE = {"family": "inet", "table": "ours"}


def listed_rule(chain, rule):
    return {"rule": BASE | {"chain": chain, "handle": 7, "comment": nft_table.digest(rule)}}


def listing():
    """As nft lists TABLE."""
    return [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "ours", "handle": 1}},
        {"counter": BASE | {"name": "bad", "handle": 2, "packets": 3, "bytes": 4}},
        {"set": BASE | {"name": "nodes4", "type": "ipv4_addr"}},
        {
            "chain": BASE
            | {"name": "input", "type": "filter", "hook": "input", "prio": -10, "policy": "accept"}
        },
        {"chain": BASE | {"name": "helper", "handle": 3}},
        listed_rule("input", RULE),
        listed_rule("input", OTHER_RULE),
        listed_rule("helper", OTHER_RULE),
    ]


def found(listed):
    return [(one.thing, one.found) for one in nft_table.compare(TABLE, listed, SETS)]


def test_a_script_replaces_the_table_in_one_transaction() -> None:
    script = nft_table.script(TABLE, {"bad": Count(3, 4)})

    lines = [line.strip() for line in script.strip().splitlines()]
    assert lines[:3] == ["add table inet ours", "delete table inet ours", "table inet ours {"]
    assert "counter bad { packets 3 bytes 4 }" in script
    assert "set nodes4 { typeof ip saddr; elements = { 192.0.2.1, 192.0.2.2 } }" in script
    assert f'{RULE} comment "{nft_table.digest(RULE)}"' in script
    assert "chain input { type filter hook input priority -10; " in script
    assert "chain helper { \n" in script


def test_a_counter_begins_at_zero_and_an_empty_set_has_no_elements() -> None:
    script = nft_table.script(Table("t", (), ("new",), (AddressSet("nodes6", 6),)), {})

    assert "counter new { packets 0 bytes 0 }" in script
    assert "set nodes6 { typeof ip6 saddr;  }" in script


def test_a_table_as_described_has_no_difference() -> None:
    assert nft_table.compare(TABLE, listing(), SETS) == []


def test_a_rule_that_is_gone_changes_its_chain() -> None:
    listed = [one for one in listing() if one.get("rule", {}).get("chain") != "helper"]

    assert found(listed) == [("chain helper of nftables table ours", "changed")]


def test_a_rule_of_somebody_else_changes_a_chain() -> None:
    listed = [*listing(), {"rule": BASE | {"chain": "input", "handle": 9}}]

    assert found(listed) == [("chain input of nftables table ours", "changed")]


def test_rules_in_another_order_are_a_change() -> None:
    listed = listing()
    listed[6], listed[7] = listed[7], listed[6]

    assert found(listed) == [("chain input of nftables table ours", "changed")]


def test_a_chain_that_is_gone_is_named() -> None:
    listed = [
        one
        for one in listing()
        if one.get("chain", {}).get("name") != "helper"
        and one.get("rule", {}).get("chain") != "helper"
    ]

    assert found(listed) == [("chain helper of nftables table ours", "gone")]


def test_another_policy_or_priority_is_a_change() -> None:
    for change in ({"policy": "drop"}, {"prio": 0}, {"hook": "forward"}):
        listed = listing()
        listed[4]["chain"] |= change

        assert found(listed) == [("chain input of nftables table ours", "changed")]


@pytest.mark.parametrize("known", [1, 0, None])
def test_other_elements_change_a_set(known: int | None) -> None:
    found = nft_table.compare(TABLE, listing(), {"nodes4": known})

    assert found == [Difference("set nodes4 of nftables table ours", "changed")]


def test_a_dormant_table_is_switched_off() -> None:
    listed = listing()
    listed[1]["table"]["flags"] = 1

    assert nft_table.compare(TABLE, listed, SETS) == [
        Difference("nftables table inet ours", "switched off")
    ]
