# SPDX-License-Identifier: Apache-2.0
"""What a node needs to forward packets, as one list of checks.

`pycni status` prints it. The plugin's STATUS asks for its cheap part only, node/health.py.

Looks only, takes no lock, and runs in the node's network namespace.
"""

from __future__ import annotations

import socket
from collections import Counter

from loader import attach, pins, probe
from loader.probe import Feature
from pycni.attachments import hooks
from pycni.dataplane import maps
from pycni.errors import PycniError
from pycni.kernel.rtnl import Rtnl
from pycni.node import health as dataplane
from pycni.node import next_hops, overlay, underlay
from pycni.node.health import SETUP, Check
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import open_store


def checks(settings: Settings) -> list[Check]:
    """All checks, in an order in which a failed check explains those after it.

    Raises NetlinkError, LoaderError or OSError where the kernel cannot be asked.
    """
    node = Node.load_if_any(settings)
    return [
        _node(node),
        *dataplane.checks(settings),
        _hooks(settings, node),
        _encap(settings, node),
        *_store(settings),
        _agent(settings),
        *map(_feature, probe.probe()),
    ]


def _node(node: Node | None) -> Check:
    if node is None:
        return Check.failed("node", "this host is not set up", SETUP)
    return Check.passed("node", node.name)


def _hooks(settings: Settings, node: Node | None) -> Check:
    current = pins.current(settings.pin_root)
    fingerprint = None if current is None else pins.fingerprint(current)
    with Rtnl() as ipr:
        device = overlay.find(ipr)
        outer = underlay.look(ipr).outer if node else ()
        wanted = hooks.wanted(ipr, device.ifindex if device else 0, outer)
        missing = [
            f"{hook.program} at {_ifname(hook.ifindex)}"
            for hook in wanted
            if attach.attached(ipr, hook.ifindex).get(hook.program) != fingerprint
        ]
    if not wanted:
        return Check.failed("hooks", "no interface for the programs", SETUP)
    if missing:
        return Check.failed("hooks", f"missing or of another load: {', '.join(missing)}", SETUP)
    ways = Counter(attach.way(hook).value for hook in wanted)
    return Check.passed("hooks", ", ".join(f"{n} by {way}" for way, n in sorted(ways.items())))


def _encap(settings: Settings, node: Node | None) -> Check:
    """Who makes VXLAN now."""
    if node is None:
        return Check.failed("encap", "this host is not set up", SETUP)
    if node.encap == "kernel":
        return Check.passed("encap", f"kernel (settings: {settings.encap})")
    try:
        with maps.open_nexthops(settings.pin_root) as table:
            known = sum(1 for _ in table.items())
        fresh = next_hops.is_fresh(settings)
    except PycniError:
        return Check.failed("encap", "ebpf, but its programs are not loaded", SETUP)
    if not fresh:
        return Check.passed("encap", "kernel: no agent confirms the next hops for ebpf")
    return Check.passed("encap", f"ebpf (settings: {settings.encap}), next hops known: {known}")


def _store(settings: Settings) -> list[Check]:
    """The store, and if it can be read, its records."""
    try:
        listing = open_store(settings.store_url, settings.cluster, create=False).listing()
    except PycniError as error:
        return [Check.failed("store", error.message, error.hint, optional=True)]
    state = f"{len(listing.nodes)} nodes in {settings.store_url}"
    found = [Check.passed("store", state, optional=True)]
    if listing.rejected:
        hint = "mend or remove the records: pycni nodes, pycni forget"
        return [*found, Check.failed("records", listing.summary, hint, optional=True)]
    return [*found, Check.passed("records", listing.summary, optional=True)]


def _agent(settings: Settings) -> Check:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        if agent.connect_ex(str(settings.socket_path)) == 0:
            return Check.passed("agent", "serving", optional=True)
    return Check.failed(
        "agent", "not running; packets still flow", "run: pycni agent", optional=True
    )


def _feature(feature: Feature) -> Check:
    state = "available" if feature.available else feature.reason
    if not feature.available and feature.fallback:
        state = f"{state}; {feature.fallback}"
    ok = feature.available or bool(feature.fallback)
    return Check(f"kernel {feature.name}", ok=ok, state=state)


def _ifname(ifindex: int) -> str:
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return f"interface {ifindex}"
