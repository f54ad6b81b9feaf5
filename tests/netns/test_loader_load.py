"""Load, reload, upgrade and unload on real hooks."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kernel import bpffs, iproute, needs_root, netns, send, veth
from pyroute2 import IPRoute
from sources import UNVERIFIABLE, config, key, write_sources

import loader
from loader import Hook, Loaded, Objects, Programs, attach, bpf, pins
from loader.attach import EGRESS, INGRESS
from loader.compile import compile_programs
from loader.errors import AttachError, BpffsError, GoneError, LayoutError, VerifierError

pytestmark = needs_root

FRAME = bytes.fromhex("02707963 6e690202 02020202 88b5".replace(" ", "")) + bytes(46)
ENTRY = struct.pack("=II", 5, 6)
WIDER_ENDPOINT = "__u32 ifindex; __u32 flags; __u64 extra;"
RENAMED_ENDPOINT = "__u32 ifindex; __u32 options;"
NO_SUCH_INTERFACE = 999


@dataclass(frozen=True)
class Node:
    """A namespace with an uplink and a pod's veth, and a bpffs."""

    netns: str
    ipr: IPRoute
    root: Path
    uplink: int
    pod: int
    tmp: Path

    def hooks(self) -> list[Hook]:
        return [
            Hook(self.uplink, "from_underlay"),
            Hook(self.pod, "from_container"),
            Hook(self.pod, "to_container"),
        ]

    def compile(self, name: str = "v1", **sources: object) -> Objects:
        written = write_sources(self.tmp / name, **sources)  # type: ignore[arg-type]
        return compile_programs(self.tmp / "cache", sources=written)

    def load(
        self, objects: Objects, *, mark: int = 7, hooks: Callable[[], list[Hook]] | None = None
    ) -> Loaded:
        return loader.load(
            self.root, objects, config=config(mark), hooks=hooks or self.hooks, ipr=self.ipr
        )

    def state(self) -> dict[str, object]:
        """Everything that a failed load must leave alone."""
        found: dict[str, object] = {}
        for path in self.root.parent.rglob("*"):
            found[str(path.relative_to(self.root.parent))] = pinned_at(path)
        for ifindex in (self.uplink, self.pod):
            for place in (INGRESS, EGRESS):
                found[f"{ifindex} {place}"] = attach.filters(self.ipr, ifindex, place)
        found["qdiscs"] = self.qdiscs()
        return found

    def qdiscs(self) -> list[tuple[int, str]]:
        dump = ((q["index"], q.get_attr("TCA_KIND")) for q in self.ipr.get_qdiscs())
        return sorted(item for item in dump if item[1] == "clsact")

    def runs(self, version: int) -> int:
        """Packets that programs of `version` have seen."""
        with bpf.Map.open_pinned(pins.map_path(self.root, "runs")) as runs:
            value = runs.lookup(key(version))
        assert value is not None
        return int(struct.unpack("=Q", value)[0])

    def put(self, number: int) -> None:
        with bpf.Map.open_pinned(pins.map_path(self.root, "endpoints")) as endpoints:
            endpoints.update(key(number), ENTRY)

    def entries(self) -> dict[bytes, bytes]:
        with bpf.Map.open_pinned(pins.map_path(self.root, "endpoints")) as endpoints:
            return dict(endpoints.items())


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with netns() as path, bpffs(tmp_path) as fs, iproute(path) as ipr:
        uplink, _ = veth(ipr, "up0", "up1")
        pod, _ = veth(ipr, "pod0", "pod1")
        yield Node(path, ipr, fs / "pycni", uplink, pod, tmp_path)


def test_load_pins_and_attaches_programs_that_run(node: Node) -> None:
    loaded = node.load(node.compile())

    before = node.runs(1)
    send(node.netns, "pod1", FRAME)

    assert loaded.changed
    assert node.runs(1) > before
    assert attach.attached(node.ipr, node.uplink) == {"from_underlay": loaded.fingerprint}
    assert set(attach.attached(node.ipr, node.pod)) == {"from_container", "to_container"}
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
    attach.detach(node.ipr, hook)

    second = node.load(objects)

    assert second == Loaded(first.fingerprint, changed=True)
    assert attach.attached(node.ipr, node.uplink) == {"from_underlay": first.fingerprint}


def test_another_configuration_is_another_load(node: Node) -> None:
    objects = node.compile()
    first = node.load(objects, mark=1)

    second = node.load(objects, mark=2)

    assert first.fingerprint != second.fingerprint
    with Programs(node.root) as programs:
        programs.refresh()
        assert programs["from_container"].test_run(FRAME).mark == 2


def test_upgrade_replaces_filters_and_keeps_entries(node: Node) -> None:
    first = node.load(node.compile())
    node.put(3)

    second = node.load(node.compile("v2", version=2))
    old_runs = node.runs(1)
    send(node.netns, "pod1", FRAME)

    assert second.changed
    assert node.runs(1) == old_runs
    assert node.runs(2) > 0
    assert [f.name for f in attach.filters(node.ipr, node.pod, INGRESS)] == [
        f"pycni:from_container:{second.fingerprint}"
    ]
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
    assert attach.attached(node.ipr, node.uplink) == {"from_underlay": first.fingerprint}


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

    assert attach.attached(node.ipr, node.uplink) == {"from_underlay": loaded.fingerprint}


@pytest.mark.parametrize("layout", [WIDER_ENDPOINT, RENAMED_ENDPOINT])
def test_other_map_layout_is_refused_naming_both(node: Node, layout: str) -> None:
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
        programs.refresh()
        programs["to_overlay"].pin(half_made / "to_overlay")

    node.load(objects)

    assert [p.name for p in node.root.glob("programs-*")] == [f"programs-{loaded.fingerprint}"]


