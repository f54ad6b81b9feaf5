# SPDX-License-Identifier: Apache-2.0
"""Hooks of a kernel without tcx: BPF filters in direct-action mode on an interface's clsact qdisc.

The caller hands in a rtnetlink socket, a `TrafficControl`, and so chooses the network namespace.
Our filters have names like `pycni:<program>:<fingerprint>`. A filter or qdisc of others is never
changed or removed. Knows no pins and no files.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from .bpf import Program
from .errors import AttachError
from .hooks import PREFIX, Hook, refused
from .places import DIRECTION, EGRESS, INGRESS

PRIORITY = 1  # before filters that others add without saying where
HANDLE = 0x7079
CLSACT = "clsact"


class Filter(Protocol):
    """A filter as the kernel lists it. For kinds that have none, `name` is empty, and `program`,
    the number of its BPF program, is 0."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def handle(self) -> int: ...
    @property
    def program(self) -> int: ...


class TrafficControl(Protocol):
    """Requests of rtnetlink in one network namespace; a refusal is an OSError with its errno.

    `parent` is INGRESS or EGRESS of loader/hooks.py.
    """

    def ingress_qdisc(self, ifindex: int, /) -> str | None:
        """Kind of the qdisc at an interface's ingress, or None."""

    def add_clsact(self, ifindex: int, /) -> None:
        """Add a clsact qdisc. EEXIST if something is at the ingress."""

    def delete_clsact(self, ifindex: int, /) -> None:
        """Delete the clsact qdisc. ENOENT or EINVAL if there is none."""

    def filters(self, ifindex: int, parent: int, /) -> Iterable[Filter]:
        """All filters there. EINVAL if there is no such place."""

    def filter_programs(
        self, places: Iterable[tuple[int, int]], /, *, priority: int, handle: int
    ) -> list[int]:
        """The id of the BPF program at each place (ifindex, parent) with that priority and handle;
        0 where there is none."""

    def add_filter(
        self, ifindex: int, parent: int, /, *, fd: int, name: str, priority: int, handle: int
    ) -> None:
        """Add a BPF filter in direct-action mode, for all protocols. EEXIST, EINVAL if taken."""

    def replace_filter(
        self, ifindex: int, parent: int, /, *, fd: int, name: str, priority: int, handle: int
    ) -> None:
        """Add one, or atomically replace the one in that place."""

    def delete_filter(self, ifindex: int, parent: int, /, *, priority: int, handle: int) -> None:
        """Delete a BPF filter for all protocols. ENOENT if there is none."""


def attach(
    ipr: TrafficControl, hook: Hook, program: Program, fingerprint: str, *, has_clsact: bool = False
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


def detach(ipr: TrafficControl, hook: Hook) -> bool:
    """Remove our filter from a hook; False if there was none, or no such interface."""
    place = DIRECTION[hook.program]
    mine = f"{PREFIX}:{hook.program}:"
    found = [item for item in filters(ipr, hook.ifindex, place) if item.name.startswith(mine)]
    for item in found:
        with _ignoring(errno.ENOENT, errno.ENODEV, errno.EINVAL):
            ipr.delete_filter(hook.ifindex, place, priority=item.priority, handle=item.handle)
    return bool(found)


def remove_clsact(ipr: TrafficControl, ifindex: int) -> None:
    """Remove an interface's clsact qdisc if no filter is in it; for whoever added it."""
    if not any(filters(ipr, ifindex, place) for place in (INGRESS, EGRESS)):
        _delete_clsact(ipr, ifindex)


def attached(ipr: TrafficControl, ifindex: int) -> dict[str, str]:
    """Our programs on an interface, each with its fingerprint; empty if there is no interface."""
    found = {}
    for place in (INGRESS, EGRESS):
        for item in filters(ipr, ifindex, place):
            owner, _, rest = item.name.partition(":")
            program, _, fingerprint = rest.partition(":")
            if owner == PREFIX and DIRECTION.get(program) == place:
                found[program] = fingerprint
    return found


def numbers(ipr: TrafficControl, hooks: Iterable[Hook]) -> list[int]:
    """The ids of the programs in our filters at hooks; 0 where there is none. Cheap for many."""
    places = [(hook.ifindex, DIRECTION[hook.program]) for hook in hooks]
    return ipr.filter_programs(places, priority=PRIORITY, handle=HANDLE)


def filters(ipr: TrafficControl, ifindex: int, place: int) -> list[Filter]:
    """All filters, ours and others', at INGRESS or EGRESS of an interface."""
    with _ignoring(errno.ENODEV, errno.EINVAL):
        return list(ipr.filters(ifindex, place))
    return []


def _add_clsact(ipr: TrafficControl, hook: Hook) -> bool:
    """False if it is there already."""
    try:
        with _naming(hook, errno.EEXIST):
            ipr.add_clsact(hook.ifindex)
            return True
    except OSError:
        with _naming(hook):
            found = ipr.ingress_qdisc(hook.ifindex)
    # An "ingress" qdisc has the same place and would take an egress filter for ingress.
    if found != CLSACT:
        raise AttachError(
            f"interface {hook.ifindex} has a qdisc of another kind where clsact goes",
            details=f"found {found}",
            hint="two plugins cannot share it without tcx (kernel 6.6): remove the one that shapes "
            "ingress, and use the capability `bandwidth`",
        )
    return False


def _delete_clsact(ipr: TrafficControl, ifindex: int) -> None:
    with _ignoring(errno.ENOENT, errno.ENODEV, errno.EINVAL):
        ipr.delete_clsact(ifindex)


def _add_filter(ipr: TrafficControl, hook: Hook, program: Program, fingerprint: str) -> None:
    """Adds first and looks only if that fails: a new interface costs one message."""
    place = DIRECTION[hook.program]
    name = f"{PREFIX}:{hook.program}:{fingerprint}"
    try:
        with _naming(hook, errno.EEXIST, errno.EINVAL):
            ipr.add_filter(
                hook.ifindex, place, fd=program.fd, name=name, priority=PRIORITY, handle=HANDLE
            )
            return
    except OSError as error:
        present = filters(ipr, hook.ifindex, place)
        rivals = [item for item in present if item.priority == PRIORITY and _is_rival(item)]
        if rivals:
            names = ", ".join(f"{item.kind} {item.name}".strip() for item in rivals)
            raise AttachError(
                f"interface {hook.ifindex}: priority {PRIORITY} is held by others: {names}",
                hint="remove that filter, or give it another priority",
            ) from error
    with _naming(hook):
        ipr.replace_filter(
            hook.ifindex, place, fd=program.fd, name=name, priority=PRIORITY, handle=HANDLE
        )


def _is_rival(item: Filter) -> bool:
    """A priority holds one kind of filter; among BPF filters only the handle must differ."""
    same_place = item.kind != "bpf" or item.handle == HANDLE
    return same_place and not item.name.startswith(f"{PREFIX}:")


@contextmanager
def _naming(hook: Hook, *expected: int) -> Iterator[None]:
    """Turn a refusal into AttachError, unless its errno is expected."""
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        if number in expected:
            raise
        hints = {errno.ENOENT: "the kernel needs NET_SCH_INGRESS and NET_CLS_BPF, or their "
                 "modules: modprobe sch_ingress cls_bpf"}  # fmt: skip
        raise refused(hook, number, os.strerror(number), hints=hints) from error


@contextmanager
def _ignoring(*codes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in codes:
            raise
