# SPDX-License-Identifier: Apache-2.0
"""What is wrong in the cluster as this node sees it, by its agent's report and the store's listing.

A place that is lost, another machine with this node's name, records that cannot be used here, more
nodes than the maps hold, pools that cannot be used, nodes that do not answer. Looks only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pycni.errors import NotAvailable
from pycni.faults import Fault, Weight
from pycni.node import next_hops, place, reachability, report
from pycni.node.reachability import Local
from pycni.settings import Settings
from pycni.stores import Listing

NAMED = 3
"""Records or nodes that a fault names."""


def faults(
    settings: Settings, listing: Listing | None, *, local: Sequence[Local] = ()
) -> list[Fault]:
    """Empty if the agent reports none, or no agent reports.

    `listing` is None if the store is away. `local` is as in reachability.faults.
    """
    told = report.read(settings)
    peers = report.table(told, report.PEERS)
    silent = {name for name, life in listing.liveness.items() if not life.alive} if listing else ()
    return [
        *_place(told),
        *_rival(settings, told),
        *_set_aside(told, listing),
        *_left_out(told),
        *_blocks(told),
        *reachability.faults(
            peers.values(),
            port=settings.port,
            silent=silent,
            modes=_modes(settings, peers),
            local=local,
        ),
    ]


def summary(settings: Settings) -> str:
    """How many nodes answer, in a few words."""
    rows = report.table(report.read(settings), report.PEERS).values()
    if not rows:
        off = not settings.probe_interval
        return "nobody asks: probe_interval is 0" if off else "no other node was asked yet"
    through = sum(row.get("forwards") is True for row in rows)
    return f"{through} of {len(rows)} answer through the overlay"


def _modes(settings: Settings, peers: Mapping[str, Any]) -> dict[str, str]:
    """How packets to other nodes leave, by their names; `peers` by VTEP."""
    try:
        modes = next_hops.modes(settings)
    except (NotAvailable, OSError):
        return {}
    named = ((peers.get(str(vtep)), mode) for vtep, mode in modes.items())
    return {row["name"]: mode for row, mode in named if row}


def _place(told: dict[str, Any]) -> list[Fault]:
    found = report.table(told, report.PLACE)
    if not found:
        return []
    return [
        Fault(
            place.PART,
            "this node's place in the cluster",
            f"lost, no pod is added: {found.get('cause', '')}",
            str(found.get("to_do", "")),
            Weight.DEGRADED,
        )
    ]


def _rival(settings: Settings, told: dict[str, Any]) -> list[Fault]:
    rival = told.get(report.RIVAL)
    if not rival:
        return []
    return [
        Fault(
            "name",
            f"node name {settings.node_name}",
            f"also that of another machine, {rival}",
            "give one of them another node_name and /etc/machine-id",
            Weight.DEGRADED,
        )
    ]


def _set_aside(told: dict[str, Any], listing: Listing | None) -> list[Fault]:
    """Records that are only set aside here; the store's listing has the others."""
    known = listing.rejected if listing else {}
    here = {
        name: why for name, why in report.table(told, report.SET_ASIDE).items() if name not in known
    }
    return [
        Fault("records", f"the record of {name}", f"set aside: {why}",
              "mend or remove the record: pycni nodes, pycni forget; in Kubernetes: kubectl delete "
              "node", Weight.DEGRADED)
        for name, why in sorted(here.items())[:NAMED]
    ]  # fmt: skip


def _blocks(told: dict[str, Any]) -> list[Fault]:
    """Pools that are set aside, and a block that this node needs and does not get."""
    found = report.table(told, report.BLOCKS)
    rows = [
        Fault("pools", f"the IPPool {name}", f"set aside: {why}",
              "correct or remove it: pycni pools", Weight.DEGRADED)
        for name, why in sorted(report.table(found, "set_aside").items())[:NAMED]
    ]  # fmt: skip
    if problem := found.get("problem"):
        todo = str(found.get("hint", ""))
        rows.append(
            Fault("pools", "the supply of addresses", f"short: {problem}", todo, Weight.DEGRADED)
        )
    return rows


def _left_out(told: dict[str, Any]) -> list[Fault]:
    found = report.table(told, report.LEFT_OUT)
    count = found.get("count", 0)
    if not count:
        return []
    first = ", ".join(map(str, found.get("names", [])[:NAMED]))
    return [
        Fault("peers", "the table of other nodes",
              f"full: no room for {count} nodes, such as {first}",
              "run: pycni setup, which makes them larger")
    ]  # fmt: skip
