# SPDX-License-Identifier: Apache-2.0
"""What an operator does by mistake, on nodes: it is refused by name, said, or asked about first."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pycni.cluster import gateway
from pycni.kernel import nft
from pycni.lab import cluster, processes, topology
from pycni.lab.cluster import Lab, pycni_command
from pycni.lab.layout import LabNode
from pycni.node import masquerade, overlay_guard
from pycni.node.overlay import DEVICE
from pycni.node.record import Node
from pycni.pods import port_table
from pycni.settings import load
from support.flood import unanswered
from support.labs import (
    made_lab,
    prepared_lab,
    pycni,
    rows,
    setup,
    teardown,
    within,
    write_settings,
)
from support.snapshot import differences, take
from support.underlay import ip
from support.waiting import wait_until


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two nodes that forward."""
    with made_lab(nodes=2, pods=1) as made:
        yield made


@pytest.fixture
def bare() -> Iterator[Lab]:
    """A host that is no node yet."""
    with prepared_lab(nodes=1) as made:
        yield made


def forwards(lab: Lab) -> bool:
    one, other = lab.layout.pods
    return unanswered(lab, one.netns, lab.addresses(other)) == []


def with_settings(node: LabNode, **changes: Any) -> subprocess.CompletedProcess[bytes]:
    """`pycni setup` by a copy of a node's settings in which some are changed."""
    return run_with_settings(node, "setup", **changes)


def run_with_settings(
    node: LabNode, *verb: str, **changes: Any
) -> subprocess.CompletedProcess[bytes]:
    file = node.settings_path
    text = file.read_text()
    try:
        write_settings(node, **changes)
        return pycni(node, *verb)
    finally:
        file.write_text(text)


@pytest.mark.parametrize("key", ["state_dir", "bpffs"])
def test_a_second_settings_file_does_not_take_a_node_over(lab: Lab, key: str) -> None:
    node = lab.layout.nodes[0]
    other = node.directory / "other"
    before = take(node)

    refused = with_settings(node, **{key: str(other)})
    torn_down = run_with_settings(node, "teardown", "--yes", **{key: str(other)})

    for done in (refused, torn_down):
        assert done.returncode == 1
        assert f"this host is the node {node.name} already, by other settings".encode() in (
            done.stderr
        )
        assert f"{key} is ".encode() in done.stderr
        assert str(other).encode() in done.stderr
    assert differences(before, take(node)) == []
    assert forwards(lab)
    assert pycni(node, "status").returncode == 0


def test_nor_when_the_overlay_device_that_says_whose_it_is_was_deleted(bare: Lab) -> None:
    (node,) = bare.layout.nodes
    setup(node)
    processes.run(node.netns, ["ip", "link", "del", "pycni0"])
    other = {key: str(node.directory / f"other-{key}") for key in ("state_dir", "bpffs")}

    refused = with_settings(node, **other)

    assert refused.returncode == 1
    assert b"this host forwards already, by other settings" in refused.stderr
    setup(node)
    assert "unchanged" in setup(node)


def test_a_host_that_was_renamed_is_told_so(lab: Lab) -> None:
    node = lab.layout.nodes[0]

    refused = with_settings(node, node_name="renamed")

    assert refused.returncode == 1
    assert f"this host was set up as the node {node.name}".encode() in refused.stderr
    assert f'node_name = "{node.name}"'.encode() in refused.stderr
    assert [row["name"] for row in lab.pycni(node, "nodes")] == ["node1", "node2"]


def test_the_same_settings_are_set_up_again(lab: Lab) -> None:
    assert "unchanged" in setup(lab.layout.nodes[0])


@contextmanager
def named(node: LabNode) -> Iterator[str]:
    """A name for ip-netns(8) of a node's namespace."""
    link = Path("/run/netns") / node.netns
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(topology.NETNS_DIR / node.netns)
    try:
        yield link.name
    finally:
        link.unlink()


