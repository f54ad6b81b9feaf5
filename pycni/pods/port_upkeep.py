# SPDX-License-Identifier: Apache-2.0
"""Upkeep of host ports: the table is held to what the records of living pods say.

A firewall that reloads its rules deletes the table with all ports; pods end without a DEL; a node
that comes from an older release has ports in the table alone. `faults` looks, `mend` puts it right.
An attachment that somebody works on is left to them. Runs in the node's network namespace.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from pycni import locks
from pycni.errors import FileError, TryAgain
from pycni.faults import Fault, Weight
from pycni.kernel.links import Link
from pycni.kernel.rtnl import Rtnl
from pycni.logfmt import quoted
from pycni.names import host_ifname
from pycni.pods import host_ports, port_records, port_table
from pycni.pods.lease import Lease, held_by, is_held, is_ours, leases
from pycni.pods.port_records import PortRecord, Records
from pycni.pods.port_table import PART, Contents, Forward
from pycni.settings import Settings

NAMED = 3
"""Ports that a fault names; of the others it says how many there are."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """What there is. It is read backwards: an ADD writes its lease, then its record, then the
    table, so a pod that is in one of them and not in the next has ended, or somebody works on it.
    """

    contents: Contents | str
    """Or what the table is as a whole, as in "it is gone"."""
    present: frozenset[Forward]
    records: Records
    held: tuple[Lease, ...]
    named: frozenset[str] = frozenset()
    """Names of pods' links: one whose alias somebody edited has no lease."""

    @property
    def wanted(self) -> dict[str, PortRecord]:
        """The records that count, by digest: those of living attachments."""
        alive = {lease.key_digest for lease in self.held}
        return {
            digest: one
            for digest, one in self.records.by_digest.items()
            if digest in alive or host_ifname(digest) in self.named
        }

    @property
    def unrecorded(self) -> list[Lease]:
        """The leases that say that they have ports, and have no readable record."""
        known = self.records.by_digest
        return [lease for lease in self.held if lease.ports and lease.key_digest not in known]

    @property
    def stale(self) -> frozenset[Forward]:
        """The elements that lead to no living pod."""
        alive = {address for lease in self.held for address in lease.addresses}
        alive |= {forward.pod for one in self.wanted.values() for forward in one.forwards}
        return frozenset(one for one in self.present if one.pod not in alive)

    def missing(self, record: PortRecord) -> list[Forward]:
        """The forwards of a record that are not in the table."""
        return [one for one in record.forwards if one not in self.present]


def look(ipr: Rtnl, settings: Settings) -> State:
    """What there is now. Raises SetupError, NetlinkError."""
    contents = port_table.look()
    present = frozenset(() if isinstance(contents, str) else contents.forwards)
    records = port_records.read_all(settings)
    links = ipr.links()
    held = tuple(lease for link in links if (lease := held_by(link)) is not None)
    named = frozenset(link.ifname for link in links if is_ours(link))
    return State(contents, present, records, held, named)


def state(links: Iterable[Link], settings: Settings) -> object:
    """Of what `look` and `faults` see besides the table: equal to a former one only if that is as
    it was. `links` are those of the node. An attachment that was worked on meanwhile counts, too: a
    look in between has told nothing of it."""
    seen = [(link.ifname, link.mac, link.alias, held_by(link)) for link in links]
    marks = port_records.marks(settings)
    with_ports = {lease.key_digest for *_, lease in seen if lease is not None and lease.ports}
    busy = {
        digest
        for digest in with_ports | set(map(port_records.digest_of, marks))
        if locks.attachment_is_busy(settings.run_dir, digest)
    }
    return seen, marks, busy, locks.attachments_mark(settings.run_dir)


def faults(settings: Settings, state: State) -> list[Fault]:
    """What differs between the table and the records of living pods; only looks."""

    def is_busy(digest: str) -> bool:
        return locks.attachment_is_busy(settings.run_dir, digest)

    ending = {pod for one in state.records.by_digest.values() if is_busy(one.digest)
              for pod in (forward.pod for forward in one.forwards)}  # fmt: skip
    return [
        *(fault for digest, record in state.wanted.items() if not is_busy(digest)
          for fault in _lost(state, record)),
        *(_unrecorded(state, lease) for lease in state.unrecorded if not is_busy(lease.key_digest)),
        *(Fault(PART, _name(one), f"open, and leads to {one.pod}, which no pod has",
                weight=Weight.DEGRADED)
          for one in state.stale if one.pod not in ending),
        *(Fault(PART, f"file {path}", f"no record of host ports: {why}", f"remove {path}",
                Weight.DEGRADED)
          for path, why in state.records.broken.items()),
    ]  # fmt: skip


