"""Hooks of a kernel without tcx: BPF filters in direct-action mode on an interface's clsact qdisc.

The caller hands in an open IPRoute and so chooses the netns. A filter of ours is known by its
name, `pycni:<program>:<fingerprint>`; a filter or qdisc of others is never changed or removed.
Knows no pins and no files.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .bpf import Program
from .errors import AttachError
from .hooks import PREFIX, Hook, refused
from .places import DIRECTION, EGRESS, INGRESS

if TYPE_CHECKING:
    from pyroute2 import IPRoute

PRIORITY = 1  # before filters that others add without saying where
HANDLE = 0x7079
ETH_P_ALL = 3


@dataclass(frozen=True)
class Filter:
    """A filter as the kernel lists it; `name` is empty for kinds that have none."""

    kind: str
    name: str
    priority: int
    handle: int


def attach(
    ipr: IPRoute, hook: Hook, program: Program, fingerprint: str, *, has_clsact: bool = False
) -> bool:
    """Attach, or atomically replace our older filter; True if the clsact qdisc was added for it.

    `has_clsact` spares two messages where the caller has just had the qdisc added. GoneError if
    the interface does not exist; AttachError if others hold the place. After an error the
    interface is as before.
    """
    added = not has_clsact and _add_clsact(ipr, hook)
    try:
        _add_filter(ipr, hook, program, fingerprint)
    except BaseException:
        if added:
            _delete_clsact(ipr, hook.ifindex)
        raise
    return added


def detach(ipr: IPRoute, hook: Hook) -> bool:
    """Remove our filter from a hook; False if there was none, or no such interface."""
    place = DIRECTION[hook.program]
    mine = f"{PREFIX}:{hook.program}:"
    found = [item for item in filters(ipr, hook.ifindex, place) if item.name.startswith(mine)]
    for item in found:
        with _ignoring(errno.ENOENT, errno.ENODEV, errno.EINVAL):
            ipr.tc(
                "del-filter", "bpf", hook.ifindex, handle=item.handle, parent=place,
                prio=item.priority, protocol=ETH_P_ALL,
            )  # fmt: skip
    return bool(found)


def remove_clsact(ipr: IPRoute, ifindex: int) -> None:
    """Remove an interface's clsact qdisc if no filter is in it; for whoever added it."""
    if not any(filters(ipr, ifindex, place) for place in (INGRESS, EGRESS)):
        _delete_clsact(ipr, ifindex)


def attached(ipr: IPRoute, ifindex: int) -> dict[str, str]:
    """Our programs on an interface, each with its fingerprint; empty if there is no interface."""
    found = {}
    for place in (INGRESS, EGRESS):
        for item in filters(ipr, ifindex, place):
            owner, _, rest = item.name.partition(":")
            program, _, fingerprint = rest.partition(":")
            if owner == PREFIX and DIRECTION.get(program) == place:
                found[program] = fingerprint
    return found


def filters(ipr: IPRoute, ifindex: int, place: int) -> list[Filter]:
    """All filters, ours and others', at INGRESS or EGRESS of an interface."""
    found = []
    with _ignoring(errno.ENODEV, errno.EINVAL):
        for message in ipr.get_filters(index=ifindex, parent=place):
            if message["handle"]:  # 0: the head of a chain, not a filter
                options: Any = message.get_attr("TCA_OPTIONS")
                name = options.get_attr("TCA_BPF_NAME") if hasattr(options, "get_attr") else None
                kind = message.get_attr("TCA_KIND")
                found.append(Filter(kind, name or "", message["info"] >> 16, message["handle"]))
    return found


def _add_clsact(ipr: IPRoute, hook: Hook) -> bool:
    try:
        with _naming(hook, errno.EEXIST):
            ipr.tc("add", "clsact", hook.ifindex)
            return True
    except FileExistsError:
        pass
    # An "ingress" qdisc has the same place and would take an egress filter for ingress.
    try:
        with _naming(hook, errno.EINVAL):
            ipr.tc("get", "clsact", hook.ifindex)
    except OSError as error:
        raise AttachError(
            f"interface {hook.ifindex} has a qdisc of another kind where clsact goes",
            hint="two plugins cannot share it without tcx (kernel 6.6): remove the one that shapes "
            "ingress, and use the capability `bandwidth`",
        ) from error
    return False


def _delete_clsact(ipr: IPRoute, ifindex: int) -> None:
    with _ignoring(errno.ENOENT, errno.ENODEV, errno.EINVAL):
        ipr.tc("del", "clsact", ifindex)


def _add_filter(ipr: IPRoute, hook: Hook, program: Program, fingerprint: str) -> None:
    """Adds first and looks only if that fails: a new interface costs one message."""

    def send(command: str) -> None:
        ipr.tc(
            command, "bpf", hook.ifindex, handle=HANDLE, parent=DIRECTION[hook.program],
            prio=PRIORITY, protocol=ETH_P_ALL, fd=program.fd, direct_action=True, classid=1,
            name=f"{PREFIX}:{hook.program}:{fingerprint}",
        )  # fmt: skip

    try:
        with _naming(hook, errno.EEXIST, errno.EINVAL):
            send("add-filter")
            return
    except OSError as error:
        present = filters(ipr, hook.ifindex, DIRECTION[hook.program])
        rivals = [item for item in present if item.priority == PRIORITY and _rival(item)]
        if rivals:
            names = ", ".join(f"{item.kind} {item.name}".strip() for item in rivals)
            raise AttachError(
                f"interface {hook.ifindex}: priority {PRIORITY} is held by others: {names}",
                hint="remove that filter, or give it another priority",
            ) from error
    with _naming(hook):
        send("replace-filter")


def _rival(item: Filter) -> bool:
    """A priority holds one kind of filter; among BPF filters only the handle must differ."""
    same_place = item.kind != "bpf" or item.handle == HANDLE
    return same_place and not item.name.startswith(f"{PREFIX}:")


@contextmanager
def _naming(hook: Hook, *expected: int) -> Iterator[None]:
    """Turn netlink errors into AttachError, or into OSError where the errno is expected."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code in expected:
            raise OSError(error.code, "netlink") from error
        hints = {errno.ENOENT: "the kernel needs NET_SCH_INGRESS and NET_CLS_BPF, or their "
                 "modules: modprobe sch_ingress cls_bpf"}  # fmt: skip
        raise refused(hook, error.code, os.strerror(error.code), hints=hints) from error


@contextmanager
def _ignoring(*codes: int) -> Iterator[None]:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code not in codes:
            raise
