# SPDX-License-Identifier: Apache-2.0
"""Where the time of an ADD and a DEL goes: the process, its way to the agent, the agent's work.

Measures the parts, in the same namespaces as the whole; the agent's work is done once more in a
process of its own that looks into itself (agent_call.py).
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.calls import Command, PluginFailed, seconds
from bench.nodes import Field
from bench.rounds import INTERPRETER
from pycni.lab import processes

AGENT_CALL = Path(__file__).with_name("agent_call.py")
TIMEOUT = 120.0
FUNCTIONS_SHOWN = 22


def measure(field: Field, rounds: int) -> dict[str, Any]:
    """All parts in milliseconds, medians over the rounds."""
    one = field.pycni
    nothing = Command((str(one.plugin),), {"CNI_COMMAND": ""})
    took: dict[str, list[float]] = {}
    for number in range(rounds):
        steps = {
            "interpreter": INTERPRETER,
            "process": nothing,
            "ADD": one.add(0, f"parts{number}"),
            "DEL": one.delete(0, f"parts{number}"),
        }
        for name, command in steps.items():
            took.setdefault(name, []).append(1000 * seconds(one.node.netns, [command]))
    whole = {name: statistics.median(samples) for name, samples in took.items()}
    return {"whole": whole, "calls": _agent_calls(field, rounds)}


def lines(parts: dict[str, Any]) -> Iterator[str]:
    """`measure` in words."""
    whole = parts["whole"]
    for call in parts["calls"]:
        verb, cost = call["verb"], call["cost"]
        yield f"{verb}: {whole[verb]:.1f} ms, of which"
        yield f"  {whole['interpreter']:6.2f}  the interpreter's start and end (pass)"
        yield f"  {whole['process'] - whole['interpreter']:6.2f}  the plugin's own start"
        yield f"  {cost['wall']:6.2f}  the agent's work:"
        for kind in ("user", "system", "waiting"):
            yield f"          {cost[kind]:6.2f}  {kind}"
        rest = whole[verb] - whole["process"] - cost["wall"]
        yield f"  {rest:6.2f}  the way there and back\n"
        yield f"  {len(call['netlink'])} netlink requests; milliseconds in the kernel:"
        for name, (count, took) in _summed(call["netlink"]).items():
            yield f"  {took:6.2f}  {count} × {name}"
        yield "\n  under the profiler (slower than life), by place:"
        for place, took in call["where"].items():
            yield f"  {took:6.2f}  {place}"
        yield "\n  and by function, with what it calls; times it is called:"
        for name, count, took in call["functions"][:FUNCTIONS_SHOWN]:
            yield f"  {took:6.2f}  {count:4.0f} × {name}"
        yield ""


def _summed(messages: list[list[Any]]) -> dict[str, tuple[int, float]]:
    counts: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for name, took in messages:
        counts[name] += 1
        times[name] += took
    return {name: (counts[name], times[name]) for name in counts}


def _agent_calls(field: Field, rounds: int) -> list[dict[str, Any]]:
    one = field.pycni
    asked = {
        "settings": str(one.node.settings_path),
        "env": dict(one.add(0, "inside").env),
        "conf": one.conf,
        "rounds": rounds,
    }
    done = processes.run(
        one.node.netns,
        [sys.executable, AGENT_CALL],
        stdin=json.dumps(asked).encode(),
        timeout=TIMEOUT,
    )
    if done.returncode:
        raise PluginFailed(done.stderr.decode(errors="replace").strip())
    return [json.loads(line) for line in done.stdout.splitlines()]
