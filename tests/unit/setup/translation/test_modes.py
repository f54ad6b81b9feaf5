# SPDX-License-Identifier: Apache-2.0
"""pycni/setup/translation/modes.py: what there is, and what is named where there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from pycni.cni.netconf import NetConf
from pycni.settings import Settings
from pycni.setup.translation import modes
from unit.setup.translation.samples import PROTOTYPE, finding

ENCAPS = get_args(Settings.model_fields["encap"].annotation)
DEVICES = get_args(NetConf.model_fields["device"].annotation)


@pytest.mark.parametrize("name", modes.MODES)
def test_a_mode_exists_exactly_if_the_settings_or_the_list_take_it(name: str) -> None:
    mode = modes.MODES[name]

    taken = mode.settings.get("encap", "auto") in ENCAPS
    assert mode.exists == (taken and mode.network.get("device", "veth") in DEVICES)


@pytest.mark.parametrize("name", [name for name, mode in modes.MODES.items() if not mode.exists])
def test_a_mode_that_is_not_there_is_refused_with_the_one_that_works(name: str) -> None:
    found = finding(PROTOTYPE | {"mode": name}, "mode")

    assert found.fate == "refused"
    assert f"no {modes.MODES[name].what}" in found.says
    assert 'encap = "auto"' in found.says
    assert '"mode": "vxlan"' in found.says


def test_one_line_of_the_table_switches_a_mode_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(modes.MODES, "ipip", replace(modes.MODES["ipip"], exists=True))

    found = finding(PROTOTYPE | {"mode": "ipip"}, "mode")

    assert (found.fate, dict(found.settings)) == ("becomes", {"encap": "ipip"})


def test_routes_to_the_other_nodes_are_the_direct_mode() -> None:
    found = finding(PROTOTYPE | {"mode": "host-gw"}, "mode")

    assert (found.fate, dict(found.settings)) == ("becomes", {"encap": "direct"})


def test_a_mode_that_nobody_knows_is_refused_by_its_name() -> None:
    found = finding(PROTOTYPE | {"mode": "geneve"}, "mode")

    assert found.fate == "refused"
    assert "'geneve'" in found.says
