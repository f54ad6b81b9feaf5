# SPDX-License-Identifier: Apache-2.0
"""The command line on a node: every noun in both forms, with the agent alive and dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from ipaddress import ip_address, ip_network

import pytest

from pycni.lab import cluster, processes, topology
from pycni.lab.cluster import Lab, pycni_command
from pycni.lab.layout import POD_IFNAME, LabNode, Pod
from pycni.names import NAME_HEAD
from support.flood import unanswered
from support.flows import send_frames
from support.labs import drops, made_lab, made_pod, prepared_lab, pycni, rows, setup
from support.plugin import execute
from support.waiting import wait_until

NOUNS = {
    ("status",): {"name", "state", "cause"},
    ("endpoints",): {"address", "container", "host_interface", "mac", "masquerade"},
    ("ports",): {"port", "protocol", "address", "pod", "pod_port", "container"},
    ("nodes",): {"name", "id", "vtep", "pod_cidrs", "agent"},
    ("maps", "list"): {"name", "type", "entries", "max_entries", "pin"},
    ("maps", "dump", "endpoints"): {"address", "ifindex", "mac", "masquerade"},
    ("maps", "dump", "remotes"): {"prefix", "vtep"},
    ("maps", "dump", "vteps"): {"vtep", "node"},
    ("maps", "dump", "drops"): {"reason", "program", "packets", "bytes"},
    ("maps", "dump", "forwarded"): {"program", "path", "packets", "bytes"},
    ("drops",): {"reason", "program", "packets", "bytes", "normal"},
}
HOST_PORT = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
SPOOFED = bytes.fromhex("02707963 6e690200 00000099 0800".replace(" ", "")) + bytes.fromhex(
    "45000014 00000000 40010000 c0000207 0af40002".replace(" ", "")
)
"""IPv4 from 192.0.2.7, which no pod has."""

BROKEN = 2
"""Exit status of `pycni status`."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with made_lab(nodes=2, pods=2) as made:
        pod, *_, other = made.layout.pods
        send_frames(pod.netns, POD_IFNAME, [SPOOFED])
        assert unanswered(made, pod.netns, made.addresses(other)) == []
        yield made


@contextmanager
def agent_dead(lab: Lab) -> Iterator[None]:
    node = lab.layout.nodes[0]
    lab.stop_agent(node, kill=True)
    try:
        yield
    finally:
        lab.start_agent(node)
        cluster.wait_for_agent(lab, node)


@contextmanager
def host_port_open(lab: Lab) -> Iterator[None]:
    with made_pod(lab, lab.layout.nodes[0]) as pod:
        assert execute(lab, pod, "ADD", runtimeConfig=HOST_PORT).status == 0
        yield
        assert execute(lab, pod, "DEL").status == 0


def test_every_noun_speaks_json_and_tables_with_the_agent_alive_and_dead(lab: Lab) -> None:
    node = lab.layout.nodes[0]

    def both_forms(noun: tuple[str, ...]) -> tuple[tuple[str, ...], int, set[str], str]:
        table, document = pycni(node, *noun), pycni(node, *noun, "-o", "json")
        assert (table.stderr, document.stderr) == (b"", b"")
        assert table.returncode == document.returncode
        found = json.loads(document.stdout)
        assert found, noun
        return noun, table.returncode, found[0].keys(), table.stdout.decode()

    with ThreadPoolExecutor(4) as pool, host_port_open(lab):
        alive = list(pool.map(both_forms, NOUNS))
        with agent_dead(lab):
            dead = list(pool.map(both_forms, NOUNS))

    for noun, status, keys, table in [*alive, *dead]:
        assert status < BROKEN, noun  # without an agent a node is degraded
        assert keys >= NOUNS[noun]
        assert all(key.replace("_", " ").upper() in table for key in NOUNS[noun]), table


