"""Nouns: what reads a node and changes nothing."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

from loader import attach, pins, probe
from pycni.cli.output import emit, output_option
from pycni.dataplane import dumps, events, maps
from pycni.dataplane.events import DropEvent, Lost
from pycni.errors import PycniError
from pycni.kernel.rtnl import Rtnl
from pycni.node import next_hops, overlay
from pycni.node.record import Node
from pycni.pods import port_table
from pycni.pods.lease import leases
from pycni.settings import Settings, load
from pycni.setup import provision
from pycni.stores import HEARTBEAT_FRESH, open_store


@click.command()
@output_option
@click.pass_obj
def status(path: Path | None, output: str) -> None:
    """Whether this node forwards, and what it lacks."""
    settings = load(path)
    rows = [{"check": check, "ok": ok, "state": state} for check, ok, state in _checks(settings)]
    emit(rows, output, columns=("check", "ok", "state"))
    if not all(row["ok"] for row in rows if row["check"] not in OPTIONAL):
        raise SystemExit(1)


OPTIONAL = ("agent",)
"""Checks that may fail while packets still flow."""


@click.command()
@output_option
@click.pass_obj
def endpoints(path: Path | None, output: str) -> None:
    """The pods on this node."""
    settings = load(path)
    with Rtnl() as ipr, maps.open_endpoints(settings.pin_root) as table:
        held = {lease.ifindex: lease for lease in leases(ipr)}
        rows = []
        for address, endpoint in table.items():
            lease = held.get(endpoint.ifindex)
            rows.append(
                {
                    "address": str(address),
                    "container": lease.container_id if lease else "",
                    "network": lease.network if lease else "",
                    "interface": lease.ifname if lease else "",
                    "host_interface": lease.host_ifname if lease else "gone",
                    "ifindex": endpoint.ifindex,
                    "mac": endpoint.mac,
                    "masquerade": endpoint.masquerade,
                    "shaped": endpoint.shaped,
                    "forwards": endpoint.forwards,
                }
            )
    rows.sort(key=lambda row: (row["container"], row["address"]))
    emit(rows, output, columns=("address", "container", "host_interface", "mac", "masquerade"))


@click.command()
@output_option
def ports(output: str) -> None:
    """The ports of this node that lead to pods on it."""
    rows = [
        {
            "port": forward.host_port,
            "protocol": forward.protocol,
            "address": str(forward.host_ip or ""),
            "pod": str(forward.pod),
            "pod_port": forward.pod_port,
            "container": forward.owner,
        }
        for forward in port_table.forwards()
    ]
    rows.sort(key=lambda row: (row["port"], row["protocol"], row["address"], row["pod"]))
    emit(rows, output, columns=("port", "protocol", "address", "pod", "pod_port", "container"))


@click.command()
@output_option
@click.pass_obj
def nodes(path: Path | None, output: str) -> None:
    """The nodes of the cluster, as the store has them."""
    settings = load(path)
    now = time.time()
    rows = [
        {
            "name": node.name,
            "id": node.node_id,
            "vtep": str(node.vtep),
            "pod_cidrs": [str(cidr) for cidr in node.pod_cidrs],
            "agent": "alive" if now - node.heartbeat < HEARTBEAT_FRESH else "silent",
            "seen_seconds_ago": round(now - node.heartbeat) if node.heartbeat else None,
        }
        for node in open_store(settings.store_url, settings.cluster, create=False).nodes()
    ]
    emit(rows, output, columns=("name", "id", "vtep", "pod_cidrs", "agent", "seen_seconds_ago"))


@click.group("maps")
def maps_group() -> None:
    """The BPF maps of this node."""


@maps_group.command("list")
@output_option
@click.pass_obj
def maps_list(path: Path | None, output: str) -> None:
    """The pinned maps and how full they are."""
    settings = load(path)
    rows = [dumps.describe(settings.pin_root, name) for name in dumps.NAMES]
    emit(rows, output, columns=("name", "type", "entries", "max_entries", "pin"))


@maps_group.command("dump")
@click.argument("name", type=click.Choice(dumps.NAMES))
@output_option
@click.pass_obj
def maps_dump(path: Path | None, name: str, output: str) -> None:
    """The entries of the map NAME, its fields typed."""
    rows, columns = dumps.dump(load(path).pin_root, name)
    emit(rows, output, columns=columns)


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Print a sample of drops as they happen.")
@output_option
@click.pass_obj
def drops(path: Path | None, follow: bool, output: str) -> None:
    """Packets dropped, by reason and by the program that dropped them."""
    settings = load(path)
    if follow:
        for event in events.follow(settings):
            click.echo(_event_line(event, output))
        return
    rows, columns = dumps.dump(settings.pin_root, "drops")
    emit(rows, output, columns=columns)


def _event_line(event: DropEvent | Lost, output: str) -> str:
    """One event as a line of text or JSON."""
    if isinstance(event, Lost):
        lost = event.count
        return json.dumps({"lost": lost}) if output == "json" else f"{lost} events were lost here"
    if output == "json":
        return json.dumps({"time": event.utc, **vars(event), "head": event.head.hex()})
    return (
        f"{event.utc} {event.program} ifindex={event.ifindex} "
        f"length={event.length} {event.reason} {event.head.hex()}"
    )


def _checks(settings: Settings) -> list[tuple[str, bool, str]]:
    checks: list[tuple[str, bool, str]] = []
    node = Node.load_if_any(settings)
    checks.append(("node", node is not None, node.name if node else "not set up: pycni setup"))
    current = pins.current(settings.pin_root)
    fingerprint = None if current is None else pins.fingerprint(current)
    checks.append(("programs", fingerprint is not None, fingerprint or "not loaded: pycni setup"))
    with Rtnl() as ipr:
        device = overlay.find(ipr)
        up = device is not None and device.is_up
        checks.append((f"device {overlay.DEVICE}", up, "up" if up else "missing or down"))
        link = ipr.link(node.uplink) if node else None
        wanted = provision.hooks(ipr, device.ifindex if device else 0, link.ifindex if link else 0)
        missing = [
            f"{hook.program}@{hook.ifindex}"
            for hook in wanted
            if attach.attached(ipr, hook.ifindex).get(hook.program) != fingerprint
        ]
        ways = Counter(attach.way(hook).value for hook in wanted)
        state = ", ".join(missing) + " missing or of another load" if missing else ""
        state = state or ", ".join(f"{count} by {way}" for way, count in sorted(ways.items()))
        checks.append(("hooks", not missing, state))
    checks.append(("encap", node is not None, _encap(settings, node)))
    checks.append(_store_check(settings))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        alive = agent.connect_ex(str(settings.socket_path)) == 0
        checks.append(("agent", alive, "serving" if alive else "not running; forwarding goes on"))
    checks += [
        (f"kernel {feature.name}", feature.available or bool(feature.fallback), _feature(feature))
        for feature in probe.probe()
    ]
    return checks


def _encap(settings: Settings, node: Node | None) -> str:
    """Who makes VXLAN now."""
    if node is None:
        return "not set up: pycni setup"
    if node.encap == "kernel":
        return f"kernel (settings: {settings.encap})"
    try:
        with maps.open_nexthops(settings.pin_root) as table:
            known = sum(1 for _ in table.items())
        fresh = next_hops.is_fresh(settings)
    except PycniError:
        return "ebpf, but not loaded: pycni setup"
    if not fresh:
        return "ebpf, but no agent vouches for next hops: the kernel does it meanwhile"
    return f"ebpf (settings: {settings.encap}), {known} next hops known"


def _store_check(settings: Settings) -> tuple[str, bool, str]:
    try:
        count = len(open_store(settings.store_url, settings.cluster, create=False).nodes())
    except PycniError as error:
        return "store", False, error.message
    return "store", True, f"{count} nodes in {settings.store_url}"


def _feature(feature: Any) -> str:
    if feature.available:
        return "available"
    return f"{feature.reason}; {feature.fallback}" if feature.fallback else feature.reason
