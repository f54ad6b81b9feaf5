# SPDX-License-Identifier: Apache-2.0
"""A table of iptables-legacy as the kernel gives it. netns/test_legacy_firewalls.py reads
real ones."""

from __future__ import annotations

import struct

import pytest

from pycni.kernel import xtables_entries
from pycni.kernel.xtables_entries import HEADER, read

DROP, ACCEPT, RETURN = -1, -2, -5
families = pytest.mark.parametrize("family", xtables_entries.FAMILIES, ids=["ip", "ip6"])


def target(verdict=ACCEPT, name="", data=b""):
    body = data or struct.pack("=i4x", verdict)
    return HEADER.pack(HEADER.size + len(body), name.encode(), 0) + body


def match(name, data, revision=0):
    padded = data + bytes(-len(data) % 8)
    return HEADER.pack(HEADER.size + len(padded), name.encode(), revision) + padded


def entry(family, end=b"", *matches, fields=(), flags=0, inverted=0):
    body = bytearray(family.size)
    for at, value in fields:
        body[at : at + len(value)] = value
    body[family.flags : family.flags + 2] = bytes((flags, inverted))
    rest, end = b"".join(matches), end or target()
    sizes = family.size + len(rest), family.size + len(rest) + len(end)
    struct.pack_into("=HH", body, family.offsets, *sizes)
    return bytes(body) + rest + end


def expressions(family, *args, **fields):
    """Of the one rule of a chain whose policy is to drop."""
    rule, policy = entry(family, *args, **fields), entry(family, target(DROP))
    table = read(rule + policy, {"forward": (0, len(rule))}, "filter", family=family)
    (base,), rules = table.base_chains, table.rules("FORWARD")
    assert (base.name, base.policy, base.family) == ("FORWARD", "drop", family.word)
    return list(rules[0].expressions)


def the_match(found):
    said = found[0]["match"]
    return said["left"], said["op"], said["right"]


@families
def test_addresses_interfaces_and_protocols_are_in_the_words_of_nftables(family) -> None:
    size, address = family.address, bytes((10, 0, 0, 1, *bytes(family.address - 4)))
    mask = b"\xff" * 2 + bytes(size - 2)
    source = [(0, address), (2 * size, mask)]
    at = 4 * size
    exact = [(at, b"pycni0"), (at + 32, b"\xff" * 7)]
    prefix = [(at + 16, b"pcn+"), (at + 48, b"\xff" * 3)]

    left, operator, right = the_match(expressions(family, fields=source, inverted=8))
    assert left == {"payload": {"protocol": family.word, "field": "saddr"}}
    assert (operator, right["prefix"]["len"]) == ("!=", 16)
    assert the_match(expressions(family, fields=exact)) == (
        {"meta": {"key": "iifname"}}, "==", "pycni0")  # fmt: skip
    assert the_match(expressions(family, fields=prefix, inverted=2)) == (
        {"meta": {"key": "oifname"}}, "!=", "pcn*")  # fmt: skip
    assert the_match(expressions(family, fields=[(family.protocol, b"\x11")]))[2] == 17


@families
def test_what_nobody_knows_is_a_match_without_a_word(family) -> None:
    odd_mask = [(2 * family.address, b"\xff\x00\xff")]

    for found in (
        expressions(family, target(), match("set", bytes(8))),
        expressions(family, fields=odd_mask),
        expressions(family, inverted=32),
        expressions(
            family, target(), match("tcp", struct.pack("=4H4B", 0, 65535, 0, 65535, 0, 2, 2, 0))
        ),
    ):
        assert found[0]["xt"]["type"] == "match"
        assert found[-1] == {"accept": None}


@families
def test_ports_and_states_are_told(family) -> None:
    ports = struct.pack("=4HB", 0, 65535, 4000, 5000, 0)
    states = struct.pack("=146x3H6x", 1, 0, 0x8)

    left, _, right = the_match(expressions(family, target(), match("udp", ports)))
    assert (left["payload"], right) == (
        {"protocol": "udp", "field": "dport"}, {"range": [4000, 5000]})  # fmt: skip
    (first, _) = expressions(family, target(), match("conntrack", states, 3))
    assert (first["xt"]["states"], first["xt"]["all"]) == (["new"], True)


@families
@pytest.mark.parametrize("goto", [False, True])
def test_chains_of_others_are_known_by_the_entry_before_them(family, goto) -> None:
    def build(offset):
        rule = entry(family, target(offset), flags=family.goto * goto)
        policy = entry(family)
        head = entry(family, target(name="ERROR", data=b"late".ljust(32, b"\0")))
        last = entry(family, target(DROP)) + entry(family, target(RETURN))
        end = entry(family, target(name="ERROR", data=b"ERROR".ljust(32, b"\0")))
        return [rule, policy, head, last, end]

    chain = sum(map(len, build(0)[:3]))
    table = read(b"".join(build(chain)), {"input": (0, len(build(0)[0]))}, "raw", family=family)

    assert [one.expressions for one in table.rules("INPUT")] == [
        ({"goto" if goto else "jump": {"target": "late"}},)
    ]
    assert [one.expressions for one in table.rules("late")] == [
        ({"drop": None},),
        ({"return": None},),
    ]
    assert [(one.hook, one.policy, one.priority) for one in table.base_chains] == [
        ("input", "accept", -300)
    ]


@families
def test_a_rule_without_a_verdict_leads_to_the_next(family) -> None:
    behind = len(entry(family))

    assert expressions(family, target(behind)) == []
    assert expressions(family, target(name="LOG", data=bytes(8))) == [
        {"xt": {"type": "target", "name": "LOG"}}
    ]
