# SPDX-License-Identifier: Apache-2.0
"""Part "attachments": each pod that the container runtime attached has its link.

A link that was deleted, by hand or by a teardown, is a lease that ended: the kernel is the
database (D4), and knows nothing of it any more. The pod runs on without a network. The runtime
still has the result of its ADD, which libcni keeps in a file until a DEL succeeds. Where Multus
goes first, it is Multus who calls pycni and keeps that file. Only where an agent holds the network
list (upkeep/installed.py) is it known which results are of pycni's network.

Source of names and keys: libcni, api.go, "cachedInfo".
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycni.cni import network_lists
from pycni.cni.network_lists import ListFile
from pycni.faults import Fault
from pycni.files import read_regular
from pycni.lan import leases
from pycni.logfmt import quoted
from pycni.names import AttachmentKey
from pycni.pods.lease import Lease
from pycni.settings import Settings
from pycni.upkeep import installed
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "attachments"
KEPT = Path("/var/lib/cni")
"""Below it is `results`."""
OF_MULTUS = KEPT / "multus"
"""The same of Multus, unless its list names another directory (`cniDir`)."""
MOMENT = 0.3
"""Seconds in which a DEL that is about to end has ended."""


@dataclass(frozen=True)
class Result:
    """What libcni keeps of one attachment."""

    path: Path
    key: AttachmentKey
    is_further: bool = False
    """Of a network that Multus adds to the pod's own."""


def faults(d: Description, seen: Seen) -> Iterator[Fault]:
    """Pods without their link, which only a person can have made anew."""
    cut = _without_link(results(d.settings), d, seen)
    if cut:
        time.sleep(MOMENT)
        cut = _without_link((one for one in cut if one.path.exists()), d, seen)
    for one in cut:
        name, todo = _name_and_todo(one)
        lost = f"its interface {quoted(one.key.ifname)}" if one.is_further else "a network"
        yield Fault(PART, name, f"without {lost}: its link is gone", todo)


def details(d: Description) -> str:
    """How many the runtime has, for a person."""
    if installed.load(d.settings) is None:
        return "not watched: no agent was started with --install-list"
    return f"{sum(1 for _ in results(d.settings))} known to the runtime"


def pod_name(lease: Lease) -> str:
    """The pod of a lease, "namespace/name", as the runtime's result of its ADD or Multus's says;
    empty if neither does, or the lease's names are cut."""
    file = "-".join((lease.network, lease.container_id, lease.ifname))
    for keeper in (KEPT, OF_MULTUS):
        arguments = _arguments(keeper / "results" / file) if file == Path(file).name else {}
        names = [arguments.get(f"K8S_POD_{key}", "") for key in ("NAMESPACE", "NAME")]
        if all(names):
            return "/".join(names)
    return ""


def results(settings: Settings) -> Iterator[Result]:
    """Those of pycni's networks since this host has booted.

    Lists name a network, and Multus has others that stand in the Kubernetes API and in no file:
    what libcni keeps has the configuration of each.
    """
    held = installed.load(settings)
    if held is None:
        return
    lists = network_lists.read_all(held.listed.path.parent)
    plugin = held.executable.path.name
    networks = {one.network for one in lists if one.uses(plugin)}
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    for path in _files(_keeper(lists) / "results"):
        if not _is_after(path, booted):
            continue
        named = [Result(path, key) for network in networks if (key := _key(path.name, network))]
        yield from named or (Result(path, key, is_further=True) for key in _keys_of(path, plugin))


def _keeper(lists: list[ListFile]) -> Path:
    """The directory of who calls pycni: the runtime, or Multus where its list goes first.

    What the other one keeps is of before: nobody removes it when the pod goes.
    """
    first = next(iter(lists), None)
    if first is None or not first.is_of_multus:
        return KEPT
    named = next((one["cniDir"] for one in first.plugins if "cniDir" in one), None)
    return Path(named) if named and isinstance(named, str) else OF_MULTUS


def _files(directory: Path) -> list[Path]:
    """Empty if there is no such directory."""
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def _key(name: str, network: str) -> AttachmentKey | None:
    """By a file's name, NETWORK-CONTAINER-INTERFACE; None if it is of another network."""
    head = f"{network}-"
    container, dash, ifname = name.removeprefix(head).partition("-")
    if not network or not name.startswith(head) or not dash:
        return None
    return AttachmentKey(network, container, ifname)


def _keys_of(path: Path, plugin: str) -> Iterator[AttachmentKey]:
    """The attachment that a file is of, if its configuration has our plugin; none if that cannot be
    read."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        document: dict[str, Any] = json.loads(path.read_bytes())
        conf: dict[str, Any] = json.loads(base64.b64decode(document["config"]))
        if plugin in (one.get("type") for one in conf.get("plugins", [conf])):
            names = (document[field] for field in ("networkName", "containerId", "ifName"))
            yield AttachmentKey(*map(str, names))


def _is_after(path: Path, moment: float) -> bool:
    """Whether a file was written since: of what was before, a boot has left no link."""
    try:
        return path.stat().st_mtime > moment
    except OSError:
        return False


def _without_link(found: Iterable[Result], d: Description, seen: Seen) -> list[Result]:
    """Asks the kernel anew for each: an ADD may have ended since."""
    return [
        one
        for one in found
        if seen.ipr.link(one.key.host_ifname) is None and not _is_on_lan(one, d, seen)
    ]


def _is_on_lan(one: Result, d: Description, seen: Seen) -> bool:
    lease = leases.find(d.settings.run_dir, one.key.digest)
    return lease is not None and leases.is_alive(seen.ipr, lease)


def _name_and_todo(result: Result) -> tuple[str, str]:
    """How a person knows the pod, and what to do about it."""
    arguments = _arguments(result.path)
    namespace, name = (arguments.get(f"K8S_POD_{key}", "") for key in ("NAMESPACE", "NAME"))
    if namespace and name:
        todo = f"delete it: kubectl -n {quoted(namespace)} delete pod {quoted(name)}"
        return f"the pod {quoted(namespace)}/{quoted(name)}", todo
    return f"the container {quoted(result.key.container_id)}", "remove it, and make it anew"


def _arguments(path: Path) -> dict[str, str]:
    """The runtime's CNI_ARGS of an ADD; empty if they cannot be read."""
    try:
        document: dict[str, Any] = json.loads(read_regular(path))
        return {str(key): str(value) for key, value in document["cniArgs"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
