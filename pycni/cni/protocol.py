# SPDX-License-Identifier: Apache-2.0
"""One call of the plugin as the CNI specification defines it: the CNI_* environment, checked.

Pure: reads no file and touches no interface. If several things are wrong, the order of the checks
decides which error code the runtime gets. It is that of skel, the reference library: first
everything here, then stdin (netconf.py). Source: CNI spec 1.0.0, section 2 "Execution Protocol";
comments say where pycni is stricter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pycni.cni.plugin import VERSIONS
from pycni.errors import IncompatibleVersion, InvalidParameter

OLDEST = VERSIONS[0]
"""The version of a configuration without a cniVersion."""

COMMANDS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")

REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
}
"""By command; empty counts as missing. Only a network with another IPAM plugin needs CNI_PATH:
ipam_plugin.find checks it."""

SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
"""The first version of the specification that has the command."""

IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", re.ASCII)
"""A container ID or network name."""

IFNAME = re.compile(r"[!-~]{1,15}", re.ASCII)
"""Printable ASCII without space, at most IFNAMSIZ - 1 bytes; what follows is not allowed."""

# The kernel expands `%d` in a name; `all` and `default` are directories of net.ipv4.conf.
IFNAME_BAD_CHARACTERS = re.compile(r"[/:%]|^-")
IFNAMES_TAKEN = frozenset({".", "..", "lo", "all", "default"})


@dataclass(frozen=True)
class Request:
    """The parameters of one call; on DEL `ifname` and `args` are not checked."""

    command: str
    container_id: str = ""
    netns: str = ""
    """Path of the pod's network namespace, "" when there is none; goes into results verbatim."""
    ifname: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    """CNI_ARGS; unknown keys are ignored."""
    allow_own_netns: bool = False
    """CNI_NETNS_OVERRIDE, as in skel: the pod may be in the node's own namespace."""


@dataclass(frozen=True)
class Reply:
    """Exit status and output of the plugin's process."""

    status: int
    stdout: bytes = b""
    stderr: bytes = b""
    take_back: Callable[[], None] | None = field(default=None, compare=False)
    """Undoes what was done, for a caller who is gone before it has the reply. Raises PycniError."""


def parse_request(env: Mapping[str, str]) -> Request:
    """The call in `env`. Raises InvalidParameter (code 4), which names every missing variable."""
    command = env.get("CNI_COMMAND", "")
    if command not in COMMANDS:
        raise InvalidParameter(
            f"unknown CNI_COMMAND {command!r}", hint=f"pycni knows {', '.join(COMMANDS)}"
        )
    missing = [name for name in REQUIRED.get(command, ()) if not env.get(name)]
    if missing:
        raise InvalidParameter(
            f"required environment variables are missing or empty: {', '.join(missing)}",
            hint="the container runtime must set them",
        )
    if command not in REQUIRED:  # some runtimes set placeholders for the other commands
        return Request(command)
    check_container_id(env["CNI_CONTAINERID"])
    if command != "DEL":
        check_ifname(env["CNI_IFNAME"])
    return Request(
        command,
        container_id=env["CNI_CONTAINERID"],
        netns=env.get("CNI_NETNS", ""),
        ifname=env["CNI_IFNAME"],
        args=parse_args(env.get("CNI_ARGS", ""), lenient=command == "DEL"),
        allow_own_netns=env.get("CNI_NETNS_OVERRIDE", "").upper() in ("1", "TRUE"),
    )


def check_container_id(text: str) -> None:
    """Raise InvalidParameter unless `text` is an identifier; its length is not limited."""
    if not IDENTIFIER.fullmatch(text):
        raise InvalidParameter(
            "CNI_CONTAINERID has characters that are not allowed",
            details=f"found {text!r}",
            hint="it must begin with a letter or digit, then letters, digits, '_', '.' and '-'",
        )


def check_ifname(text: str) -> None:
    """Raise InvalidParameter unless the kernel gives an interface exactly this name.

    Stricter than skel: no `%`, no leading `-`, only ASCII, no name that the kernel reserves.
    """
    if not IFNAME.fullmatch(text) or IFNAME_BAD_CHARACTERS.search(text) or text in IFNAMES_TAKEN:
        raise InvalidParameter(
            "CNI_IFNAME cannot be the name of a pod's interface",
            details=f"found {text!r} ({len(os.fsencode(text))} bytes)",
            hint="1 to 15 ASCII characters without spaces, '/', ':' and '%', not beginning with "
            f"'-', and none of {', '.join(sorted(IFNAMES_TAKEN))}",
        )


def parse_args(text: str, *, lenient: bool = False) -> dict[str, str]:
    """CNI_ARGS, `KEY=VALUE;KEY=VALUE`; a part without `=` raises, or is ignored when `lenient`."""
    args = {}
    for part in text.split(";"):
        key, equals, value = part.partition("=")
        if equals and key:
            args[key] = value
        elif part and not lenient:
            raise InvalidParameter(
                "CNI_ARGS has a part that is not KEY=VALUE",
                details=f"found {part!r}",
                hint="parts are separated by semicolons: KEY=VALUE;KEY=VALUE",
            )
    return args


def check_version(version: str) -> None:
    """Raise IncompatibleVersion (code 1) unless pycni speaks this version of the specification."""
    if version not in VERSIONS:
        raise IncompatibleVersion(
            f"incompatible CNI versions: config is {version!r}",
            details=f"pycni supports {', '.join(VERSIONS)}",
            hint="set cniVersion in the network configuration to one of these",
        )


def check_command_version(command: str, version: str) -> None:
    """Raise IncompatibleVersion if `version`, one of ours, does not have `command` yet."""
    since = SINCE.get(command, OLDEST)
    if _ordered(version) < _ordered(since):
        raise IncompatibleVersion(
            f"config version does not allow {command}",
            details=f"the config is {version}, {command} came with {since}",
            hint=f"set cniVersion in the network list to {since} or later",
        )


def _ordered(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
