# SPDX-License-Identifier: Apache-2.0
"""What matches of iptables say; netns/test_firewalls_of_tools.py reads those in the kernel."""

from __future__ import annotations

import struct

import pytest

from pycni.kernel.xt_matches import told

STATE, ELSE = 0x1, 0x2
"""XT_CONNTRACK_STATE, XT_CONNTRACK_PROTO."""


def states(mask, *, flags=STATE, inverted=0, revision=3):
    found = told("conntrack", revision, struct.pack("=146x3H6x", flags, inverted, mask))
    return found and (found["xt"]["states"], found["xt"]["all"])


def ports(which, count, numbers, ranges=(), inverted=0, revision=1):
    padded = [*numbers, *[0] * (15 - len(numbers))]
    flags = [at in ranges for at in range(15)]
    found = told(
        "multiport", revision, struct.pack("=BB15H15BB", which, count, *padded, *flags, inverted)
    )
    return found and (found["match"]["op"], found["match"]["right"]["set"])


def test_states_are_told() -> None:
    assert states(0x6) == (["established", "related"], True)
    assert states(0x100) == (["untracked"], True)
    assert states(0x8, flags=STATE | ELSE) == (["new"], False)
    assert states(0x1, inverted=STATE) == (["established", "new", "related", "untracked"], True)


def test_connections_to_published_ports_are_left_out_and_masqueraded_ones_not_told() -> None:
    assert states(0x86) == (["established", "related"], True)
    assert states(0x46) is None


def test_ports_are_told_with_their_ranges() -> None:
    assert ports(1, 4, [53, 4700, 4800, 68], ranges=[1]) == (
        "==", [53, {"range": [4700, 4800]}, 68])  # fmt: skip
    assert ports(0, 1, [53], inverted=1) == ("!=", [53])


@pytest.mark.parametrize(
    "found",
    [states(0x8, revision=1), states(0x8, flags=ELSE), ports(2, 1, [53]), ports(1, 16, [53]),
     ports(1, 1, [53], revision=0)],
    ids=["an old revision", "no state", "either port", "too many", "old ports"],
)  # fmt: skip
def test_what_is_not_known_is_not_told(found) -> None:
    assert found is None
