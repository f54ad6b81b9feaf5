# SPDX-License-Identifier: Apache-2.0
"""Host ports of living pods outlive what happens to the tables; those of dead pods do not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from pycni.faults import Fault
from pycni.kernel import nft
from pycni.kernel.rtnl import Rtnl
from pycni.lab import cluster
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode, Pod
from pycni.node.record import Node
from pycni.pods import port_records, port_table
from pycni.settings import load
from pycni.upkeep import book
from pycni.upkeep import host_ports as ports
from support import flows
from support.flows import answering
from support.labs import agent_hung, made_lab, made_pod, setup, teardown, within
from support.plugin import Reply, execute
from support.snapshot import differences, take
from support.waiting import wait_until, wait_until_none
from support.wellness import is_well

HOST_PORT, POD_PORT = 18090, 8000
PORTS = {
    "portMappings": [
        {"hostPort": HOST_PORT, "containerPort": POD_PORT, "protocol": "tcp"},
        {"hostPort": HOST_PORT, "containerPort": POD_PORT, "protocol": "udp"},
    ]
}
POD_ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0"
FLUSHES = {
    "all tables": "flush ruleset",
    "our table": f"delete table inet {port_table.TABLE}",
    "our rules": f"flush table inet {port_table.TABLE}",
    "one chain": f"flush chain inet {port_table.TABLE} ports",
    "our elements": f"flush map inet {port_table.TABLE} any4; "
    f"flush map inet {port_table.TABLE} any6",
}

QUICKLY = 5.0
"""Seconds for a thousand ports on a busy test machine; on one that is not, less than one."""

both_ways = pytest.mark.parametrize("alone", [False, True], ids=["by the agent", "without one"])


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab of its own: the tables of the others are not to be flushed."""
    with made_lab(nodes=1, pods=1) as made:
        yield made


@pytest.fixture
def node(lab: Lab) -> Iterator[LabNode]:
    found = lab.layout.nodes[0]
    book.close(load(found.settings_path))  # the tests flush one after the other, as in a quarrel
    wait_until(lambda: is_well(found), "the agent has mended what a test before has flushed")
    yield found
    mend(found)


@pytest.fixture
def web(lab: Lab, node: LabNode) -> Iterator[Pod]:
    """A pod with host ports and servers behind them."""
    with made_pod(lab, node) as pod:
        reply = add(lab, pod)
        assert reply.status == 0, reply.text
        with serving(pod, reply):
            yield pod
        assert execute(lab, pod, "DEL").status == 0


def add(lab: Lab, pod: Pod, **options: Any) -> Reply:
    return execute(lab, pod, "ADD", runtimeConfig=PORTS, env={"CNI_ARGS": POD_ARGS}, **options)


@contextmanager
def serving(pod: Pod, reply: Reply) -> Iterator[None]:
    first = next(one for one in reply.addresses if ip_address(one).version == 4)
    with (
        answering(pod.netns, first, POD_PORT, protocol="tcp"),
        answering(pod.netns, first, POD_PORT, protocol="udp"),
    ):
        yield


def answers(lab: Lab, protocol: str = "tcp") -> bool:
    node = lab.layout.nodes[0]
    target = next(str(one.ip) for one in node.underlay if one.version == 4)
    found = flows.ask(lab.layout.underlay_netns, target, HOST_PORT, protocol=protocol)
    return found is not None


def flush(node: LabNode, commands: str) -> None:
    within(node.netns, lambda: nft.run(commands, what="somebody's firewall"))


def on(node: LabNode, work: Callable[[Rtnl, Any, Node], Any]) -> Any:
    """What the keeper of a node calls, in its namespace."""
    settings = load(node.settings_path)

    def do() -> Any:
        with Rtnl() as rtnl:
            return work(rtnl, settings, Node.load(settings))

    return within(node.netns, do)


def mend(node: LabNode) -> int:
    changed: int = on(node, ports.mend)
    return changed


