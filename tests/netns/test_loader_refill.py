# SPDX-License-Identifier: Apache-2.0
"""Maps of another layout: filled beside those in use, then used; or given up without a trace."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Never

import pytest

from loader import Hook, Loaded, NewMaps, Objects, bpf, libbpf, pins, tcx
from loader.errors import GoneError, VerifierError
from support.kernel import needs_root, send
from support.loader_node import ENTRY, FRAME, NO_SUCH_INTERFACE, Node, make_node
from support.sources import UNVERIFIABLE, key
from support.waiting import wait_until

pytestmark = needs_root

WIDE = "__u32 ifindex; __u32 flags; __u64 extra;"
WIDE_ENTRY = ENTRY + struct.pack("=Q", 9)
RENAMED = "__u32 ifindex; __u32 options;"


class Broken(Exception):
    """What a test's own code raises inside of a load."""


@pytest.fixture(params=[True, False], ids=["tcx", "clsact"])
def node(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Node]:
    monkeypatch.setattr(tcx, "available", lambda: request.param)
    with make_node(tmp_path) as made:
        yield made


@pytest.fixture
def loaded(node: Node) -> Node:
    """A node whose programs run and whose map has an entry."""
    node.load(node.compile())
    node.put(3)
    return node


def refill(new: NewMaps) -> None:
    assert new.empty == {"endpoints"}
    with bpf.Map.open_pinned(pins.map_path(new.root, "endpoints")) as endpoints:
        endpoints.update(key(3), WIDE_ENTRY)


def test_a_wider_map_is_filled_before_a_program_sees_it(loaded: Node) -> None:
    wide = loaded.compile("v2", version=2, endpoint=WIDE)
    seen: list[object] = []

    def look(new: NewMaps) -> None:
        refill(new)
        send(loaded.netns, "pod1", FRAME)
        seen.extend([loaded.entries(), loaded.runs(2), sorted(_names(new.root))])

    loaded.load(wide, refill=look)
    send(loaded.netns, "pod1", FRAME)

    assert seen == [{key(3): ENTRY}, 0, ["endpoints", "events", "runs"]]
    assert loaded.entries() == {key(3): WIDE_ENTRY}
    assert loaded.runs(2) > 0
    assert not (loaded.root / pins.BESIDE).exists()


def test_a_map_grows_and_shrinks_again(loaded: Node) -> None:
    def shrink(new: NewMaps) -> None:
        with bpf.Map.open_pinned(pins.map_path(new.root, "endpoints")) as endpoints:
            endpoints.update(key(3), ENTRY)

    before = _used_maps(loaded)
    loaded.load(loaded.compile("v2", version=2, endpoint=WIDE), refill=refill)
    loaded.load(loaded.compile("v3"), refill=shrink)

    assert loaded.entries() == {key(3): ENTRY}
    assert before["runs"] == _used_maps(loaded)["runs"]
    _wait_until_gone({before["endpoints"]})


def test_a_renamed_member_is_another_layout(loaded: Node) -> None:
    asked: list[frozenset[str]] = []

    loaded.load(loaded.compile("v2", endpoint=RENAMED), refill=lambda new: asked.append(new.empty))

    assert asked == [{"endpoints"}]
    assert loaded.entries() == {}


def test_a_map_of_a_kind_with_other_keys_is_refilled(loaded: Node) -> None:
    loaded.load(loaded.compile("v2", kind="ARRAY"), refill=lambda _: None)

    assert len(loaded.entries()) == 8


def test_nobody_is_asked_while_layouts_are_equal(loaded: Node) -> None:
    loaded.load(loaded.compile("v2", version=2, endpoints=16), refill=_break)

    assert loaded.entries() == {key(3): ENTRY}


def _break(*_: object) -> Never:
    raise Broken


def _no_interface(node: Node) -> list[Hook]:
    return [*node.hooks(), Hook(NO_SUCH_INTERFACE, "from_underlay")]


FAILURES: dict[str, tuple[type[Exception], Callable[[Node, Objects], Loaded]]] = {
    "refill": (Broken, lambda node, wide: node.load(wide, refill=_break)),
    "attach": (
        GoneError,
        lambda node, wide: node.load(wide, refill=refill, hooks=lambda: _no_interface(node)),
    ),
    "hooks": (Broken, lambda node, wide: node.load(wide, refill=refill, hooks=_break)),
    "confirm": (Broken, lambda node, wide: node.load(wide, refill=refill, confirm=_break)),
}


