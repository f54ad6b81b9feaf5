# SPDX-License-Identifier: Apache-2.0
"""Checks of what a node's runtime calls pycni by: its files stay, and STATUS answers at once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial

from cluster import agents, manifests, network
from cluster.commands import CNI_BIN, CNI_CONF
from cluster.machine import Machine
from cluster.scene import NAMESPACE, POD_SECONDS, Scene
from cluster.verdicts import Found, one
from cluster.waiting import until
from pycni.cni.launcher import PATHS
from pycni.lab import topology
from pycni.lab.checks import Check
from pycni.lab.layout import LabNode
from pycni.setup.conflist import CONFLIST, PLUGIN

FILES = (f"{CNI_BIN}/{PLUGIN}", f"{CNI_BIN}/{PATHS}", f"{CNI_CONF}/{CONFLIST}")
OTHERS = f"{CNI_CONF}/05-other.conflist"
OTHERS_LIST = {"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "other"}]}
AGAIN_SECONDS = 15.0
"""Until an agent has written again what was taken away: it glances every two seconds."""
STATUS_CALLS = 20
STATUS_SECONDS = 10.0
"""For so many calls, however busy the computer is; a runtime makes one every 5 s."""
ASK_STATUS = f"""i=0; while [ $i -lt {STATUS_CALLS} ]; do
    i=$((i + 1))
    echo '{{"cniVersion": "1.1.0", "name": "pycni", "type": "{PLUGIN}"}}' |
        env -i CNI_COMMAND=STATUS CNI_PATH={CNI_BIN} {CNI_BIN}/{PLUGIN} || exit 1
done"""


def held_files(scene: Scene) -> Iterator[Check]:
    """Plugin and list come back, a pod gets its network, and others' files are left alone."""
    for node in scene.cluster.workers:
        name = f"plugin and list that are removed come back on {node.name}"
        yield one(name, partial(_come_back, scene, node))
        yield one(f"a pod starts on {node.name} after that", partial(_starts, scene, node))
        name = f"a list of others that goes first is named on {node.name}"
        yield one(name, partial(_is_named, scene, node))


def cut_pods(scene: Scene) -> Iterator[Check]:
    """A pod whose link somebody deletes is named, until it is deleted."""
    for node in scene.cluster.workers:
        name = f"cut-{node.name}"
        yield one(f"status names {name}, which has lost its link", partial(_is_cut, scene, node))
        yield one(f"all is well without {name}", partial(_is_well_without, scene, node))


def status_calls(scene: Scene) -> Iterator[Check]:
    """STATUS, as a runtime asks for it, on a host without Python of pycni's."""
    for node in scene.cluster.workers:
        name = f"{STATUS_CALLS} STATUS on {node.name} take {STATUS_SECONDS:g} s at most"
        yield one(name, partial(_answers_status, node))


def _come_back(scene: Scene, node: LabNode) -> Found:
    machine = Machine(node)
    paths = {name: machine.path(name) for name in FILES}
    before = {name: path.read_bytes() for name, path in paths.items()}
    count = {name: _times_told(scene, node, name) for name in FILES}
    for path in paths.values():
        path.unlink()

    def are_back() -> bool:
        return all(path.exists() for path in paths.values())

    until(are_back, f"they are back on {node.name}", AGAIN_SECONDS)
    changed = [name for name, path in paths.items() if path.read_bytes() != before[name]]
    told = {name: _times_told(scene, node, name) - count[name] for name in FILES}
    wrong = [f"{name} is another" for name in changed]
    return ", ".join(wrong + [f"{name} told {n} times" for name, n in told.items() if n != 1])


def _times_told(scene: Scene, node: LabNode, name: str) -> int:
    """How often the agent has said that it wrote a file again."""
    lines = agents.log(scene.running.kubectl, node).splitlines()
    return sum(f"mended part=plugin thing={name} " in line for line in lines)


def _starts(scene: Scene, node: LabNode) -> Found:
    name = f"after-{node.name}"
    scene.kubectl.apply([manifests.server(name, node.name)])
    scene.wait_until_ready(name)
    scene.kubectl("delete", "pod", name, "--wait", timeout=POD_SECONDS)
    return None


def _is_named(scene: Scene, node: LabNode) -> Found:
    other = Machine(node).path(OTHERS)
    other.write_text(json.dumps(OTHERS_LIST))
    try:
        row = agents.row(scene.running.kubectl, node, "network list")
        if not other.exists():
            return "the agent removed it"
    finally:
        other.unlink(missing_ok=True)
    is_right = row["state"] == "degraded" and OTHERS in row["cause"] and row["to_do"]
    return None if is_right else str(row)


def _is_cut(scene: Scene, node: LabNode) -> Found:
    name = f"cut-{node.name}"
    scene.kubectl.apply([manifests.server(name, node.name)])
    scene.wait_until_ready(name)
    cut_link(scene, node, scene.kubectl.get("pod", name)["status"]["podIP"])
    row = agents.row(scene.running.kubectl, node, "attachments")
    is_right = row["state"] == "broken" and f"{NAMESPACE}/{name}" in row["cause"]
    return None if is_right and f"delete pod {name}" in row["to_do"] else str(row)


def cut_link(scene: Scene, node: LabNode, address: str) -> None:
    """Delete the link of the pod with that address on a node. Raises PycniError."""
    said = network.run(scene.running.kubectl, node, "endpoints", "--output", "json")
    (link,) = (row["host_interface"] for row in json.loads(said) if row["address"] == address)
    with topology.open_rtnl(node.netns) as ipr:
        ipr.delete_link(ipr.ifindex(link))


def _is_well_without(scene: Scene, node: LabNode) -> Found:
    scene.kubectl("delete", "pod", f"cut-{node.name}", "--wait", timeout=POD_SECONDS)
    row = agents.row(scene.running.kubectl, node, "attachments")
    return None if row["state"] == "ok" else str(row)


def _answers_status(node: LabNode) -> Found:
    begun = time.monotonic()
    done = Machine(node).run(["sh", "-c", ASK_STATUS], check=False)
    took = time.monotonic() - begun
    if done.returncode != 0:
        return done.stdout or done.stderr
    return f"{took:.1f} s" if took > STATUS_SECONDS else None
