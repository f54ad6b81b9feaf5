# SPDX-License-Identifier: Apache-2.0
"""The lab as a whole: brought up, looked at, taken down.

A file tells what a lab has. It is written before anything is made, so `down` finds all of it even
if `up` was killed. The file and all other files of a lab are in its directory, mode 0700.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loader import libbpf
from pycni.errors import NotAvailable, PycniError, SetupError
from pycni.files import make_private_directory, replace_file
from pycni.lab import processes, runtime, topology
from pycni.lab.layout import (
    BASE,
    NODES_LIMIT,
    LabNode,
    Layout,
    Pod,
    draw,
)
from pycni.lab.processes import Kept
from pycni.settings import load
from pycni.setup import install

AGENT_TIMEOUT = 60.0
"""Seconds an agent may take to serve: the first one on a machine compiles."""

NAME = re.compile("[A-Za-z][A-Za-z0-9-]{0,31}")
RECORD = "lab.json"
CONFIG = "PYCNI_CONFIG"
"""The environment variable that names the settings file to the command line."""
PEER = Path(__file__).with_name("peer.py")

Report = Callable[[str], None]
Json = dict[str, Any]


@dataclass
class Lab:
    """A lab that is up, or half up. `results` are the CNI results of the pods, by pod name."""

    layout: Layout
    agents: dict[str, Kept] = field(default_factory=dict)
    results: dict[str, Json] = field(default_factory=dict)

    @property
    def _record(self) -> Path:
        return self.layout.directory / RECORD

    def save(self) -> None:
        document = {
            "nodes": len(self.layout.nodes),
            "pods": len(self.layout.pods) // len(self.layout.nodes),
            "agents": {name: vars(kept) for name, kept in self.agents.items()},
            "results": self.results,
        }
        replace_file(self._record, json.dumps(document).encode())

    @classmethod
    def load(cls, name: str, *, base: Path = BASE) -> Lab:
        """The lab of that name. Raises NotAvailable if it is not up."""
        try:
            document = json.loads((base / name / RECORD).read_bytes())
        except FileNotFoundError:
            raise NotAvailable(
                f"there is no lab named {name}",
                hint="run: pycni lab list; or bring it up: pycni lab up --name " + name,
            ) from None
        return cls(
            layout=draw(name, nodes=document["nodes"], pods=document["pods"], base=base),
            agents={name: Kept(**kept) for name, kept in document["agents"].items()},
            results=document["results"],
        )

    def addresses(self, pod: Pod) -> list[str]:
        """A pod's addresses, IPv4 first, as ADD returned them. Raises NotAvailable without ADD."""
        result = self.results.get(pod.name)
        if result is None:
            raise NotAvailable(
                f"{pod.name} is not attached: it has no address",
                hint=f"the lab came up in part: pycni lab down --name {self.layout.name}, then up",
            )
        return [ip["address"].partition("/")[0] for ip in result["ips"]]

    def has_agent(self, node: LabNode) -> bool:
        """Whether the node's agent runs."""
        kept = self.agents.get(node.name)
        return kept is not None and kept.alive

    def place(self, name: str) -> tuple[str, dict[str, str]]:
        """The network namespace of a node or pod, and the environment for what runs there.

        On a node, pycni finds the node's own settings. Raises NotAvailable naming nodes and pods.
        """
        environment = {key: value for key, value in os.environ.items() if key != CONFIG}
        for node in self.layout.nodes:
            if node.name == name:
                return node.netns, environment | {CONFIG: str(node.settings_path)}
        return self.pod(name).netns, environment

    def pod(self, name: str) -> Pod:
        """Raises NotAvailable naming the nodes and pods there are."""
        for pod in self.layout.pods:
            if pod.name == name:
                return pod
        raise NotAvailable(
            f"the lab has no node or pod {name}",
            hint=f"its nodes are {_names(self.layout.nodes)}; its pods are "
            + _names(self.layout.pods),
        )

    def attach(self, pod: Pod) -> None:
        """ADD through the installed plugin."""
        self.results[pod.name] = runtime.add(self.layout.node(pod.node), pod)
        self.save()

    def detach(self, pod: Pod) -> None:
        """DEL through the installed plugin."""
        runtime.delete(self.layout.node(pod.node), pod)
        self.results.pop(pod.name, None)
        self.save()

    def start_agent(self, node: LabNode) -> None:
        """Start a node's agent; `wait_for_agent` waits until it serves."""
        self.agents[node.name] = processes.start(
            node.netns, pycni_command(node, "--verbose", "agent"), log=node.log_path
        )
        self.save()

    def stop_agent(self, node: LabNode, *, kill: bool = False) -> None:
        """End a node's agent by SIGTERM, or by SIGKILL."""
        kept = self.agents.pop(node.name, None)
        if kept is not None:
            processes.stop(kept, kill=kill)
            self.save()

    def pycni(self, node: LabNode, *arguments: str) -> Any:
        """Run the CLI on a node with `-o json`; returns the document. Raises PycniError."""
        done = processes.run(node.netns, pycni_command(node, *arguments, "-o", "json"))
        what = f"pycni {' '.join(arguments)} on {node.name} failed"
        if not done.stdout:
            raise PycniError(
                what,
                details=done.stderr.decode(errors="replace").strip(),
                hint=f"see the log of its agent: {node.log_path}",
            )
        document = json.loads(done.stdout)
        if isinstance(document, dict) and "error" in document:
            error = document["error"]
            raise PycniError(
                f"{what}: {error['message']}", details=error["details"], hint=error["hint"]
            )
        return document

    def peer(self, netns: str, *arguments: str, timeout: float = 60.0) -> Any:
        """Run peer.py inside a namespace; returns the document it prints. Raises PycniError."""
        done = processes.run(netns, peer_command(*arguments), timeout=timeout)
        if done.returncode != 0:
            raise PycniError(
                f"peer {' '.join(arguments[:1])} in {netns} failed",
                details=done.stderr.decode(errors="replace").strip()[-300:],
                hint=f"look at the namespace: ip netns exec {netns} ip address",
            )
        return json.loads(done.stdout)