@pytest.mark.parametrize("step", FAILURES)
def test_whatever_fails_the_old_maps_and_programs_go_on(
    loaded: Node, made: set[int], step: str
) -> None:
    expected, load = FAILURES[step]
    wide = loaded.compile("v2", version=2, endpoint=WIDE)

    _fails_without_a_trace(loaded, expected, lambda: load(loaded, wide), made)


def test_a_refused_program_leaves_the_old_maps(loaded: Node, made: set[int]) -> None:
    broken = loaded.compile("v2", endpoint=WIDE, broken={"to_overlay": UNVERIFIABLE})

    _fails_without_a_trace(loaded, VerifierError, lambda: loaded.load(broken, refill=refill), made)


@pytest.mark.parametrize("name", ["endpoints-staged", "events-staged", "programs-next"])
def test_a_rename_that_fails_leaves_the_old_maps(
    loaded: Node, made: set[int], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The pin of `events` is lost, so that there are two new maps."""
    wide = loaded.compile("v2", version=2, endpoint=WIDE)
    pins.map_path(loaded.root, "events").unlink()
    rename = Path.rename
    failed: list[str] = []

    def rename_once(self: Path, target: Path) -> Path:
        if self.name == name and not failed:
            failed.append(name)
            raise OSError(errno.EIO, "broken by the test")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_once)

    _fails_without_a_trace(loaded, OSError, lambda: loaded.load(wide, refill=lambda _: None), made)
    assert failed == [name]


def test_pins_that_cannot_be_made_leave_the_old_maps(
    loaded: Node, made: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = loaded.compile("v2", version=2, endpoint=WIDE)
    pin = bpf.Map.pin
    failed: list[Path] = []

    def pin_but_last(self: bpf.Map, path: Path) -> None:
        if path.parent.parent.name == pins.BESIDE and path.name == "runs":
            failed.append(path)
            raise OSError(errno.ENOSPC, "broken by the test")
        pin(self, path)

    monkeypatch.setattr(bpf.Map, "pin", pin_but_last)

    _fails_without_a_trace(loaded, OSError, lambda: loaded.load(wide, refill=refill), made)
    assert failed


def test_a_load_that_was_killed_is_mended_by_the_next(loaded: Node) -> None:
    """Killed with the new map pinned, here and beside, and the old programs current still."""
    objects = loaded.compile("same")
    (loaded.root / pins.BESIDE / "maps").mkdir(parents=True)
    with bpf.Object.open(objects.path("to_overlay")) as opened:
        opened.load()
        with opened.map("endpoints") as new:
            pins.replace_map(loaded.root, "endpoints", new)
            new.pin(pins.map_path(loaded.root / pins.BESIDE, "endpoints"))

    again = loaded.load(objects)

    assert again.changed
    assert not (loaded.root / pins.BESIDE).exists()
    with bpf.Map.open_pinned(pins.map_path(loaded.root, "endpoints")) as endpoints:
        assert endpoints.info.id == _used_maps(loaded)["endpoints"]
    assert not loaded.load(objects).changed


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The kernel's numbers of the maps that loads of a test made."""
    numbers: set[int] = set()
    take = bpf.Object.map

    def noted(self: bpf.Object, name: str) -> bpf.Map:
        one = take(self, name)
        numbers.add(one.info.id)
        return one

    monkeypatch.setattr(bpf.Object, "map", noted)
    return numbers


def _fails_without_a_trace(
    node: Node, expected: type[Exception], load: Callable[[], object], made: set[int]
) -> None:
    before = node.state()
    made.clear()

    with pytest.raises(expected):
        load()

    assert node.state() == before
    assert node.entries() == {key(3): ENTRY}
    runs = node.runs(1)
    send(node.netns, "pod1", FRAME)
    assert node.runs(1) > runs
    assert made
    _wait_until_gone(made)


def _wait_until_gone(numbers: set[int]) -> None:
    """The kernel frees a program, and then its maps, some time after the last reference."""
    wait_until(lambda: not any(map(_is_there, numbers)), f"the maps {numbers} are freed")


def _is_there(number: int) -> bool:
    try:
        os.close(libbpf.open_id("map", number))
    except FileNotFoundError:
        return False
    return True


def _names(root: Path) -> list[str]:
    return [path.name for path in (root / "maps").iterdir()]


def _used_maps(node: Node) -> dict[str, int]:
    """Name and number of the maps that the current programs use."""
    current = pins.current(node.root)
    assert current is not None
    with bpf.Program.open_pinned(current / "to_overlay") as program:
        return program.maps()
