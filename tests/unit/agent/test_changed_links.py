# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/changed_links.py: endpoints follow what others do to links."""

import errno
from dataclasses import replace
from ipaddress import ip_address

import pytest

from pycni.agent import changed_links, rounds
from pycni.attachments.refresh import Refreshed
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


class Kernel:
    """What is said of links: lists of changes, an empty list for lost events, or an error."""

    def __init__(self, one: OneRun, events) -> None:
        self.one, self.waiting = one, list(events)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def wait(self, _seconds):
        return True

    def take(self):
        event = self.waiting.pop(0)
        if not self.waiting:
            self.one.end()
        if isinstance(event, OSError):
            raise event
        return event


@pytest.fixture
def follow_changes(monkeypatch):
    """Follow what is said of links; gives the leases followed. `mac` is what the kernel has."""

    def run(*events, failing=False, mac=MAC):
        followed = []
        one = OneRun()

        def follow(_ipr, _settings, lease, *, queued):
            followed.append((lease.ifindex, queued))
            if failing:
                raise DataplaneError("this one cannot")
            return Refreshed(1, mac, False if queued is None else queued)

        def follow_all(*_):
            followed.append("all")
            return ["this one cannot"] if failing else []

        lease = replace(POD_ONE, ifindex=IFINDEX, host_ifname="pcn0")
        monkeypatch.setattr(
            changed_links, "find_lease_at", lambda _, index: lease if index == IFINDEX else None
        )
        monkeypatch.setattr(changed_links.link_changes, "subscribe", lambda: Kernel(one, events))
        monkeypatch.setattr(changed_links.link_changes, "changes", iter)
        monkeypatch.setattr(changed_links.refresh, "refresh", follow)
        monkeypatch.setattr(changed_links.refresh, "refresh_all", follow_all)
        monkeypatch.setattr(rounds, "REST", 0.0)
        changed_links.follow(SETTINGS, one)
        return followed

    return run


def test_a_pods_link_that_others_alter_is_followed(follow_changes):
    one, other = Change(IFINDEX, mac=MAC), Change(7, mac=MAC)

    assert follow_changes([one], [other], [Change(IFINDEX, queued=True)]) == [
        "all",
        (IFINDEX, None),
        (IFINDEX, True),
    ]


def test_what_the_kernel_had_at_the_last_look_is_nothing_to_do(follow_changes):
    same, other = Change(IFINDEX, mac=MAC), Change(IFINDEX, mac=POD_ONE.mac)

    assert follow_changes([same], [same], [other]) == ["all", (IFINDEX, None), (IFINDEX, False)]


def test_what_a_pod_makes_up_about_another_hides_no_change(follow_changes):
    """It says that the other's MAC is what that will be soon; the kernel knows better."""
    made_up = true_later = Change(IFINDEX, mac="02:00:00:00:00:99")

    assert follow_changes([made_up], [true_later]) == ["all", (IFINDEX, None), (IFINDEX, False)]


def test_many_changes_of_one_link_that_wait_are_one_look(follow_changes):
    storm = [Change(IFINDEX, mac=f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}") for n in range(3000)]
    queue = Change(IFINDEX, queued=True)

    assert follow_changes([*storm, queue, *storm]) == ["all", (IFINDEX, True)]


def test_a_root_queue_is_looked_at_though_the_mac_is_known(follow_changes):
    mac, queue = Change(IFINDEX, mac=MAC), Change(IFINDEX)

    assert follow_changes([mac], [mac, queue]) == ["all", (IFINDEX, None), (IFINDEX, False)]


def test_the_kernel_is_asked_about_queues_once(follow_changes):
    """The question itself is an event for everybody who listens."""
    first, second = (Change(IFINDEX, mac=f"02:00:00:00:00:0{n}") for n in (1, 2))
    queue = Change(IFINDEX, queued=True)

    followed = follow_changes([first], [second], [queue], [second], None, [first])

    known = [(IFINDEX, None), (IFINDEX, False), (IFINDEX, True), (IFINDEX, True)]
    assert followed == ["all", *known, "all", (IFINDEX, None)]


def test_a_link_that_changes_all_the_time_is_one_line(follow_changes, caplog):
    caplog.set_level("INFO")

    follow_changes(*([Change(IFINDEX, mac=f"02:00:00:00:00:{n:02x}")] for n in range(50)))

    assert caplog.messages == ["link followed link=pcn0 container=c1"]


def test_after_lost_events_all_links_are_followed(follow_changes):
    assert follow_changes(None, []) == ["all", "all"]


def test_a_link_that_cannot_be_followed_is_logged_once_and_tried_again(follow_changes, caplog):
    change = Change(IFINDEX, mac=MAC)

    assert follow_changes([change], [change], failing=True)[1:] == [(IFINDEX, None)] * 2
    assert [line for line in caplog.messages if "link=pcn0" in line] == [
        'link not followed link=pcn0 error="this one cannot"'
    ]


def test_a_broken_socket_is_for_the_loop_that_tries_again(follow_changes):
    with pytest.raises(OSError, match="broken"):
        follow_changes(OSError(errno.EBADF, "broken"))
