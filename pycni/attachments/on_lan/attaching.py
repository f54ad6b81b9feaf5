# SPDX-License-Identifier: Apache-2.0
"""The context of one ADD on the LAN: what its steps read, and the undo of what they have done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pycni import locks
from pycni.attachments.on_lan.wanted import LanWanted
from pycni.cni.call import Call
from pycni.kernel.rtnl import Rtnl
from pycni.lan import leases
from pycni.lan.leases import LanLease
from pycni.node import place
from pycni.node.record import Node
from pycni.settings import Settings


@dataclass
class LanAttaching:
    """One ADD at work, under the attachment's lock. Every step pushes its undo onto `undo`."""

    call: Call
    node: Node
    wanted: LanWanted
    lock: int
    """Descriptor of the attachment's lock, for plugins that we execute."""
    ipr: Rtnl
    """In the node's network namespace."""
    undo: ExitStack
    lease: LanLease
    """Grows with the steps: first it has no addresses, then no link, then no source rules."""

    @property
    def settings(self) -> Settings:
        return self.call.settings

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else takes or gives back addresses of the LAN meanwhile. Raises TryAgain."""
        with locks.lan_lock(self.settings.run_dir, timeout=self.call.patience()):
            yield

    def save(self) -> None:
        """Write the lease. Raises FileError."""
        leases.write(self.settings.run_dir, self.lease)


@contextmanager
def attaching(call: Call) -> Iterator[LanAttaching]:
    """As attachments/attaching.py has it. Raises PycniError."""
    node = Node.load(call.settings)
    if call.conf.ipam.per_node is not None:
        place.refuse_lost(call.settings)
    with (
        locks.attachment_lock(
            call.settings.run_dir, call.key.digest, timeout=call.patience()
        ) as lock,
        Rtnl() as ipr,
        ExitStack() as undo,
    ):
        wanted = LanWanted.read(call, node, ipr)
        lease = LanLease(
            network=call.key.network,
            container_id=call.key.container_id,
            ifname=call.key.ifname,
            device=wanted.device.name,
            mode=wanted.mode,
            parent=wanted.parent.ifname,
            netnsid=ipr.netns_number(call.netns_fd),
        )
        call.refuse_unheard()
        yield LanAttaching(call, node, wanted, lock, ipr, undo, lease)
        call.refuse_unheard()
        undo.pop_all()
