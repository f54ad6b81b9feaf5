"""Makes machines nodes of this machine's own copy of the cluster store, in the order given.

`members.py NAME=VTEP ...`. The store is a file that guests cannot share: the same calls in the same
order make the same nodes in each of them.
"""

from __future__ import annotations

import sys
from ipaddress import ip_address

from pycni.settings import load, make_directories
from pycni.stores import machine_identity, open_store

settings = load()
make_directories(settings)
store = open_store(settings.store_url, settings.cluster)
for member in sys.argv[1:]:
    name, _, vtep = member.partition("=")
    identity = machine_identity() if name == settings.node_name else name
    store.register(name, ip_address(vtep), identity=identity)
