# SPDX-License-Identifier: Apache-2.0
"""What an agent reports about Services becomes rows of status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pycni.faults import Weight
from pycni.kernel import cgroups
from pycni.node import service_faults
from pycni.node.report import SERVICES, Report
from pycni.settings import Settings

WELL = {"state": "pods", "frontends": 4, "left_out": {}, "left_out_count": 0, "set_aside": [],
        "set_aside_count": 0}  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node_name="one", run_dir=tmp_path, services="pods")


def tell(settings: Settings, **changes: Any) -> None:
    Report(settings).put(SERVICES, WELL | changes)


def test_services_that_are_off_are_said_to_be(settings: Settings) -> None:
    off = settings.model_copy(update={"services": "off"})

    assert service_faults.summary(off) == "off"


def test_without_a_report_nothing_is_known(settings: Settings) -> None:
    assert service_faults.faults(settings) == []
    assert "not listed yet" in service_faults.summary(settings)


def test_what_is_forwarded_is_counted(settings: Settings) -> None:
    tell(settings)

    assert service_faults.faults(settings) == []
    assert service_faults.summary(settings) == "pods: 4 addresses and ports forwarded"


def test_a_full_map_loses_packets(settings: Settings) -> None:
    left = {"shop/web http": "there is no room in the map backends"}
    tell(settings, left_out=left, left_out_count=7)

    (found,) = service_faults.faults(settings)

    assert found.weight is Weight.BROKEN
    assert "7 service ports" in found.found
    assert "no room in the map backends" in found.found


def test_what_is_set_aside_is_named(settings: Settings) -> None:
    aside = ["Service shop/sctp: SCTP with another targetPort"]
    tell(settings, set_aside=aside, set_aside_count=1)

    (found,) = service_faults.faults(settings)

    assert found.weight is Weight.DEGRADED
    assert aside[0] in found.found


def test_what_the_nodes_own_processes_lack_is_said(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = settings.model_copy(update={"services": "pods+host"})
    part = cgroups.Root(Path("/sys/fs/cgroup"), is_whole=False)
    monkeypatch.setattr(cgroups, "root", lambda: part)
    tell(served, kept_sockets="[Errno 95] Operation not supported")

    words = service_faults.summary(served).split("; ")

    assert words[0] == "pods+host: 4 addresses and ports forwarded"
    assert "outlive their endpoints: [Errno 95]" in words[1]
    assert words[2].endswith("in the control group at /sys/fs/cgroup")
