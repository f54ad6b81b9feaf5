# SPDX-License-Identifier: Apache-2.0
"""Makes the sandbox a pycni node: settings, `pycni install`, `pycni setup`, a running agent.

Run by the suite inside the sandbox, with the sandbox's directory as its argument, and the `device`
of its networks as the second one, for those on the LAN. Writes `pycni.json`, which tells
profiles/pycni.py where everything is.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pycni.settings import load
from pycni.setup import install

AGENT_TIMEOUT = 60.0 * float(os.environ.get("CONFORMANCE_PATIENCE", "1"))
"""Seconds until the agent serves."""

DELEGATED = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd00:88::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
}
"""IPAM by another plugin, with addresses outside the node's own CIDRs."""

CAPABILITIES = ("portMappings", "bandwidth", "ips", "mac", "dns")


def main() -> None:
    home = Path(sys.argv[1])
    places = {
        "state_dir": home / "state",
        "run_dir": home / "run",
        "bpffs": Path("/sys/fs/bpf"),
        "cache_dir": home / "cache",
        "store": f"sqlite:{home}/store/cluster.db",
        "node_name": "conformance",
    }
    config = home / "pycni.toml"
    config.write_text("".join(f"{key} = {json.dumps(str(one))}\n" for key, one in places.items()))
    _drop_by_policy()
    command = [sys.executable, "-m", "pycni", "--config", str(config)]
    subprocess.run([*command, "setup"], check=True, stdout=subprocess.DEVNULL)
    agent_socket = home / "run" / "agent.sock"
    found = install.Places.of(load(config), config)
    *_, conflist = install.install(home / "bin", home / "net.d", places=found)
    _configurations(home, json.loads(conflist.read_bytes()))
    for device in sys.argv[2:]:
        _on_lan(home, json.loads((home / "own.json").read_bytes()), device)
    agent = [*command, "--verbose", "agent"]
    with (home / "agent.log").open("ab") as log:
        process = subprocess.Popen(agent, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    _wait_until_it_serves(process, agent_socket)
    (home / "pycni.json").write_text(
        json.dumps(
            {
                "agent": process.pid,
                "command": agent,
                "setup": [*command, "setup"],
                "python": sys.executable,
                "socket": str(agent_socket),
                "state_dir": str(places["state_dir"]),
                "pin_root": "/sys/fs/bpf/pycni",
            }
        )
    )
    process.returncode = 0  # it stays


def _drop_by_policy() -> None:
    """As on a host of Docker's. pycni keeps rules in chains that others use as long as they do; a
    plugin of a case that was the first to use one would be taken for who left them behind."""
    for command in ("iptables", "ip6tables"):
        if shutil.which(command):
            subprocess.run([command, "-w", "-P", "FORWARD", "DROP"], check=True)


def _configurations(home: Path, conflist: dict[str, Any]) -> None:
    """The installed network, with all capabilities declared; and one that delegates IPAM.

    The first is ready for a `bandwidth` plugin behind it, the other attaches as is usual.
    """
    (plugin,) = conflist["plugins"]
    declared = {"capabilities": dict.fromkeys(CAPABILITIES, True)}
    own = {"cniVersion": "1.0.0", "name": "pycni", **plugin, **declared, "tcx": True}
    (home / "own.json").write_text(json.dumps(own))
    delegated = {**own, "name": "delegated", "ipam": DELEGATED, "tcx": False}
    (home / "delegated.json").write_text(json.dumps(delegated))


def _on_lan(home: Path, own: dict[str, Any], device: str) -> None:
    """The same two networks with pods on the LAN of eth0."""
    declared = {"capabilities": dict.fromkeys(("ips", "mac", "dns"), True)}
    lan = {**own, "device": device, "ipMasq": False, **declared}
    ranges = [
        {"subnet": "198.18.0.0/24", "rangeStart": "198.18.0.16", "rangeEnd": "198.18.0.127"},
        {"subnet": "fd00:99::/64", "rangeStart": "fd00:99::10", "rangeEnd": "fd00:99::7f"},
    ]
    (home / "own.json").write_text(json.dumps({**lan, "ipam": {"ranges": ranges}}))
    delegated = {**DELEGATED, "ranges": [[one] for one in ranges]}
    (home / "delegated.json").write_text(
        json.dumps({**lan, "name": "delegated", "ipam": delegated})
    )


def _wait_until_it_serves(process: subprocess.Popen[bytes], path: Path) -> None:
    end = time.monotonic() + AGENT_TIMEOUT
    while time.monotonic() < end and process.poll() is None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
            if agent.connect_ex(str(path)) == 0:
                return
        time.sleep(0.05)
    sys.exit("the agent does not serve")


if __name__ == "__main__":
    main()
