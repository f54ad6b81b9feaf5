# SPDX-License-Identifier: Apache-2.0
"""An IPAM plugin that does what a case tells it to, and writes down how it was called.

This file is the plugin, too: a copy of it with a first line for the interpreter is put on CNI_PATH,
beside `behaviour.json`. Each verb may `sleep`, print `stdout` in place of an answer, give an
`error`, write so many bytes to `stderr`, `exit`, or die of a `signal`; `merge` changes the result,
and `only` names the one container that all this is for. A lease is a file named after the
address.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import sys
import time
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

NAME = "fakeipam"
FIRST = 100
"""Of a subnet's addresses, the first that is leased."""

Json = dict[str, Any]


class FakeIpam:
    """The plugin as the suite sees it, in a directory of its own."""

    def __init__(self, directory: Path, *, subnets: list[str]) -> None:
        self.directory = directory
        self.subnets = subnets
        self.leases_directory = directory / "leases"
        self.leases_directory.mkdir(parents=True)
        self.install()
        self.behave()

    @property
    def program(self) -> Path:
        return self.directory / NAME

    @property
    def conf(self) -> Json:
        """The `ipam` object that names it."""
        return {
            "type": NAME,
            "subnets": self.subnets,
            "routes": [{"dst": "::/0" if ":" in one else "0.0.0.0/0"} for one in self.subnets],
            "unknown": {"kept": [1, "é"]},
        }

    def install(self) -> None:
        """Put the executable there (again)."""
        source = f"#!{sys.executable} -IS\n" + Path(__file__).read_text(encoding="utf-8")
        self.program.write_text(source, encoding="utf-8")
        self.program.chmod(0o755)

    def behave(self, **verbs: Json) -> None:
        """What each verb does from now on; those not named do their duty."""
        (self.directory / "behaviour.json").write_text(json.dumps(verbs))

    def calls(self, command: str = "") -> list[Json]:
        """Calls so far, of one verb or of all: `env`, `stdin` (base64), `argv`."""
        path = self.directory / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines]
        return [one for one in found if command in ("", one["env"].get("CNI_COMMAND"))]

    def wait_for(self, command: str, *, seconds: float = 60.0) -> None:
        """Until it has been called."""
        end = time.monotonic() + seconds
        while not self.calls(command):
            assert time.monotonic() < end, f"the IPAM plugin was not called for {command}"
            time.sleep(0.005)

    def leases(self) -> set[str]:
        """Addresses that are leased."""
        return {path.name for path in self.leases_directory.iterdir()}


def main() -> None:
    """One call of the plugin."""
    here = Path(__file__).resolve().parent
    raw = sys.stdin.buffer.read()
    command = os.environ.get("CNI_COMMAND", "")
    _write_down(here, raw)
    how = json.loads((here / "behaviour.json").read_text()).get(command, {})
    time.sleep(how.get("sleep", 0))
    if how.get("only") not in (None, os.environ.get("CNI_CONTAINERID")):
        how = {}
    if "signal" in how:
        os.kill(os.getpid(), how["signal"])
    sys.stderr.write("x" * how.get("stderr", 0))
    if "error" in how:
        sys.stdout.write(json.dumps(how["error"]))
        sys.exit(1)
    conf = json.loads(raw)
    owner = "\n".join(os.environ.get(f"CNI_{key}", "") for key in ("CONTAINERID", "IFNAME"))
    answer = ""
    if command == "ADD":
        answer = json.dumps(_add(conf, here / "leases", owner) | how.get("merge", {}))
    elif command == "DEL":
        _delete(here / "leases", owner)
    sys.stdout.write(how.get("stdout", answer))
    sys.exit(how.get("exit", 0))


def _add(conf: Json, leases: Path, owner: str) -> Json:
    found = []
    for subnet in conf["ipam"]["subnets"]:
        network = ip_network(subnet)
        for number in range(FIRST, FIRST + 100):
            address = network[number]
            try:
                with (leases / str(address)).open("x") as lease:
                    lease.write(owner)
            except FileExistsError:
                continue
            found.append((address, network.prefixlen, network[1]))
            break
    return _result(conf, found)


def _result(conf: Json, found: list[Any]) -> Json:
    version = conf.get("cniVersion", "")
    routes = conf["ipam"].get("routes", [])
    if version in ("", "0.1.0", "0.2.0"):
        result: Json = {"cniVersion": version or "0.1.0"}
        for address, prefix, gateway in found:
            its = [one for one in routes if (":" in one["dst"]) == (address.version == 6)]
            result[f"ip{address.version}"] = {
                "ip": f"{address}/{prefix}", "gateway": str(gateway), "routes": its,
            }  # fmt: skip
    else:
        numbered = version in ("0.3.0", "0.3.1", "0.4.0")
        ips = [
            {"address": f"{address}/{prefix}", "gateway": str(gateway)}
            | ({"version": str(address.version)} if numbered else {})
            for address, prefix, gateway in found
        ]
        result = {"cniVersion": version, "ips": ips, "routes": routes}
    if "dns" in conf["ipam"]:
        result["dns"] = conf["ipam"]["dns"]
    return result


def _delete(leases: Path, owner: str) -> None:
    for path in leases.iterdir():
        with suppress(FileNotFoundError):
            if path.read_text() == owner:
                path.unlink()


def _write_down(here: Path, raw: bytes) -> None:
    call = {
        "env": dict(os.environ),
        "stdin": base64.b64encode(raw).decode(),
        "argv": sys.argv,
    }
    with (here / "calls").open("a") as calls:
        fcntl.flock(calls, fcntl.LOCK_EX)
        calls.write(json.dumps(call) + "\n")


if __name__ == "__main__":
    main()
