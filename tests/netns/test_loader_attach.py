# SPDX-License-Identifier: Apache-2.0
"""Hooks shared with others, and the hooks of endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import loader
from loader import Programs, attach, bpf, clsact, libbpf, probe, tcx
from loader.errors import AttachError, BpffsError, GoneError
from loader.hooks import Hook
from loader.places import EGRESS, ENDPOINT_PROGRAMS, INGRESS
from support.kernel import needs_root
from support.loader_node import NO_SUCH_INTERFACE, Node, add_foreign_filter, count, make_node

pytestmark = needs_root

PASS_ON = ((0xB7, 0, 0, -1), (0x95, 0, 0, 0))
WAYS = {"tcx": True, "clsact": False}


@pytest.fixture(params=WAYS)
def node(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Node]:
    monkeypatch.setattr(tcx, "available", lambda: WAYS[request.param])
    with make_node(tmp_path) as made:
        yield made


only_clsact = pytest.mark.parametrize("node", ["clsact"], indirect=True)
only_tcx = pytest.mark.parametrize("node", ["tcx"], indirect=True)


def add_foreign_program(ifindex: int, name: str) -> int:
    """One that passes everything on; returns its id."""
    with bpf.load_instructions(name, probe.assemble(PASS_ON)) as program:
        libbpf.attach(program.fd, ifindex, tcx.ATTACH_TYPES[INGRESS])
        return program.info.id


def test_foreign_qdisc_and_filter_survive_load_and_unload(node: Node) -> None:
    node.ipr.tc("add", "clsact", node.uplink)
    add_foreign_filter(node, node.uplink, priority=3)
    before = node.state()

    node.load(node.compile())
    loader.unload(node.root, node.rtnl)

    assert node.state() == before


def test_empty_foreign_qdisc_survives_unload(node: Node) -> None:
    node.ipr.tc("add", "clsact", node.uplink)
    before = node.qdiscs()

    node.load(node.compile())
    loader.unload(node.root, node.rtnl)

    assert node.qdiscs() == before


@only_clsact
def test_priority_held_by_others_is_refused_by_name(node: Node) -> None:
    node.ipr.tc("add", "clsact", node.uplink)
    add_foreign_filter(node, node.uplink, priority=clsact.PRIORITY)
    before = node.state()

    with pytest.raises(AttachError, match="held by others: u32"):
        node.load(node.compile())

    assert node.state() == before


@only_clsact
def test_handle_held_by_another_program_is_refused_by_name(node: Node) -> None:
    objects = node.compile()
    node.load(objects, hooks=list)
    node.ipr.tc("add", "clsact", node.uplink)
    with Programs(node.root) as programs:
        node.ipr.tc(
            "add-filter", "bpf", node.uplink, handle=clsact.HANDLE, parent=INGRESS, protocol=3,
            prio=clsact.PRIORITY, fd=programs["to_overlay"].fd, name="theirs", direct_action=True,
        )  # fmt: skip
    before = node.state()

    with pytest.raises(AttachError, match="bpf theirs"):
        node.load(objects)

    assert node.state() == before


@only_clsact
def test_ingress_qdisc_in_place_of_clsact_is_refused(node: Node) -> None:
    node.ipr.tc("add", "ingress", node.uplink, handle=0xFFFF0000)

    with pytest.raises(AttachError, match="another kind"):
        node.load(node.compile())

    assert count(node, node.uplink, INGRESS) == 0


def test_endpoint_gets_the_current_programs(node: Node) -> None:
    loaded = node.load(node.compile(), hooks=list)

    fingerprint = loader.attach_endpoint(node.root, node.rtnl, node.pod)

    assert fingerprint == loaded.fingerprint
    assert attach.attached(node.rtnl, node.pod) == dict.fromkeys(
        ("from_container", "to_container"), loaded.fingerprint
    )


def test_an_endpoint_gets_programs_while_a_pin_of_another_is_lost(node: Node) -> None:
    node.load(node.compile(), hooks=list)
    (node.root / "programs" / "from_underlay").unlink()

    loader.attach_endpoint(node.root, node.rtnl, node.pod)

    assert set(attach.attached(node.rtnl, node.pod)) == {"from_container", "to_container"}


@only_clsact
def test_endpoint_that_cannot_take_both_programs_takes_none(node: Node) -> None:
    node.load(node.compile(), hooks=list)
    node.ipr.tc("add", "clsact", node.pod)
    add_foreign_filter(node, node.pod, priority=clsact.PRIORITY, place=EGRESS)
    before = node.state()

    with pytest.raises(AttachError, match="held by others"):
        loader.attach_endpoint(node.root, node.rtnl, node.pod)

    assert node.state() == before


def test_endpoint_without_loaded_programs_says_what_to_do(node: Node) -> None:
    with pytest.raises(BpffsError, match="pycni setup"):
        loader.attach_endpoint(node.root, node.rtnl, node.pod)


def test_missing_endpoint_is_told_apart(node: Node) -> None:
    node.load(node.compile(), hooks=list)

    with pytest.raises(GoneError):
        loader.attach_endpoint(node.root, node.rtnl, NO_SUCH_INTERFACE)


def load_with_tcx_on_the_pod(node: Node) -> None:
    """As an ADD does it that is told to."""
    node.load(
        node.compile(),
        hooks=lambda: [one for one in node.hooks() if one.program not in ENDPOINT_PROGRAMS],
    )
    loader.attach_endpoint(node.root, node.rtnl, node.pod, by_tcx=True)


@only_tcx
def test_an_endpoint_keeps_the_way_it_was_attached(node: Node) -> None:
    load_with_tcx_on_the_pod(node)

    node.load(node.compile("v2", version=2))

    assert tcx.attached(node.pod).keys() == set(ENDPOINT_PROGRAMS)
    assert clsact.attached(node.rtnl, node.pod) == {}


@only_tcx
def test_an_ingress_qdisc_of_others_may_be_there(node: Node) -> None:
    node.ipr.tc("add", "ingress", node.pod, handle=0xFFFF0000)
    before = list(node.ipr.get_qdiscs(index=node.pod))

    load_with_tcx_on_the_pod(node)

    assert set(attach.attached(node.rtnl, node.pod)) == {"from_container", "to_container"}
    assert [q.get("TCA_KIND") for q in node.ipr.get_qdiscs(index=node.pod)] == [
        q.get("TCA_KIND") for q in before
    ]


@only_tcx
@pytest.mark.parametrize("name", ["theirs", "from_underlay"])
def test_programs_of_others_stay_behind_ours(node: Node, name: str) -> None:
    """Also one that has the name of ours."""
    other = add_foreign_program(node.uplink, name)

    node.load(node.compile())
    node.load(node.compile("v2", version=2))
    ours, behind = tcx.programs(node.uplink, INGRESS)
    loader.unload(node.root, node.rtnl)

    assert (behind, ours != other) == (other, True)
    assert tcx.programs(node.uplink, INGRESS) == [other]


@only_tcx
def test_an_upgrade_keeps_the_order_that_others_made(node: Node) -> None:
    node.load(node.compile())
    ahead = add_foreign_program(node.uplink, "theirs")

    node.load(node.compile("v2", version=2))

    assert tcx.programs(node.uplink, INGRESS)[0] == ahead
    assert len(tcx.programs(node.uplink, INGRESS)) == 2


@only_tcx
def test_a_full_hook_is_refused(node: Node) -> None:
    for number in range(libbpf.PROGRAMS_MAX - 1):  # BPF_MPROG_MAX is one more than there can be
        add_foreign_program(node.uplink, f"theirs{number}")
    before = node.state()

    with pytest.raises(AttachError, match="from_underlay at interface") as error:
        node.load(node.compile())

    assert "detach others" in error.value.hint
    assert node.state() == before


@pytest.mark.parametrize("first", WAYS)
def test_the_other_way_is_left_when_the_new_programs_run(
    node: Node, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    objects = node.compile()
    now = tcx.available()
    monkeypatch.setattr(tcx, "available", lambda: WAYS[first])
    node.load(objects)
    monkeypatch.setattr(tcx, "available", lambda: now)

    loaded = node.load(objects)

    assert loaded.changed == (WAYS[first] != now)
    assert [count(node, node.pod, place) for place in (INGRESS, EGRESS)] == [1, 1]
    assert attach.attached(node.rtnl, node.uplink) == {"from_underlay": loaded.fingerprint}
    loader.unload(node.root, node.rtnl)
    assert count(node, node.pod, INGRESS) == 0
    assert [index for index, _ in node.qdiscs() if index != node.pod] == []


def test_a_load_that_fails_leaves_the_other_way_in_place(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = tcx.available()
    monkeypatch.setattr(tcx, "available", lambda: not now)
    node.load(node.compile())
    before = node.state()
    monkeypatch.setattr(tcx, "available", lambda: now)

    with pytest.raises(GoneError):
        node.load(
            node.compile("v2", version=2),
            hooks=lambda: [*node.hooks(), Hook(NO_SUCH_INTERFACE, "from_underlay")],
        )

    assert node.state() == before


@only_tcx
def test_an_empty_qdisc_of_others_stays_on_an_endpoint(node: Node) -> None:
    node.ipr.tc("add", "clsact", node.pod)
    before = node.state()

    load_with_tcx_on_the_pod(node)
    loader.unload(node.root, node.rtnl)

    assert node.state() == before
