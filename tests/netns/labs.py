"""Labs for tests: small clusters in namespaces, always taken down, and what is done to them.

Everything of a session lies under one private directory of /run, whose paths are short enough for
a unix socket, and every name begins with the session's.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from select import select
from typing import Any, TypeVar

from loader import libbpf
from pycni.files import make_private_directory
from pycni.kernel import namespaces
from pycni.lab import cluster, processes, topology
from pycni.lab.cluster import Lab, peer_command, pycni_command
from pycni.lab.layout import (
    POD_IFNAME,
    LabNode,
    Pod,
    draw,
)
from pycni.lab.topology import open_iproute
from pycni.setup import install

T = TypeVar("T")

SESSION = f"t{os.getpid()}"
BASE = Path(tempfile.gettempdir() if os.geteuid() else "/run") / SESSION
CACHE = BASE / "cache"
"""Of compiled programs, for labs that do not test the compiler."""
TUNING_STATE = (Path("/run/cni/tuning"), Path("/run/cni"))
"""Debian's `tuning` writes here what its DEL puts back, and leaves the directories."""

DEADLINE = 15.0
"""Seconds that something may take which happens by itself."""

TALK = Path(__file__).with_name("talk.py")
FAMILIES = (4, 6)

_numbers = itertools.count(1)


@contextmanager
def made_lab(*, nodes: int, pods: int) -> Iterator[Lab]:
    """A lab that is up."""
    with prepared_lab(nodes=nodes, pods=pods) as lab:
        for node in lab.layout.nodes:
            lab.start_agent(node)
        for node in lab.layout.nodes:
            cluster.wait_for_agent(lab, node)
        cluster.wait_for_members(lab)
        for pod in lab.layout.pods:
            lab.attach(pod)
        yield lab


def forget_shared() -> None:
    """Remove what the labs of this session share, and their directory with the last of them."""
    shutil.rmtree(CACHE, ignore_errors=True)
    for directory in (BASE, *TUNING_STATE):
        with suppress(OSError):
            directory.rmdir()


@contextmanager
def prepared_lab(*, nodes: int, pods: int = 0, **settings: Any) -> Iterator[Lab]:
    """Hosts that pycni has not touched yet, with their settings, and pods' empty namespaces."""
    name = f"{SESSION}x{next(_numbers)}"
    lab = Lab(draw(name, nodes=nodes, pods=pods, base=BASE))
    make_private_directory(lab.layout.directory)
    try:
        lab.save()
        topology.make_underlay(lab.layout)
        for node in lab.layout.nodes:
            cluster.prepare_node(lab, node)
            write_settings(node, cache_dir=CACHE, **settings)
        for pod in lab.layout.pods:
            topology.make_netns(pod.netns)
        yield lab
    finally:
        cluster.down(lab)


def write_settings(node: LabNode, **changes: Any) -> None:
    """Change keys of a node's settings file."""
    values = tomllib.loads(node.settings_path.read_text()) | changes
    lines = [f"{key} = {_toml(value)}\n" for key, value in values.items()]
    node.settings_path.write_text("".join(lines))


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    return json.dumps(value, default=str)