def test_setup_in_ip_netns_exec_says_that_its_mounts_end_with_it(bare: Lab) -> None:
    (node,) = bare.layout.nodes
    before = take(node)
    command = [str(word) for word in pycni_command(node, "setup")]

    with named(node) as netns:
        refused = subprocess.run(
            ["ip", "netns", "exec", netns, *command], capture_output=True, text=True, check=False
        )
        shell = subprocess.run(
            ["ip", "netns", "exec", netns, "sh", "-c", f"{shlex.join(command)}; exit $?"],
            capture_output=True,
            text=True,
            check=False,
        )

    assert refused.returncode == 1
    assert "would be hidden from all others" in refused.stderr
    assert f"`ip netns exec {netns}`" in refused.stderr
    assert "nsenter --net=" in refused.stderr
    assert f"`ip netns exec {netns}`" in shell.stderr
    assert differences(before, take(node), without=("files",)) == []


def test_setup_in_a_mount_namespace_of_its_own_is_refused(bare: Lab) -> None:
    (node,) = bare.layout.nodes
    command = ["unshare", "--mount", "--propagation", "private", *pycni_command(node, "setup")]

    refused = processes.run(node.netns, command)

    assert refused.returncode == 1
    assert b"not that of the process that started it" in refused.stderr


def test_forget_of_a_node_that_only_lost_its_agent_is_asked_about(lab: Lab) -> None:
    here, there = lab.layout.nodes
    lab.stop_agent(there, kill=True)
    try:
        signs = lab.pycni(here, "forget", there.name, "--dry-run")["signs"]
        refused = pycni(here, "forget", there.name)
    finally:
        lab.start_agent(there)
        cluster.wait_for_agent(lab, there)

    record = Node.load(load(there.settings_path))
    for address in map(gateway, record.pod_cidrs):
        assert f"the gateway of its pods, {address}, answers" in signs
    assert f"its VTEP, {record.vtep}, answers" in signs
    assert refused.returncode == 1
    assert b"--yes" in refused.stderr
    assert forwards(lab)


