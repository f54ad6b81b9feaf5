# SPDX-License-Identifier: Apache-2.0
"""A node for loader tests: a namespace with an uplink and a pod's veth, and a bpffs."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute

import loader
from loader import Callbacks, Hook, Loaded, NewMaps, Objects, bpf, clsact, pins, tcx
from loader.compile import compile_programs
from loader.places import EGRESS, INGRESS
from pycni.kernel.rtnl import Rtnl
from support.kernel import bpffs, entered, iproute, netns, rtnl, veth
from support.sources import config, key, write_sources

FRAME = bytes.fromhex("02707963 6e690202 02020202 88b5".replace(" ", "")) + bytes(46)
ENTRY = struct.pack("=II", 5, 6)
NO_SUCH_INTERFACE = 999


@dataclass(frozen=True)
class Node:
    """A namespace with an uplink and a pod's veth, and a bpffs."""

    netns: str
    ipr: IPRoute
    """For what tests do."""
    rtnl: Rtnl
    """For what the loader does."""
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
        return compile_programs(self.tmp.parent / "loader-cache", sources=written)

    def load(
        self,
        objects: Objects,
        *,
        mark: int = 7,
        hooks: Callable[[], list[Hook]] | None = None,
        refill: Callable[[NewMaps], object] | None = None,
        confirm: Callable[[Loaded], object] = lambda _: None,
    ) -> Loaded:
        return loader.load(
            self.root,
            objects,
            config=config(mark),
            callbacks=Callbacks(hooks=hooks or self.hooks, refill=refill, confirm=confirm),
            ipr=self.rtnl,
        )

    def state(self) -> dict[str, object]:
        """Everything that a failed load must leave alone."""
        found: dict[str, object] = {}
        for path in self.root.parent.rglob("*"):
            found[str(path.relative_to(self.root.parent))] = pinned_at(path)
        for ifindex in (self.uplink, self.pod):
            for place in (INGRESS, EGRESS):
                found[f"{ifindex} {place} filters"] = clsact.filters(self.rtnl, ifindex, place)
                found[f"{ifindex} {place} tcx"] = tcx.programs(ifindex, place)
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


@contextmanager
def make_node(tmp_path: Path) -> Iterator[Node]:
    """The calling thread is in the namespace meanwhile."""
    with (
        netns() as path,
        bpffs(tmp_path) as fs,
        iproute(path) as ipr,
        rtnl(path) as asker,
        entered(path),
    ):
        uplink, _ = veth(ipr, "up0", "up1")
        pod, _ = veth(ipr, "pod0", "pod1")
        yield Node(path, ipr, asker, fs / "pycni", uplink, pod, tmp_path)


def pinned_at(path: Path) -> object:
    """What tells one thing on a bpffs from another: a link's target or the kernel's object id."""
    if path.is_symlink():
        return path.readlink()
    if path.is_dir() or path.name in pins.KERNEL_FILES:
        return "not a pin"
    kind = bpf.Map if "maps" in path.parts else bpf.Program
    with kind.open_pinned(path) as opened:
        return opened.info.id


def count(node: Node, ifindex: int, place: int) -> int:
    """Of programs at a hook, attached one way and the other."""
    return len(clsact.filters(node.rtnl, ifindex, place)) + len(tcx.programs(ifindex, place))


def add_foreign_filter(node: Node, ifindex: int, *, priority: int, place: int = INGRESS) -> None:
    node.ipr.tc(
        "add-filter", "u32", ifindex, parent=place, prio=priority, protocol=3,
        target=0x10001, keys=["0x0/0x0+0"],
    )  # fmt: skip
