# SPDX-License-Identifier: Apache-2.0
"""`pycni agent` that mends nothing: python agent_without_keeper.py SETTINGS.

For tests of what a plugin does on a damaged node: there the damage stays as long as they want.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from pycni.agent import agent, keeper
from pycni.agent.loops import Run
from pycni.lab import cluster, processes
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode
from pycni.settings import Settings, load


def start(lab: Lab, node: LabNode) -> None:
    """Start one as the agent of a node, and wait until it serves."""
    command: list[str | Path] = [sys.executable, __file__, node.settings_path]
    lab.agents[node.name] = processes.start(node.netns, command, log=node.log_path)
    lab.save()
    cluster.wait_for_agent(lab, node)


def _mend_nothing(_: Settings, run: Run, **_others: Any) -> None:
    run.well()
    run.stop.wait()


def main() -> None:
    with mock.patch.object(keeper, "follow", _mend_nothing):
        agent.run(partial(load, Path(sys.argv[1])))


if __name__ == "__main__":
    main()
