# SPDX-License-Identifier: Apache-2.0
"""A pycni node in a guest, as an operator makes it, with pods as a runtime attaches them."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any

from vm.capture import PAYLOAD_PORT
from vm.payload import INSIDE, PACKAGES, PYTHON
from vm.qemu import Done, Guest, GuestError, Running

Interface = IPv4Interface | IPv6Interface

UPLINK = "eth0"
SETTINGS = "/etc/pycni/pycni.toml"
PLUGIN = "/opt/cni/bin/pycni"
CONFLIST = "/etc/cni/net.d/10-pycni.conflist"
PEER = ("python3", "-IS", f"{PACKAGES}/pycni/lab/peer.py")
PORT = PAYLOAD_PORT
"""Of transfers, in pods."""
FLOOD_SECONDS = 600.0
FLOOD_CLOCK = f"sleep {FLOOD_SECONDS:.0f}"
"""Holds the stdin of floods open."""
PATIENT = ("--grace", "20")
"""A guest that waits for a processor is late, and has lost nothing."""
AGENT_SOCKET = "/run/pycni/agent.sock"
AGENT_SECONDS = 86400.0
"""Longer than any guest lives."""

Json = dict[str, Any]


@dataclass
class Node:
    """`underlay` is its address on the link; `pods` are addresses by pod name, IPv4 first.
    `keys` are of the network configuration, beside those of the conflist, for pods from now on."""

    guest: Guest
    underlay: Interface
    pods: dict[str, list[str]] = field(default_factory=dict)
    keys: Json = field(default_factory=dict)
    uplink: str = UPLINK
    """The interface that gets `underlay`."""
    _attached: dict[str, Json] = field(default_factory=dict)
    """The configuration of each pod's ADD, and its result as prevResult."""

    @property
    def name(self) -> str:
        return self.guest.name

    def prepare(self, members: Sequence[Node], *, mtu: int = 1500, **settings: object) -> None:
        """The uplink, the settings, the plugin, and who is in the cluster."""
        router = self.underlay.network.broadcast_address - 1
        self.ip(
            f"link set {self.uplink} mtu {mtu} up",
            f"addr flush dev {self.uplink} scope global",
            f"addr add {self.underlay} dev {self.uplink}{' nodad' * (router.version == 6)}",
            f"route replace default via {router} dev {self.uplink}",
        )
        values = {"node_name": self.name, **settings}
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        self.guest.check(["mkdir", "-p", "/etc/pycni"])
        self.guest.check(["tee", SETTINGS], stdin=text)
        others = [f"{member.name}={member.underlay.ip}" for member in members]
        self.guest.check([PYTHON, f"{INSIDE}/guest/prepare.py", *others])

    def pycni(self, *arguments: str) -> Done:
        """The CLI, whatever comes of it."""
        return self.guest.run([PYTHON, "-m", "pycni", *arguments])

    def start_agent(self) -> None:
        """`pycni agent`, which sets the node up first; until it serves. Raises GuestError."""
        agent = self.guest.start([PYTHON, "-m", "pycni", "agent"], timeout=AGENT_SECONDS)
        self._wait_for(["ss", "-Hlx", "src", AGENT_SOCKET], agent)

    def teardown(self) -> None:
        """The pods' namespaces go, and `pycni teardown` must succeed."""
        for pod in list(self.pods):
            self.end_namespace(pod)
        self.guest.check([PYTHON, "-m", "pycni", "teardown", "--yes"])

    def facts(self) -> Json:
        """See guest/facts.py."""
        found: Json = json.loads(self.guest.check([PYTHON, f"{INSIDE}/guest/facts.py"]))
        return found

    def add(self, pod: str) -> None:
        """A pod: its namespace, and ADD by the installed plugin. Raises GuestError."""
        self.ip(f"netns add {pod}")
        self.guest.check(["ip", "-n", pod, "link", "set", "lo", "up"])
        config = self._conflist() | self.keys
        result = json.loads(self._plugin("ADD", pod, config))
        self._attached[pod] = config | {"prevResult": result}
        self.pods[pod] = [ip["address"].partition("/")[0] for ip in result["ips"]]

    def check(self, pod: str) -> None:
        """CHECK. Raises GuestError."""
        self._plugin("CHECK", pod, self._attached[pod])

    def delete(self, pod: str) -> None:
        """DEL, and the end of its namespace."""
        self._plugin("DEL", pod, self._attached[pod])
        self.end_namespace(pod)

    def end_namespace(self, pod: str) -> None:
        """A pod goes without a DEL."""
        self.ip(f"netns del {pod}")
        del self.pods[pod]

    def echo(self, pod: str, addresses: Sequence[str], **options: int | bool) -> dict[str, int]:
        """Echo requests, each sent once, from a pod; those unanswered, by address."""
        return lost(self.start_echo(pod, addresses, **options).wait())

    def start_echo(self, pod: str, addresses: Sequence[str], **options: int | bool) -> Running:
        words = []
        for name, value in options.items():
            words.append(f"--{name.replace('_', '-')}")
            if value is not True:
                words.append(str(value))
        return self._peer(pod, "echo", *addresses, *PATIENT, *words)

    def echo_from_host(self, addresses: Sequence[str]) -> dict[str, int]:
        """The same from the node itself."""
        words = ("echo", *addresses, *PATIENT, "--count", "5", "--interval", "0.02")
        return lost(self.guest.run([*PEER, *words]))

    def start_flood(self, pod: str, address: str) -> Running:
        """Echo requests until `end_floods`; `lost` tells how many were not answered."""
        words = ("echo", address, *PATIENT, "--count", "100", "--interval", "0.01", "--until-eof")
        command = shlex.join(["ip", "netns", "exec", pod, *PEER, *words])
        return self.guest.start(["sh", "-c", f"{FLOOD_CLOCK} | {command}"], timeout=FLOOD_SECONDS)

    def end_floods(self) -> None:
        self.guest.check(["pkill", "--full", "--exact", FLOOD_CLOCK])

    def send(
        self, pod: str, target: Node, address: str, size: int, *, at: tuple[str, int] | None = None
    ) -> tuple[Json, Json]:
        """`size` bytes over TCP to a pod of `target` that has `address`, and is perhaps reached
        `at` another address and port: what both ends counted."""
        to, port = at or (address, PORT)
        (receiver,) = (name for name, has in target.pods.items() if address in has)
        receiving = target._peer(receiver, "receive", address, "--port", str(PORT))
        listening = ["ip", "netns", "exec", receiver, "ss", "-Hltn", "sport", "=", f":{PORT}"]
        target._wait_for(listening, receiving)
        sent = _document(self._peer(pod, "send", to, str(port), str(size)).wait())
        return sent, _document(receiving.wait())

    def mtu(self, pod: str) -> int:
        """Bytes of the largest IP packet of a pod."""
        return int(self._link(pod)["mtu"])

    def sent(self, pod: str) -> int:
        """Packets that a pod has sent so far."""
        return int(self._link(pod)["stats64"]["tx"]["packets"])

    def _link(self, pod: str) -> Json:
        command = ["ip", "-n", pod, "-json", "-stats", "link", "show", "dev", "eth0"]
        (link,) = json.loads(self.guest.check(command))
        found: Json = link
        return found

    def _peer(self, pod: str, *arguments: str) -> Running:
        return self.guest.start(["ip", "netns", "exec", pod, *PEER, *arguments])

    def _wait_for(self, listing: Sequence[str], server: Running) -> None:
        """Until a listing of sockets has the server's."""
        while not self.guest.check(listing).strip():
            if server.ended:
                raise GuestError(f"{self.name}: {server.wait().stderr}")
            time.sleep(0.1)

    def _conflist(self) -> Json:
        conflist = json.loads(self.guest.check(["cat", CONFLIST]))
        head = {"name": conflist["name"], "cniVersion": conflist["cniVersion"]}
        plugin: Json = conflist["plugins"][0]
        return plugin | head

    def _plugin(self, command: str, pod: str, config: Json) -> str:
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": pod,
            "CNI_NETNS": f"/run/netns/{pod}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
        }
        return self.guest.check([PLUGIN], stdin=json.dumps(config), env=environment)

    def ip(self, *lines: str) -> None:
        """ip(8), a command a line. Raises GuestError."""
        self.guest.check(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")


def lost(echoed: Done) -> dict[str, int]:
    """How many requests of `start_echo` were not answered, by address; only where there are."""
    return {one["address"]: one["sent"] - one["received"] for one in incomplete(echoed)}


def incomplete(echoed: Done) -> list[dict[str, Any]]:
    """What `start_echo` tells of addresses that did not answer everything (pycni/lab/peer.py)."""
    return [one for one in _document(echoed) if one["received"] < one["sent"]]


def _document(done: Done) -> Any:
    if done.status != 0:
        raise GuestError(f"a peer failed: {done.stderr[-1000:]}")
    return json.loads(done.stdout.splitlines()[-1])
