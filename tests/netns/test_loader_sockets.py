# SPDX-License-Identifier: Apache-2.0
"""loader/sockets.py at a control group of the test's own: all hooks or none, and others' stay."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from loader import Objects, libbpf, pins, sockets
from loader.bpf import Object
from loader.compile import compile_programs
from loader.errors import AttachError
from loader.places import SOCKETS
from loader.sockets import HOOKS, Identity
from pycni.dataplane import abi
from support import control_group
from support.kernel import bpffs

pytestmark = pytest.mark.root

FIRST, SECOND = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
"""Fingerprints."""
CONFIG = bytes(abi.CONFIG.size)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    return compile_programs(tmp_path_factory.mktemp("objects"))


@pytest.fixture
def group() -> Iterator[Path]:
    with control_group.own() as made:
        yield made


@pytest.fixture
def root(tmp_path: Path, objects: Objects) -> Iterator[Path]:
    """Where the maps of Services are pinned."""
    with bpffs(tmp_path) as made, Object.open(objects.path(SOCKETS)) as opened:
        root = made / "pycni"
        pins.create_root(root)
        opened.set_rodata(CONFIG)
        opened.load()
        for name in opened.maps().keys() - {SOCKETS}:
            with opened.map(name) as one:
                one.pin(pins.map_path(root, name))
        yield root


@pytest.fixture
def load(root: Path, objects: Objects, group: Path) -> Callable[..., bool]:
    def do(fingerprint: str, *, cgroup: Path = group) -> bool:
        with ExitStack() as owned, ExitStack() as steps:
            identity = Identity(CONFIG, fingerprint)
            changed = sockets.load(root, objects, identity, cgroup, owned=owned, steps=steps)
            steps.pop_all()
        return changed

    return do


def attached(group: Path) -> list[list[int]]:
    """The numbers of the programs at each hook."""
    fd = os.open(group, os.O_RDONLY)
    try:
        return [libbpf.query(fd, kind) for kind in HOOKS.values()]
    finally:
        os.close(fd)


def state(root: Path, group: Path) -> object:
    """What a failed load must leave alone."""
    return attached(group), sorted(map(str, root.rglob("*")))


def test_every_hook_gets_its_program_and_the_same_again_changes_nothing(
    root: Path, group: Path, load: Callable[..., bool]
) -> None:
    assert load(FIRST)
    before = attached(group)

    assert not load(FIRST)
    assert [len(one) for one in before] == [1] * len(HOOKS)
    assert attached(group) == before
    assert sockets.lost(root, SECOND, group).keys() == HOOKS.keys()
    sockets.unload(root)


def test_what_is_no_control_group_takes_no_program(
    root: Path, group: Path, load: Callable[..., bool], tmp_path: Path
) -> None:
    before = state(root, group)

    with pytest.raises(AttachError, match="cannot attach connect4"):
        load(FIRST, cgroup=tmp_path)

    assert state(root, group) == before


@pytest.mark.parametrize("fails", [0, len(HOOKS) - 1], ids=["at the first", "at the last"])
def test_a_load_that_fails_attaches_nothing(
    root: Path,
    group: Path,
    load: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
    fails: int,
) -> None:
    before = state(root, group)
    monkeypatch.setattr(libbpf, "create_link", failing(libbpf.create_link, after=fails))

    with pytest.raises(AttachError, match="CONFIG_CGROUP_BPF"):
        load(FIRST)

    assert state(root, group) == before


def test_an_upgrade_that_fails_brings_the_former_programs_back(
    root: Path, group: Path, load: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    load(FIRST)
    before = state(root, group)
    with monkeypatch.context() as patched:
        patched.setattr(libbpf, "update_link", failing(libbpf.update_link, after=3))
        with pytest.raises(OSError, match="Invalid"):
            load(SECOND)

    assert state(root, group) == before
    sockets.unload(root)


def failing(call: Callable[..., object], *, after: int) -> Callable[..., object]:
    """The call, which fails once, after it succeeded so many times."""
    left = [after]

    def do(*arguments: object) -> object:
        left[0] -= 1
        if left[0] == -1:
            raise OSError(22, "Invalid argument")
        return call(*arguments)

    return do


def test_a_program_of_others_stays(
    root: Path, group: Path, objects: Objects, load: Callable[..., bool]
) -> None:
    with Object.open(objects.path(SOCKETS)) as theirs:
        theirs.set_rodata(CONFIG)
        theirs.load()
        fd = os.open(group, os.O_RDONLY)
        with theirs.program("connect4") as program:
            link = libbpf.create_link(program.fd, fd, HOOKS["connect4"])
            load(FIRST)
            both = attached(group)[0]
            sockets.unload(root)

            assert len(both) == 2
            assert attached(group)[0] == [program.info.id]
        os.close(link)
        os.close(fd)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda pin: pin.unlink(), "gone"),
        (lambda pin: detach(pin), "detached"),
    ],
)
def test_what_somebody_took_is_told_and_comes_back(
    root: Path,
    group: Path,
    load: Callable[..., bool],
    damage: Callable[[Path], object],
    found: str,
) -> None:
    load(FIRST)

    damage(root / SOCKETS / "connect6")

    assert sockets.lost(root, FIRST, group) == {"connect6": found}
    assert load(FIRST)
    assert sockets.lost(root, FIRST, group) == {}
    sockets.unload(root)


def detach(pin: Path) -> None:
    with sockets.Link.open_pinned(pin) as link:
        libbpf.detach_link(link.fd)


def test_another_control_group_is_told_and_left(
    root: Path, group: Path, load: Callable[..., bool]
) -> None:
    other = group / "other"
    other.mkdir()
    try:
        load(FIRST, cgroup=other)
        elsewhere = sockets.lost(root, FIRST, group)
        load(FIRST)
    finally:
        other.rmdir()

    assert set(elsewhere.values()) == {"at another control group"}
    assert sockets.lost(root, FIRST, group) == {}
    sockets.unload(root)
