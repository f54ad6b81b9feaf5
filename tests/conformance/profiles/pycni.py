# SPDX-License-Identifier: Apache-2.0
"""P: what pycni promises beyond the specification: its codes, and its agent and tables damaged.

`${SANDBOX}/pycni.json`, written by subjects/pycni_node.py, tells where its parts are.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from conformance import call, namespaces, traffic
from conformance.bench import Bench, Pod, addresses_of, bare, host_link
from conformance.call import refused, silent, succeeded
from conformance.netlink import Rtnl
from conformance.patience import patient
from conformance.registry import VERSIONS, Function
from conformance.registry import case as any_case
from conformance.runtime import Attachment
from conformance.subject import SANDBOX

PROFILE = "pycni"
OVERLAY = "pycni0"
CLSACT = 0xFFFF0000, 0xFFFFFFF1
"""Handle and parent."""

UNKNOWN_CONTAINER, INVALID_NETNS = 3, 8
NOT_AVAILABLE, LIMITED = 50, 51
INTERFACE_EXISTS, DUPLICATE, EXHAUSTED, MISMATCH = 100, 101, 102, 105
PORT_IN_USE, UNAVAILABLE = 103, 104
DEADLINE = patient(15.0)


def case(identifier: str, title: str, **parameters: Any) -> Callable[[Function], Function]:
    return any_case(identifier, title, profile=PROFILE, **parameters)


def _node() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SANDBOX / "pycni.json").read_bytes())
    return found


@contextmanager
def without_agent() -> Iterator[None]:
    """The agent is killed, and started again afterwards."""
    node = _node()
    os.kill(node["agent"], signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(node["agent"], 0)
    _until(lambda: not _listens(node["socket"]), "the agent ends")
    try:
        yield
    finally:
        with Path(SANDBOX / "agent.log").open("ab") as log:
            agent = subprocess.Popen(
                node["command"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        agent.returncode = 0  # kept on purpose
        (SANDBOX / "pycni.json").write_text(json.dumps({**node, "agent": agent.pid}))
        _until(lambda: _listens(node["socket"]), "the agent serves")


@case("P1", "it speaks all versions of the specification")
def versions(bench: Bench) -> None:
    missing = set(VERSIONS) - set(bench.world.versions)

    assert not missing, f"VERSION does not list {', '.join(sorted(missing))}"


@case("P2", "without an agent every verb works")
def verbs_without_agent(bench: Bench) -> None:
    _, other = bench.attached()
    pod = bench.pod()
    attachment = bench.attachment(pod)
    with without_agent():
        attachment.attach()
        answers(attachment)
        answers(other)
        silent(attachment.check())
        succeeded(attachment.call("VERSION"))
        attachment.detach()
        attachment.detach()
    assert pod.link() is None, "the interface is still in the pod"


@case("P3", "an agent that comes back finds what was attached before and without it")
def agent_comes_back(bench: Bench) -> None:
    _, before = bench.attached()
    between = bench.attachment(bench.pod())
    with without_agent():
        between.attach()

    for one in (before, between):
        answers(one)
        silent(one.check())
        one.detach()


@case("P4", "a namespace that ended while the agent was away leaves nothing once it is back")
def orphan(bench: Bench) -> None:
    with bench.unchanged():
        pod, attachment = bench.attached()
        with without_agent():
            namespaces.remove(pod.path)
    attachment.result = None


def _no_programs(pod: Pod, attachment: Attachment) -> None:
    script = (
        "import sys; from pycni.kernel.rtnl import Rtnl; from loader import attach\n"
        "from loader.hooks import Hook\n"
        "with Rtnl() as ipr:\n"
        "    attach.detach(ipr, Hook(int(sys.argv[1]), 'to_container'))\n"
    )
    command = [_node()["python"], "-c", script, str(host_link(attachment, pod).index)]
    subprocess.run(command, check=True, timeout=call.TIMEOUT)


def _no_entry(_: Pod, attachment: Attachment) -> None:
    assert attachment.result is not None
    node = _node()
    script = (
        "import sys; from ipaddress import ip_address; from pathlib import Path\n"
        "from pycni.dataplane import maps\n"
        "with maps.open_endpoints(Path(sys.argv[1])) as table:\n"
        "    table.remove(ip_address(sys.argv[2]))\n"
    )
    command = [node["python"], "-c", script, node["pin_root"], bare(attachment.result)[0]]
    subprocess.run(command, check=True, timeout=call.TIMEOUT)


@case("P5", "CHECK finds the dataplane damaged",
      over={"programs detached": _no_programs, "map entry gone": _no_entry})  # fmt: skip
def dataplane_damaged(bench: Bench, damage: Any) -> None:
    pod, attachment = bench.attached()
    with without_agent():  # it would mend this
        damage(pod, attachment)

        refused(attachment.check(), MISMATCH)


@case("P6", "a second ADD fails with 101, a stranger's interface with 100, CHECK of nothing with 3")
def codes(bench: Bench) -> None:
    pod, attachment = bench.attached()
    again = bench.attachment(pod, container_id=attachment.container_id)
    other = bench.attachment(pod)

    refused(again.call("ADD"), DUPLICATE)
    refused(other.call("ADD"), INTERFACE_EXISTS)
    refused(other.call("CHECK", conf={"prevResult": attachment.result}), UNKNOWN_CONTAINER)


@case("P7", "CHECK says 105 for a difference, and ADD 8 for what is no namespace")
def more_codes(bench: Bench) -> None:
    pod, attachment = bench.attached()
    with Rtnl(pod.path) as rtnl:
        rtnl.set_link(pod.its().index, up=False)

    refused(attachment.check(), MISMATCH)
    refused(bench.attachment().call("ADD"), INVALID_NETNS)
    refused(bench.attachment(netns="/proc/self/ns/net").call("ADD"), INVALID_NETNS)


@case("P8", "an address that is taken fails with 104, a host port with 103")
def requests_refused(bench: Bench) -> None:
    ips, ports = bench.declares("ips"), bench.declares("portMappings")
    _, first = bench.attached(network=ips)
    assert first.result is not None
    wanted = {"ips": [addresses_of(first.result)[0]]}
    refused(
        bench.attachment(bench.pod(), network=ips, capabilities=wanted).call("ADD"), UNAVAILABLE
    )

    mapping = {"hostPort": 18555, "containerPort": 80, "protocol": "tcp"}
    mapped = {"portMappings": [mapping]}
    bench.attached(network=ports, capabilities=mapped)
    second = bench.attachment(bench.pod(), network=ports, capabilities=mapped)
    refused(second.call("ADD"), PORT_IN_USE)


@case("P9", "STATUS says 50 when the node's record is away, and is well again when it is back")
def not_set_up(bench: Bench) -> None:
    record = Path(_node()["state_dir"], "node.json")
    hidden = record.with_name("away")
    record.rename(hidden)
    try:
        refused(bench.node("STATUS"), NOT_AVAILABLE, LIMITED)
    finally:
        hidden.rename(record)
    silent(bench.node("STATUS"))


@case("P10", "STATUS fails when the overlay is down, and succeeds when it is up again")
def overlay_down(bench: Bench) -> None:
    with Rtnl() as rtnl:
        link = rtnl.link(OVERLAY)
        assert link is not None
        routes = [one for one in rtnl.routes() if one.index == link.index and one.table == 254]
        assert routes
        bench.needs("1.1.0", "STATUS")
        rtnl.set_link(link.index, up=False)
        try:
            refused(bench.node("STATUS"), NOT_AVAILABLE, LIMITED)
        finally:
            subprocess.run(
                _node()["setup"], check=True, timeout=2 * call.TIMEOUT, stdout=subprocess.DEVNULL
            )
    silent(bench.node("STATUS"))


@case("P11", "without an agent STATUS and GC work")
def node_verbs_without_agent(bench: Bench) -> None:
    bench.needs("1.1.0", "GC")
    pod, stale = bench.attached(version="1.1.0")
    with without_agent():
        silent(bench.node("STATUS"))
        silent(bench.node("GC", conf={"cni.dev/valid-attachments": []}))
    assert pod.link() is None, "a stale attachment's interface is still in its pod"
    stale.result = None


def answers(attachment: Attachment) -> None:
    assert attachment.result is not None
    for address in bare(attachment.result):
        assert traffic.pings(None, address), f"{address} does not answer"


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        return agent.connect_ex(path) == 0


def _until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE} s: {what}"
        time.sleep(0.02)