def mend(ipr: Rtnl, settings: Settings) -> int:
    """Open what is missing, in one transaction, and close what is nobody's; returns how many ports.

    First writes the records that are missing, as after an upgrade from a release without them. The
    table must be there. Raises NotAvailable, SetupError, NetlinkError, FileError.
    """
    closed = sweep(ipr, settings)
    adopt(settings, look(ipr, settings))
    return closed + _reopen(ipr, settings)


def sweep(ipr: Rtnl, settings: Settings) -> int:
    """Close the ports of pods that have ended, and forget their records; returns how many ports."""
    forget_all_ended(ipr, settings)
    state = look(ipr, settings)
    return host_ports.close_where(state.stale.__contains__) if state.stale else 0


def forget_all_ended(ipr: Rtnl, settings: Settings) -> None:
    """Forget the records of all attachments without a link, but those that somebody works on."""
    if found := port_records.read_all(settings).leftovers:
        alive = {lease.key_digest for lease in leases(ipr)}
        for digest in found - alive:
            forget_ended(ipr, settings, digest)


def forget_ended(ipr: Rtnl, settings: Settings, digest: str) -> None:
    """Forget the record of an attachment whose link has ended, unless somebody works on it.

    A file that cannot be removed is logged, and left for the next time.
    """
    try:
        with locks.attachment_lock(settings.run_dir, digest, timeout=0):
            if not is_held(ipr, digest):
                port_records.forget(settings, digest)
    except TryAgain:
        return
    except FileError as error:
        log.warning("record of host ports stays error=%s", quoted(error.message))


def adopt(settings: Settings, state: State) -> int:
    """Write the record of each living pod that has ports in the table alone; returns how many.

    Raises FileError.
    """
    adopted = 0
    for lease in state.unrecorded:
        own = tuple(one for one in state.present if one.pod in lease.addresses)
        with (
            suppress(TryAgain),
            locks.attachment_lock(settings.run_dir, lease.key_digest, timeout=0),
        ):
            if own and port_records.find(settings, lease.key_digest) is None:
                port_records.write(settings, PortRecord(lease.key_digest, "", own))
                log.info("host ports recorded container=%s ports=%d",
                         quoted(lease.container_id), len(own))  # fmt: skip
                adopted += 1
    return adopted


def _reopen(ipr: Rtnl, settings: Settings) -> int:
    """Those of pods that nobody works on, from the look to the change."""
    state = look(ipr, settings)
    with ExitStack() as held:
        ours = set()
        for digest, record in state.wanted.items():
            if state.missing(record):
                with suppress(TryAgain):
                    held.enter_context(locks.attachment_lock(settings.run_dir, digest, timeout=0))
                    ours.add(digest)
        if not ours:
            return 0
        state = look(ipr, settings)
        lost = [
            one
            for digest, record in state.wanted.items()
            if digest in ours
            for one in state.missing(record)
        ]
        taken = {one.key for one in state.present}
        reopened = [one for one in lost if one.key not in taken]
        port_table.change(create=reopened)
        host_ports.forget_former(reopened)
        return len(reopened)


def _lost(state: State, record: PortRecord) -> Iterator[Fault]:
    lost = state.missing(record)
    taken = {one.key: one for one in state.present}
    for one in lost:
        if other := taken.get(one.key):
            yield Fault(
                PART,
                f"{_name(one)} of {record.owner}",
                f"open for {other.pod} ({other.owner})",
                f"delete that element of nftables table inet {port_table.TABLE}, or that pod",
            )
    if gone := [_name(one) for one in lost if one.key not in taken]:
        more = f" and {len(gone) - NAMED} more" if len(gone) > NAMED else ""
        yield Fault(PART, f"{', '.join(gone[:NAMED])}{more} of {record.owner}", "closed")


def _unrecorded(state: State, lease: Lease) -> Fault:
    who = f"record of host ports of container {lease.container_id}"
    if any(one.pod in lease.addresses for one in state.present):
        return Fault(PART, who, "gone", weight=Weight.DEGRADED)
    return Fault(PART, who, "gone, and nothing else has its ports", "restart the pod")


def _name(forward: Forward) -> str:
    at = "" if forward.host_ip is None else f" at {forward.host_ip}"
    return f"port {forward.host_port}/{forward.protocol}{at}"