def test_unload_leaves_nothing(node: Node) -> None:
    before = node.state()
    node.load(node.compile())

    loader.unload(node.root, node.ipr, node.hooks())

    assert node.state() == before


def test_unload_finds_an_uplink_that_nobody_names(node: Node) -> None:
    before = node.state()
    node.load(node.compile())

    loader.unload(node.root, node.ipr, [Hook(node.pod, "from_container")])

    assert node.state() == before


def test_unload_twice_and_without_interfaces_is_harmless(node: Node) -> None:
    node.load(node.compile())
    hooks = node.hooks()
    node.ipr.link("del", index=node.pod)

    loader.unload(node.root, node.ipr, hooks)
    loader.unload(node.root, node.ipr, hooks)

    assert not node.root.exists()
    assert node.qdiscs() == []


def test_foreign_qdisc_and_filter_survive_load_and_unload(node: Node) -> None:
    node.ipr.tc("add", "clsact", node.uplink)
    add_foreign_filter(node, node.uplink, priority=3)
    before = node.state()

    node.load(node.compile())
    loader.unload(node.root, node.ipr, node.hooks())

    assert node.state() == before


def test_empty_foreign_qdisc_survives_unload(node: Node) -> None:
    node.ipr.tc("add", "clsact", node.uplink)
    before = node.qdiscs()

    node.load(node.compile())
    loader.unload(node.root, node.ipr, node.hooks())

    assert node.qdiscs() == before


def test_priority_held_by_others_is_refused_by_name(node: Node) -> None:
    node.ipr.tc("add", "clsact", node.uplink)
    add_foreign_filter(node, node.uplink, priority=attach.PRIORITY)
    before = node.state()

    with pytest.raises(AttachError, match="held by others: u32"):
        node.load(node.compile())

    assert node.state() == before


def test_handle_held_by_another_program_is_refused_by_name(node: Node) -> None:
    objects = node.compile()
    node.load(objects, hooks=list)
    node.ipr.tc("add", "clsact", node.uplink)
    with Programs(node.root) as programs:
        programs.refresh()
        node.ipr.tc(
            "add-filter", "bpf", node.uplink, handle=attach.HANDLE, parent=INGRESS, protocol=3,
            prio=attach.PRIORITY, fd=programs["to_overlay"].fd, name="theirs", direct_action=True,
        )  # fmt: skip
    before = node.state()

    with pytest.raises(AttachError, match="bpf theirs"):
        node.load(objects)

    assert node.state() == before


def test_ingress_qdisc_in_place_of_clsact_is_refused(node: Node) -> None:
    node.ipr.tc("add", "ingress", node.uplink, handle=0xFFFF0000)

    with pytest.raises(AttachError, match="another kind"):
        node.load(node.compile())

    assert attach.filters(node.ipr, node.uplink, INGRESS) == []


def test_endpoint_gets_the_current_programs(node: Node) -> None:
    loaded = node.load(node.compile(), hooks=list)

    fingerprint = loader.attach_endpoint(node.root, node.ipr, node.pod)

    assert fingerprint == loaded.fingerprint
    assert attach.attached(node.ipr, node.pod) == dict.fromkeys(
        ("from_container", "to_container"), loaded.fingerprint
    )


def test_kept_handles_follow_an_upgrade_and_a_reload(node: Node) -> None:
    objects = node.compile()
    node.load(objects, hooks=list)
    with Programs(node.root) as programs:
        loader.attach_endpoint(node.root, node.ipr, node.pod, programs=programs)
        loader.unload(node.root, node.ipr, node.hooks())
        node.load(objects, hooks=list)

        loader.attach_endpoint(node.root, node.ipr, node.pod, programs=programs)
        send(node.netns, "pod1", FRAME)

    assert node.runs(1) > 0


def test_endpoint_that_cannot_take_both_programs_takes_none(node: Node) -> None:
    node.load(node.compile(), hooks=list)
    node.ipr.tc("add", "clsact", node.pod)
    add_foreign_filter(node, node.pod, priority=attach.PRIORITY, place=EGRESS)
    before = node.state()

    with pytest.raises(AttachError, match="held by others"):
        loader.attach_endpoint(node.root, node.ipr, node.pod)

    assert node.state() == before


def test_endpoint_without_loaded_programs_says_what_to_do(node: Node) -> None:
    with pytest.raises(BpffsError, match="pycni setup"):
        loader.attach_endpoint(node.root, node.ipr, node.pod)


def test_missing_endpoint_is_told_apart(node: Node) -> None:
    node.load(node.compile(), hooks=list)

    with pytest.raises(GoneError):
        loader.attach_endpoint(node.root, node.ipr, NO_SUCH_INTERFACE)


def test_load_outside_a_bpffs_says_what_to_do(node: Node, tmp_path: Path) -> None:
    with pytest.raises(BpffsError, match="mount -t bpf"):
        loader.load(tmp_path / "plain", node.compile(), config=config(), hooks=list, ipr=node.ipr)

    assert not (tmp_path / "plain").exists()


def pinned_at(path: Path) -> object:
    """What tells one thing on a bpffs from another: a link's target or the kernel's object id."""
    if path.is_symlink():
        return path.readlink()
    if path.is_dir() or path.name in pins.KERNEL_FILES:
        return "not a pin"
    kind = bpf.Map if "maps" in path.parts else bpf.Program
    with kind.open_pinned(path) as opened:
        return opened.info.id


def add_foreign_filter(node: Node, ifindex: int, *, priority: int, place: int = INGRESS) -> None:
    node.ipr.tc(
        "add-filter", "u32", ifindex, parent=place, prio=priority, protocol=3,
        target=0x10001, keys=["0x0/0x0+0"],
    )  # fmt: skip
