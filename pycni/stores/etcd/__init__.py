"""The etcd store: nodes of a cluster whose machines share nothing but a network.

Keys below the prefix of the URL:

    cluster         the parameters all nodes agree on; without it there is no cluster here
    places          written with every change of who has what, so that of two changes one is redone
    nodes/NAME      a record; JSON
    alive/NAME      there as long as the node's agent says so: bound to a lease that etcd ends

Whether a node lives is decided by etcd's leases and by no machine's clock.
"""

from __future__ import annotations

from pycni.stores.etcd.store import EtcdStore

__all__ = ["EtcdStore"]
