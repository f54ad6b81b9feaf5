# SPDX-License-Identifier: Apache-2.0
"""The lab's meter of lost packets: what it calls lost was lost."""

from __future__ import annotations

import json
import subprocess
import sys

from pycni.lab import peer

MANY = 60_000
"""More replies than a receive buffer of any usual size has room for."""


def test_a_sender_that_is_late_from_the_first_packet_on_misses_no_reply() -> None:
    """With an interval of zero it never has time to wait."""
    words = ("echo", "127.0.0.1", "--count", str(MANY), "--interval", "0")

    done = subprocess.run(
        [sys.executable, "-IS", str(peer.__file__), *words],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip

    (answer,) = json.loads(done.stdout)
    assert answer["sent"] == answer["received"] == MANY
