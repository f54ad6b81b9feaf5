# SPDX-License-Identifier: Apache-2.0
"""hostPort: which ports of this node lead to which pod; the capability `portMappings`.

The kernel is the database (pods/port_table.py): a forward to a pod's address belongs to that pod,
so `teardown` needs no configuration. Runs in the node's network namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from pycni.cluster import IPAddress
from pycni.cni import document
from pycni.errors import (
    HostPortTaken,
    InvalidConfig,
    NotAvailable,
    SetupError,
)
from pycni.kernel import conntrack
from pycni.pods import port_table
from pycni.pods.port_table import Forward

CAPABILITY = "portMappings"
KEYS = ("hostPort", "containerPort", "protocol", "hostIP")
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
PORT_MAX = 65535


@dataclass(frozen=True)
class PortMapping:
    """A port of the node that leads to a port of the pod."""

    host_port: int
    container_port: int
    protocol: str = "tcp"
    host_ip: IPAddress | None = None
    """None: every address of the node; unspecified (0.0.0.0, ::): every one of that IP version."""

    def __str__(self) -> str:
        where = "" if self.host_ip is None else f" at {self.host_ip}"
        return f"{self.host_port}/{self.protocol}{where}"


def parse(runtime_config: Mapping[str, Any]) -> tuple[PortMapping, ...]:
    """The capability's value in `runtimeConfig`, with keys in any case. Raises InvalidConfig.

    An absent or empty protocol means tcp. Source: CNI CONVENTIONS.md, "dynamic plugin specific
    fields".
    """
    entries = document.pick(runtime_config, (CAPABILITY,)).get(CAPABILITY, [])
    if not isinstance(entries, list):
        raise _invalid("is no list", entries)
    return tuple(dict.fromkeys(_parse_mapping(entry) for entry in entries))


def refuse_overlay_port(mappings: Sequence[PortMapping], port: int) -> None:
    """Raises InvalidConfig if a mapping takes the overlay's UDP port from the node, at whatever
    address: the VXLAN of other nodes would be led to a pod."""
    for mapping in mappings:
        if mapping.protocol == "udp" and mapping.host_port == port:
            raise InvalidConfig(
                f"{CAPABILITY}: no pod can have the host port {mapping}",
                details=f"UDP port {port} of every node is the overlay's",
                hint="choose another hostPort for the pod",
            )


def setup(mappings: Sequence[PortMapping], addresses: Collection[IPAddress], *, owner: str) -> None:
    """Open ports of the node for the pod that has `addresses`: all of them or none.

    `owner` is the container, for messages. Ports that still lead to one of the addresses belong to
    an earlier pod and are closed. Raises HostPortTaken, InvalidConfig for a mapping that leads
    nowhere, and NotAvailable on a node that was set up without the table.
    """
    wanted = plan(mappings, addresses, owner=owner)
    if not wanted:
        return
    present = port_table.forwards()
    stale = [forward for forward in present if forward.pod in addresses]
    _refuse_taken(wanted, present, addresses)
    try:
        port_table.change(create=wanted, delete=stale)
    except SetupError:
        _refuse_taken(wanted, port_table.forwards(), addresses)  # another ADD was faster
        raise
    for forward in wanted:
        if forward.protocol == "udp":
            conntrack.forget_other_answers(
                PROTOCOLS["udp"], forward.host_port, host_ip=forward.host_ip, pod=forward.pod
            )


def problems(mappings: Sequence[PortMapping], addresses: Collection[IPAddress]) -> list[str]:
    """Which of these mappings are not in force, a sentence each; changes nothing.

    Raises InvalidConfig as `setup` does.
    """
    wanted = plan(mappings, addresses, owner="")
    if not wanted:
        return []
    present: list[Forward] = []
    with suppress(NotAvailable):
        present = [replace(forward, owner="") for forward in port_table.forwards()]
    return [
        f"host port {forward.host_port}/{forward.protocol} does not lead to port "
        f"{forward.pod_port} of {forward.pod}"
        for forward in wanted
        if forward not in present
    ]


def teardown(addresses: Collection[IPAddress]) -> None:
    """Close all ports that lead to these addresses, and forget the connections through them."""
    _close(lambda forward: forward.pod in addresses)


def sweep(alive: Collection[IPAddress]) -> None:
    """Close the ports that lead to no address in `alive`, which has those of all pods of this node.

    To be called under the lock that an ADD holds from its lease to its ports.
    """
    _close(lambda forward: forward.pod not in alive)


def plan(
    mappings: Sequence[PortMapping], addresses: Collection[IPAddress], *, owner: str
) -> list[Forward]:
    """The forwards for these mappings: each leads to the pod's first address of an IP version.

    Pure. Raises InvalidConfig if a mapping leads nowhere, or if two overlap.
    """
    planned: list[Forward] = []
    for mapping in mappings:
        new = list(_forwards(mapping, addresses, owner[: port_table.OWNER_LIMIT]))
        if not new:
            raise _invalid(
                f"{mapping} has no pod's address to lead to", [str(one) for one in addresses]
            )
        if any(one.overlaps(other) for one in new for other in planned):
            raise _invalid(f"{mapping} is there twice", [str(one) for one in mappings])
        planned += new
    return planned


def _forwards(
    mapping: PortMapping, addresses: Collection[IPAddress], owner: str
) -> Iterator[Forward]:
    host_ip = mapping.host_ip
    for version in (4, 6) if host_ip is None else (host_ip.version,):
        for pod in [address for address in addresses if address.version == version][:1]:
            yield Forward(
                protocol=mapping.protocol,
                host_ip=None if host_ip is None or host_ip.is_unspecified else host_ip,
                host_port=mapping.host_port,
                pod=pod,
                pod_port=mapping.container_port,
                owner=owner,
            )


def _refuse_taken(
    wanted: Sequence[Forward], present: Sequence[Forward], own: Collection[IPAddress]
) -> None:
    for new in wanted:
        for old in present:
            if old.pod not in own and new.overlaps(old):
                raise HostPortTaken(
                    f"host port {new.host_port}/{new.protocol} is taken by {old.owner}",
                    details=f"it leads to port {old.pod_port} of {old.pod}",
                    hint="delete that pod, or choose another hostPort",
                )


def _close(condemned: Callable[[Forward], bool]) -> None:
    """No error if there is no table: then there are no ports either."""
    found: list[Forward] = []
    with suppress(NotAvailable):
        found = [forward for forward in port_table.forwards() if condemned(forward)]
    if not found:
        return
    try:
        port_table.change(delete=found)
    except SetupError:
        with suppress(NotAvailable):
            if any(condemned(forward) for forward in port_table.forwards()):
                raise  # else another DEL was faster
    for forward in found:
        conntrack.forget_answers(PROTOCOLS[forward.protocol], forward.host_port, pod=forward.pod)


def _parse_mapping(entry: Any) -> PortMapping:
    if not isinstance(entry, dict):
        raise _invalid("has an entry that is no object", entry)
    found = document.pick(entry, KEYS)
    protocol = found.get("protocol") or "tcp"
    if not isinstance(protocol, str) or protocol.lower() not in PROTOCOLS:
        raise _invalid(f"has a protocol that is none of {', '.join(PROTOCOLS)}", entry)
    return PortMapping(
        host_port=_port(found.get("hostPort"), entry),
        container_port=_port(found.get("containerPort"), entry),
        protocol=protocol.lower(),
        host_ip=_host_ip(found.get("hostIP"), entry),
    )


def _port(value: Any, entry: dict[str, Any]) -> int:
    if type(value) is not int or not 0 < value <= PORT_MAX:
        raise _invalid(f"has a port that is not from 1 to {PORT_MAX}", entry)
    return value


def _host_ip(value: Any, entry: dict[str, Any]) -> IPAddress | None:
    if value in (None, ""):
        return None
    try:
        address = ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise _invalid("has a hostIP that is no IP address", entry) from None
    if address.version == 4:
        return address
    if address.scope_id:
        raise _invalid("has a hostIP with a zone, which no packet has", entry)
    return address.ipv4_mapped or address


def _invalid(problem: str, found: Any) -> InvalidConfig:
    return InvalidConfig(
        f"{CAPABILITY} {problem}", details=f"found {found!r}", hint="correct the pod's ports"
    )
