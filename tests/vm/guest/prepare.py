# SPDX-License-Identifier: Apache-2.0
"""What an operator does before the agent's first start: the plugin, and who is in the cluster.

`prepare.py NAME=VTEP ...`. The store is a file that guests cannot share: the same calls in the same
order make the same nodes in each one's copy.
"""

from __future__ import annotations

import sys
from ipaddress import ip_address
from pathlib import Path

from pycni.names import SETTINGS_PATH
from pycni.node import modes
from pycni.settings import load, make_directories
from pycni.setup import install
from pycni.stores import DIRECT, IPIP, Reach, machine_identity, open_store

settings = load()
make_directories(settings)
store = open_store(settings.store_url, settings.cluster)
reach = Reach(accepts=modes.still_accepts(settings, (DIRECT, IPIP)))
for member in sys.argv[1:]:
    name, _, vtep = member.partition("=")
    identity = machine_identity() if name == settings.node_name else name
    store.register(name, ip_address(vtep), identity=identity, reach=reach)
install.install(
    Path("/opt/cni/bin"),
    Path("/etc/cni/net.d"),
    places=install.Places.of(settings, SETTINGS_PATH),
)
