# SPDX-License-Identifier: Apache-2.0
"""Each subject has its events, heard within the namespace in which the listener was made."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loader import libbpf
from pycni.kernel import nft, node_events, sysctl
from pycni.kernel.node_events import NodeEvents, Notice, Subject
from support.kernel import entered, netns, rtnl

PATIENCE = 5.0
NOBODY = ""
DUMMY = "veth7"


@pytest.fixture(autouse=True)
def _nobody_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents that ran in this process may have had threads ignored."""
    monkeypatch.setattr(node_events, "_ignored", set[int]())


@pytest.fixture
def namespace() -> Iterator[str]:
    """The test is in it."""
    with netns() as path, entered(path):
        yield path


def ip(*arguments: str) -> Callable[[], object]:
    return lambda: subprocess.run(["ip", *arguments], check=True)


def heard(events: NodeEvents, subject: Subject) -> Notice:
    """The first event about it."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for notice in events.wait(0.1) or ():
            if notice.subject is subject:
                return notice
    raise AssertionError(f"no event about {subject}")


@pytest.mark.parametrize(
    ("subject", "change"),
    [
        (Subject.LINK, ip("link", "set", DUMMY, "mtu", "1400")),
        (Subject.ADDRESS, ip("address", "add", "192.0.2.1/24", "dev", DUMMY)),
        (Subject.ROUTE, ip("route", "add", "198.51.100.0/24", "dev", DUMMY)),
        (Subject.ROUTE, ip("-6", "route", "add", "2001:db8:1::/64", "dev", DUMMY)),
        (Subject.RULE, ip("rule", "add", "from", "192.0.2.9", "lookup", "7")),
        (Subject.RULE, ip("-6", "rule", "add", "from", "2001:db8::9", "lookup", "7")),
        (Subject.QDISC, lambda: subprocess.run(["tc", "qdisc", "add", "dev", DUMMY, "clsact"],
                                               check=True)),
        (Subject.PARAMETER, lambda: sysctl.write(f"net/ipv4/conf/{DUMMY}/forwarding", "1")),
        (Subject.PARAMETER, lambda: sysctl.write("net/ipv6/conf/all/forwarding", "1")),
        (Subject.TABLES, lambda: nft.run("add table inet mine", what="a test")),
    ],
    ids=lambda value: value.name if isinstance(value, Subject) else "",
)  # fmt: skip
def test_a_change_is_heard(namespace: str, subject: Subject, change: Callable[[], object]) -> None:
    with rtnl(namespace) as ipr:
        subprocess.run(["ip", "link", "add", DUMMY, "type", "veth", "peer", "veth8"], check=True)
        ipr.set_up(ipr.ifindex("veth8"))
        ipr.set_up(ipr.ifindex(DUMMY))
        with NodeEvents() as events:
            events.wait(0.2)

            change()

            notice = heard(events, subject)
            if subject in (Subject.LINK, Subject.QDISC):
                assert notice.ifindex == ipr.ifindex(DUMMY)


@pytest.mark.usefixtures("namespace")
def test_a_mount_is_heard(tmp_path: Path) -> None:
    with NodeEvents() as events:
        libbpf.mount_bpffs(tmp_path)
        try:
            heard(events, Subject.MOUNT)
        finally:
            libbpf.unmount(tmp_path)

        heard(events, Subject.MOUNT)


@pytest.mark.usefixtures("namespace")
def test_nothing_happens_in_silence() -> None:
    with NodeEvents() as events:
        while events.wait(0.3):
            pass

        assert events.wait(0.3) == []


def test_events_of_other_namespaces_are_not_heard(namespace: str) -> None:
    with NodeEvents() as events, netns() as elsewhere:
        while events.wait(0.3):
            pass
        with entered(elsewhere):
            subprocess.run(["ip", "link", "add", "dummy7", "type", "bridge"], check=True)

        assert [one for one in events.wait(0.3) or () if one.subject is Subject.LINK] == []
    assert namespace


@pytest.mark.usefixtures("namespace")
def test_who_changed_the_firewall_is_told() -> None:
    script = "from pycni.kernel import nft; nft.run('add table inet other', what='a test')"
    with NodeEvents() as events:
        subprocess.run([sys.executable, "-c", script], check=True)

        notice = heard(events, Subject.TABLES)

    assert "(pid " in notice.by
    assert "python" in notice.by
    assert not notice.is_own


@pytest.mark.usefixtures("namespace")
def test_what_the_listener_did_to_the_firewall_is_its_own() -> None:
    with NodeEvents() as events:
        nft.run("add table inet other", what="a test")

        notice = heard(events, Subject.TABLES)

    assert notice.is_own
    assert notice.by == NOBODY


@pytest.mark.usefixtures("namespace")
def test_what_this_process_does_has_no_name_of_others() -> None:
    with NodeEvents() as events, rtnl("/proc/thread-self/ns/net") as ipr:
        veth_index = ipr.ifindex("lo")
        ipr.set_up(veth_index)

        assert heard(events, Subject.LINK).by == NOBODY
    assert os.getpid()


@pytest.mark.usefixtures("namespace")
def test_what_the_listener_does_to_the_firewall_has_no_name_of_others() -> None:
    with NodeEvents() as events:
        nft.run("add table inet ours", what="a test")

        assert heard(events, Subject.TABLES).by == NOBODY


def test_lost_events_are_told(namespace: str) -> None:
    """Then everything must be looked at."""
    with NodeEvents() as events, rtnl(namespace) as ipr:
        subprocess.run(["ip", "link", "add", DUMMY, "type", "veth", "peer", "veth8"], check=True)
        index = ipr.ifindex(DUMMY)
        for number in range(40_000):
            ipr.set_mtu(index, 1400 + number % 2)

        assert events.wait(1.0) is None
        assert events.wait(0.1) is not None


@pytest.mark.usefixtures("namespace")
def test_after_lost_events_of_nftables_the_next_is_heard() -> None:
    """The kernel tells of a loss once, until everything that waits is read."""
    elements = ", ".join(str(number) for number in range(1000))
    made = "add table inet ours; add set inet ours ports { type inet_service; }"
    filled = f"add element inet ours ports {{ {elements} }}"
    with NodeEvents() as events:
        node_events.ignore_this_thread()
        for _ in range(5):
            for commands in (made, filled, "delete table inet ours"):
                nft.run(commands, what="a test")
        assert events.wait(1.0) is None

        script = "from pycni.kernel import nft; nft.run('add table inet other', what='a test')"
        subprocess.run([sys.executable, "-c", script], check=True)

        assert heard(events, Subject.TABLES).by.startswith("python")


@pytest.mark.usefixtures("namespace")
def test_what_a_thread_of_ours_does_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_events, "_ignored", set())

    with NodeEvents() as events:
        node_events.ignore_this_thread()
        nft.run("add table inet ours", what="a test")
        assert not [one for one in events.wait(0.3) or () if one.subject is Subject.TABLES]

        script = "from pycni.kernel import nft; nft.run('add table inet other', what='a test')"
        subprocess.run([sys.executable, "-c", script], check=True)
        assert heard(events, Subject.TABLES).by.startswith("python")
