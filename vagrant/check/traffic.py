# SPDX-License-Identifier: Apache-2.0
"""Echo requests from pod to pod, each sent once: also while something changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from check.lab import Check, Lab, wait
from check.machines import PATIENCE

FLOOD_INTERVAL = 0.02
"""Seconds between two echo requests."""
FLOOD_GRACE = 10
"""Seconds to wait for the last replies."""
FLOWING = 50
"""Echo requests that have arrived when a change begins."""


def under_traffic(lab: Lab, what: str, change: Callable[[], None]) -> Iterator[Check]:
    """Pings a1 -> b1, both families at once, from before a change begins until after it has ended.

    Raises Failed if none arrive.
    """
    source, here = lab.pods["a1"], lab.namespaces["a1"]
    options = ("--until-eof", "--interval", FLOOD_INTERVAL, "--grace", FLOOD_GRACE)
    before = _received(lab, "b1")
    with ExitStack() as floods:
        running = [
            floods.enter_context(source.peer_running(here, "echo", address, *options))
            for address in lab.addresses["b1"]
        ]
        wait("packets flow", lambda: all(
            now > then + FLOWING for now, then in zip(_received(lab, "b1"), before, strict=True)
        ))  # fmt: skip
        change()
        said = [flood.communicate(timeout=PATIENCE)[0] for flood in running]
    for text in said:
        (answer,) = json.loads(text)
        yield answered(f"{what}: IPv{family(answer['address'])} a1 -> b1", answer)


def _received(lab: Lab, pod: str) -> list[int]:
    """The echo requests that a pod got so far: of IPv4, of IPv6."""
    names = ("snmp", "snmp6")
    files = " ".join(f"/proc/net/{name}" for name in names)
    text = lab.pods[pod].run(f"nsenter --net={lab.namespaces[pod]} cat {files}")
    rows = [line.split() for line in text.splitlines()]
    heads, values = (row for row in rows if row[0] == "Icmp:")
    (six,) = (row for row in rows if row[0] == "Icmp6InEchos")
    return [int(values[heads.index("InEchos")]), int(six[1])]


def answered(name: str, answer: dict[str, Any]) -> Check:
    found = f"{answer['received']}/{answer['sent']} answered"
    passed = answer["received"] == answer["sent"] > 0
    return Check(f"{name} {answer['address']}".rstrip(), passed, found)


def family(address: str) -> int:
    return 6 if ":" in address else 4