def all_labs(base: Path = BASE) -> list[Lab]:
    """The labs that are up or half up, by name."""
    try:
        found = sorted(entry.name for entry in os.scandir(base))
    except FileNotFoundError:
        return []
    return [Lab.load(name, base=base) for name in found if (base / name / RECORD).exists()]


def up(
    name: str,
    *,
    nodes: int,
    pods: int,
    services: Path | None = None,
    base: Path = BASE,
    report: Report = lambda _: None,
) -> Lab:
    """Bring a lab up; everything is taken down again if that fails or is interrupted. `services`:
    a file of Services and EndpointSlices, which the nodes follow.

    Raises SetupError, or what a step raises.
    """
    if not 1 <= nodes <= NODES_LIMIT:
        raise SetupError(
            f"a lab has from 1 to {NODES_LIMIT} nodes, not {nodes}", hint="give another --nodes"
        )
    if not NAME.fullmatch(name):
        raise SetupError(
            f"a lab cannot have the name {name!r}",
            hint="use a letter, then letters, digits and '-', 32 in all",
        )
    lab = Lab(draw(name, nodes=nodes, pods=pods, base=base))
    if (lab.layout.directory / RECORD).exists():
        raise SetupError(
            f"a lab named {name} is up already", hint=f"run: pycni lab down --name {name}"
        )
    strangers = [netns for netns in lab.layout.namespaces if topology.exists(netns)]
    if strangers:
        raise SetupError(
            f"there is a network namespace {strangers[0]} that is not of this lab",
            hint="choose another --name",
        )
    make_private_directory(base)
    make_private_directory(lab.layout.directory)
    try:
        lab.save()
        report(f"{nodes} nodes, joined by a bridge")
        topology.make_underlay(lab.layout)
        for node in lab.layout.nodes:
            prepare_node(lab, node)
            if services is not None:
                give_services(node, services)
            lab.start_agent(node)
        report("agents: compile, load, join")
        for node in lab.layout.nodes:
            wait_for_agent(lab, node)
        wait_for_members(lab)
        report(f"{len(lab.layout.pods)} pods, attached by the plugin")
        for pod in lab.layout.pods:
            topology.make_netns(pod.netns)
            lab.attach(pod)
    except BaseException:
        down(lab)
        raise
    return lab


