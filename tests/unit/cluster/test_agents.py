# SPDX-License-Identifier: Apache-2.0
"""What agents say, and what is said if there is none."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from cluster import agents
from pycni.errors import PycniError
from unit.cluster.clusters import drawn

NODE = drawn().workers[0]
ROWS = [{"name": "node", "state": "ok"}, {"name": "plugin", "state": "degraded"}]


class Api:
    """kubectl, with an agent's pod or none, which prints something."""

    def __init__(self, *, pods: int = 1, said: bytes = b"") -> None:
        self.pods = [{"metadata": {"name": "pycni-x"}}] * pods
        self.said = said
        self.asked: tuple[str, ...] = ()

    def get(self, *_: str) -> dict[str, Any]:
        return {"items": self.pods}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        self.asked = arguments
        return subprocess.CompletedProcess(arguments, 1, self.said, b"no such container")


def test_a_status_is_told_whatever_its_exit_status() -> None:
    api: Any = Api(said=json.dumps(ROWS).encode())

    assert agents.status(api, NODE) == ROWS
    assert agents.row(api, NODE, "plugin")["state"] == "degraded"
    assert "pycni-x" in api.asked


def test_no_status_is_an_error_with_its_reason() -> None:
    api: Any = Api()

    with pytest.raises(PycniError, match="tells no status of node1") as raised:
        agents.status(api, NODE)
    assert raised.value.details == "no such container"


def test_no_agent_is_an_error() -> None:
    api: Any = Api(pods=0)

    with pytest.raises(PycniError, match="no agent of pycni runs on node1"):
        agents.log(api, NODE)