def faults(node: LabNode) -> list[Fault]:
    found: list[Fault] = on(node, ports.faults)
    return found


def recorded(node: LabNode) -> list[Path]:
    return list((load(node.settings_path).state_dir / port_records.DIRECTORY).iterdir())


@pytest.mark.usefixtures("web")
@pytest.mark.parametrize("commands", FLUSHES.values(), ids=FLUSHES)
def test_what_a_firewall_flushed_is_named_and_comes_back(
    lab: Lab, node: LabNode, commands: str
) -> None:
    before = [faults(node), answers(lab)]

    with agent_hung(lab, node):
        flush(node, commands)
        found, answered = faults(node), answers(lab)
        mend(node)
        mended = [faults(node), answers(lab), answers(lab, "udp")]

    assert before == [[], True]
    assert found != []
    assert {one.part for one in found} == {"host ports"}
    assert not answered
    assert mended == [[], True, True]


@pytest.mark.usefixtures("web")
def test_a_udp_client_that_went_on_sending_finds_the_pod_again(lab: Lab, node: LabNode) -> None:
    target = next(str(one.ip) for one in node.underlay if one.version == 4)
    with (
        agent_hung(lab, node),
        flows.running(lab.layout.underlay_netns, "keep", target, HOST_PORT) as client,
    ):
        flush(node, FLUSHES["our elements"])
        assert client.heard() == "ready"
        client.tell()
        lost = client.heard()

        mend(node)
        client.tell()

        assert (lost, client.heard() is not None) == (None, True)


@pytest.mark.usefixtures("web")
def test_a_starting_agent_puts_back_what_was_lost_without_one(lab: Lab, node: LabNode) -> None:
    lab.stop_agent(node, kill=True)
    flush(node, FLUSHES["all tables"])

    lab.start_agent(node)
    cluster.wait_for_agent(lab, node)

    assert faults(node) == []
    wait_until(lambda: answers(lab), "the pod answers")


@both_ways
def test_a_pod_is_deleted_and_another_added_while_the_table_is_gone(
    lab: Lab, node: LabNode, web: Pod, alone: bool
) -> None:
    """The first pod's port is its own until its DEL; the second makes the table again."""
    with made_pod(lab, node) as other, made_pod(lab, node) as third:
        flush(node, FLUSHES["all tables"])
        refused = add(lab, other, alone=alone)
        deleted = execute(lab, web, "DEL", alone=alone)
        added = add(lab, other, alone=alone)

        assert refused.document["code"] == 103, refused.text
        assert (deleted.status, added.status) == (0, 0), added.text
        assert [one.thing for one in faults(node)] == []
        assert add(lab, third).document["code"] == 103
        assert execute(lab, other, "DEL", alone=alone).status == 0
    assert recorded(node) == []
    assert add(lab, web).status == 0


def test_a_pod_without_host_ports_writes_no_record(lab: Lab, node: LabNode) -> None:
    with made_pod(lab, node) as pod:
        assert execute(lab, pod, "ADD").status == 0

        assert recorded(node) == []
        assert execute(lab, pod, "DEL").status == 0


def test_ports_name_the_pod(lab: Lab, node: LabNode, web: Pod) -> None:
    found = [row for row in lab.pycni(node, "ports") if row["port"] == HOST_PORT]

    assert {row["pod_name"] for row in found} == {"default/web-0"}
    assert {row["container"] for row in found} == {web.name}


def test_pods_of_a_release_without_records_are_taken_over_by_setup(
    lab: Lab, node: LabNode, web: Pod
) -> None:
    """That release has its ports in the table alone, under rules without marks."""
    for path in recorded(node):
        path.unlink()
    (load(node.settings_path).state_dir / port_records.DIRECTORY).rmdir()

    setup(node)
    (record,) = recorded(node)
    flush(node, FLUSHES["all tables"])
    mend(node)

    assert json.loads(record.read_bytes())["owner"] == web.name
    assert answers(lab)


