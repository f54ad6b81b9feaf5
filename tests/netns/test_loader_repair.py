# SPDX-License-Identifier: Apache-2.0
"""What somebody took from a load is named by the kernel's own numbers, and attached again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from loader import Hook, bpf, pins, repair, tcx
from loader.errors import LoaderError
from loader.places import EGRESS, INGRESS
from support.loader_node import NO_SUCH_INTERFACE, Node, count, make_node

PLACES = (INGRESS, EGRESS)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with make_node(tmp_path) as made:
        made.load(made.compile())
        yield made


def missing(node: Node) -> list[Hook]:
    return repair.missing(node.rtnl, node.hooks(), repair.numbers(node.root))


def test_a_load_that_is_whole_lacks_nothing(node: Node) -> None:
    assert missing(node) == []
    assert repair.lost_pins(node.root) == {}


def test_programs_of_the_same_load_with_other_pins_are_strangers(node: Node) -> None:
    """Fingerprints are the same, maps are not: packets would meet empty tables."""
    other = replace(node, root=node.root.parent / "other")
    other.load(other.compile("other"))

    assert missing(node) == node.hooks()
    assert all(repair.stranger(node.rtnl, hook) for hook in node.hooks())

    again = node.load(node.compile("again"))

    assert again.changed
    assert missing(node) == []
    assert missing(other) == other.hooks()


def test_what_is_detached_is_attached_again_without_a_load(node: Node) -> None:
    uplink, pod = node.uplink, node.pod
    tcx.detach(Hook(uplink, "from_underlay"))
    node.rtnl.delete_clsact(pod)
    assert missing(node) == node.hooks()
    assert not any(repair.stranger(node.rtnl, hook) for hook in node.hooks())

    repair.attach_again(node.root, node.rtnl, missing(node))

    assert missing(node) == []


def test_strangers_are_replaced_not_joined(node: Node) -> None:
    other = replace(node, root=node.root.parent / "other")
    other.load(other.compile("other"))

    repair.attach_again(node.root, node.rtnl, missing(node))

    assert missing(node) == []
    assert [count(node, node.uplink, one) for one in PLACES] == [1, 0]
    assert [count(node, node.pod, one) for one in PLACES] == [1, 1]


def test_an_endpoint_that_is_gone_is_skipped_an_uplink_is_not(node: Node) -> None:
    repair.attach_again(node.root, node.rtnl, [Hook(NO_SUCH_INTERFACE, "from_container")])

    with pytest.raises(LoaderError, match="no such interface"):
        repair.attach_again(node.root, node.rtnl, [Hook(NO_SUCH_INTERFACE, "from_underlay")])


def test_an_endpoint_whose_place_others_have_gets_tcx(node: Node) -> None:
    node.rtnl.delete_clsact(node.pod)
    node.ipr.tc("add", "ingress", node.pod)
    hook = Hook(node.pod, "from_container")

    repair.attach_again(node.root, node.rtnl, [hook])

    assert hook not in missing(node)
    assert "from_container" in tcx.attached(node.pod)


def test_lost_pins_are_named(node: Node) -> None:
    current = pins.current(node.root)
    assert current is not None
    (current / "from_overlay").unlink()
    pins.map_path(node.root, "endpoints").unlink()

    assert repair.lost_pins(node.root) == {
        "program from_overlay": "not pinned",
        "map endpoints": "not pinned",
    }
    with pytest.raises(FileNotFoundError):
        repair.numbers(node.root)


def test_another_map_at_a_pin_counts_as_lost(node: Node) -> None:
    other = replace(node, root=node.root.parent / "other")
    other.load(other.compile("other"))
    with bpf.Map.open_pinned(pins.map_path(other.root, "endpoints")) as strange:
        pins.replace_map(node.root, "endpoints", strange)

    assert repair.lost_pins(node.root) == {"map endpoints": "another map than the programs use"}


def test_without_a_load_all_is_lost(node: Node) -> None:
    pins.switch(node.root, None)

    assert repair.lost_pins(node.root) == {"programs": "not loaded"}
    with pytest.raises(LoaderError, match="no programs are loaded"):
        repair.numbers(node.root)
