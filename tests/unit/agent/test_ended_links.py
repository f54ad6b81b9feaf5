# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/ended_links.py: what is given back when links go."""

import errno
from contextlib import nullcontext
from ipaddress import ip_address

import pytest

from pycni.agent import ended_links, rounds
from pycni.kernel.forgetting import Forgetting
from pycni.kernel.links import Link
from pycni.names import AttachmentKey
from pycni.pods.lease import Lease
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
NAMESPACE = "a namespace is gone"
FIRST = ["lan", "sweep", "delegated"]
"""What is done before anything happens."""
SETTINGS = None
"""Nothing of them is read here."""


def link(name, alias=""):
    return Link(IFINDEX, ifname=name, alias=alias)


@pytest.fixture
def done(monkeypatch):
    """What was asked of others: a sweep, of the LAN, too, or the release of a lease by its link."""
    calls = []
    monkeypatch.setattr(ended_links.detaching, "sweep", lambda *_: calls.append("lan") or 1)
    monkeypatch.setattr(ended_links.reclaim, "sweep", lambda *_, **__: calls.append("sweep") or 0)
    monkeypatch.setattr(
        ended_links.reclaim,
        "release_all",
        lambda _ipr, _settings, leases, **_: calls.extend(one.ifindex for one in leases) or 1,
    )
    monkeypatch.setattr(
        ended_links.delegation, "release_orphans", lambda _: calls.append("delegated") or 0
    )
    return calls


@pytest.fixture
def follow(monkeypatch):
    """Follow links whose events are these: lists of links and ends of namespaces, None for lost
    events, or errors."""

    def run(*events):
        waiting = list(events)
        one = OneRun()

        class Kernel(nullcontext[None]):
            def __enter__(self):
                return self

            def wait(self, _seconds):
                return True

            def take(self):
                event = waiting.pop(0)
                if not waiting:
                    one.end()
                if isinstance(event, OSError):
                    raise event
                return event

        monkeypatch.setattr(ended_links.link_events, "subscribe_to_ends", Kernel)
        monkeypatch.setattr(
            ended_links.link_events, "ended", lambda all_: (one for one in all_ if one != NAMESPACE)
        )
        monkeypatch.setattr(
            ended_links.link_events, "tell_of_namespaces", lambda all_: NAMESPACE in all_
        )
        monkeypatch.setattr(rounds, "REST", 0.0)
        ended_links.follow(SETTINGS, Forgetting(), one)

    return run


def test_at_first_everything_is_looked_at(done, follow):
    follow([])

    assert done == FIRST


def test_a_pods_link_that_goes_gives_back_what_its_alias_says(done, follow):
    follow([link("pcn0", POD_ONE.alias()), link("veth0", "somebody's")])

    assert done[3:] == [IFINDEX, "delegated"]


def test_links_of_others_are_nothing_to_do(done, follow):
    follow([link("veth0"), link("eth7", "uplink of rack 7")])

    assert done[3:] == []


@pytest.mark.parametrize("event", [NAMESPACE, link("pcl1234", "pycni:1 child of eth0")])
def test_a_pod_on_the_lan_goes_with_its_namespace_or_its_parent(done, follow, event):
    follow([event])

    assert done[3:] == ["lan", "delegated"]


@pytest.mark.parametrize(
    ("name", "alias"),
    [("pcn1", ""), ("pcn1", "somebody edited this"), ("wan7", POD_ONE.alias())],
)
def test_a_pods_link_without_a_lease_or_its_name_takes_a_sweep(done, follow, name, alias):
    follow([link("pcn0", POD_ONE.alias()), link(name, alias)])

    assert done[3:] == FIRST


def test_after_lost_events_everything_is_looked_at_again(done, follow):
    follow(None, [link("pcn0", POD_ONE.alias())])

    assert done[3:] == [*FIRST, IFINDEX, "delegated"]


def test_another_error_is_for_the_loop_that_tries_again(done, follow):
    with pytest.raises(OSError, match="broken"):
        follow(OSError(errno.EBADF, "broken"))

    assert done == FIRST
