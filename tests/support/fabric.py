# SPDX-License-Identifier: Apache-2.0
"""Three nodes in two subnets that know each other by BGP alone: BIRD on each, and on the router
between them.

Nodes one and two are on one link, node three is on another. All tell the router, and the router
tells all.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycni.bgp import file
from pycni.kernel import sysctl
from pycni.lab import cluster, processes
from pycni.lab.cluster import Lab
from pycni.lab.layout import BRIDGE, NODE_UPLINK, UNDERLAY4, LabNode
from pycni.lab.processes import Kept
from pycni.settings import load
from support.labs import prepared_lab, within, write_settings
from support.underlay import ip
from support.waiting import wait_until

BIRD = "bird"
ROUTER_ASN, NODE_ASN = 64999, 64512
FAR_ROUTER, FAR_NODE = "198.18.1.254", "198.18.1.3"
"""On the link of node three."""
PASSWORD = "a password of nobody"
NOTHING: Mapping[str, Any] = {}
FOREIGN = ("203.0.113.0/24", "10.244.128.0/17", "10.244.77.7/32", "0.0.0.0/0")
"""What the router tells besides, and no node may believe."""
HEAD = f"""log stderr all;
router id {UNDERLAY4.ip};
graceful restart wait 10;
protocol device {{ }}
protocol kernel {{ graceful restart on; ipv4 {{ import none; export where source = RTS_BGP; }}; }}
"""


def is_there() -> bool:
    """Whether this machine has BIRD."""
    return shutil.which(BIRD) is not None


@dataclass
class Fabric:
    """The lab, and the BIRDs in it."""

    lab: Lab
    birds: dict[str, Kept] = field(default_factory=dict)
    """By node, and "router"."""
    told: list[str] = field(default_factory=lambda: list(FOREIGN))
    """Networks that the router announces by itself."""
    password: str = PASSWORD
    bfd: bool = False
    is_parted: bool = True
    """Whether node three has a link of its own."""

    @property
    def nodes(self) -> Sequence[LabNode]:
        return self.lab.layout.nodes

    def vtep(self, node: LabNode) -> str:
        return FAR_NODE if self._is_far(node) else str(node.underlay[0].ip)

    def router_of(self, node: LabNode) -> str:
        return FAR_ROUTER if self._is_far(node) else str(UNDERLAY4.ip)

    def _is_far(self, node: LabNode) -> bool:
        return self.is_parted and node is self.nodes[2]

    def start_bird(self, node: LabNode) -> None:
        settings = load(node.settings_path)
        config, socket = file.config_path(settings), file.socket_path(settings)
        wait_until(config.exists, f"the agent of {node.name} has written BIRD's configuration")
        self._start(node.name, node.netns, config, socket, node.directory / "bird.log")

    def start_router(self, *, again: bool = True) -> None:
        directory = self.lab.layout.directory
        self.write_router()
        self._start("router", self.lab.layout.underlay_netns, directory / "router.conf",
                    directory / "router.ctl", directory / "router.log", again=again)  # fmt: skip

    def write_router(self) -> None:
        """Its configuration; a router that runs has to be told (`tell_router`)."""
        lines = [HEAD, "protocol bfd { }" * self.bfd, "protocol static { ipv4;"]
        bfd = "bfd on; " * self.bfd
        lines += [f"route {network} unreachable;" for network in self.told] + ["}"]
        for node in self.nodes:
            lines.append(
                f"protocol bgp {node.name} {{ local {self.router_of(node)} as {ROUTER_ASN}; "
                f'neighbor {self.vtep(node)} as {NODE_ASN}; password "{self.password}"; '
                "graceful restart on; connect delay time 1; connect retry time 2; "
                f"{bfd}"
                "error wait time 1, 4; ipv4 { import all; export all; }; }"
            )
        (self.lab.layout.directory / "router.conf").write_text("\n".join(lines))

    def tell_router(self) -> None:
        """Have the router read its configuration again."""
        self.write_router()
        done = processes.run(
            self.lab.layout.underlay_netns,
            ["birdc", "-s", self.lab.layout.directory / "router.ctl", "configure"],
        )
        assert done.returncode == 0, done.stderr

    def stop_bird(self, name: str, *, kill: bool = False) -> None:
        if (kept := self.birds.pop(name, None)) is not None:
            processes.stop(kept, kill=kill)

    def sessions(self, node: LabNode) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.lab.pycni(node, "bgp", "sessions")
        return found

    def is_up(self, node: LabNode) -> bool:
        return all(one["state"] == "Established" for one in self.sessions(node))

    def next_hops(self, node: LabNode) -> dict[str, str]:
        """By pod CIDR of another node, as the maps have them."""
        rows = self.lab.pycni(node, "maps", "dump", "remotes")
        return {row["prefix"]: row["vtep"] for row in rows}

    def status(self, node: LabNode, name: str) -> list[dict[str, Any]]:
        return [row for row in self.lab.pycni(node, "status") if row["name"] == name]

    def _start(
        self, name: str, netns: str, config: Path, socket: Path, log: Path, *, again: bool = True
    ) -> None:
        options = ["-f", *["-R"] * again]
        command: list[str | Path] = [BIRD, *options, "-c", config, "-s", socket]
        self.birds[name] = processes.start(netns, command, log=log)


@contextmanager
def fabric(
    *,
    bfd: bool = False,
    shared: bool = False,
    table: Mapping[str, Any] = NOTHING,
    settings: Mapping[str, Any] = NOTHING,
) -> Iterator[Fabric]:
    """Nodes with agents and pods; no BIRD runs yet. With `shared` they have a store, and only the
    router needs BGP to know where pods are. `table`: further keys of [bgp]; `settings`: of the
    settings."""
    with prepared_lab(nodes=3, pods=1, cluster_cidrs=["10.244.0.0/16"], encap="direct") as lab:
        made = Fabric(lab, bfd=bfd)
        _part(made)
        for number, node in enumerate(made.nodes, 1):
            _write(made, node, f"10.244.{number}.0/24", table, shared=shared)
            write_settings(node, **settings)
            lab.start_agent(node)
        for node in made.nodes:
            cluster.wait_for_agent(lab, node)
        for pod in lab.layout.pods:
            lab.attach(pod)
        try:
            yield made
        finally:
            for name in list(made.birds):
                made.stop_bird(name)


def _part(made: Fabric) -> None:
    """Give node three a link of its own to the router."""
    router, far = made.lab.layout.underlay_netns, made.nodes[2]
    ip(router, "link", "set", far.port, "nomaster")
    ip(router, "address", "add", f"{FAR_ROUTER}/24", "dev", far.port)
    ip(far.netns, "address", "flush", "dev", NODE_UPLINK, "scope", "global")
    ip(far.netns, "address", "add", f"{FAR_NODE}/24", "dev", NODE_UPLINK)
    ip(far.netns, "route", "replace", "default", "via", FAR_ROUTER, "dev", NODE_UPLINK)

    def forward() -> None:
        sysctl.write("net/ipv4/ip_forward", "1")
        for name in ("all", BRIDGE):
            sysctl.write(f"net/ipv4/conf/{name}/send_redirects", "0")

    within(router, forward)


def _write(
    made: Fabric, node: LabNode, pod_cidr: str, more: Mapping[str, Any], *, shared: bool
) -> None:
    secret = node.directory / "bgp.password"
    secret.touch(mode=0o600)
    secret.write_text(f"{PASSWORD}\n")
    peer = {"address": made.router_of(node), "asn": ROUTER_ASN, "password_file": secret}
    peer |= {"bfd": made.bfd}
    table: dict[str, Any] = {"asn": NODE_ASN, "peers": [peer], **more}
    if shared:
        write_settings(node, routers_know_pods=True, vtep=made.vtep(node), bgp=table)
        return
    table |= {"learn": ["pods"], "pod_cidrs": [pod_cidr]}
    write_settings(node, store="bgp:", vtep=made.vtep(node), bgp=table)
