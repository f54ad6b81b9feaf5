# SPDX-License-Identifier: Apache-2.0
"""hostPort: which ports of this node lead to which pod; the capability `portMappings`.

An ADD writes a record (port_records.py) and the elements of the table (port_table.py). An element
that leads to a pod's address belongs to that pod, so `close` needs neither record nor
configuration; port_upkeep.py holds the table to the records. Runs in the node's network namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from pycni.cluster import IPAddress
from pycni.cni import document
from pycni.errors import HostPortTaken, InvalidConfig, NotAvailable, SetupError
from pycni.kernel import conntrack
from pycni.kernel.conntrack import Service
from pycni.kernel.rtnl import Rtnl
from pycni.pods import port_records, port_table
from pycni.pods.lease import is_held
from pycni.pods.port_records import PORT_MAX, PortRecord
from pycni.pods.port_table import Forward
from pycni.settings import Settings

CAPABILITY = "portMappings"
KEYS = ("hostPort", "containerPort", "protocol", "hostIP")
PROTOCOLS = {name: number for number, name in port_table.PROTOCOLS.items()}

Port = tuple[str, int, int]
"""Protocol, number, IP version: two forwards that differ in one of them never overlap."""


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


def setup(ipr: Rtnl, settings: Settings, record: PortRecord) -> None:
    """Record the ports of a pod and open them: all of them or none.

    Ports that still lead to one of the pod's addresses belong to an earlier pod and are closed.
    Callers hold the attachment's lock, have claimed its lease, and undo with `teardown`. Raises
    HostPortTaken, FileError, and NotAvailable on a node that was set up without the table.
    """
    own = {forward.pod for forward in record.forwards}
    present = port_table.forwards()
    _refuse_taken(record, [forward for forward in present if forward.pod not in own])
    _refuse_recorded(ipr, settings, record)
    port_records.write(settings, record)
    try:
        port_table.change(
            create=record.forwards, delete=[forward for forward in present if forward.pod in own]
        )
    except SetupError:  # another ADD may have been faster
        present = port_table.forwards()
        _refuse_taken(record, [forward for forward in present if forward.pod not in own])
        raise
    forget_former(record.forwards)


def teardown(settings: Settings, record: PortRecord) -> None:
    """The undo of `setup`; no error if there is nothing to undo. Raises FileError, SetupError."""
    close({forward.pod for forward in record.forwards})
    port_records.forget(settings, record.digest)


def forget_former(opened: Iterable[Forward]) -> None:
    """Forget the UDP connections to ports that were just opened, which somebody else answers: a
    client that goes on sending would never reach the pod. Raises NetlinkError."""
    conntrack.forget_other_answers(
        Service(PROTOCOLS["udp"], one.host_ip, one.host_port, one.pod)
        for one in opened
        if one.protocol == "udp"
    )


def problems(mappings: Sequence[PortMapping], addresses: Collection[IPAddress]) -> list[str]:
    """Which of these mappings are not in force, a sentence each; changes nothing.

    Raises InvalidConfig as `setup` does.
    """
    wanted = plan(mappings, addresses, owner="")
    if not wanted:
        return []
    present: set[Forward] = set()
    with suppress(NotAvailable):
        present = set(port_table.forwards())
    return [
        f"host port {forward.host_port}/{forward.protocol} does not lead to port "
        f"{forward.pod_port} of {forward.pod}"
        for forward in wanted
        if forward not in present
    ]


def close(addresses: Collection[IPAddress]) -> None:
    """Close all ports that lead to these addresses. Raises SetupError.

    The connections through them are those of the addresses, so whoever takes the addresses away
    has them forgotten.
    """
    close_where(lambda forward: forward.pod in addresses)


def close_where(condemned: Callable[[Forward], bool]) -> int:
    """Close ports; returns how many. No error if there is no table: then there are no ports."""
    found: list[Forward] = []
    with suppress(NotAvailable):
        found = [forward for forward in port_table.forwards() if condemned(forward)]
    if not found:
        return 0
    try:
        port_table.change(delete=found)
    except SetupError:
        with suppress(NotAvailable):
            # another DEL was faster with some of them, or all
            if left := [forward for forward in port_table.forwards() if condemned(forward)]:
                port_table.change(delete=left)
    return len(found)


def plan(
    mappings: Sequence[PortMapping], addresses: Collection[IPAddress], *, owner: str
) -> list[Forward]:
    """The forwards for these mappings: each leads to the pod's first address of an IP version.

    Pure. Raises InvalidConfig if a mapping leads nowhere, or if two overlap.
    """
    planned: dict[Port, list[Forward]] = {}
    for mapping in mappings:
        new = list(_forwards(mapping, addresses, owner[: port_table.OWNER_LIMIT]))
        if not new:
            raise _invalid(
                f"{mapping} has no pod's address to lead to", [str(one) for one in addresses]
            )
        for one in new:
            same = planned.setdefault(_port_of(one), [])
            if any(one.overlaps(other) for other in same):
                raise _invalid(f"{mapping} is there twice", [str(one) for one in mappings])
            same.append(one)
    return [one for same in planned.values() for one in same]


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


def _refuse_taken(record: PortRecord, others: Iterable[Forward]) -> None:
    for new, old in conflicts(record.forwards, others):
        raise HostPortTaken(
            f"host port {new.host_port}/{new.protocol} is taken by {old.owner}",
            details=f"it leads to port {old.pod_port} of {old.pod}",
            hint="delete that pod, or choose another hostPort",
        )


def _refuse_recorded(ipr: Rtnl, settings: Settings, record: PortRecord) -> None:
    """The ports of a living pod are its own, even while the table is lost."""
    for other in port_records.read_all(settings).by_digest.values():
        if other.digest == record.digest or not any(conflicts(record.forwards, other.forwards)):
            continue
        if is_held(ipr, other.digest):
            _refuse_taken(record, other.forwards)


def conflicts(
    wanted: Iterable[Forward], others: Iterable[Forward]
) -> Iterator[tuple[Forward, Forward]]:
    """Pairs of a forward and another that a packet could match both. Pure."""
    by_port: dict[Port, list[Forward]] = {}
    for other in others:
        by_port.setdefault(_port_of(other), []).append(other)
    for one in wanted:
        for other in by_port.get(_port_of(one), ()):
            if one.overlaps(other):
                yield one, other


def _port_of(forward: Forward) -> Port:
    return forward.protocol, forward.host_port, forward.pod.version


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
