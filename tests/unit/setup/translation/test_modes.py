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
    monkeypatch.setitem(modes.MODES, "ipvlan", replace(modes.MODES["ipvlan"], exists=True))

    found = finding(PROTOTYPE | {"mode": "ipvlan"}, "mode")

    assert (found.fate, dict(found.network)) == ("becomes", {"device": "ipvlan"})


@pytest.mark.parametrize(("name", "encap"), [("host-gw", "direct"), ("ipip", "ipip")])
def test_a_mode_that_is_there_is_a_setting(name: str, encap: str) -> None:
    found = finding(PROTOTYPE | {"mode": name}, "mode")

    assert (found.fate, dict(found.settings)) == ("becomes", {"encap": encap})


def test_a_mode_that_nobody_knows_is_refused_by_its_name() -> None:
    found = finding(PROTOTYPE | {"mode": "geneve"}, "mode")

    assert found.fate == "refused"
    assert "'geneve'" in found.says
