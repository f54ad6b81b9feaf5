# SPDX-License-Identifier: Apache-2.0
"""pycni/attachments/attaching.py: an ADD that fails is undone, one that succeeds is not."""

from __future__ import annotations

import time
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from pycni import locks
from pycni.attachments.attaching import attaching
from pycni.cni import netconf
from pycni.cni.call import Call, Serving
from pycni.cni.protocol import Request
from pycni.errors import InvalidConfig, NotAvailable, TryAgain
from pycni.node.record import Node
from pycni.node.report import PLACE, Report
from pycni.settings import Settings

NODE = Node(
    name="one",
    node_id=1,
    vtep=ip_address("192.0.2.1"),
    pod_cidrs=(ip_network("10.244.1.0/24"),),
    cluster_cidrs=(ip_network("10.244.0.0/16"),),
    uplink="eth0",
    mtu=1450,
    port=4789,
)
STDIN = b'{"cniVersion": "1.0.0", "name": "podnet"}'
WRONG = b'{"cniVersion": "1.0.0", "name": "podnet", "runtimeConfig": {"bandwidth": 5}}'
REQUEST = Request("ADD", container_id="c1", ifname="eth0")
LONG = float("inf")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(
        node_name="one",
        state_dir=tmp_path / "state",
        run_dir=tmp_path / "run",
        bpffs=tmp_path / "bpffs",
    )
    made.state_dir.mkdir()
    NODE.save(made)
    return made


def call(
    settings: Settings, stdin: bytes = STDIN, end: float = LONG, serving: Serving | None = None
) -> Call:
    conf = netconf.parse_netconf(stdin)
    return Call(REQUEST, conf, {}, stdin, settings, end, serving=serving or Serving())


def lose_place(settings: Settings) -> None:
    """As the agent tells it."""
    Report(settings).put(PLACE, {"cause": "its Node is gone", "to_do": "drain it"})


def is_locked(settings: Settings) -> bool:
    try:
        with locks.attachment_lock(settings.run_dir, call(settings).key.digest, timeout=0):
            return False
    except TryAgain:
        return True


def test_steps_are_undone_in_reverse_under_the_lock(settings: Settings) -> None:
    undone: list[tuple[str, bool]] = []

    def note(step: str) -> None:
        undone.append((step, is_locked(settings)))

    def add() -> None:
        with attaching(call(settings)) as one:
            for step in ("link", "address"):
                one.undo.callback(note, step)
            raise NotAvailable("a step fails")

    with pytest.raises(NotAvailable):
        add()

    assert undone == [("address", True), ("link", True)]
    assert not is_locked(settings)


def test_nothing_is_undone_after_the_last_step(settings: Settings) -> None:
    undone: list[str] = []

    with attaching(call(settings)) as one:
        one.undo.callback(undone.append, "link")

    assert undone == []
    assert not is_locked(settings)


def test_an_interrupt_is_undone_too(settings: Settings) -> None:
    undone: list[str] = []

    def add() -> None:
        with attaching(call(settings)) as one:
            one.undo.callback(undone.append, "link")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add()

    assert undone == ["link"]


def test_the_lease_begins_as_it_is_wanted(settings: Settings) -> None:
    with attaching(call(settings)) as one:
        assert one.lease is one.wanted.lease

    assert (one.lease.ifindex, one.lease.addresses) == (0, ())
    assert (one.lease.container_id, one.lease.mac) == ("c1", one.call.key.mac)


def test_a_wrong_request_is_refused_before_the_lock_is_taken(settings: Settings) -> None:
    with (
        locks.attachment_lock(settings.run_dir, call(settings).key.digest),
        pytest.raises(InvalidConfig, match="bandwidth"),
        attaching(call(settings, WRONG)),
    ):
        pytest.fail("nothing may be done")


def test_an_attachment_that_somebody_works_on_is_left_alone(settings: Settings) -> None:
    with (
        locks.attachment_lock(settings.run_dir, call(settings).key.digest),
        pytest.raises(TryAgain),
        attaching(call(settings, end=0)),
    ):
        pytest.fail("nothing may be done")


def test_an_add_that_was_left_before_it_began_does_nothing(settings: Settings) -> None:
    """The DEL that follows a killed ADD may have been answered."""
    left = Serving(has_left=lambda: True)

    with (
        pytest.raises(TryAgain, match="left by its caller"),
        attaching(call(settings, serving=left)),
    ):
        pytest.fail("nothing may be done")

    assert not is_locked(settings)


def test_an_add_that_is_left_under_way_is_undone(settings: Settings) -> None:
    undone: list[str] = []
    answers = iter((False, True))

    def add() -> None:
        with attaching(call(settings, serving=Serving(has_left=lambda: next(answers)))) as one:
            one.undo.callback(undone.append, "link")

    with pytest.raises(TryAgain, match="left by its caller"):
        add()

    assert undone == ["link"]


def test_a_table_that_is_not_there_is_told(settings: Settings) -> None:
    with pytest.raises(NotAvailable), attaching(call(settings)) as one, one.writing():
        pytest.fail("there is no table")


def test_an_add_that_took_too_long_is_undone_and_fails(settings: Settings) -> None:
    undone: list[str] = []
    late = time.monotonic() + 0.2

    def add() -> None:
        with attaching(call(settings, end=late)) as one:
            one.undo.callback(undone.append, "link")
            while one.call.left():
                time.sleep(0.05)

    with pytest.raises(TryAgain, match="ADD took longer than it may"):
        add()

    assert undone == ["link"]


def test_no_pod_is_added_while_the_node_has_lost_its_place(settings: Settings) -> None:
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    lose_place(settings)

    with (
        pytest.raises(NotAvailable, match="lost its place in the cluster: its Node is gone"),
        attaching(call(settings)),
    ):
        pytest.fail("it is refused before anything is done")
    assert not is_locked(settings)
