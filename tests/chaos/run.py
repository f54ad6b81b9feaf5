# SPDX-License-Identifier: Apache-2.0
"""A whole chaos run, from the lab to the verdict."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from chaos import storm
from chaos.storm import Wound, rage
from chaos.traffic import flowing, open_host_port
from pycni.lab import checks
from support.asking import Heard
from support.damages import put_uplink_back
from support.labs import made_lab
from support.snapshot import Snapshot, differences, take
from support.waiting import wait_until
from support.wellness import is_well

NODES, PODS = 3, 2
RENUMBERED = re.compile(r"^\d+ (?=\S+ )|program=\d+|\b[0-9a-f]{12}(?:-repaired)?\b")
"""An interface that is made anew has another number; then the programs have another fingerprint."""
BY_THE_KERNEL = re.compile(r"fe80::|/128 via None dev pycni0 .* metric 256$")
"""Addresses of links that were made anew, and a route that comes with an address, which nobody
needs, as the local table has the address."""
GONE_ON = frozenset(("maps", "neighbours", "fdb", "files"))
"""What goes on by itself: counters, what was learnt, the agent's notes."""


@dataclass(frozen=True)
class Verdict:
    """What a run showed. All lists but `wounds` and `heard` should be empty."""

    wounds: list[Wound]
    heard: list[Heard]
    strays: list[tuple[str, float]]
    """Lost without a damage."""
    unreached: list[str]
    """Checks of the lab that failed in the end."""
    changes: list[str]
    """How nodes differ from what they were."""


def chaos(
    *, seconds: float, seed: int, tell: Callable[[Wound], object] = lambda _: None
) -> Verdict:
    """Bring a lab up, hurt it for so long, look what is left of it, take it down."""
    with made_lab(nodes=NODES, pods=PODS) as lab:
        for node in lab.layout.nodes:
            lab.detach(node.pods[0])
            open_host_port(lab, node.pods[0])
        before = {node.name: _named(take(node)) for node in lab.layout.nodes}
        with flowing(lab) as traffic:
            wounds, heard = rage(lab, traffic, seconds=seconds, seed=seed, tell=tell)
        for node in lab.layout.nodes:
            put_uplink_back(lab, node)
            wait_until(partial(is_well, node), f"{node.name} is well")
        proof = itertools.chain(checks.matrix(lab), checks.hosts_and_world(lab))
        unreached = [check.name for check in proof if not check.passed]
        changes = [
            f"{node.name}: {line}"
            for node in lab.layout.nodes
            for line in differences(before[node.name], _named(take(node)), without=GONE_ON)
        ]
    return Verdict(wounds, heard, storm.strays(wounds, heard), unreached, changes)


def _named(snapshot: Snapshot) -> Snapshot:
    """Without the kernel's numbers."""
    return {
        section: [RENUMBERED.sub("", line) for line in lines if not BY_THE_KERNEL.search(line)]
        for section, lines in snapshot.items()
    }
