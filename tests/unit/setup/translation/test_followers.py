# SPDX-License-Identifier: Apache-2.0
"""pycni/setup/translation/followers.py: plugins after the first."""

from __future__ import annotations

from typing import Any

import pytest

from unit.setup.translation.samples import PROTOTYPE, finding, listed, result

FIRST = {key: PROTOTYPE[key] for key in ("type", "mode", "subnet")}
TUNING = {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "dataDir": "/x"}


@pytest.mark.parametrize(
    ("plugin", "key", "fate", "says"),
    [
        ({"type": "portmap"}, "type", "not needed", "portMappings"),
        ({"type": "portmap", "snat": True}, "snat", "not needed", "itself"),
        (
            {"type": "portmap", "conditionsV4": ["-s", "x"]},
            "conditionsV4",
            "refused",
            "all sources",
        ),
        ({"type": "portmap", "port": 1}, "port", "refused", "unknown key"),
        ({"type": "bandwidth"}, "type", "not needed", "capability bandwidth"),
        ({"type": "bandwidth", "ingressRate": 1}, "ingressRate", "refused", '"tcx": true'),
        ({"type": "firewall"}, "type", "not needed", "FORWARD"),
        ({"type": "firewall", "ingressPolicy": "x"}, "ingressPolicy", "refused", "policy"),
        ({"type": "loopback"}, "type", "not needed", "runtimes"),
        ({"type": "sbr"}, "type", "refused", "nothing is known"),
    ],
)
def test_a_plugin_that_follows(plugin: dict[str, Any], key: str, fate: str, says: str) -> None:
    found = finding(listed(FIRST, plugin), f"plugins[1].{key}")

    assert found.fate == fate
    assert says in found.says


def test_a_plugin_that_tunes_stays_as_it_is() -> None:
    done = result(listed(FIRST, TUNING))

    assert done.network is not None
    assert done.network["plugins"][1:] == [TUNING]
    assert finding(listed(FIRST, TUNING), "plugins[1]").fate == "becomes"
