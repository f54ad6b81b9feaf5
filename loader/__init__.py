# SPDX-License-Identifier: Apache-2.0
"""Loads pycni's BPF programs: staged, pinned, replaced as a whole or not at all.

`load` prepares everything beside the running programs (staging), has new maps filled, then pins,
switches the `programs` link and replaces what is attached, each step with its undo; whatever fails,
the node goes on as it was. Forwarding needs no process afterwards. Independent of the package
pycni. Objects come from `loader.compile`.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from . import attach, clsact, pins, sockets, staging
from .clsact import TrafficControl
from .errors import GoneError, LayoutError, LoaderError
from .hooks import Hook
from .objects import Objects
from .places import ENDPOINT_PROGRAMS, PROGRAMS
from .programs import Programs

__all__ = [
    "ENDPOINT_PROGRAMS",
    "PROGRAMS",
    "Callbacks",
    "Hook",
    "Loaded",
    "LoaderError",
    "NewMaps",
    "Objects",
    "Programs",
    "TrafficControl",
    "attach_endpoint",
    "detach",
    "identify",
    "load",
    "unload",
]


@dataclass(frozen=True)
class Loaded:
    """`fingerprint` names programs and configuration; `changed`: the load changed something."""

    fingerprint: str
    changed: bool


@dataclass(frozen=True)
class NewMaps:
    """Maps of a load that is not in use yet, pinned at a root of their own.

    `empty` names those whose layout differs from that of the maps they replace, and those that
    replace none.
    """

    root: Path
    empty: frozenset[str]


@dataclass(frozen=True)
class Callbacks:
    """What the caller of `load` does meanwhile.

    `hooks` tells where programs belong; it is asked when the new ones are current, so that
    endpoints attached meanwhile are not missed. `refill` fills the maps of another layout, and
    those whose pins somebody removed, before any new program runs. `confirm` is called when all is
    in place.
    """

    hooks: Callable[[], Iterable[Hook]]
    refill: Callable[[NewMaps], object] | None = None
    confirm: Callable[[Loaded], object] = lambda _: None


def load(
    root: Path,
    objects: Objects,
    *,
    config: bytes,
    callbacks: Callbacks,
    ipr: TrafficControl,
    cgroup: Path | None = None,
) -> Loaded:
    """Make `objects` with `config` (struct config) the programs of the node at `root`, a bpffs.

    Loading the same again does nothing but attach what is not attached; hooks of endpoints that are
    gone are skipped. With a `cgroup`, a control group's directory, programs for sockets are
    attached to that; without, they are removed.

    Maps keep their entries. A map of another layout is replaced by one that `refill` fills. The old
    programs use the old map until they are replaced, so nobody may write to either during the load.
    Maps that only programs write to begin empty.

    Raises LoaderError of all kinds (LayoutError if a map needs a `refill` and there is none) and
    what the callbacks raise; pins, programs and qdiscs are then as before.
    """
    fingerprint = identify(objects.digest, config)
    with ExitStack() as undo:
        if pins.create_root(root):
            undo.callback(pins.remove_root, root)
        with pins.locked(root, exclusive=True), ExitStack() as owned, ExitStack() as steps:
            pins.sweep(root)
            before = pins.current(root)
            previous = _open_current(root, owned)
            renewed = not staging.is_complete(root, objects, fingerprint)
            if renewed:
                staged = staging.stage(root, objects, config, fingerprint, owned)
                _refill(root, staged, callbacks.refill)
                _commit(root, fingerprint, staged, before, owned, steps)
            current = _open_current(root, owned)
            assert current is not None, "is_complete or _commit saw to it"
            attached = [
                hook
                for hook in callbacks.hooks()
                if (renewed or not attach.is_attached(ipr, hook, current[hook.program].info.id))
                and _attach(root, ipr, hook, current, previous, steps)
            ]
            hooked = sockets.is_loaded(root)
            if cgroup is not None:
                identity = sockets.Identity(config, fingerprint)
                hooked = sockets.load(root, objects, identity, cgroup, owned=owned, steps=steps)
            loaded = Loaded(fingerprint, renewed or bool(attached) or hooked)
            callbacks.confirm(loaded)
            steps.pop_all()
            if cgroup is None:
                sockets.unload(root)
            for hook in attached:
                attach.leave_others(ipr, hook)
            if before is not None and before != pins.current(root) and before.is_dir():
                pins.remove_programs(before)
        undo.pop_all()
    return loaded


def identify(digest: str, config: bytes) -> str:
    """The fingerprint of objects with that digest and a configuration (struct config)."""
    return hashlib.sha256(digest.encode() + b"\0" + config).hexdigest()[:12]


def attach_endpoint(
    root: Path,
    ipr: TrafficControl,
    ifindex: int,
    *,
    by_tcx: bool = False,
    on_netkit: bool = False,
) -> str:
    """Attach the current programs to the host end of an endpoint; returns their fingerprint.

    `by_tcx`, where the kernel has it: loader/attach.py says what for. `on_netkit`: the endpoint is
    one. LoaderError if nothing is loaded, AttachError (GoneError) if the interface cannot be used;
    neither program is then attached.
    """
    with pins.locked(root, exclusive=False), ExitStack() as owned, ExitStack() as undo:
        current = owned.enter_context(Programs(root, ENDPOINT_PROGRAMS))
        added = has_clsact = False
        for name in ENDPOINT_PROGRAMS:
            hook = Hook(ifindex, name)
            by = attach.way_to_endpoint(name, by_tcx=by_tcx, on_netkit=on_netkit)
            added |= attach.attach(
                ipr, hook, current[name], current.fingerprint, by=by, has_clsact=has_clsact
            )
            undo.callback(attach.detach, ipr, hook, remove_qdisc=added)
            has_clsact = by is attach.Way.CLSACT
        undo.pop_all()
    return current.fingerprint


def unload(root: Path, ipr: TrafficControl) -> None:
    """Undo of load and attach_endpoint: our programs at every interface, our qdiscs, every pin.

    Any part may be missing already. Programs, filters, qdiscs and pins of others stay.
    """
    for ifindex in pins.marked_clsact(root) | {index for index, _ in socket.if_nameindex()}:
        detach(root, ipr, ifindex)
    if not root.is_dir():
        return
    with pins.locked(root, exclusive=True):
        pins.switch(root, None)
        pins.sweep(root)
        sockets.unload(root)
        for pin in (root / "maps").glob("*"):
            pin.unlink()
        pins.remove_root(root)


def detach(root: Path, ipr: TrafficControl, ifindex: int) -> None:
    """Take every program of ours from an interface, and its clsact qdisc if it is ours.

    The qdisc is ours if `load` added it, or if it holds a program of an endpoint. It stays while
    others use it.
    """
    filters = clsact.attached(ipr, ifindex)
    for program in attach.attached(ipr, ifindex):
        attach.detach(ipr, Hook(ifindex, program))
    if filters.keys() & set(ENDPOINT_PROGRAMS) or ifindex in pins.marked_clsact(root):
        clsact.remove_clsact(ipr, ifindex)
    pins.unmark_clsact(root, ifindex)


def _refill(root: Path, staged: staging.Staged, refill: Callable[[NewMaps], object] | None) -> None:
    empty = staged.unfilled | staged.refilled.keys()
    if not empty or (refill is None and not staged.refilled):
        return
    if refill is None:
        raise LayoutError(
            f"pinned map {', '.join(staged.refilled)} has another layout than the new programs",
            details="\n".join(staged.refilled.values()),
            hint="drain the node, then pycni teardown and pycni setup",
        )
    with pins.beside(root, staged.maps) as other:
        refill(NewMaps(other, empty))


def _commit(
    root: Path,
    fingerprint: str,
    staged: staging.Staged,
    before: Path | None,
    owned: ExitStack,
    steps: ExitStack,
) -> None:
    for name in sorted(staged.created):
        old = pins.open_map(root, name)
        if old is not None:
            owned.enter_context(old)
        pins.replace_map(root, name, staged.maps[name])
        steps.callback(pins.put_back, root, name, old)
    directory = pins.pin_programs(root, fingerprint, staged.programs)
    steps.callback(pins.remove_programs, directory)
    steps.callback(pins.switch, root, before)
    pins.switch(root, directory)


def _open_current(root: Path, owned: ExitStack) -> Programs | None:
    """The current programs; None if there are none, or somebody removed pins of them."""
    try:
        return owned.enter_context(Programs(root))
    except (LoaderError, FileNotFoundError):
        return None


def _attach(
    root: Path,
    ipr: TrafficControl,
    hook: Hook,
    current: Programs,
    previous: Programs | None,
    steps: ExitStack,
) -> bool:
    """Attach at one hook with its undo; False if the hook was an endpoint's that is gone."""
    is_endpoint = hook.program in ENDPOINT_PROGRAMS
    is_new = attach.is_new(ipr, hook)
    try:
        added = attach.attach(ipr, hook, current[hook.program], current.fingerprint)
    except GoneError:
        if is_endpoint:
            return False
        raise
    if is_new:
        steps.callback(attach.detach_new, ipr, hook, remove_qdisc=added)
    elif previous is not None:
        steps.callback(_attach_again, ipr, hook, previous)
    if added and not is_endpoint:
        steps.callback(pins.unmark_clsact, root, hook.ifindex)
        pins.mark_clsact(root, hook.ifindex)
    return True


def _attach_again(ipr: TrafficControl, hook: Hook, previous: Programs) -> None:
    with suppress(GoneError):
        attach.attach(ipr, hook, previous[hook.program], previous.fingerprint)
