# SPDX-License-Identifier: Apache-2.0
"""What a container runtime does with the plugin: read the conflist, execute, read the answer.

As libcni does it: parameters in CNI_* variables, one plugin's configuration on stdin with the
list's name and cniVersion put in (CNI spec 1.0.0, section 4).
"""

from __future__ import annotations

import json
from typing import Any

from pycni.errors import PycniError
from pycni.lab import processes
from pycni.lab.layout import POD_IFNAME, LabNode, Pod
from pycni.lab.topology import NETNS_DIR

Json = dict[str, Any]


def add(node: LabNode, pod: Pod) -> Json:
    """ADD; returns the result. Raises PycniError with the plugin's own words."""
    return _call(node, pod, "ADD")


def delete(node: LabNode, pod: Pod) -> None:
    """DEL."""
    _call(node, pod, "DEL")


def check(node: LabNode, pod: Pod, previous: Json) -> None:
    """CHECK against the result of ADD."""
    _call(node, pod, "CHECK", previous=previous)


def _call(node: LabNode, pod: Pod, command: str, *, previous: Json | None = None) -> Json:
    (path,) = node.conf_dir.glob("*.conflist")
    conflist = json.loads(path.read_bytes())
    (plugin,) = conflist["plugins"]
    config = plugin | {"name": conflist["name"], "cniVersion": conflist["cniVersion"]}
    if previous is not None:
        config["prevResult"] = previous
    done = processes.run(
        node.netns,
        [node.bin_dir / plugin["type"]],
        stdin=json.dumps(config).encode(),
        env={
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": pod.name,
            "CNI_NETNS": str(NETNS_DIR / pod.netns),
            "CNI_IFNAME": POD_IFNAME,
            "CNI_PATH": str(node.bin_dir),
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAME={pod.name}",
        },
    )
    answer: Json = json.loads(done.stdout) if done.stdout else {}
    if done.returncode != 0:
        raise PycniError(
            f"{command} of {pod.name}: {answer.get('msg', 'the plugin failed without a word')}",
            details=answer.get("details", done.stderr.decode(errors="replace")[-500:]),
            hint=f"see the log of the agent: {node.log_path}",
        )
    return answer
