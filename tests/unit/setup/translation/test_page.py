# SPDX-License-Identifier: Apache-2.0
"""docs/moving.md: it has every key that has a rule, and no mode that exists is told as refused."""

from __future__ import annotations

import re
from pathlib import Path

from pycni.setup.translation import followers, ipam, modes, net_conf, plugins

PAGE = (Path(__file__).parents[4] / "docs" / "moving.md").read_text(encoding="utf-8")
SPANS = re.findall(r"`([^`\n]+)`", PAGE)
WORDS = {word.lower() for span in SPANS for word in re.findall(r"[\w-]+", span)}
MODES = PAGE.partition("## Ways between nodes")[2].partition("## Keys")[0]


def test_every_key_with_a_rule_is_on_the_page() -> None:
    tables = [plugins.HEAD, ipam.HOST_LOCAL, ipam.PROTOTYPE, net_conf.RULES, net_conf.BACKEND]
    tables += [plugin.rules for plugin in plugins.PLUGINS.values()]

    assert {key for table in tables for key in table} - WORDS == set()


def test_every_plugin_is_on_the_page() -> None:
    known = {*plugins.PLUGINS, *followers.DROPPED, *followers.KEPT}

    assert known - WORDS == set()


def test_every_mode_has_its_row() -> None:
    rows = {name: line for line in MODES.splitlines() if line.startswith("|")
            for name in re.findall(r"`([\w-]+)`", line.split("|")[1])}  # fmt: skip
    rows["direct-routing"] = rows.pop("DirectRouting")

    for name in (*modes.MODES, *modes.ON_LAN):
        assert "refused" not in rows[name], name