def test_remotes_are_one_entry_per_remote_node_and_family(lab: Lab) -> None:
    node, other = lab.layout.nodes

    remotes = rows(lab, node, "remotes")

    assert sorted(ip_network(row["prefix"]).version for row in remotes) == [4, 6]
    assert {ip_address(row["vtep"]) for row in remotes} == {other.underlay[0].ip}


def test_endpoints_are_one_entry_per_local_pod_and_family(lab: Lab) -> None:
    node = lab.layout.nodes[0]

    found = {(row["container"], row["address"]) for row in lab.pycni(node, "endpoints")}

    assert found == {(pod.name, address) for pod in node.pods for address in lab.addresses(pod)}


def test_the_form_is_chosen_before_or_after_the_noun(lab: Lab) -> None:
    node = lab.layout.nodes[0]

    before, after = pycni(node, "-o", "json", "endpoints"), pycni(node, "endpoints", "-o", "json")

    assert json.loads(before.stdout) == json.loads(after.stdout)


def test_nodes_are_the_stores(lab: Lab) -> None:
    found = lab.pycni(lab.layout.nodes[0], "nodes")

    assert [(row["name"], row["agent"]) for row in found] == [
        ("node1", "alive"),
        ("node2", "alive"),
    ]


def test_drops_name_their_reasons(lab: Lab) -> None:
    counted = drops(lab, lab.layout.nodes[0])

    assert counted[("SPOOFED_SOURCE", "from_container")] == 1


