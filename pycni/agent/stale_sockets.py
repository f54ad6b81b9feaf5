# SPDX-License-Identifier: Apache-2.0
"""UDP sockets of the node's own processes that are connected to an endpoint which is gone.

No packet of theirs meets a program that could send it elsewhere, so they are destroyed: whoever
has one opens another. Only what was connected by way of a Service is touched, and nothing that is
not connected.
"""

from __future__ import annotations

import errno
import logging
from pathlib import Path

from pycni.dataplane import maps
from pycni.dataplane.maps import Table
from pycni.dataplane.service_maps import Backend, SocketKey, SocketPeer
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.sock_diag import ConnectedSocket, SockDiag

GONE = (errno.ENOENT, errno.ESTALE)

log = logging.getLogger(__name__)


def destroy(root: Path) -> None:
    """Destroy the stale ones of the calling thread's network namespace. Raises NotAvailable, or
    OSError EOPNOTSUPP on a kernel without CONFIG_INET_DIAG_DESTROY."""
    sockets: Table[SocketKey, SocketPeer]
    backends: Table[int, Backend]
    with (
        SockDiag() as diag,
        maps.open_table(root, "sockets") as sockets,
        maps.open_table(root, "backends") as backends,
    ):
        diag.refuse_unable()
        stale = [one for one in diag.connected_udp() if _is_stale(one, sockets, backends)]
        for one in stale:
            try:
                diag.destroy(one)
            except NetlinkError as error:
                if error.errno not in GONE:
                    raise
    if stale:
        log.info("sockets of endpoints that are gone destroyed count=%d", len(stale))


def _is_stale(
    one: ConnectedSocket, sockets: Table[SocketKey, SocketPeer], backends: Table[int, Backend]
) -> bool:
    peer = sockets.get(SocketKey(one.cookie, one.address, one.port))
    if peer is None:
        return False
    backend = backends.get(peer.backend)
    return backend is None or backend.generation != peer.generation
