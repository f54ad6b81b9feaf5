# SPDX-License-Identifier: Apache-2.0
"""The DaemonSet's containers on a host with nothing: each with its capabilities and mounts only."""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import pycni
from image import build
from image.build import LARGEST, Built
from image.host import Change, Host
from loader import pins
from pycni import locks
from pycni.lab import processes, topology
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME
from pycni.setup.conflist import CONFLIST, PLUGIN
from support import labs
from support.oci import write_archive, write_layer
from support.waiting import wait_until

ELF = b"\x7fELF"
SOMEBODY = 64321
"""A user."""
AARCH64 = struct.pack(
    "<4s4B8xHHIQQQIHHHHHH", ELF, 2, 1, 1, 0, 2, 183, 1, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0
)
"""The header of an executable for arm64 (elf(5): EM_AARCH64 is 183)."""


def text(done: subprocess.CompletedProcess[bytes]) -> str:
    return (done.stdout + done.stderr).decode()


def call(here: Host, lab: Lab, command: str) -> subprocess.CompletedProcess[bytes]:
    """Execute the host's plugin as a runtime does."""
    (pod,) = lab.layout.pods
    listed = here.path("cni-conf") / CONFLIST
    config = json.loads(listed.read_bytes()) if listed.exists() else {"plugins": [{"type": PLUGIN}]}
    head = {"cniVersion": "1.0.0", "name": config.get("name", "pycni")}
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": pod.name,
        "CNI_NETNS": str(topology.NETNS_DIR / pod.netns),
        "CNI_IFNAME": POD_IFNAME,
        "CNI_PATH": str(here.path("cni-bin")),
    }
    return processes.run(
        here.node.netns,
        [here.path("cni-bin") / PLUGIN],
        stdin=json.dumps(config["plugins"][0] | head).encode(),
        env=environment,
    )