@pytest.mark.parametrize("way", ["DEL", "GC", "its namespace ends", "a flush, then DEL"])
def test_with_the_pod_its_record_and_its_ports_end(lab: Lab, node: LabNode, way: str) -> None:
    before = take(node)
    with made_pod(lab, node) as pod:
        assert add(lab, pod).status == 0
        opened = differences(before, take(node))
        match way:
            case "DEL":
                assert execute(lab, pod, "DEL").status == 0
            case "GC":
                kept = [{"containerID": one.name, "ifname": "eth0"} for one in lab.layout.pods]
                valid: dict[str, Any] = {"cni.dev/valid-attachments": kept}
                gone = execute(lab, pod, "GC", cniVersion="1.1.0", **valid)
                assert gone.status == 0, gone.text
            case "a flush, then DEL":
                on(node, lambda *_: port_table.change(delete=port_table.forwards()))
                assert execute(lab, pod, "DEL").status == 0

    def changes() -> list[str]:
        mend(node)
        return differences(before, take(node))

    assert any("nft" in line for line in opened)
    assert any("files" in line for line in opened)
    wait_until_none(changes)  # a namespace ends some time after its last name


def test_an_add_that_is_refused_leaves_neither_record_nor_port(
    lab: Lab, node: LabNode, web: Pod
) -> None:
    with made_pod(lab, node) as pod:
        before = take(node)

        refused = add(lab, pod)

        assert web.name in refused.text
        assert differences(before, take(node)) == []


@pytest.mark.usefixtures("web")
def test_a_record_that_cannot_be_written_fails_the_add_and_leaves_nothing(
    lab: Lab, node: LabNode
) -> None:
    directory = load(node.settings_path).state_dir / port_records.DIRECTORY
    aside = directory.rename(directory.with_name("aside"))
    directory.touch()
    try:
        with made_pod(lab, node) as pod:
            before = take(node)
            config = {"portMappings": [{"hostPort": HOST_PORT + 1, "containerPort": 1}]}

            failed = execute(lab, pod, "ADD", runtimeConfig=config)

            assert (failed.status, failed.document["code"]) == (1, 5), failed.text
            assert str(directory) in failed.text
            assert differences(before, take(node)) == []
    finally:
        directory.unlink()
        aside.rename(directory)


def test_a_thousand_ports_are_opened_kept_and_closed(lab: Lab, node: LabNode) -> None:
    config = {
        "portMappings": [
            {"hostPort": port, "containerPort": port, "protocol": "udp"}
            for port in range(20000, 21000)
        ]
    }
    before = take(node)
    with made_pod(lab, node) as pod:
        begin = time.monotonic()
        added = execute(lab, pod, "ADD", runtimeConfig=config)
        adding = time.monotonic() - begin
        with agent_hung(lab, node):
            flush(node, FLUSHES["all tables"])
            found = faults(node)
            changed = mend(node)
        begin = time.monotonic()
        deleted = execute(lab, pod, "DEL")
        deleting = time.monotonic() - begin

    assert (added.status, deleted.status) == (0, 0), added.text + deleted.text
    assert (adding < QUICKLY, deleting < QUICKLY) == (True, True), (adding, deleting)
    assert changed == 2000
    assert any("and 1997 more of" in one.thing for one in found)
    # the agent, awake again, mends the other tables
    wait_until_none(lambda: differences(before, take(node)))


def test_teardown_leaves_no_record(lab: Lab, node: LabNode, web: Pod) -> None:
    state = load(node.settings_path).state_dir
    lab.stop_agent(node)

    teardown(node)

    assert not (state / port_records.DIRECTORY).exists()
    lab.start_agent(node)
    cluster.wait_for_agent(lab, node)
    assert execute(lab, web, "DEL").status == 0
    assert add(lab, web).status == 0
