# SPDX-License-Identifier: Apache-2.0
"""Programs at interfaces, by netkit, by tcx or by clsact filters.

The node's own interfaces use tcx where the kernel has it: fewer instructions per packet. An
endpoint uses clsact unless the caller asks for tcx: each attaching by tcx waits for an RCU grace
period under the RTNL lock (tcx_entry_sync, include/net/tcx.h), which is most of the time of an ADD.
An upgrade keeps the way that an endpoint has. from_container of a netkit pair always goes to the
netkit.

A program is atomically replaced if it is attached the same way. If it is attached another way, as
after a boot with another kernel, `leave_others` removes it when the new one runs. The caller's
thread and its rtnetlink socket are in the same network namespace. Knows no pins and no files.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

from . import clsact, netkit, tcx
from .bpf import Program
from .clsact import TrafficControl
from .hooks import Hook
from .places import DIRECTION, ENDPOINT_PROGRAMS


class Way(Enum):
    """How a program is attached, as `pycni status` says it."""

    NETKIT = "netkit"
    TCX = "tcx"
    CLSACT = "clsact filters"


def attach(
    ipr: TrafficControl,
    hook: Hook,
    program: Program,
    fingerprint: str,
    *,
    by: Way | None = None,
    has_clsact: bool = False,
) -> bool:
    """Attach, or replace our older program; True if a clsact qdisc was added for it.

    `by` is how, for a new endpoint (`way_to_endpoint`). `has_clsact` spares two messages where the
    caller has just had the qdisc added. GoneError if the interface does not exist; AttachError if
    it cannot be taken, and nothing has changed then.
    """
    by = by or way(hook)
    if by is Way.CLSACT:
        return clsact.attach(ipr, hook, program, fingerprint, has_clsact=has_clsact)
    if by is Way.TCX:
        tcx.attach(hook, program)
    else:
        netkit.attach(hook, program)
    return False


def way(hook: Hook) -> Way:
    """How a program is to be attached at a hook; at an endpoint, the way it is attached now."""
    if netkit.takes(hook):
        return Way.NETKIT
    if hook.program in ENDPOINT_PROGRAMS and hook.program not in tcx.attached(hook.ifindex):
        return Way.CLSACT
    return Way.TCX if tcx.available() else Way.CLSACT


def way_to_endpoint(program: str, *, by_tcx: bool, on_netkit: bool) -> Way:
    """How to attach a program to a new endpoint. Without tcx in the kernel: by clsact."""
    if on_netkit and program == netkit.PROGRAM:
        return Way.NETKIT
    return Way.TCX if by_tcx and tcx.available() else Way.CLSACT


def detach(ipr: TrafficControl, hook: Hook, *, remove_qdisc: bool = False) -> None:
    """Undo of `attach`, and of an attach another way. No error if nothing is there.

    `remove_qdisc`, for a caller that added the clsact qdisc: remove it if nothing is left in it.
    """
    for one in Way:
        _detach(one, ipr, hook)
    if remove_qdisc:
        clsact.remove_clsact(ipr, hook.ifindex)


def attached(ipr: TrafficControl, ifindex: int) -> dict[str, str]:
    """Our programs on an interface, each with its fingerprint; empty if there is no interface."""
    return clsact.attached(ipr, ifindex) | tcx.attached(ifindex) | netkit.attached(ifindex)


def is_attached(ipr: TrafficControl, hook: Hook, number: int) -> bool:
    """Whether the program with that id is attached at a hook the right way, and no program of ours
    another.

    Fingerprints would not do: a load with other pins has the same, and other maps.
    """
    right = way(hook)
    others = (one for one in Way if one is not right)
    return number in _numbers(right, ipr, hook) and not any(
        hook.program in _attached(one, ipr, hook) for one in others
    )


def runs(ipr: TrafficControl, hook: Hook, number: int) -> bool:
    """Whether the program with that id is attached at a hook, whatever way. Made to be cheap."""
    return any(number in _numbers(one, ipr, hook) for one in (Way.TCX, Way.CLSACT, Way.NETKIT))


def ahead(ipr: TrafficControl, hook: Hook, number: int) -> list[str]:
    """What of others runs at a hook before the program with that id, and may keep packets from it,
    by names."""
    direction = DIRECTION[hook.program]
    in_pair = netkit.programs(hook.ifindex) if netkit.takes(hook) else []
    first = in_pair or tcx.programs(hook.ifindex, direction)
    if number in first:
        return [_name(one) for one in first[: first.index(number)]]
    filters = [(one.program, one.name) for one in clsact.filters(ipr, hook.ifindex, direction)]
    numbers = [program for program, _ in filters]
    mine = numbers.index(number) if number in numbers else 0
    return [_name(one) for one in first] + [name for _, name in filters[:mine]]


def is_new(ipr: TrafficControl, hook: Hook) -> bool:
    """Whether `attach` would add, not replace."""
    return hook.program not in _attached(way(hook), ipr, hook)


def detach_new(ipr: TrafficControl, hook: Hook, *, remove_qdisc: bool) -> None:
    """Undo of an `attach` that added. A program that is attached another way stays."""
    _detach(way(hook), ipr, hook)
    if remove_qdisc:
        clsact.remove_clsact(ipr, hook.ifindex)


def leave_others(ipr: TrafficControl, hook: Hook) -> None:
    """Remove our program where it is attached another way.

    A clsact qdisc that is empty then stays until the unload, an endpoint's until its link ends:
    taking it from a device that is up drops what is being sent (qdisc_graft, net/sched/sch_api.c).
    """
    for one in Way:
        if one is not way(hook):
            _detach(one, ipr, hook)


def _name(number: int) -> str:
    try:
        with Program.open_id(number) as program:
            return program.info.name
    except FileNotFoundError:  # gone meanwhile
        return f"program {number}"


def _attached(by: Way, ipr: TrafficControl, hook: Hook) -> dict[str, str]:
    if by is Way.CLSACT:
        return clsact.attached(ipr, hook.ifindex)
    return tcx.attached(hook.ifindex) if by is Way.TCX else netkit.attached(hook.ifindex)


def _numbers(by: Way, ipr: TrafficControl, hook: Hook) -> Collection[int]:
    """Ids of all programs, ours and others', that are attached this way where the hook is."""
    direction = DIRECTION[hook.program]
    if by is Way.CLSACT:
        return {item.program for item in clsact.filters(ipr, hook.ifindex, direction)}
    if by is Way.TCX:
        return tcx.programs(hook.ifindex, direction)
    return netkit.programs(hook.ifindex) if hook.program == netkit.PROGRAM else ()


def _detach(by: Way, ipr: TrafficControl, hook: Hook) -> None:
    if by is Way.CLSACT:
        clsact.detach(ipr, hook)
    elif by is Way.TCX:
        tcx.detach(hook)
    else:
        netkit.detach(hook)