def answers(address: str) -> bool:
    """Whether a pod that listens nowhere refuses a connection: packets go there and come back."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, 9), timeout=5.0)
    return True


def test_it_is_small(built: Built) -> None:
    assert built.compressed <= LARGEST


def test_the_command_runs_with_no_capability_and_no_host(here: Host) -> None:
    none = ("cni-bin", "cni-conf", "tmp")

    done = here.run("install", Change(args=["--version"], without=none))

    assert done.returncode == 0, text(done)
    assert pycni.__version__ in done.stdout.decode()


def test_the_settings_of_the_config_map_are_right(here: Host) -> None:
    done = here.run("install", Change(args=["config", "check", "-o", "json"]))

    assert done.returncode == 0, text(done)
    assert json.loads(done.stdout)[0]["ok"] is True


def test_setup_refuses_a_bpffs_that_is_not_the_hosts(here: Host) -> None:
    here_alone = Change(args=["prepare"], options={"bpffs": ("rprivate",)})

    done = here.run("prepare", here_alone)

    assert done.returncode == 1
    assert "is not the host's" in text(done)
    assert "private to this container" in text(done)
    assert not pins.is_bpffs(here.path("bpffs"))


@pytest.mark.parametrize("volume", ["cni-bin", "cni-conf", "run", "state"])
def test_a_directory_of_the_host_that_is_read_only_is_named(here: Host, volume: str) -> None:
    done = here.run("prepare", Change(options={volume: ("ro",)}))

    assert done.returncode == 1
    where = here.places[volume][1]
    assert f"the host's directory {where} is read-only" in text(done)


def test_a_plugin_directory_where_nothing_can_be_executed_is_named(here: Host) -> None:
    done = here.run("prepare", Change(options={"cni-bin": ("noexec",)}))

    assert done.returncode == 1
    assert "is mounted noexec" in text(done)


def test_an_image_of_another_architecture_is_not_taken(here: Host, tmp_path: Path) -> None:
    """Its nodes get no pod; where somebody forces one, the runtime says so."""
    root, layer = tmp_path / "root", tmp_path / "layer"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/pycni").write_bytes(AARCH64)
    (root / "usr/bin/pycni").chmod(0o755)
    write_layer(layer, root)
    other = replace(build.image("pycni.dev/pycni:other"), architecture="arm64")
    write_archive(tmp_path / "image.tar", layer, [other])

    imported = here.ctr("images", "import", tmp_path / "image.tar")
    forced = here.ctr("images", "import", "--all-platforms", "--no-unpack", tmp_path / "image.tar")
    ran = here.ctr("run", "--rm", "--snapshotter=native", other.names[0], "other-architecture")

    assert (imported.returncode, forced.returncode) == (1, 0), text(imported) + text(forced)
    assert "image might be filtered out" in text(imported)
    assert ran.returncode != 0
    assert "exec format error" in text(ran)


def test_another_installation_on_the_host_is_refused(here: Host) -> None:
    with locks.agent_lock(here.path("run")):
        done = here.run("prepare")

    assert done.returncode == 1
    assert "another agent of pycni runs on this host" in text(done)
    assert "systemctl disable" in text(done)


def test_setup_without_the_hosts_kernel_parameters_says_what_to_mount(here: Host) -> None:
    prepared = here.run("prepare")
    assert prepared.returncode == 0, text(prepared)

    done = here.run("setup", Change(without=("proc-sys-net",)))

    assert done.returncode == 1
    assert "/host/proc/sys/net" in text(done)


def test_a_node_from_nothing_and_back(here: Host, lab: Lab, tmp_path: Path) -> None:
    """The pod's containers in their order, a pod of the cluster, and the undoing."""
    for volume in ("cni-bin", "cni-conf"):  # kubespray made them so
        os.chown(here.path(volume), SOMEBODY, 0)
        here.path(volume).chmod(0o755)

    prepared = here.run("prepare")
    assert prepared.returncode == 0, text(prepared)
    assert "the plugin loopback is missing" in text(prepared)
    assert pins.is_bpffs(here.path("bpffs")), "the host sees what the container mounted"

    setup = here.run("setup")
    assert setup.returncode == 0, text(setup)
    assert f"node {here.node.name} is set up" in setup.stdout.decode()
    assert (here.path("bpffs") / "pycni" / "maps").is_dir()

    installed = here.run("install")
    assert installed.returncode == 0, text(installed)
    plugin = here.path("cni-bin") / PLUGIN
    assert plugin.read_bytes().startswith(ELF)
    assert stat.S_IMODE(plugin.stat().st_mode) == 0o755
    assert (plugin.stat().st_uid, plugin.stat().st_gid) == (0, 0)
    assert os.listdir(here.path("cni-conf")) == [], "no runtime calls the plugin yet"
    alone = call(here, lab, "ADD")
    assert json.loads(alone.stdout)["code"] == 11, "there is no agent: to be tried again"

    agent = here.start_container("agent", log=tmp_path / "agent.log")
    listed = here.path("cni-conf") / CONFLIST
    wait_until(listed.exists, "the agent writes the list")
    probe = here.described("agent")["livenessProbe"]["exec"]["command"]
    alive = here.execute(agent, [*probe, str(here.path("run") / "agent.sock")])
    assert alive.returncode == 0, text(alive)

    added = call(here, lab, "ADD")
    assert added.returncode == 0, text(added)
    (pod,) = lab.layout.pods
    for address in json.loads(added.stdout)["ips"]:
        target = address["address"].partition("/")[0]
        assert labs.within(here.node.netns, partial(answers, target))
    with_sysctl = processes.run(
        pod.netns, ["cat", f"/proc/sys/net/ipv6/conf/{POD_IFNAME}/accept_ra"]
    )
    assert with_sysctl.stdout.strip() == b"0", "parameters of the pod's namespace are written"
    status = here.execute(agent, ["/usr/bin/pycni", "status", "-o", "json"])
    assert status.returncode == 0, text(status)

    here.stop(agent)
    assert listed.exists(), "pods must be deleted without an agent, too"
    deleted = call(here, lab, "DEL")
    assert deleted.returncode == 0, text(deleted)

    torn = here.run("teardown")
    assert torn.returncode == 0, text(torn)
    assert list(here.path("bpffs").glob("pycni")) == []
    removed = here.run("uninstall")
    assert removed.returncode == 0, text(removed)
    assert os.listdir(here.path("cni-conf")) == os.listdir(here.path("cni-bin")) == []
