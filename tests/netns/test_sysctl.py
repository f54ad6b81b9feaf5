# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/sysctl.py in the kernel: parameters come and go with their interface."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pycni.kernel import sysctl
from pycni.kernel.links import End
from pycni.kernel.rtnl import Rtnl
from support.kernel import entered, needs_root, netns

pytestmark = needs_root


def test_an_interface_may_go_away_between_open_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with netns() as path, entered(path), Rtnl() as ipr:
        ipr.add_veth(End("a0"), End("a1"))
        assert sysctl.read("net/ipv4/conf/a0/rp_filter") is not None
        opened = os.open

        def open_then_lose(*args: Any) -> int:
            descriptor = opened(*args)
            ipr.delete_link(ipr.ifindex("a0"))
            return descriptor

        monkeypatch.setattr(os, "open", open_then_lose)

        assert sysctl.read("net/ipv4/conf/a0/rp_filter") is None