def test_teardown_says_what_it_would_do(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    before = take(node)

    done = pycni(node, "teardown", "--dry-run")
    steps = lab.pycni(node, "teardown", "--dry-run")["steps"]

    assert done.returncode == 0
    assert f"would take node {node.name} out of the store".encode() in done.stdout
    assert [f"of the pod {pod.name}" in " ".join(steps) for pod in node.pods] == [True]
    tables = [f"table {table.TABLE}" for table in (masquerade, overlay_guard, port_table)]
    for part in ("pins in", "device pycni0", "node.json", *tables):
        assert any(part in step for step in steps), part
    assert differences(before, take(node)) == []
    assert forwards(lab)


def test_teardown_finds_programs_whose_pins_are_gone(bare: Lab) -> None:
    (node,) = bare.layout.nodes
    before = take(node)
    setup(node)
    shutil.rmtree(load(node.settings_path).pin_root)

    steps = bare.pycni(node, "teardown", "--dry-run")["steps"]
    teardown(node)

    assert any(step.startswith("detach the programs from") for step in steps)
    assert differences(before, take(node), without=("files", "neighbours")) == []


def test_setup_says_what_it_would_do_and_does_it(bare: Lab) -> None:
    (node,) = bare.layout.nodes
    before = take(node)
    files = sorted(bare.layout.directory.rglob("*"))

    first = pycni(node, "setup", "--dry-run")

    assert first.returncode == 0, first.stderr
    for part in (f"make a new cluster: there is no directory {bare.layout.directory}/store",
                 f"register node {node.name}", "mount a BPF", "make the device pycni0",
                 "load the programs", "write 1 to net/ipv4/conf/eth0/forwarding, which is 0",
                 "table pycni_ports", "table pycni_guard"):  # fmt: skip
        assert f"would {part}".encode() in first.stdout or part.encode() in first.stdout, part
    assert differences(before, take(node)) == []
    assert sorted(bare.layout.directory.rglob("*")) == files

    setup(node)
    assert pycni(node, "setup", "--dry-run").stdout == b"setup would change nothing\n"


@pytest.mark.parametrize("verb", ["setup", "teardown"])
def test_a_dry_run_names_a_directory_that_is_none(bare: Lab, verb: str) -> None:
    (node,) = bare.layout.nodes
    if verb == "teardown":
        setup(node)
    before, run = take(node), load(node.settings_path).run_dir
    shutil.rmtree(run, ignore_errors=True)
    run.touch()

    done = pycni(node, verb, "--dry-run")

    assert done.returncode == 1
    assert f"{run} is no directory".encode() in done.stderr
    assert differences(before, take(node), without=("files",)) == []
    run.unlink()


def test_a_setup_that_fails_leaves_no_directory(bare: Lab) -> None:
    (node,) = bare.layout.nodes
    write_settings(node, uplink="nowhere0", cache_dir=str(bare.layout.directory / "new" / "cache"))
    files = sorted(bare.layout.directory.rglob("*"))

    done = pycni(node, "setup")

    assert done.returncode == 1
    assert b"nowhere0" in done.stderr
    new = set(bare.layout.directory.rglob("*")) - set(files)
    assert {path for path in new if path.is_dir() and not list(path.iterdir())} == set()
    assert not any(path.name in ("run", "state", "locks") for path in new)


def test_setup_says_what_it_would_leave_to_a_person(bare: Lab) -> None:
    (node,) = bare.layout.nodes
    setup(node)
    ip(node.netns, "route", "add", "10.244.9.0/24", "dev", "eth0")

    (step,) = bare.pycni(node, "setup", "--dry-run")["steps"]

    assert step.startswith("leave routes to a person: the way of packets to 10.244.9.0/24 is")
    assert step.endswith("remove it: ip route show root 10.244.9.0/24")


def test_status_by_other_settings_names_those_of_the_node(bare: Lab) -> None:
    (node,) = bare.layout.nodes
    setup(node)
    had = load(node.settings_path).state_dir
    write_settings(node, state_dir=f"{had}2")

    done = pycni(node, "status", "-o", "json")

    (row,) = [one for one in json.loads(done.stdout) if one["state"] == "broken"]
    assert done.returncode == 2
    assert row["name"] == "owner"
    assert f"state_dir is {had} there, {had}2 here" in row["cause"]
    assert "pycni --config FILE" in row["to_do"]
    write_settings(node, state_dir=str(had))


def test_status_of_a_node_whose_record_is_hidden_names_the_directory(bare: Lab) -> None:
    (node,) = bare.layout.nodes
    setup(node)
    state = load(node.settings_path).state_dir
    record = (state / "node.json").rename(state / "hidden")
    state.chmod(0o777)

    done = pycni(node, "status", "-o", "json")

    rows = [one for one in json.loads(done.stdout) if one["name"] in ("directories", "node")]
    state.chmod(0o700)
    record.rename(state / "node.json")
    assert [one["name"] for one in rows] == ["directories", "node"]
    assert rows[0]["to_do"] == f"close it: chmod 0700 {state}"


def test_setup_says_each_thing_that_it_would_mend_once(bare: Lab) -> None:
    (node,) = bare.layout.nodes
    setup(node)
    within(node.netns, lambda: nft.delete_table(masquerade.TABLE, what="a test's damage"))
    ip(node.netns, "link", "del", DEVICE)

    steps = bare.pycni(node, "setup", "--dry-run")["steps"]

    assert [one for one in steps if "nftables table" in one] == [
        "mend masquerade: nftables table inet pycni is gone"
    ]
    assert [one for one in steps if one.startswith(("make", "mend device"))] == [
        "mend device pycni0: pycni0 is gone"
    ]


def test_setup_says_what_an_edit_of_the_settings_would_change(bare: Lab) -> None:
    (node,) = bare.layout.nodes
    setup(node)
    before = take(node)
    write_settings(node, mtu=1300, masquerade_mark=0x10000000)

    steps = bare.pycni(node, "setup", "--dry-run")["steps"]

    assert steps[0] == "change the MTU of pycni0 from 1450 to 1300"
    assert steps[1].startswith("replace the programs ")
    assert [one for one in steps if "MTU" in one] == steps[:1]
    assert differences(before, take(node)) == []


@pytest.mark.parametrize("verb", [("teardown", "--dry-run"), ("teardown",), ("teardown", "--yes")])
def test_teardown_of_a_host_that_was_never_set_up_asks_nothing(
    bare: Lab, verb: tuple[str, ...]
) -> None:
    done = pycni(bare.layout.nodes[0], *verb)

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"this host was not set up for pycni: nothing to tear down\n"


def test_teardown_of_a_host_that_is_no_node_leaves_a_node_of_that_name_alone() -> None:
    with prepared_lab(nodes=2) as made:
        node, stranger = made.layout.nodes
        setup(node)
        write_settings(stranger, node_name=node.name)

        assert pycni(stranger, "teardown", "--yes").returncode == 0

        assert [row["name"] for row in made.pycni(node, "nodes")] == [node.name]
        teardown(node)


def warnings(node: LabNode) -> str:
    done = pycni(node, "setup")
    assert done.returncode == 0, done.stderr
    return "\n".join(
        line for line in done.stderr.decode().splitlines() if line.startswith("warning: ")
    )


def test_a_store_that_is_not_set_is_said_each_time(bare: Lab) -> None:
    (node,) = bare.layout.nodes
    write_settings(node, store="")

    assert "`store` is not set" in warnings(node)
    assert "a cluster of its own" in warnings(node)
    assert "`store` is not set" in bare.pycni(node, "setup")["warnings"][0]


def test_a_store_in_a_directory_that_setup_makes_is_said_once(bare: Lab) -> None:
    (node,) = bare.layout.nodes
    typo = bare.layout.directory / "elsewhere"
    write_settings(node, store=f"sqlite:{typo}/cluster.db")

    first = warnings(node)

    assert f"there is no directory {typo}" in first
    assert "makes a new cluster" in first
    assert warnings(node) == ""


def test_a_directory_that_is_open_to_others_is_closed_or_refused(bare: Lab) -> None:
    (node,) = bare.layout.nodes
    run_dir, state_dir = (node.directory / name for name in ("run", "state"))
    run_dir.mkdir(mode=0o755)
    state_dir.mkdir(mode=0o755)
    foreign = state_dir / "photos"
    foreign.touch()

    refused = pycni(node, "setup")
    assert refused.returncode == 1
    assert f"the directory {state_dir} (mode 0755) is open to others".encode() in refused.stderr
    assert state_dir.stat().st_mode & 0o777 == 0o755

    foreign.unlink()
    setup(node)
    assert [path.stat().st_mode & 0o777 for path in (run_dir, state_dir)] == [0o700, 0o700]


def log_of(node: LabNode, *options: str) -> list[str]:
    """What an agent logs from its start until it serves."""
    head = [sys.executable, "-m", "pycni", "--config", str(node.settings_path)]
    served = Path(load(node.settings_path).socket_path)
    with subprocess.Popen(
        processes.inside(node.netns, [*head, *options, "agent"]), stderr=subprocess.PIPE, text=True
    ) as agent:
        wait_until(served.exists, "the agent serves")
        agent.send_signal(signal.SIGTERM)
        assert agent.stderr is not None
        return agent.stderr.read().splitlines()


def test_the_agents_log_is_json_by_an_option_and_by_a_setting(bare: Lab) -> None:
    (node,) = bare.layout.nodes

    write_settings(node, log_format="json", log_level="warning", store="")
    by_setting = log_of(node)
    by_option = log_of(node, "--log-format", "json", "--log-level", "info")

    documents = [json.loads(line) for line in by_option]
    serving = next(one for one in documents if one["message"] == "serving")
    assert serving["node"] == node.name
    assert serving["level"] == "info"
    assert serving["time"].endswith("Z")
    assert {json.loads(line)["level"] for line in by_setting} == {"warning"}
    first = json.loads(by_setting[0])
    assert first["message"] == "caution"
    assert "`store` is not set" in first["found"]


def test_the_agents_log_is_logfmt_by_default(bare: Lab) -> None:
    (node,) = bare.layout.nodes

    lines = log_of(node)

    assert all(line.startswith("time=20") for line in lines)
    assert any(f" level=info module=agent serving node={node.name} " in line for line in lines)
    assert log_of(node, "--log-level", "error") == []


def test_a_place_that_a_lab_has_not_is_told_with_those_it_has(lab: Lab) -> None:
    name, base = lab.layout.name, lab.layout.directory.parent

    with pytest.raises(Exception, match="no node or pod node9") as caught:
        Lab.load(name, base=base).place("node9")

    assert "its nodes are node1, node2; its pods are node1-pod1" in caught.value.hint  # type: ignore[attr-defined]
    assert rows(lab, lab.layout.nodes[0], "vteps")
