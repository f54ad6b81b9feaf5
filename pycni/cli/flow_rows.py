# SPDX-License-Identifier: Apache-2.0
"""Rows about connections through Services: which are asked for, and how they are named."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pycni.cli.output import cell, to_json
from pycni.cluster import IPAddress, IPNetwork
from pycni.dataplane.flows import Connection, Flows
from pycni.dataplane.service_maps import NAMES, PROTOCOLS, FrontendKey
from pycni.errors import InvalidParameter, PycniError
from pycni.kernel.rtnl import Rtnl
from pycni.pods.lease import leases
from pycni.services import objects
from pycni.services.endpoints import VERSIONS
from pycni.services.frontends import frontends
from pycni.settings import Settings
from pycni.stores import manifests
from pycni.stores.kube.service_lists import ServiceLists
from pycni.upkeep import attachments

Row = dict[str, Any]

LOOK = 1.0
"""Seconds between two looks, at least."""
REST = 10.0
"""The same, for each second that a look takes."""
ON_LINE = ("protocol", "pod_name", "pod", "pod_port", "service", "address", "port", "endpoint",
           "endpoint_port")  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """Which connections are asked for; what is None or empty does not count."""

    pod: str = ""
    """[NAMESPACE/]NAME of the client's pod or the endpoint's, or the ID of its container."""
    service: str = ""
    """[NAMESPACE/]NAME."""
    address: IPNetwork | None = None
    """Of client, Service or endpoint."""
    family: str | None = None
    """IPv4 or IPv6."""
    protocol: str | None = None


@dataclass(frozen=True)
class Named:
    """What addresses and ports are called."""

    pods: Mapping[IPAddress, str] = field(default_factory=dict)
    """Of this node: "namespace/name", or the ID of the container where that is not known."""
    services: Mapping[FrontendKey, str] = field(default_factory=dict)
    """"namespace/name", and the port's name behind a colon if it has one."""


def named(settings: Settings, wish: Wish, warn: Callable[[str], None]) -> Named:
    """Names of pods by their leases, of Services by the file or the cluster that the agent has them
    from. Where that does not answer, `warn` is told why, and Services have no names.

    Raises PycniError if it is asked for a Service then.
    """
    with Rtnl() as ipr:
        pods = {
            address: attachments.pod_name(lease) or lease.container_id
            for lease in leases(ipr)
            for address in lease.addresses
        }
    try:
        services = _services(settings)
    except PycniError as error:
        if wish.service:
            raise
        warn(f"Services are not named: {error.message}")
        services = {}
    return Named(pods, services)


def filters(wish: Wish, names: Named) -> Callable[[Connection], bool]:
    """Whether a connection is asked for. Raises InvalidParameter for a pod or a Service that is not
    there."""
    tests: list[Callable[[Connection], bool]] = []
    if wish.protocol is not None:
        number = PROTOCOLS[wish.protocol]
        tests.append(lambda one: one.packet.protocol == number)
    if wish.family is not None:
        version = VERSIONS[wish.family]
        tests.append(lambda one: one.packet.src.version == version)
    if (network := wish.address) is not None:
        tests.append(lambda one: any(address in network for address in _addresses(one)))
    if wish.pod:
        pods = _addresses_of(wish.pod, names)
        tests.append(lambda one: one.packet.src in pods or one.flow.to.dst in pods)
    if wish.service:
        fronts = _frontends_of(wish.service, names)
        tests.append(lambda one: _frontend(one) in fronts)
    return lambda one: all(test(one) for test in tests)


def found(
    settings: Settings, fits: Callable[[Connection], bool], names: Named
) -> Generator[Row, None, None]:
    """A row for each connection, in the kernel's order, one at a time. Raises NotAvailable.

    `pod` is the client's address, `endpoint` whom it talks to; `source` is how the endpoint sees
    the client. `idle_seconds` are those since the last packet, either way. When a connection began
    is not kept.
    """
    now = time.monotonic_ns()
    with Flows(settings.pin_root) as flows:
        for one in flows.connections(now):
            if fits(one):
                yield _row(one, names, now)


def followed(
    settings: Settings,
    fits: Callable[[Connection], bool],
    names: Named,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[Row]:
    """Connections that begin, or whose state changes, from now on and for ever; of those that begin
    and end between two looks the end. Raises NotAvailable."""
    seen: dict[bytes, bytes] = {}
    is_first = True
    while True:
        began = time.monotonic_ns()
        with Flows(settings.pin_root) as flows:  # a setup may put others in their place
            for one in flows.changes(seen, began):
                if not is_first and fits(one):
                    row = _row(one, names, time.monotonic_ns())
                    yield {"time": datetime.now(UTC).isoformat(timespec="milliseconds")} | row
        is_first = False
        wait(max(LOOK, REST * (time.monotonic_ns() - began) / 1e9))


def line(row: Row, *, as_json: bool) -> str:
    """A row of `followed` on one line."""
    if as_json:
        return to_json(row, indent=None)
    words = [f"{key}={cell(row[key])}" for key in ON_LINE if row[key] is not None]
    return " ".join((row["time"], row["state"], *words))


def _row(one: Connection, names: Named, now: int) -> Row:
    packet, to = one.packet, one.flow.to
    return {
        "protocol": NAMES.get(packet.protocol, str(packet.protocol)),
        "pod_name": names.pods.get(packet.src),
        "pod": str(packet.src),
        "pod_port": packet.sport,
        "service": names.services.get(_frontend(one)),
        "address": str(packet.dst),
        "port": packet.dport,
        "endpoint_name": names.pods.get(to.dst),
        "endpoint": str(to.dst),
        "endpoint_port": to.dport,
        "source": str(to.src),
        "source_port": to.sport,
        "state": one.state,
        "idle_seconds": one.idle(now),
        "expires_seconds": one.remaining(now),
    }


def _services(settings: Settings) -> dict[FrontendKey, str]:
    """Raises PycniError."""
    if settings.services_file is not None:
        documents = manifests.read([settings.services_file])
    else:
        documents = ServiceLists.open(settings.store_url).documents(slices=False)
    services = objects.read(one for one in documents if one.get("kind") == "Service").services
    fronts, _ = frontends(services, external_ips=True, owned=lambda _: "")
    return {
        FrontendKey(one.address, one.port, PROTOCOLS[one.protocol]): ":".join(
            filter(None, (one.target.service, one.target.port_name))
        )
        for one in fronts
        if one.address is not None and one.protocol in PROTOCOLS
    }


def _addresses(one: Connection) -> tuple[IPAddress, IPAddress, IPAddress]:
    return one.packet.src, one.packet.dst, one.flow.to.dst


def _frontend(one: Connection) -> FrontendKey:
    return FrontendKey(one.packet.dst, one.packet.dport, one.packet.protocol)


def _whole(name: str) -> str:
    return name if "/" in name else f"default/{name}"


def _addresses_of(pod: str, names: Named) -> set[IPAddress]:
    asked = {pod, _whole(pod)}
    ones = {address for address, name in names.pods.items() if name in asked}
    if not ones:
        raise InvalidParameter(
            f"there is no pod {pod} on this node",
            hint="write NAMESPACE/NAME, or the ID of its container (`pycni endpoints`); of another "
            "node's pod give the address: --address",
        )
    return ones


def _frontends_of(service: str, names: Named) -> set[FrontendKey]:
    whole = _whole(service)
    ones = {key for key, name in names.services.items() if name.partition(":")[0] == whole}
    if not ones:
        raise InvalidParameter(
            f"there is no Service {whole} with an address",
            hint="`pycni services` lists all; write NAMESPACE/NAME",
        )
    return ones
