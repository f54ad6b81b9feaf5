# SPDX-License-Identifier: Apache-2.0
"""Has the connections of addresses forgotten that were given back.

What an agent leaves when it stops, the setup of the next one does (attachments/restore.py).
"""

from __future__ import annotations

from pycni.agent.loops import Run
from pycni.kernel.forgetting import Forgetting


def follow(forgetting: Forgetting, run: Run) -> None:
    """Until the agent stops, in the node's namespace."""
    run.well()
    while not run.stopping:
        forgetting.wait()
        forgetting.work()
