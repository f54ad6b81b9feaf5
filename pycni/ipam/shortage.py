# SPDX-License-Identifier: Apache-2.0
"""What happens when this node has no address left.

Where nodes get further blocks (agent/blocks.py), an ADD waits for the next one a little, and the
error says why there is none.
"""

from __future__ import annotations

import time

from pycni.errors import PoolExhausted, PycniError, TryAgain
from pycni.node import report
from pycni.node.record import Node
from pycni.settings import Settings

PATIENCE = 5.0
"""Seconds for which an ADD waits for another block."""
LOOK = 0.1
"""Seconds between two looks whether it is there."""


def wait(settings: Settings, node: Node, error: PoolExhausted, *, seconds: float) -> Node:
    """This node when it has another block than those of `node`, within `seconds` and PATIENCE.

    Raises `error` if nobody gets the node another one; PoolExhausted if the pools are full;
    TryAgain if there is none in time; NotAvailable if the node's record cannot be read.
    """
    told = _told(settings)
    if told is None:
        raise error
    end = time.monotonic() + min(seconds, PATIENCE)
    while not told.get("full"):
        now = Node.load(settings)
        if set(now.blocks) - set(node.blocks):
            return now
        if time.monotonic() >= end:
            break
        time.sleep(LOOK)
        told = _told(settings) or told
    raise explained(settings, error)


def explained(settings: Settings, error: PoolExhausted) -> PycniError:
    """The error with the reason for which the node gets no other block; TryAgain if it may soon."""
    told = _told(settings)
    if told is None:
        return error
    problem, hint = str(told.get("problem", "")), str(told.get("hint", ""))
    message = f"{error.message}; {problem or 'another block is being claimed'}"
    kind = PoolExhausted if told.get("full") else TryAgain
    return kind(message, hint=hint or "nothing to do: it is tried again")


def _told(settings: Settings) -> dict[str, object] | None:
    """What the agent says about blocks; None without an agent that gets some."""
    return report.table(report.read(settings), report.BLOCKS) or None
