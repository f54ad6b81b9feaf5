# SPDX-License-Identifier: Apache-2.0
"""cluster/network.py: an installation that does not get ready says why."""

from __future__ import annotations

from typing import Any, cast

import pytest

from cluster import network
from cluster.kubectl import Kubectl
from pycni.errors import PycniError

CRASHED = {"terminated": {"exitCode": 139, "message": "making it"}}


class Answers:
    """In the place of kubectl."""

    def __init__(self, ready: int) -> None:
        self._ready = ready

    def get(self, kind: str, *_: str) -> Any:
        if kind == "daemonset":
            return {"status": {"desiredNumberScheduled": 2, "numberReady": self._ready}}
        status = {
            "initContainerStatuses": [
                {"name": "prepare", "state": {"terminated": {"exitCode": 0}}},
                {"name": "setup", "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                 "lastState": CRASHED},
            ],
            "containerStatuses": [{"name": "agent", "state": {"running": {}}}],
        }  # fmt: skip
        return {"items": [{"metadata": {"name": "pycni-x"}, "status": status}]}


def wait(ready: int) -> None:
    network.wait_until_ready(cast("Kubectl", Answers(ready)))


def test_an_installation_that_does_not_get_ready_says_what_its_containers_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network, "READY_SECONDS", 0.0)

    with pytest.raises(PycniError, match="pycni serves on every node") as error:
        wait(1)

    assert error.value.details.splitlines() == [
        'pycni-x setup: {"waiting": {"reason": "CrashLoopBackOff"}}',
        'pycni-x setup: {"terminated": {"exitCode": 139, "message": "making it"}}',
    ]


def test_one_that_is_ready_is_not_asked_for_more() -> None:
    wait(2)