@contextmanager
def follower(node: LabNode, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`pycni drops --follow` on a node, with nothing read of it yet."""
    command = processes.inside(node.netns, pycni_command(node, "drops", "--follow", *options))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        try:
            yield process
        finally:
            process.kill()


def hear(process: subprocess.Popen[bytes], pod: Pod, word: bytes) -> bytes:
    """Send what is dropped until the follower tells of it: one of 16 drops is an event."""
    lines: list[bytes] = []
    assert process.stdout is not None
    output = process.stdout

    def heard() -> bool:
        send_frames(pod.netns, POD_IFNAME, [SPOOFED] * 16)
        lines.extend((output.read() or b"").splitlines())
        return any(word in line for line in lines)

    wait_until(heard, "an event")
    return next(line for line in lines if word in line)


def test_forwarded_packets_are_counted_where_they_leave_and_where_they_arrive(lab: Lab) -> None:
    here, there = lab.layout.nodes
    sender, receiver = here.pods[0], there.pods[0]

    def counted() -> tuple[int, int]:
        left, arrived = (rows(lab, node, "forwarded") for node in (here, there))
        to_nodes = ("NODE", "DEVICE")
        return (
            sum(
                row["packets"]
                for row in left
                if row["program"] == "from_container" and row["path"] in to_nodes
            ),
            sum(row["packets"] for row in arrived if row["path"] == "POD"),
        )

    before = counted()
    answers = lab.peer(sender.netns, "echo", *lab.addresses(receiver))
    after = counted()

    sent = sum(one["sent"] for one in answers)
    assert sent > 0
    assert [now - then for now, then in zip(after, before, strict=True)] == [sent, sent]


def test_drops_are_followed_as_they_happen(lab: Lab) -> None:
    pod = lab.layout.pods[1]

    with follower(lab.layout.node(pod.node), "-o", "json") as process:
        event = json.loads(hear(process, pod, b"SPOOFED_SOURCE"))

    assert event["program"] == "from_container"
    assert event["interface"].startswith(NAME_HEAD)
    assert bytes.fromhex(event["head"]) == SPOOFED
    assert abs(datetime.fromisoformat(event["time"]).timestamp() - time.time()) < 60


def test_a_follower_ends_well_by_ctrl_c(lab: Lab) -> None:
    pod = lab.layout.pods[0]

    with follower(lab.layout.node(pod.node)) as process:
        line = hear(process, pod, b"SPOOFED_SOURCE")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)

    assert b" from_container SPOOFED_SOURCE interface=" in line
    assert (process.returncode, errors) == (0, b"")


def test_the_agent_in_the_foreground_ends_well_by_ctrl_c() -> None:
    with prepared_lab(nodes=1) as lab:
        (node,) = lab.layout.nodes
        lab.start_agent(node)
        cluster.wait_for_agent(lab, node)
        lab.stop_agent(node)
        command = processes.inside(node.netns, pycni_command(node, "agent"))
        with subprocess.Popen(command, stderr=subprocess.PIPE) as agent:
            socket_path = node.directory / "run" / "agent.sock"
            wait_until(socket_path.exists, "the agent serves")
            agent.send_signal(signal.SIGINT)
            agent.communicate(timeout=20)

    assert agent.returncode == 0


def test_exit_statuses_tell_wrong_usage_from_failure(lab: Lab) -> None:
    node = lab.layout.nodes[0]

    assert pycni(node, "frobnicate").returncode == 2
    assert pycni(node, "maps", "dump", "nothing").returncode == 2
    assert pycni(node, "status", "-o", "xml").returncode == 2
    assert pycni(node, "forget", "nobody").returncode == 1
    assert pycni(node, "--help").returncode == 0


def test_who_cannot_be_told_is_no_crash_and_no_failed_setup(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    for words, status in (
        ("-o json status > /dev/full", 1),
        ("-o json forget nobody > /dev/full", 1),
        ("forget nobody 2> /dev/full", 1),
        ("setup 2> /dev/full", 0),
    ):
        command = " ".join(map(str, pycni_command(node)))
        done = processes.run(node.netns, ["sh", "-c", f"{command} {words}"])

        assert done.returncode == status, done.stderr.decode()
        assert b"Traceback" not in done.stderr
        assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize("form", [("-o", "json", "forget", "nobody"), ("forget", "nobody", "-o",
                                  "json")])  # fmt: skip
def test_an_error_is_json_where_json_is_asked_for(lab: Lab, form: tuple[str, ...]) -> None:
    failed = pycni(lab.layout.nodes[0], *form)

    assert failed.returncode == 1
    assert failed.stderr == b""
    error = json.loads(failed.stdout)["error"]
    assert error["message"] == "the cluster has no node nobody"
    assert error.keys() == {"message", "details", "hint", "code"}


def test_what_others_wrote_into_an_alias_is_not_obeyed(lab: Lab) -> None:
    """An alias is text that anybody with CAP_NET_ADMIN may write; so is a container ID."""
    node, evil = lab.layout.nodes[0], "evil\x1b[2J"
    (row, *_) = lab.pycni(node, "endpoints")
    with topology.open_rtnl(node.netns) as ipr:
        link = ipr.link(row["host_interface"])
        assert link is not None
        ipr.set_up(link.ifindex, alias=link.alias.replace(row["container"], evil))
        try:
            shown = pycni(node, "endpoints").stdout
            document = pycni(node, "endpoints", "-o", "json").stdout
        finally:
            ipr.set_up(link.ifindex, alias=link.alias)

    assert b"\x1b" not in shown + document
    assert rb"evil\x1b[2J" in shown
    assert evil in {one["container"] for one in json.loads(document)}


LACKING = {
    "CAP_NET_ADMIN": ("net_admin", ("setup",)),
    "CAP_BPF": ("bpf,-sys_admin", ("endpoints",)),
    "CAP_SYS_ADMIN": ("sys_admin", ("status",)),
}


@pytest.mark.parametrize("capability", LACKING)
def test_root_without_a_capability_is_told_which(lab: Lab, capability: str) -> None:
    dropped, command = LACKING[capability]

    failed = deprived(lab.layout.nodes[0], (f"--bounding-set=-{dropped}",), command)

    assert failed.returncode == 1
    assert f"`python -m pycni {command[0]}` needs CAP_" in failed.stderr
    assert capability in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("command", ["setup", "teardown", "agent", "status", "endpoints", "ports",
                                     "drops"])  # fmt: skip
def test_another_user_is_told_to_be_root(lab: Lab, command: str) -> None:
    """With what it takes to read this tree, wherever it is."""
    options = ("--reuid=65534", "--clear-groups", "--inh-caps=+dac_read_search",
               "--ambient-caps=+dac_read_search")  # fmt: skip
    yes = ("--yes",) if command == "teardown" else ()

    failed = deprived(lab.layout.nodes[0], options, (command, *yes))

    assert failed.returncode == 1
    assert f"`python -m pycni {command}` needs root" in failed.stderr
    assert "to do: run it as root" in failed.stderr


def deprived(
    node: LabNode, options: Sequence[str], command: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """The CLI on a node, with less privilege than a test has: options of setpriv(1)."""
    argv = processes.inside(node.netns, ("setpriv", *options, *pycni_command(node, *command)))
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_a_node_without_its_store_is_degraded_not_dead(lab: Lab) -> None:
    """So a probe that restarts what is dead leaves it alone."""
    node = lab.layout.nodes[0]
    store = lab.layout.directory / "store"
    store.rename(store.with_name("away"))
    try:
        done = pycni(node, "status", "-o", "json")
    finally:
        store.with_name("away").rename(store)

    (row,) = [row for row in json.loads(done.stdout) if row["name"] == "store"]
    assert (row["state"], done.returncode) == ("degraded", 1)


@pytest.mark.parametrize("change", [["set", "pycni0", "down"], ["del", "pycni0"]])
def test_a_node_whose_device_is_broken_does_not_forward(change: list[str]) -> None:
    """`pycni status` and the plugin's STATUS say it in the same words."""
    with prepared_lab(nodes=1) as lab:
        (node,) = lab.layout.nodes
        setup(node)
        processes.run(node.netns, ["ip", "link", *change])
        with made_pod(lab, node) as pod:
            plugin = execute(lab, pod, "STATUS", alone=True, cniVersion="1.1.0")

        status = pycni(node, "status", "-o", "json")

    (row,) = [row for row in json.loads(status.stdout) if row["name"] == "device pycni0"]
    assert (status.returncode, row["state"]) == (2, "broken")
    assert "pycni setup" in row["to_do"]
    assert plugin.document["code"] == 50
    assert plugin.document["msg"] == row["cause"]


@pytest.mark.parametrize("noun", [noun for noun in NOUNS if noun not in (("status",), ("nodes",))])
def test_nouns_say_that_a_host_is_no_node(bare: Lab, noun: tuple[str, ...]) -> None:
    failed = pycni(bare.layout.nodes[0], *noun)

    assert failed.returncode == 1
    assert failed.stdout == b""
    assert b"pycni setup" in failed.stderr
    assert b"Traceback" not in failed.stderr


def test_status_of_a_host_that_is_no_node_says_what_it_lacks(bare: Lab) -> None:
    failed = pycni(bare.layout.nodes[0], "status")

    assert failed.returncode == BROKEN
    assert b"not set up" in failed.stdout
    assert b"Traceback" not in failed.stderr


def test_nodes_without_a_store_is_an_error(bare: Lab) -> None:
    failed = pycni(bare.layout.nodes[0], "nodes")

    assert failed.returncode == 1
    assert b"cluster.db" in failed.stderr


def test_teardown_asks_first() -> None:
    with prepared_lab(nodes=1) as lab:
        (node,) = lab.layout.nodes
        setup(node)

        unanswered = pycni(node, "teardown")
        unanswered_json = pycni(node, "teardown", "-o", "json")

        assert unanswered.returncode == unanswered_json.returncode == 1
        assert b"nothing was changed" in unanswered.stderr
        assert "nothing was changed" in json.loads(unanswered_json.stdout)["error"]["message"]
        assert pycni(node, "status").returncode != BROKEN


@pytest.fixture(scope="module")
def bare() -> Iterator[Lab]:
    with prepared_lab(nodes=1) as lab:
        yield lab
