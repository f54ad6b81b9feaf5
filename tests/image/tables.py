# SPDX-License-Identifier: Apache-2.0
"""All nftables tables of pycni, with other nodes and a host port in them: a program that writes or
reads them, by the libnftables and the pycni of whatever Python runs it.

It prints what it finds afterwards, as JSON. It must not import what is not in the image.
"""

from __future__ import annotations

import json
import sys
from ipaddress import ip_address, ip_network

from pycni.errors import PycniError
from pycni.kernel import nft, nft_table
from pycni.node import masquerade, overlay_guard
from pycni.node.record import Node
from pycni.pods import port_table
from pycni.pods.port_table import Forward
from pycni.settings import Settings
from pycni.upkeep import host_ports

SETTINGS = Settings(node_name="node1")
NODE = Node(
    name="node1",
    node_id=1,
    vtep=ip_address("198.18.0.1"),
    pod_cidrs=(ip_network("10.244.0.0/24"), ip_network("fd00:10:244::/64")),
    cluster_cidrs=(ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56")),
    uplink="eth0",
    mtu=1450,
    port=4789,
)
OTHERS = frozenset(map(ip_address, ("198.18.0.2", "198.18.0.3", "fd00:99::2")))
FORWARDS = [
    Forward("tcp", host_ip, 8080, ip_address(pod), 80, "web")
    for pod in ("10.244.0.2", "fd00:10:244::2")
    for host_ip in (None, ip_address("198.18.0.1" if "." in pod else "fd00:99::1"))
]


def write() -> None:
    """As the node's setup and a pod's ADD do."""
    masquerade.setup(SETTINGS, NODE)
    overlay_guard.setup(SETTINGS, NODE, OTHERS)
    host_ports.setup(SETTINGS, NODE)
    if not port_table.forwards():
        port_table.change(create=FORWARDS)
        port_table.write_nodes(OTHERS)


def read() -> dict[str, object]:
    """What there is, and what a look finds wrong."""
    guard = overlay_guard.wanted(SETTINGS, NODE, OTHERS)
    contents = port_table.read()
    faults = [
        *(one.sentence for one in masquerade.faults(SETTINGS, NODE)),
        *(f"{one.thing} is {one.found}"
          for one in nft_table.differences(guard, what=overlay_guard.WHAT)),
        *(one.sentence
          for one in port_table.faults(contents, host_ports.rules(SETTINGS, NODE))),
    ]  # fmt: skip
    return {
        "release": nft.release(),
        "faults": faults,
        "forwards": set(contents.forwards) == set(FORWARDS),
        "nodes": port_table.nodes() == OTHERS,
    }


def main() -> None:
    """`write` or `read`."""
    try:
        if sys.argv[1] == "write":
            write()
        sys.stdout.write(json.dumps(read()))
    except PycniError as error:
        sys.exit(f"{error.message}\n{error.details}\n{error.hint}")


if __name__ == "__main__":
    main()
