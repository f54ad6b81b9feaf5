# SPDX-License-Identifier: Apache-2.0
"""All parts of a node, in an order in which a fault explains those after it."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

from loader.errors import LoaderError
from pycni.errors import PycniError
from pycni.faults import SETUP, Fault
from pycni.kernel.node_events import Subject
from pycni.node import firewall_accepts, masquerade, other_firewalls, overlay_guard
from pycni.pods import port_table
from pycni.upkeep import (
    attachments,
    bgp,
    device,
    direct,
    directories,
    doors,
    endpoints,
    hooks,
    lan,
    lost_leases,
    node,
    node_addresses,
    owner,
    paths,
    peers,
    plugin,
    pods,
    programs,
    registration,
    routes,
    sockets,
    sysctls,
    tables,
    underlay,
    uplink,
)
from pycni.upkeep.description import Description
from pycni.upkeep.part import Part
from pycni.upkeep.seen import Seen


def _on(*subjects: Subject) -> frozenset[Subject]:
    return frozenset(subjects)


PARTS = (
    Part(directories.PART, directories.faults, directories.mend, _on(Subject.MOUNT),
         is_cheap=True, serves_adds=True),
    Part(node.PART, node.faults, node.mend, serves_adds=True),
    Part(programs.PART, programs.faults, None, _on(Subject.MOUNT), is_cheap=True, serves_adds=True,
         state=programs.state),
    Part(device.PART, device.faults, device.mend, _on(Subject.LINK), is_cheap=True),
    Part(owner.PART, owner.faults, owner.mend, _on(Subject.LINK), is_cheap=True),
    Part(sysctls.PART, sysctls.faults, sysctls.mend,
         _on(Subject.PARAMETER, Subject.LINK, Subject.ADDRESS, Subject.ROUTE), is_cheap=True),
    Part(device.ADDRESSES, device.address_faults, device.mend_addresses,
         _on(Subject.ADDRESS, Subject.LINK, Subject.ROUTE)),
    Part(routes.PART, routes.faults, routes.mend,
         _on(Subject.ROUTE, Subject.RULE, Subject.LINK, Subject.ADDRESS), is_cheap=True),
    Part(uplink.PART, uplink.faults, None,
         _on(Subject.LINK, Subject.ADDRESS, Subject.ROUTE)),
    Part(underlay.PART, underlay.faults, underlay.leave,
         _on(Subject.LINK, Subject.ADDRESS, Subject.ROUTE, Subject.RULE, Subject.STORE),
         state=underlay.state, setup_helps=False, is_others=True),
    Part(masquerade.PART, tables.masquerade_faults, tables.mend_masquerade, _on(Subject.TABLES),
         is_cheap=True, state=tables.nftables_state),
    Part(firewall_accepts.PART, tables.accept_faults, tables.mend_accepts, _on(Subject.TABLES),
         is_cheap=True, state=tables.nftables_state),
    Part(overlay_guard.PART, tables.guard_faults, tables.mend_guard, _on(Subject.TABLES),
         state=tables.guard_state),
    Part(lost_leases.PART, lost_leases.faults, lost_leases.mend, _on(Subject.LINK),
         setup_helps=False),
    Part(port_table.PART, tables.port_faults, tables.mend_ports, _on(Subject.TABLES),
         state=tables.ports_state),
    Part(other_firewalls.PART, tables.firewall_faults, tables.leave, _on(Subject.TABLES),
         state=tables.firewall_state, is_others=True),
    Part(hooks.PART, hooks.faults, hooks.mend,
         _on(Subject.QDISC, Subject.LINK, Subject.ADDRESS, Subject.ROUTE), is_cheap=True),
    Part(sockets.PART, sockets.faults, None, _on(Subject.MOUNT)),
    Part(pods.PART, pods.faults, pods.mend,
         _on(Subject.LINK, Subject.PARAMETER, Subject.ADDRESS), is_cheap=True),
    Part(lan.PART, lan.faults, lan.mend,
         _on(Subject.LINK, Subject.ROUTE, Subject.ADDRESS), setup_helps=False),
    Part(endpoints.PART, endpoints.faults, endpoints.mend, is_cheap=True),
    Part(peers.PART, peers.faults, peers.mend, state=peers.state),
    Part(node_addresses.PART, node_addresses.faults, node_addresses.mend,
         _on(Subject.TABLES), state=node_addresses.state),
    Part(paths.PART, paths.faults, paths.mend, state=paths.state),
    Part(direct.PART, direct.faults, None, state=direct.state, setup_helps=False),
    Part(bgp.PART, bgp.faults, None, _on(Subject.STORE), setup_helps=False),
    Part(doors.PART, doors.faults, None, state=doors.state),
    Part(registration.PART, registration.faults, None, _on(Subject.STORE)),
    Part(plugin.PART, plugin.faults, plugin.mend, setup_helps=False),
    Part(attachments.PART, attachments.faults, setup_helps=False),
)  # fmt: skip


def look(d: Description, seen: Seen, parts: Iterable[Part] = PARTS) -> list[Fault]:
    """The faults of parts. What cannot be looked at is a fault, too."""
    return [fault for part in parts for fault in faults_of(part, d, seen)]


def faults_of(part: Part, d: Description, seen: Seen) -> Iterator[Fault]:
    """The faults of one part."""
    try:
        yield from part.faults(d, seen)
    except (PycniError, LoaderError) as error:
        yield Fault(part.name, error.message, "", error.hint or SETUP)
    except OSError as error:
        if error.errno == errno.EROFS:  # programs.py says so
            return
        yield Fault(part.name, f"not to be looked at: {error}", "", "run as root: pycni status")


def named(name: str) -> Part:
    """The part with that name. Raises StopIteration if there is none."""
    return next(part for part in PARTS if part.name == name)
