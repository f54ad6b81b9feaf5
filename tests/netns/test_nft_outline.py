# SPDX-License-Identifier: Apache-2.0
"""What a table is made of: by netlink the same as by libnftables."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from pycni.kernel import nft
from support import kernel
from support.labs import within

WHAT = "a table of the tests"
TABLE = """
table inet ours {
    counter bad { packets 0 bytes 0 }
    set nodes4 { typeof ip saddr; elements = { 192.0.2.1, 192.0.2.2 } }
    map ports { type inet_service : verdict; }
    chain helper { }
    chain first {
        type filter hook prerouting priority -300; policy drop;
        ip saddr @nodes4 counter name bad drop comment "first"
        tcp dport { 80, 443 } accept
        tcp dport vmap @ports comment "third"
        jump helper comment "a longer one, with blanks"
    }
    chain second { type filter hook input priority 0; }
    chain third { type filter hook forward priority 10; }
    chain fourth { type route hook output priority -150; }
    chain fifth { type nat hook postrouting priority 100; counter comment "last"; }
}
table inet others {
    chain theirs { accept comment "theirs"; }
}
table ip ours {
    chain theirs { accept comment "theirs"; }
}
"""
TOLD = {
    "chain": ("name", "type", "hook", "prio", "policy"),
    "rule": ("chain", "comment"),
    "set": ("name",),
    "map": ("name",),
}


@pytest.fixture
def netns() -> Iterator[str]:
    with kernel.netns() as path:
        within(path, partial(nft.run, TABLE, what=WHAT))
        yield path


def listing() -> list[dict[str, Any]]:
    """The same by libnftables."""
    question = [{"list": {"table": {"family": "inet", "name": "ours"}}}]
    found = []
    for entry in nft.run(question, what=WHAT):
        for kind, one in entry.items():
            if kind == "rule":
                one.setdefault("comment", "")
            if kind in TOLD:
                found.append({kind: {key: one[key] for key in TOLD[kind] if key in one}})
    return found


def of_kind(kind: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry[kind] for entry in entries if kind in entry]


def test_netlink_tells_what_libnftables_tells(netns: str) -> None:
    found = within(netns, partial(nft.outline, "ours", what=WHAT))
    listed = within(netns, listing)

    assert len(of_kind("chain", found)) == 6
    assert of_kind("chain", found) == of_kind("chain", listed)
    assert of_kind("rule", found) == of_kind("rule", listed)
    for kind in ("set", "map"):
        assert of_kind(kind, found) == of_kind(kind, listed)


def test_a_table_that_is_gone_has_nothing(netns: str) -> None:
    assert within(netns, partial(nft.outline, "none", what=WHAT)) == []
