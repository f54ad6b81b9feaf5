# SPDX-License-Identifier: Apache-2.0
"""A table of iptables-legacy as the kernel gives it; netns/test_firewalls.py reads one."""

from __future__ import annotations

import struct

import pytest

from pycni.kernel import xtables
from pycni.kernel.xtables import Rule

HEAD = b"elsewhere"
STANDARD, JUMP = 40, 1000
"""Bytes of a target that is a verdict; an offset to which a rule jumps."""


def entry(family, *, target="", verdict=0, in_ifname="", match=b""):
    conditions = bytearray(family.conditions)
    if in_ifname:
        at = family.interfaces
        conditions[at : at + xtables.IFNAME] = in_ifname.encode().ljust(xtables.IFNAME, b"\0")
    target_offset = family.size + len(match)
    body = bytearray(family.size)
    body[: family.conditions] = conditions
    struct.pack_into("=HH", body, family.offsets, target_offset, target_offset + STANDARD)
    end = xtables.TARGET.pack(STANDARD, target.encode(), 0) + struct.pack("=i4x", verdict)
    return bytes(body) + match + end


@pytest.mark.parametrize("family", xtables.FAMILIES, ids=["ip", "ip6"])
def test_a_chain_is_read_to_its_policy(family) -> None:
    entries = [
        entry(family, in_ifname="pycni0", verdict=-2),
        entry(family, match=bytes(48), verdict=-1),
        entry(family, target="REJECT"),
        entry(family, verdict=JUMP),
        entry(family, verdict=-1),
    ]
    block = HEAD + b"".join(entries) + entry(family, verdict=-2)
    end = len(HEAD) + sum(map(len, entries[:-1]))

    assert list(xtables.read(block, len(HEAD), end, family=family)) == [
        Rule("pycni0", "", False, "ACCEPT"),
        Rule("", "", False, "DROP"),
        Rule("", "", True, "REJECT"),
        Rule("", "", True, ""),
        Rule("", "", True, "DROP"),
    ]
