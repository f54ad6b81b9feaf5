"""Programs at interfaces, by tcx or by clsact filters.

On the node's own interfaces by tcx where the kernel has it: fewer instructions per packet. On an
endpoint as it was attached: by clsact unless asked for, since each attaching by tcx waits for an
RCU grace period under the RTNL lock (tcx_entry_sync, include/net/tcx.h), which is most of an ADD.

A program in its place is atomically replaced; one that is there the other way (the kernel was
another one) is taken away by `leave_other` when the new one runs. The caller's IPRoute and thread
are in the same network namespace. Knows no pins and no files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import clsact, tcx
from .bpf import Program
from .hooks import ENDPOINT_PROGRAMS, Hook

if TYPE_CHECKING:
    from pyroute2 import IPRoute


def attach(
    ipr: IPRoute,
    hook: Hook,
    program: Program,
    fingerprint: str,
    *,
    by_tcx: bool | None = None,
    has_clsact: bool = False,
) -> bool:
    """Attach, or replace our older program; True if a clsact qdisc was added for it.

    `by_tcx` is how, for a new endpoint; without tcx in the kernel it is by clsact all the same.
    `has_clsact` spares two messages where the caller has just had the qdisc added. GoneError if
    the interface does not exist; AttachError if it cannot be taken, and nothing has changed then.
    """
    if goes_by_tcx(hook) if by_tcx is None else by_tcx and tcx.available():
        tcx.attach(hook, program)
        return False
    return clsact.attach(ipr, hook, program, fingerprint, has_clsact=has_clsact)


def goes_by_tcx(hook: Hook) -> bool:
    """Whether a program at a hook belongs there by tcx, an endpoint's as it is there now."""
    if hook.program in ENDPOINT_PROGRAMS and hook.program not in tcx.attached(hook.ifindex):
        return False
    return tcx.available()


def detach(ipr: IPRoute, hook: Hook, *, remove_qdisc: bool = False) -> None:
    """Undo of `attach`, and of an attach the other way. No error if nothing is there.

    With `remove_qdisc`, for whoever added it: the clsact qdisc too, if nothing else is in it.
    """
    tcx.detach(hook)
    clsact.detach(ipr, hook, remove_qdisc=remove_qdisc)


def attached(ipr: IPRoute, ifindex: int) -> dict[str, str]:
    """Our programs on an interface, each with its fingerprint; empty if there is no interface."""
    return clsact.attached(ipr, ifindex) | tcx.attached(ifindex)


def is_attached(ipr: IPRoute, hook: Hook, fingerprint: str) -> bool:
    """Whether that is all there is of ours at a hook: that program, the way it belongs there."""
    best, other = clsact.attached(ipr, hook.ifindex), tcx.attached(hook.ifindex)
    if goes_by_tcx(hook):
        best, other = other, best
    return best.get(hook.program) == fingerprint and hook.program not in other


def is_new(ipr: IPRoute, hook: Hook) -> bool:
    """Whether `attach` would add, not replace."""
    best = tcx.attached(hook.ifindex) if goes_by_tcx(hook) else clsact.attached(ipr, hook.ifindex)
    return hook.program not in best


def detach_new(ipr: IPRoute, hook: Hook, *, remove_qdisc: bool) -> None:
    """Undo of an `attach` that added: what is there the other way stays."""
    if goes_by_tcx(hook):
        tcx.detach(hook)
    else:
        clsact.detach(ipr, hook, remove_qdisc=remove_qdisc)


def leave_other(ipr: IPRoute, hook: Hook) -> None:
    """Remove what is there the other way.

    A clsact qdisc that is empty then stays until the unload, an endpoint's until its link ends:
    taking it from a device that is up drops what is being sent (qdisc_graft, net/sched/sch_api.c).
    """
    if goes_by_tcx(hook):
        clsact.detach(ipr, hook)
    else:
        tcx.detach(hook)
