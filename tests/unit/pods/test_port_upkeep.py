# SPDX-License-Identifier: Apache-2.0
"""pycni/pods/port_upkeep.py: what differs between leases, records and table, and how it is mended.

tests/netns/test_host_ports.py does the same with packets."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from pycni import locks
from pycni.cluster import IPAddress
from pycni.errors import FileError, HostPortTaken, NotAvailable, SetupError
from pycni.faults import Fault, Weight
from pycni.files import TICK
from pycni.kernel.links import IFF_UP, Link
from pycni.names import GATEWAY_MAC, host_ifname
from pycni.pods import host_ports, port_records, port_table, port_upkeep
from pycni.pods.lease import Lease
from pycni.pods.port_records import DIRECTORY, PortRecord
from pycni.pods.port_table import Contents, Forward
from pycni.settings import Settings

WEB, DNS = "a" * 32, "b" * 32
WEB4, WEB6, DNS4 = map(ip_address, ("10.244.1.5", "fd00:10:244:1::5", "10.244.1.6"))
NOBODY = ip_address("10.244.1.99")
WEB_RECORD = PortRecord(
    WEB,
    "default/web",
    (Forward("tcp", None, 8080, WEB4, 80, "c1"), Forward("tcp", None, 8080, WEB6, 80, "c1")),
)
DNS_RECORD = PortRecord(DNS, "", (Forward("udp", None, 53, DNS4, 53, "c2"),))
STRAY = Forward("tcp", None, 9, NOBODY, 9, "c9")


def lease(digest: str, *addresses: IPAddress, ports: bool = True) -> Lease:
    return Lease(digest, "podnet", "c1", "eth0", "02:00:00:00:00:01", addresses, True, ports=ports)


@dataclass
class Node:
    """Stands in for links and table; the records are files."""

    settings: Settings
    held: list[Lease] = field(default_factory=list)
    table: list[Forward] | None = field(default_factory=list)
    transactions: int = 0
    forgotten: list[Forward] = field(default_factory=list)
    without_alias: set[str] = field(default_factory=set)

    def look(self) -> Contents | str:
        return "gone" if self.table is None else Contents(tuple(self.table), {})

    def forwards(self) -> tuple[Forward, ...]:
        if self.table is None:
            raise NotAvailable("the table is gone")
        return tuple(self.table)

    def change(self, *, create: Sequence[Forward] = (), delete: Sequence[Forward] = ()) -> None:
        if self.table is None:
            raise SetupError("the table is gone")
        keys = {one.key for one in self.table}
        if any(one.key in keys for one in create) or any(one.key not in keys for one in delete):
            raise SetupError("exists, or does not")
        gone = {one.key for one in delete}
        self.table = [one for one in self.table if one.key not in gone] + list(create)
        self.transactions += 1

    def faults(self) -> list[Fault]:
        return port_upkeep.faults(self.settings, port_upkeep.look(self.ipr, self.settings))

    def mend(self) -> int:
        return port_upkeep.mend(self.ipr, self.settings)

    def records(self) -> set[str]:
        return set(port_records.read_all(self.settings).leftovers)

    @property
    def ipr(self) -> Any:
        return self

    def links(self) -> list[Link]:
        return [
            Link(
                number,
                IFF_UP,
                host_ifname(one.key_digest),
                GATEWAY_MAC,
                alias="mine" if one.key_digest in self.without_alias else one.alias(),
                kind="veth",
            )
            for number, one in enumerate(self.held, start=2)
        ]

    def link(self, ifname: str) -> Link | None:
        return next((link for link in self.links() if link.ifname == ifname), None)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node(Settings(node_name="one", state_dir=tmp_path / "state", run_dir=tmp_path / "run"))
    monkeypatch.setattr(port_table, "look", made.look)
    monkeypatch.setattr(port_table, "forwards", made.forwards)
    monkeypatch.setattr(port_table, "change", made.change)
    monkeypatch.setattr(host_ports, "forget_former", made.forgotten.extend)
    return made


@pytest.fixture
def two_pods(node: Node) -> Node:
    """A node as it must be."""
    for record in (WEB_RECORD, DNS_RECORD):
        port_records.write(node.settings, record)
    node.held = [lease(WEB, WEB4, WEB6), lease(DNS, DNS4), lease("c" * 32, NOBODY + 1, ports=False)]
    node.table = [*WEB_RECORD.forwards, *DNS_RECORD.forwards]
    return node


def busy(node: Node, digest: str) -> Any:
    return locks.attachment_lock(node.settings.run_dir, digest)


def test_a_node_as_it_must_be_has_no_faults_and_is_not_touched(two_pods: Node) -> None:
    assert two_pods.faults() == []
    assert two_pods.mend() == 0
    assert (two_pods.transactions, two_pods.forgotten) == (0, [])


def test_a_pod_whose_alias_somebody_edited_keeps_its_ports(two_pods: Node) -> None:
    """Its link has its name still."""
    two_pods.without_alias = {WEB}

    assert two_pods.faults() == []
    assert two_pods.mend() == 0
    assert two_pods.table == [*WEB_RECORD.forwards, *DNS_RECORD.forwards]
    assert two_pods.records() == {WEB, DNS}


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_lost_ports_are_named_and_come_back_in_one_transaction(two_pods: Node, lost: int) -> None:
    assert two_pods.table is not None
    gone, two_pods.table = two_pods.table[:lost], two_pods.table[lost:]

    faults = two_pods.faults()
    mended = two_pods.mend()

    assert {(one.part, one.found, one.weight) for one in faults} == {
        ("host ports", "closed", Weight.BROKEN)
    }
    assert faults[0].thing.startswith("port 8080/tcp")
    assert "default/web" in faults[0].thing
    assert ("port 53/udp of c2" in {one.thing for one in faults}) is (lost == 3)
    assert (mended, two_pods.transactions) == (lost, 1)
    assert set(two_pods.forgotten) == set(gone)
    assert two_pods.faults() == []


def test_a_fault_of_many_ports_is_short(node: Node) -> None:
    forwards = tuple(Forward("udp", None, port, DNS4, port, "c2") for port in range(1000, 2000))
    port_records.write(node.settings, PortRecord(DNS, "kube-system/dns", forwards))
    node.held = [lease(DNS, DNS4)]

    (fault,) = node.faults()

    assert fault.thing == (
        "port 1000/udp, port 1001/udp, port 1002/udp and 997 more of kube-system/dns"
    )


def test_without_its_table_a_node_lacks_all_ports(two_pods: Node) -> None:
    two_pods.table = None

    assert len(two_pods.faults()) == 2
    with pytest.raises(SetupError):
        two_pods.mend()


def test_what_somebody_works_on_is_left_to_them(two_pods: Node) -> None:
    two_pods.table = []
    stray = PortRecord("d" * 32, "", (STRAY,))
    port_records.write(two_pods.settings, stray)

    with busy(two_pods, WEB), busy(two_pods, stray.digest):
        during = [one.thing for one in two_pods.faults()]
        mended = two_pods.mend()

    assert during == ["port 53/udp of c2"]
    assert mended == 1
    assert two_pods.table == list(DNS_RECORD.forwards)
    assert stray.digest in two_pods.records()


def test_a_port_that_somebody_gave_away_is_said_and_not_fought_over(two_pods: Node) -> None:
    other = Forward("tcp", None, 8080, DNS4, 1, "an administrator")
    two_pods.table = [other, *DNS_RECORD.forwards]

    faults = two_pods.faults()
    two_pods.mend()

    assert [one.found for one in faults] == [f"open for {DNS4} (an administrator)", "closed"]
    assert "delete" in faults[0].todo
    assert set(two_pods.table) == {other, WEB_RECORD.forwards[1], *DNS_RECORD.forwards}


def test_ports_and_records_of_pods_that_ended_go(two_pods: Node) -> None:
    del two_pods.held[0]
    assert two_pods.table is not None
    two_pods.table.append(STRAY)

    faults = two_pods.faults()
    mended = two_pods.mend()

    assert [one.weight for one in faults] == 3 * [Weight.DEGRADED]
    assert "which no pod has" in faults[0].found
    assert mended == 3
    assert two_pods.table == list(DNS_RECORD.forwards)
    assert two_pods.records() == {DNS}


def test_a_pod_of_an_older_release_gets_its_record(two_pods: Node) -> None:
    port_records.forget(two_pods.settings, WEB)

    (fault,) = two_pods.faults()
    two_pods.mend()

    assert (fault.found, fault.weight) == ("gone", Weight.DEGRADED)
    found = port_records.find(two_pods.settings, WEB)
    assert found is not None
    assert set(found.forwards) == set(WEB_RECORD.forwards)
    assert two_pods.faults() == []


def test_a_broken_record_is_written_again_while_the_table_has_its_ports(two_pods: Node) -> None:
    path = two_pods.settings.state_dir / DIRECTORY / f"{WEB}.json"
    path.write_bytes(b"{")

    faults = two_pods.faults()
    two_pods.mend()

    assert str(path) in faults[1].thing
    assert str(path) in faults[1].todo
    assert port_records.find(two_pods.settings, WEB) is not None
    assert two_pods.faults() == []


def test_a_pod_whose_ports_nobody_knows_is_named_with_what_to_do(node: Node) -> None:
    node.held = [lease(WEB, WEB4)]

    (fault,) = node.faults()
    node.mend()

    assert "nothing else has its ports" in fault.found
    assert fault.todo == "restart the pod"
    assert node.records() == set()


def test_what_a_killed_writer_left_goes_with_the_pod(node: Node) -> None:
    port_records.setup(node.settings)
    (node.settings.state_dir / DIRECTORY / f".{WEB}.json.new").write_bytes(b"{")

    node.mend()

    assert node.records() == set()


def test_a_file_that_cannot_be_removed_is_logged_and_stops_nothing(
    two_pods: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    del two_pods.held[0]

    def refuse(*_: object) -> None:
        raise FileError("read-only file system")

    monkeypatch.setattr(port_records, "forget", refuse)

    assert two_pods.mend() == 2
    assert "record of host ports stays" in caplog.text


def opened(node: Node, record: PortRecord) -> None:
    host_ports.setup(node.ipr, node.settings, record)


def test_a_port_of_a_living_pod_is_taken_even_while_the_table_is_empty(two_pods: Node) -> None:
    two_pods.table = []
    wanted = PortRecord("d" * 32, "", (Forward("udp", WEB4, 53, NOBODY, 1, "c9"),))

    with pytest.raises(HostPortTaken, match="53/udp is taken by c2"):
        opened(two_pods, wanted)

    assert wanted.digest not in two_pods.records()


def test_records_without_a_link_are_forgotten_and_others_are_left(two_pods: Node) -> None:
    table = list(two_pods.table or ())
    two_pods.held = [lease(DNS, DNS4)]

    with busy(two_pods, WEB):
        port_upkeep.forget_all_ended(two_pods.ipr, two_pods.settings)
        while_busy = two_pods.records()
    port_upkeep.forget_all_ended(two_pods.ipr, two_pods.settings)

    assert while_busy == {WEB, DNS}
    assert two_pods.records() == {DNS}
    assert two_pods.table == table


def test_a_record_of_a_pod_that_ended_keeps_no_port(two_pods: Node) -> None:
    two_pods.table = []
    two_pods.held = []
    wanted = PortRecord("d" * 32, "", (Forward("udp", None, 53, NOBODY, 1, "c9"),))

    opened(two_pods, wanted)

    assert two_pods.table == list(wanted.forwards)
    assert wanted.digest in two_pods.records()


def test_ports_of_an_address_s_last_pod_are_closed_for_the_next(node: Node) -> None:
    node.table = [Forward("tcp", None, 1, WEB4, 1, "the last pod")]

    opened(node, WEB_RECORD)

    assert node.table == list(WEB_RECORD.forwards)
    assert node.transactions == 1


def test_another_add_that_was_faster_is_named(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(**_: object) -> None:
        node.table = [Forward("tcp", None, 8080, DNS4, 80, "the other")]
        raise SetupError("File exists")

    monkeypatch.setattr(port_table, "change", lose)

    with pytest.raises(HostPortTaken, match="taken by the other"):
        opened(node, WEB_RECORD)


def test_a_table_that_refuses_is_told(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise SetupError("no memory")

    monkeypatch.setattr(port_table, "change", refuse)

    with pytest.raises(SetupError, match="no memory"):
        opened(node, WEB_RECORD)


def test_ports_that_were_opened_are_closed_again(node: Node) -> None:
    opened(node, WEB_RECORD)

    for _ in range(2):
        host_ports.teardown(node.settings, WEB_RECORD)

    assert node.table == []
    assert node.records() == set()


def test_another_del_that_was_faster_is_no_error(
    two_pods: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = two_pods.change

    def lose(*, delete: Sequence[Forward], **_: object) -> None:
        monkeypatch.setattr(port_table, "change", change)
        change(delete=delete[:1])
        change(delete=delete)

    monkeypatch.setattr(port_table, "change", lose)

    host_ports.close([WEB4, WEB6])

    assert two_pods.table == list(DNS_RECORD.forwards)


@pytest.mark.usefixtures("two_pods")
def test_a_table_that_keeps_its_ports_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise SetupError("no memory")

    monkeypatch.setattr(port_table, "change", refuse)

    with pytest.raises(SetupError, match="no memory"):
        host_ports.close([WEB4])


def _alias_edited(node: Node) -> None:
    node.without_alias.add(WEB)


def _record_written_again(node: Node) -> None:
    port_records.write(node.settings, WEB_RECORD)


def _record_edited_in_place(node: Node) -> None:
    (path,) = port_records.marks(node.settings)
    path.write_bytes(path.read_bytes() + b" ")


def _file_of_others(node: Node) -> None:
    (node.settings.state_dir / DIRECTORY / "notes").touch()


def _pod_gone(node: Node) -> None:
    node.held.pop()


@pytest.mark.parametrize(
    "change",
    [_alias_edited, _record_written_again, _record_edited_in_place, _file_of_others, _pod_gone],
)
def test_what_a_look_sees_is_another_state(node: Node, change: Callable[[Node], None]) -> None:
    node.held = [lease(WEB, WEB4, WEB6)]
    port_records.setup(node.settings)
    port_records.write(node.settings, WEB_RECORD)
    time.sleep(2 * TICK / 1e9)  # the clock of files stands still for a moment
    before = port_upkeep.state(node.links(), node.settings)
    assert port_upkeep.state(node.links(), node.settings) == before

    change(node)

    assert port_upkeep.state(node.links(), node.settings) != before


@pytest.mark.parametrize("recorded", [True, False])
def test_the_end_of_an_attachments_work_is_another_state(node: Node, recorded: bool) -> None:
    """What is not told while somebody works on it is told when that one was killed."""
    node.held = [] if recorded else [lease(WEB, WEB4)]
    port_records.setup(node.settings)
    if recorded:
        port_records.write(node.settings, WEB_RECORD)
        node.table = list(WEB_RECORD.forwards)
    time.sleep(2 * TICK / 1e9)
    with locks.attachment_lock(node.settings.run_dir, WEB, timeout=0):
        busy = port_upkeep.state(node.links(), node.settings)
        assert node.faults() == []

    assert port_upkeep.state(node.links(), node.settings) != busy
    assert node.faults() != []


@pytest.mark.parametrize("killed", [False, True])
def test_work_that_began_and_ended_since_is_another_state(node: Node, killed: bool) -> None:
    """A look in between has told nothing of that attachment, though all is as before and after."""

    def work() -> None:
        if child := os.fork():
            os.waitpid(child, 0)
            return
        try:
            with locks.attachment_lock(node.settings.run_dir, WEB, timeout=0):
                if killed:
                    os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(0)

    node.held = [lease(WEB, WEB4)]
    port_records.setup(node.settings)
    work()
    time.sleep(2 * TICK / 1e9)
    before = port_upkeep.state(node.links(), node.settings)
    assert port_upkeep.state(node.links(), node.settings) == before

    work()

    assert port_upkeep.state(node.links(), node.settings) != before
