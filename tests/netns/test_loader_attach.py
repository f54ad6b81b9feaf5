"""Hooks shared with others, and the hooks of endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel import needs_root, send
from loader_node import FRAME, NO_SUCH_INTERFACE, Node, add_foreign_filter, make_node

import loader
from loader import Programs, attach
from loader.attach import EGRESS, INGRESS
from loader.errors import AttachError, BpffsError, GoneError

pytestmark = needs_root


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with make_node(tmp_path) as made:
        yield made


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
