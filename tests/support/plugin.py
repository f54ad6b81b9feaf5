# SPDX-License-Identifier: Apache-2.0
"""The plugin of a lab's node, executed as a runtime does it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pycni.lab import processes, topology
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, LabNode, Pod
from pycni.settings import load
from pycni.setup import install


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
        places = install.Places.of(load(node.settings_path), node.settings_path)
        install.install(
            directory / "bin",
            directory / "net.d",
            places=replace(places, socket=node.directory / "no.sock"),
        )
    return directory / "bin"
