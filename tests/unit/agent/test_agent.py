"""pycni/agent/agent.py: what it does when links go."""

import errno
import threading
from contextlib import nullcontext
from dataclasses import replace
from ipaddress import ip_address

import pytest

from pycni.agent import agent
from pycni.errors import DataplaneError
from pycni.kernel.links import Link
from pycni.names import AttachmentKey
from pycni.pods.lease import Lease
from pycni.pods.link_changes import Change

POD_ONE = Lease(
    key_digest=AttachmentKey("podnet", "c1", "eth0").digest,
    network="podnet",
    container_id="c1",
    ifname="eth0",
    mac="02:00:00:00:00:01",
    addresses=(ip_address("192.0.2.1"),),
    masquerade=False,
)
IFINDEX = 42
MAC = "02:00:00:00:00:42"
SETTINGS = None
"""Nothing of them is read here."""


def link(name, alias=""):
    return Link(IFINDEX, ifname=name, alias=alias)


@pytest.fixture
def done(monkeypatch):
    """What was asked of others: a sweep, or the release of a lease by its link."""
    calls = []
    monkeypatch.setattr(agent.reclaim, "sweep", lambda *_: calls.append("sweep") or 0)
    monkeypatch.setattr(
        agent.reclaim, "release", lambda _ipr, _settings, lease: calls.append(lease.ifindex) or 1
    )
    monkeypatch.setattr(
        agent.delegation, "release_orphans", lambda _: calls.append("delegated") or 0
    )
    return calls


@pytest.fixture
def follow(monkeypatch):
    """Follow links whose events are these: lists of links, or errors."""

    def run(*events):
        waiting = list(events)
        stop = threading.Event()

        def gone(_socket):
            event = waiting.pop(0)
            if not waiting:
                stop.set()
            if isinstance(event, OSError):
                raise event
            return iter(event)

        monkeypatch.setattr(agent.link_events, "subscribe", nullcontext)
        monkeypatch.setattr(agent.link_events, "gone", gone)
        agent._follow_links(SETTINGS, stop)

    return run


@pytest.fixture
def follow_alterations(monkeypatch):
    """Follow what is said of links: lists of changes, or errors; gives the leases followed."""

    def run(*events, failing=False):
        waiting, followed = list(events), []
        stop = threading.Event()

        def changes(_socket):
            event = waiting.pop(0)
            if not waiting:
                stop.set()
            if isinstance(event, OSError):
                raise event
            return iter(event)

        def follow(_ipr, _settings, lease, *, queued):
            followed.append((lease.ifindex, queued))
            if failing:
                raise DataplaneError("this one cannot")
            return 1

        def follow_all(*_):
            followed.append("all")
            return ["this one cannot"] if failing else []

        lease = replace(POD_ONE, ifindex=IFINDEX)
        monkeypatch.setattr(
            agent, "find_lease_at", lambda _, index: lease if index == IFINDEX else None
        )
        monkeypatch.setattr(agent.link_changes, "subscribe", nullcontext)
        monkeypatch.setattr(agent.link_changes, "changes", changes)
        monkeypatch.setattr(agent.follow, "follow", follow)
        monkeypatch.setattr(agent.follow, "follow_all", follow_all)
        agent._follow_alterations(SETTINGS, stop)
        return followed

    return run


def test_a_pods_link_that_others_alter_is_followed(follow_alterations):
    changes = [Change(IFINDEX, mac=MAC), Change(IFINDEX, queued=True), Change(7, mac=MAC)]

    assert follow_alterations(changes) == ["all", (IFINDEX, None), (IFINDEX, True)]


def test_what_was_said_before_is_nothing_to_do(follow_alterations):
    same, other = Change(IFINDEX, mac=MAC), Change(IFINDEX, mac=POD_ONE.mac)

    assert follow_alterations([same, same], [same, other]) == ["all"] + [(IFINDEX, None)] * 2


def test_after_lost_events_all_links_are_followed(follow_alterations):
    assert follow_alterations(OSError(errno.ENOBUFS, "lost"), []) == ["all", "all"]


def test_a_link_that_cannot_be_followed_is_logged_and_tried_again(follow_alterations, caplog):
    change = Change(IFINDEX, mac=MAC)

    assert follow_alterations([change, change], failing=True)[1:] == [(IFINDEX, None)] * 2
    assert "this one cannot" in caplog.text


def test_a_broken_socket_is_for_the_loop_that_tries_again(follow_alterations):
    with pytest.raises(OSError, match="broken"):
        follow_alterations(OSError(errno.EBADF, "broken"))


def test_at_first_everything_is_looked_at(done, follow):
    follow([])

    assert done == ["sweep", "delegated"]


def test_a_pods_link_that_goes_gives_back_what_its_alias_says(done, follow):
    follow([link("pcn0", POD_ONE.alias()), link("veth0", "somebody's")])

    assert done[2:] == [IFINDEX, "delegated"]


def test_links_of_others_are_nothing_to_do(done, follow):
    follow([link("veth0"), link("eth7", "uplink of rack 7")])

    assert done[2:] == []


@pytest.mark.parametrize(
    ("name", "alias"),
    [("pcn1", ""), ("pcn1", "somebody edited this"), ("wan7", POD_ONE.alias())],
)
def test_a_pods_link_without_a_lease_or_its_name_takes_a_sweep(done, follow, name, alias):
    follow([link("pcn0", POD_ONE.alias()), link(name, alias)])

    assert done[2:] == ["sweep", "delegated"]


def test_after_lost_events_everything_is_looked_at_again(done, follow):
    follow(OSError(errno.ENOBUFS, "lost"), [link("pcn0", POD_ONE.alias())])

    assert done[2:] == ["sweep", "delegated", IFINDEX, "delegated"]


def test_another_error_is_for_the_loop_that_tries_again(done, follow):
    with pytest.raises(OSError, match="broken"):
        follow(OSError(errno.EBADF, "broken"))

    assert done == ["sweep", "delegated"]
