# SPDX-License-Identifier: Apache-2.0
"""pycni/setup/translation/modes.py: what there is, and what is named where there is none."""

from __future__ import annotations

from typing import get_args

import pytest

from pycni.cni.netconf import NetConf
from pycni.settings import Settings
from pycni.setup.translation import modes
from unit.setup.translation.samples import PROTOTYPE, finding

ENCAPS = get_args(Settings.model_fields["encap"].annotation)
DEVICES = get_args(NetConf.model_fields["device"].annotation)


def test_the_settings_and_the_list_take_every_mode() -> None:
    assert {settings["encap"] for settings in modes.MODES.values()} <= set(ENCAPS)
    assert {network["device"] for network in modes.ON_LAN.values()} <= set(DEVICES)


@pytest.mark.parametrize("name", ["ipvlan", "macvlan", "MacVLAN"])
def test_a_mode_on_the_lan_is_a_device_of_the_list(name: str) -> None:
    found = finding(PROTOTYPE | {"mode": name}, "mode")

    expected = {"device": name.lower(), "ipMasq": False}
    assert (found.fate, dict(found.network)) == ("becomes", expected)


@pytest.mark.parametrize(("name", "encap"), [("host-gw", "direct"), ("ipip", "ipip")])
def test_a_mode_that_is_there_is_a_setting(name: str, encap: str) -> None:
    found = finding(PROTOTYPE | {"mode": name}, "mode")

    assert (found.fate, dict(found.settings)) == ("becomes", {"encap": encap})


def test_a_mode_that_nobody_knows_is_refused_by_its_name() -> None:
    found = finding(PROTOTYPE | {"mode": "geneve"}, "mode")

    assert found.fate == "refused"
    assert "'geneve'" in found.says
    assert 'encap = "auto"' in found.says
    assert '"mode": "vxlan"' in found.says
