"""pycni/agent/changed_links.py: endpoints follow what others do to links."""

import errno
from contextlib import nullcontext
from dataclasses import replace
from ipaddress import ip_address

import pytest

from pycni.agent import changed_links
from pycni.errors import DataplaneError
from pycni.names import AttachmentKey
from pycni.pods.lease import Lease
from pycni.pods.link_changes import Change
from unit.agent.runs import OneRun

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


@pytest.fixture
def follow_changes(monkeypatch):
    """Follow what is said of links: lists of changes, or errors; gives the leases followed."""

    def run(*events, failing=False):
        waiting, followed = list(events), []
        one = OneRun()

        def changes(_socket):
            event = waiting.pop(0)
            if not waiting:
                one.end()
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
            changed_links, "find_lease_at", lambda _, index: lease if index == IFINDEX else None
        )
        monkeypatch.setattr(changed_links.link_changes, "subscribe", nullcontext)
        monkeypatch.setattr(changed_links.link_changes, "changes", changes)
        monkeypatch.setattr(changed_links.refresh, "refresh", follow)
        monkeypatch.setattr(changed_links.refresh, "refresh_all", follow_all)
        changed_links.follow(SETTINGS, one)
        return followed

    return run


def test_a_pods_link_that_others_alter_is_followed(follow_changes):
    changes = [Change(IFINDEX, mac=MAC), Change(IFINDEX, queued=True), Change(7, mac=MAC)]

    assert follow_changes(changes) == ["all", (IFINDEX, None), (IFINDEX, True)]


def test_what_was_said_before_is_nothing_to_do(follow_changes):
    same, other = Change(IFINDEX, mac=MAC), Change(IFINDEX, mac=POD_ONE.mac)

    assert follow_changes([same, same], [same, other]) == ["all"] + [(IFINDEX, None)] * 2


def test_after_lost_events_all_links_are_followed(follow_changes):
    assert follow_changes(OSError(errno.ENOBUFS, "lost"), []) == ["all", "all"]


def test_a_link_that_cannot_be_followed_is_logged_and_tried_again(follow_changes, caplog):
    change = Change(IFINDEX, mac=MAC)

    assert follow_changes([change, change], failing=True)[1:] == [(IFINDEX, None)] * 2
    assert "this one cannot" in caplog.text


def test_a_broken_socket_is_for_the_loop_that_tries_again(follow_changes):
    with pytest.raises(OSError, match="broken"):
        follow_changes(OSError(errno.EBADF, "broken"))