def down(lab: Lab) -> None:
    """Take everything of a lab down; right on a lab that is half up or half down."""
    for node in lab.layout.nodes:
        lab.stop_agent(node)
        for unrecorded in list(processes.inhabitants(node.netns)):  # `up` was stopped meanwhile
            processes.stop(unrecorded)
    for netns in lab.layout.namespaces:
        topology.remove_netns(netns)
    for node in lab.layout.nodes:
        with suppress(OSError):  # not mounted, or by teardown no longer
            libbpf.unmount(node.directory / "bpf")
    shutil.rmtree(lab.layout.directory)
    with suppress(OSError):
        lab.layout.directory.parent.rmdir()


def wait_for_agent(lab: Lab, node: LabNode) -> None:
    """Until the agent serves calls and followers. Raises SetupError with the end of its log if it
    does not."""
    path, events = (node.directory / "run" / name for name in ("agent.sock", "event.sock"))
    deadline = time.monotonic() + AGENT_TIMEOUT
    while time.monotonic() < deadline and lab.agents[node.name].alive:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
            if agent.connect_ex(str(path)) == 0 and events.exists():
                return
        time.sleep(0.02)
    tail = node.log_path.read_text(errors="replace").strip()[-2000:]
    raise SetupError(
        f"the agent of {node.name} does not serve",
        details=tail,
        hint="mend what its log, the details, complains of",
    )


def wait_for_members(lab: Lab) -> None:
    """Until each node knows all others. Raises SetupError if that takes too long."""
    deadline = time.monotonic() + AGENT_TIMEOUT
    for node in lab.layout.nodes:
        while len(lab.pycni(node, "maps", "dump", "vteps")) < len(lab.layout.nodes) - 1:
            if time.monotonic() > deadline:
                raise SetupError(
                    f"{node.name} does not know all {len(lab.layout.nodes)} nodes",
                    hint="the machine may be too slow for so many: give fewer --nodes",
                )
            time.sleep(0.1)


def _names(places: Sequence[LabNode | Pod]) -> str:
    return ", ".join(place.name for place in places)


def pycni_command(node: LabNode, *arguments: str) -> Sequence[str | Path]:
    """The CLI with a node's settings."""
    return (sys.executable, "-m", "pycni", "--config", node.settings_path, *arguments)


def peer_command(*arguments: str) -> Sequence[str | Path]:
    """peer.py with arguments, for inside a namespace."""
    return (sys.executable, "-IS", PEER, *arguments)


def give_services(node: LabNode, services: Path) -> None:
    """Settings with which a node forwards the Services of a file."""
    lines = ('services = "pods"', f"services_file = {json.dumps(str(services.absolute()))}", "")
    text = node.settings_path.read_text() + "\n".join(lines)
    replace_file(node.settings_path, text.encode())


def prepare_node(lab: Lab, node: LabNode) -> None:
    """A node's namespace, settings and CNI directories: what an operator prepares."""
    for directory in (node.directory, node.bin_dir, node.conf_dir):
        make_private_directory(directory)
    (node.directory / "bpf").mkdir()
    values = {
        "node_name": node.name,
        "state_dir": node.directory / "state",
        "run_dir": node.directory / "run",
        "bpffs": node.directory / "bpf",
        "cache_dir": lab.layout.directory / "cache",
        "store": f"sqlite:{lab.layout.directory}/store/cluster.db",
    }
    text = "".join(f"{key} = {json.dumps(str(value))}\n" for key, value in values.items())
    replace_file(node.settings_path, text.encode())
    topology.make_node(lab.layout, node)
    install.install(
        node.bin_dir,
        node.conf_dir,
        places=install.Places.of(load(node.settings_path), node.settings_path),
        network=install.Network(name=lab.layout.name),
    )
