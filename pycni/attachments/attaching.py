# SPDX-License-Identifier: Apache-2.0
"""The context of one ADD: what its steps read, and the undo of what they have done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pycni import locks
from pycni.attachments.wanted import Wanted
from pycni.cni.call import Call
from pycni.dataplane import maps
from pycni.kernel.rtnl import Rtnl
from pycni.node import place
from pycni.node.record import Node
from pycni.pods.endpoints import Endpoints
from pycni.pods.lease import Lease
from pycni.settings import Settings


@dataclass
class Attaching:
    """One ADD at work, under the attachment's lock. Every step pushes its undo onto `undo`."""

    call: Call
    node: Node
    wanted: Wanted
    lock: int
    """Descriptor of the attachment's lock, for plugins that we execute."""
    ipr: Rtnl
    """In the node's network namespace."""
    undo: ExitStack
    lease: Lease
    """Grows with the steps: first it has no link, then no addresses, then no source rules."""

    @property
    def settings(self) -> Settings:
        return self.call.settings

    @contextmanager
    def writing(self) -> Iterator[Endpoints]:
        """The endpoints table; setup and teardown wait meanwhile. Raises NotAvailable, TryAgain."""
        with (
            locks.network_lock(self.settings.run_dir, shared=True, timeout=self.call.patience()),
            maps.open_endpoints(self.settings.pin_root) as table,
        ):
            yield table


@contextmanager
def attaching(call: Call) -> Iterator[Attaching]:
    """Read what is wanted, take the lock, and undo every step if the body raises, takes longer
    than the call may, or is not waited for any more.

    Raises PycniError before anything is done if the call asks for what cannot be had.
    """
    node = Node.load(call.settings)
    place.refuse_lost(call.settings)
    wanted = Wanted.read(call, node)
    with (
        locks.attachment_lock(
            call.settings.run_dir, call.key.digest, timeout=call.patience()
        ) as lock,
        Rtnl() as ipr,
        ExitStack() as undo,
    ):
        call.refuse_unheard()
        yield Attaching(call, node, wanted, lock, ipr, undo, wanted.lease)
        call.refuse_unheard()
        undo.pop_all()
