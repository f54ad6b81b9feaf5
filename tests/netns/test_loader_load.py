# SPDX-License-Identifier: Apache-2.0
"""Load, reload, upgrade and unload on real hooks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import loader
from loader import Callbacks, Hook, Loaded, Objects, Programs, attach, bpf, pins, tcx
from loader.errors import BpffsError, GoneError, LayoutError, VerifierError
from loader.places import INGRESS
from support.kernel import needs_root, send
from support.loader_node import ENTRY, FRAME, NO_SUCH_INTERFACE, Node, count, make_node
from support.sources import UNVERIFIABLE, config, key

pytestmark = needs_root

WIDER_ENDPOINT = "__u32 ifindex; __u32 flags; __u64 extra;"
RENAMED_ENDPOINT = "__u32 ifindex; __u32 options;"


@pytest.fixture(params=[True, False], ids=["tcx", "clsact"])
def node(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Node]:
    monkeypatch.setattr(tcx, "available", lambda: request.param)
    with make_node(tmp_path) as made:
        yield made


def test_load_pins_and_attaches_programs_that_run(node: Node) -> None:
    loaded = node.load(node.compile())

    before = node.runs(1)
    send(node.netns, "pod1", FRAME)

    assert loaded.changed
    assert node.runs(1) > before
    assert attach.attached(node.rtnl, node.uplink) == {"from_underlay": loaded.fingerprint}
    assert set(attach.attached(node.rtnl, node.pod)) == {"from_container", "to_container"}
    pinned = pins.current(node.root)
    assert pinned == node.root / f"programs-{loaded.fingerprint}"
    assert sorted(p.name for p in pinned.iterdir()) == sorted(loader.PROGRAMS)
    assert sorted(p.name for p in (node.root / "maps").iterdir()) == ["endpoints", "events", "runs"]


def test_loading_the_same_again_changes_nothing(node: Node) -> None:
    first = node.load(node.compile())
    before = node.state()

    second = node.load(Objects(node.compile("same").directory, node.compile("same2").digest))

    assert second == Loaded(first.fingerprint, changed=False)
    assert node.state() == before


def test_loading_the_same_again_attaches_what_was_detached(node: Node) -> None:
    objects = node.compile()
    first = node.load(objects)
    hook = Hook(node.uplink, "from_underlay")
    attach.detach(node.rtnl, hook)

    second = node.load(objects)

    assert second == Loaded(first.fingerprint, changed=True)
    assert attach.attached(node.rtnl, node.uplink) == {"from_underlay": first.fingerprint}


def test_another_configuration_is_another_load(node: Node) -> None:
    objects = node.compile()
    first = node.load(objects, mark=1)

    second = node.load(objects, mark=2)

    assert first.fingerprint != second.fingerprint
    with Programs(node.root) as programs:
        assert programs["from_container"].test_run(FRAME).mark == 2


def test_upgrade_replaces_programs_and_keeps_entries(node: Node) -> None:
    first = node.load(node.compile())
    node.put(3)

    second = node.load(node.compile("v2", version=2))
    old_runs = node.runs(1)
    send(node.netns, "pod1", FRAME)

    assert second.changed
    assert node.runs(1) == old_runs
    assert node.runs(2) > 0
    assert attach.attached(node.rtnl, node.pod)["from_container"] == second.fingerprint
    assert count(node, node.pod, INGRESS) == 1
    assert node.entries() == {key(3): ENTRY}
    assert not (node.root / f"programs-{first.fingerprint}").exists()


def test_refused_upgrade_leaves_everything_as_it_was(node: Node) -> None:
    node.load(node.compile())
    node.put(3)
    before = node.state()
    refused = node.compile("v2", version=2, endpoints=16, broken={"to_overlay": UNVERIFIABLE})

    with pytest.raises(VerifierError) as error:
        node.load(refused)

    assert "to_overlay" in error.value.message
    assert "invalid access to packet" in error.value.details or "invalid mem" in error.value.details
    assert node.state() == before
    send(node.netns, "pod1", FRAME)
    assert node.runs(1) > 0


def test_refused_first_load_leaves_nothing(node: Node) -> None:
    before = node.state()

    with pytest.raises(VerifierError):
        node.load(node.compile(broken={"from_overlay": UNVERIFIABLE}))

    assert node.state() == before


def test_failed_attach_puts_old_programs_back(node: Node) -> None:
    first = node.load(node.compile())
    node.put(3)
    before = node.state()

    def broken_hooks() -> list[Hook]:
        return [*node.hooks(), Hook(NO_SUCH_INTERFACE, "from_underlay")]

    with pytest.raises(GoneError, match="interface 999"):
        node.load(node.compile("v2", version=2, endpoints=16), hooks=broken_hooks)

    assert node.state() == before
    assert node.entries() == {key(3): ENTRY}
    old_runs = node.runs(1)
    send(node.netns, "pod1", FRAME)
    assert node.runs(1) > old_runs
    assert attach.attached(node.rtnl, node.uplink) == {"from_underlay": first.fingerprint}


def test_failed_first_attach_leaves_nothing(node: Node) -> None:
    before = node.state()

    with pytest.raises(GoneError):
        node.load(
            node.compile(),
            hooks=lambda: [*node.hooks(), Hook(NO_SUCH_INTERFACE, "from_underlay")],
        )

    assert node.state() == before


def test_endpoint_that_went_away_does_not_stop_an_upgrade(node: Node) -> None:
    gone = Hook(NO_SUCH_INTERFACE, "from_container")

    loaded = node.load(node.compile(), hooks=lambda: [gone, *node.hooks()])

    assert attach.attached(node.rtnl, node.uplink) == {"from_underlay": loaded.fingerprint}


@pytest.mark.parametrize("layout", [WIDER_ENDPOINT, RENAMED_ENDPOINT])
def test_other_map_layout_that_nobody_refills_is_refused_naming_both(
    node: Node, layout: str
) -> None:
    node.load(node.compile())
    node.put(3)
    before = node.state()

    with pytest.raises(LayoutError, match="endpoints") as error:
        node.load(node.compile("v2", endpoint=layout))

    pinned, needed = error.value.details.splitlines()
    assert "flags u32 @4" in pinned
    assert "value 16 bytes" in needed or "options u32 @4" in needed
    assert node.state() == before


def test_larger_map_takes_over_the_entries(node: Node) -> None:
    node.load(node.compile())
    for number in range(8):
        node.put(number)

    node.load(node.compile("v2", endpoints=16))

    assert node.entries() == {key(number): ENTRY for number in range(8)}
    with bpf.Map.open_pinned(pins.map_path(node.root, "endpoints")) as endpoints:
        assert endpoints.info.max_entries == 16
    node.put(8)
    assert not list((node.root / "maps").glob("*-staged"))


def max_entries(node: Node) -> int:
    with bpf.Map.open_pinned(pins.map_path(node.root, "endpoints")) as endpoints:
        return endpoints.info.max_entries


def test_a_map_that_needs_more_room_grows_with_its_entries_and_never_shrinks(node: Node) -> None:
    objects = node.compile()
    node.load(objects)
    for number in range(8):
        node.put(number)
    with pytest.raises(OSError, match="endpoints"):
        node.put(8)

    grown = node.load(replace(objects, sizes={"endpoints": 16}))

    assert grown.changed
    assert max_entries(node) == 16
    node.put(8)
    assert set(node.entries()) == {key(number) for number in range(9)}
    assert not node.load(replace(objects, sizes={"endpoints": 16})).changed
    assert not node.load(replace(objects, sizes={"endpoints": 12})).changed
    node.load(replace(node.compile("v2", endpoints=4), sizes={"endpoints": 4}))
    assert max_entries(node) == 16
    assert len(node.entries()) == 9


def test_a_map_is_as_large_as_declared_where_less_is_needed(node: Node) -> None:
    node.load(replace(node.compile(), sizes={"endpoints": 2}))

    assert max_entries(node) == 8


def test_a_map_that_is_switched_off_begins_empty_and_as_small_as_declared(node: Node) -> None:
    objects = node.compile()
    node.load(replace(objects, sizes={"endpoints": 16}))
    node.put(3)

    node.load(replace(node.compile("v2"), sizes={"endpoints": 0}))

    assert max_entries(node) == 8
    assert node.entries() == {}


def test_map_of_another_kind_takes_over_the_entries(node: Node) -> None:
    node.load(node.compile())
    node.put(3)

    node.load(node.compile("v2", kind="LRU_HASH"))

    assert node.entries() == {key(3): ENTRY}
    with bpf.Map.open_pinned(pins.map_path(node.root, "endpoints")) as endpoints:
        assert endpoints.info.type_name == "lru_hash"


@pytest.mark.parametrize(
    "sources",
    [{"kind": "LRU_HASH", "endpoint": WIDER_ENDPOINT}, {"kind": "ARRAY"}],
    ids=["other entries", "a kind whose keys mean something else"],
)
def test_map_of_another_kind_is_refused_naming_both(node: Node, sources: dict[str, str]) -> None:
    node.load(node.compile())
    before = node.state()

    with pytest.raises(LayoutError, match="endpoints") as error:
        node.load(node.compile("v2", **sources))

    pinned, needed = error.value.details.splitlines()
    assert pinned.startswith("pinned: hash,")
    assert needed.startswith(f"needed: {sources['kind'].lower()},")
    assert node.state() == before


def test_map_too_small_for_its_entries_is_refused(node: Node) -> None:
    node.load(node.compile())
    for number in range(8):
        node.put(number)
    before = node.state()

    with pytest.raises(LayoutError, match="do not fit into 4"):
        node.load(node.compile("v2", endpoints=4))

    assert node.state() == before


def test_lost_pin_of_a_map_is_repaired_by_a_reload(node: Node) -> None:
    objects = node.compile()
    first = node.load(objects)
    pins.map_path(node.root, "runs").unlink()

    second = node.load(objects)
    send(node.netns, "pod1", FRAME)

    assert second == Loaded(first.fingerprint, changed=True)
    assert node.runs(1) > 0
    assert not node.load(objects).changed
    assert len(list(node.root.glob("programs-*"))) == 1


def test_leftovers_of_a_killed_load_are_swept(node: Node) -> None:
    objects = node.compile()
    loaded = node.load(objects)
    half_made = node.root / "programs-000000000000"
    half_made.mkdir()
    with Programs(node.root) as programs:
        programs["to_overlay"].pin(half_made / "to_overlay")

    node.load(objects)

    assert [p.name for p in node.root.glob("programs-*")] == [f"programs-{loaded.fingerprint}"]


def test_programs_whose_pins_are_lost_are_replaced(node: Node) -> None:
    old = node.load(node.compile())
    programs = pins.current(node.root)
    assert programs is not None
    for pin in [*(node.root / "maps").iterdir(), *programs.iterdir()]:
        pin.unlink()
    programs.rmdir()

    new = node.load(node.compile("v2", version=2))
    send(node.netns, "pod1", FRAME)

    assert new.fingerprint != old.fingerprint
    assert node.runs(2) > 0
    assert count(node, node.pod, INGRESS) == 1


def test_programs_without_their_directory_are_loaded_again_for_good(node: Node) -> None:
    objects = node.compile()
    first = node.load(objects)
    directory = node.root / f"programs-{first.fingerprint}"
    pins.remove_programs(directory)

    second = node.load(objects)

    assert second == Loaded(first.fingerprint, changed=True)
    assert sorted(pin.name for pin in directory.iterdir()) == sorted(loader.PROGRAMS)
    assert node.load(objects) == Loaded(first.fingerprint, changed=False)


def test_loads_leave_no_descriptors_open(node: Node) -> None:
    node.load(node.compile())
    broken = node.compile("v2", version=2, broken={"to_overlay": UNVERIFIABLE})
    before = sorted(os.listdir("/proc/self/fd"))

    node.load(node.compile("v3", version=3))
    with pytest.raises(VerifierError):
        node.load(broken)
    loader.attach_endpoint(node.root, node.rtnl, node.pod)
    with pytest.raises(GoneError):
        loader.attach_endpoint(node.root, node.rtnl, NO_SUCH_INTERFACE)

    assert sorted(os.listdir("/proc/self/fd")) == before


def test_unload_leaves_nothing(node: Node) -> None:
    before = node.state()
    node.load(node.compile())

    loader.unload(node.root, node.rtnl)

    assert node.state() == before


def test_unload_twice_and_without_interfaces_is_harmless(node: Node) -> None:
    node.load(node.compile())
    node.ipr.link("del", index=node.pod)

    loader.unload(node.root, node.rtnl)
    loader.unload(node.root, node.rtnl)

    assert not node.root.exists()
    assert node.qdiscs() == []


def test_load_outside_a_bpffs_says_what_to_do(node: Node, tmp_path: Path) -> None:
    with pytest.raises(BpffsError, match="mount -t bpf"):
        loader.load(
            tmp_path / "plain",
            node.compile(),
            config=config(),
            callbacks=Callbacks(hooks=list),
            ipr=node.rtnl,
        )

    assert not (tmp_path / "plain").exists()