def pycni(node: LabNode, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """The CLI on a node, whatever comes of it."""
    return processes.run(node.netns, pycni_command(node, *arguments))


def within(netns: str, work: Callable[[], T]) -> T:
    """Run `work` in a namespace, in a thread that ends with it."""
    with (topology.NETNS_DIR / netns).open() as there:
        return namespaces.inside(there.fileno(), work)


def setup(node: LabNode) -> str:
    """`pycni setup`, which must succeed; returns what it says."""
    done = pycni(node, "setup")
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def teardown(node: LabNode) -> None:
    """`pycni teardown`, which must succeed."""
    done = pycni(node, "teardown", "--yes")
    assert done.returncode == 0, done.stderr.decode()


def reboot(lab: Lab, node: LabNode) -> None:
    """Take from a node what a reboot takes: processes, pods, links, pins, /run."""
    lab.stop_agent(node, kill=True)
    for pod in node.pods:
        topology.remove_netns(pod.netns)
        lab.results.pop(pod.name, None)
    topology.remove_netns(node.netns)
    libbpf.unmount(node.directory / "bpf")
    for path in sorted((node.directory / "run").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with open_iproute(lab.layout.underlay_netns) as ipr:
        for index in ipr.link_lookup(ifname=node.port):
            ipr.link("del", index=index)
    topology.make_node(lab.layout, node)


@contextmanager
def made_pod(lab: Lab, node: LabNode) -> Iterator[Pod]:
    """One more pod's namespace, with nothing attached."""
    name = f"extra{next(_numbers)}"
    pod = Pod(name, node.name, f"{lab.layout.name}-{name}")
    topology.make_netns(pod.netns)
    try:
        yield pod
    finally:
        topology.remove_netns(pod.netns)


@dataclass(frozen=True)
class Reply:
    """What the plugin said."""

    status: int
    document: dict[str, Any]
    stderr: str

    @property
    def text(self) -> str:
        """Message and details, as a runtime shows them."""
        return f"{self.document.get('msg')}: {self.document.get('details', '')}"

    @property
    def addresses(self) -> list[str]:
        return [ip["address"].partition("/")[0] for ip in self.document["ips"]]


def network(lab: Lab, **changes: Any) -> dict[str, Any]:
    """The network configuration a runtime writes to the plugin's stdin."""
    return {
        "cniVersion": "1.0.0",
        "name": lab.layout.name,
        "type": "pycni",
        "ipMasq": True,
    } | changes


def execute(
    lab: Lab,
    pod: Pod,
    command: str,
    *,
    alone: bool = False,
    stdin: bytes | None = None,
    env: Mapping[str, str | None] | None = None,
    **config: Any,
) -> Reply:
    """Execute a node's plugin; `alone`: one that finds no agent. `env` changes or removes."""
    program, variables = invocation(lab, pod, command, alone=alone, env=env)
    document = json.dumps(network(lab, **config)).encode()
    done = processes.run(
        lab.layout.node(pod.node).netns,
        [program],
        stdin=document if stdin is None else stdin,
        env=variables,
    )
    answer = json.loads(done.stdout) if done.stdout else {}
    return Reply(done.returncode, answer, done.stderr.decode(errors="replace"))


def invocation(
    lab: Lab,
    pod: Pod,
    command: str,
    *,
    alone: bool = False,
    env: Mapping[str, str | None] | None = None,
) -> tuple[Path, dict[str, str]]:
    """A node's plugin and its environment, as `execute` has it."""
    node = lab.layout.node(pod.node)
    variables: dict[str, str | None] = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": pod.name,
        "CNI_NETNS": str(topology.NETNS_DIR / pod.netns),
        "CNI_IFNAME": POD_IFNAME,
        "CNI_PATH": str(node.bin_dir),
        **(env or {}),
    }
    directory = plugin_without_agent(node) if alone else node.bin_dir
    return directory / "pycni", {key: v for key, v in variables.items() if v is not None}


def plugin_without_agent(node: LabNode) -> Path:
    """The directory of a plugin that looks for the agent where none is."""
    directory = node.directory / "alone"
    if not directory.exists():
        install.install(
            directory / "bin",
            directory / "net.d",
            socket=node.directory / "no.sock",
            settings=node.settings_path,
        )
    return directory / "bin"


class Flood:
    """Echo requests from a pod, in each family at once, each sent one time and counted.

    One per millisecond, `count` of them and more: until `lost` is asked for.
    """

    def __init__(self, source: Pod, addresses: Sequence[str], *, count: int) -> None:
        self._source = source
        self._count = count
        self._addresses = addresses
        self._senders: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Flood:
        sent = self._sent()
        for address in self._addresses:
            command = peer_command(
                "echo", address, "--count", str(self._count), "--until-eof", "--interval", "0.001"
            )
            self._senders.append(
                subprocess.Popen(
                    processes.inside(self._source.netns, command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
        wait_until(lambda: self._sent() - sent > 100, "the flood flows")
        return self

    def __exit__(self, *exc: object) -> None:
        for sender in self._senders:
            sender.kill()
            sender.communicate()

    @property
    def flowing(self) -> bool:
        """Whether requests are still being sent in every family."""
        return all(sender.poll() is None for sender in self._senders)

    def lost(self) -> dict[str, int]:
        """Ends it, once `count` are sent; unanswered requests by address."""
        found = {}
        for sender in self._senders:
            (answer,) = json.loads(sender.communicate(timeout=60)[0])
            assert answer["sent"] >= self._count
            found[answer["address"]] = answer["sent"] - answer["received"]
        return found

    def _sent(self) -> int:
        with open_iproute(self._source.netns) as ipr:
            (index,) = ipr.link_lookup(ifname=POD_IFNAME)
            (link,) = ipr.get_links(index)
            return int(link.get("IFLA_STATS64")["tx_packets"])


def unanswered(lab: Lab, netns: str, addresses: Sequence[str], **options: int) -> list[str]:
    """Of the addresses, those that do not answer every echo request."""
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    answers = lab.peer(netns, "echo", *addresses, *words)
    return [one["address"] for one in answers if one["received"] != one["sent"]]


@contextmanager
def answering(netns: str, address: str, port: int = 0) -> Iterator[tuple[int, Callable[[], Any]]]:
    """A UDP server in a namespace: its port, and a function for the next datagram it heard."""
    with ExitStack() as stack:
        server = subprocess.Popen(
            processes.inside(netns, _talk("answer", address, str(port))), stdout=subprocess.PIPE
        )
        stack.callback(server.communicate)
        stack.callback(server.kill)
        assert server.stdout is not None
        output = server.stdout

        def heard() -> Any:
            assert select([output], [], [], DEADLINE)[0], "the server hears nothing"
            return json.loads(output.readline())

        yield heard(), heard


def ask(netns: str, address: str, port: int, *, size: int = 8) -> str | None:
    """One datagram to a server of `answering`; who it says we are, None if it is silent."""
    done = processes.run(netns, _talk("ask", address, str(port), "--size", str(size)))
    assert done.returncode == 0, done.stderr.decode()
    answer: str | None = json.loads(done.stdout)
    return answer


@contextmanager
def port_held(netns: str, address: str, port: int) -> Iterator[int]:
    """A process that has a UDP socket; yields its pid."""
    with subprocess.Popen(
        processes.inside(netns, _talk("hold", address, str(port))), stdout=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline()
            yield holder.pid
        finally:
            holder.kill()


def send_datagrams(netns: str, address: str, port: int, payloads: Sequence[bytes]) -> None:
    _send(netns, _talk("datagrams", address, str(port)), payloads)


def send_frames(netns: str, ifname: str, frames: Sequence[bytes]) -> None:
    _send(netns, _talk("frames", ifname), frames)


def _send(netns: str, command: Sequence[str | Path], packets: Sequence[bytes]) -> None:
    done = processes.run(netns, command, stdin="\n".join(p.hex() for p in packets).encode())
    assert done.returncode == 0, done.stderr.decode()


def _talk(*words: str) -> Sequence[str | Path]:
    return (sys.executable, "-IS", TALK, *words)


def drops(lab: Lab, node: LabNode) -> dict[tuple[str, str], int]:
    """Packets dropped on a node so far, by reason and program."""
    rows = lab.pycni(node, "drops")
    return {(row["reason"], row["program"]): row["packets"] for row in rows}


def rows(lab: Lab, node: LabNode, name: str) -> list[dict[str, Any]]:
    """The entries of a map."""
    found: list[dict[str, Any]] = lab.pycni(node, "maps", "dump", name)
    return found


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float = DEADLINE) -> None:
    """Look until it holds; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
