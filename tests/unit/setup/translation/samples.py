# SPDX-License-Identifier: Apache-2.0
"""Configurations as other plugins' own pages show them, and what is done with them in tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pycni.setup.translation.finding import Finding
from pycni.setup.translation.proposal import Translation, translate

FILE = Path("/etc/cni/net.d/10-old.conf")

PROTOTYPE = {
    "cniVersion": "0.3.0",
    "name": "testcni",
    "type": "testcni",
    "mode": "vxlan",
    "subnet": "10.244.0.0/16",
}
MINICNI = {
    "cniVersion": "0.1.0",
    "name": "minicni",
    "type": "minicni",
    "bridge": "minicni0",
    "mtu": 1500,
    "network": "10.244.0.0/16",
    "subnet": "10.244.1.0/24",
    "nodeSubnets": ["10.244.0.0/24", "10.244.1.0/24"],
    "nodeAddresses": ["192.0.2.1", "192.0.2.2"],
}
BASH_CNI = {
    "cniVersion": "0.3.1",
    "name": "mynet",
    "type": "bash-cni",
    "network": "10.10.0.0/16",
    "subnet": "10.10.1.0/24",
}
PODCIDR = {
    "cniVersion": "0.3.1",
    "name": "demystifying",
    "type": "bash-cni",
    "podcidr": "10.240.0.0/24",
}
HOST_LOCAL = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"}]],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dataDir": "/run/ipam",
}
BRIDGE = {
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipMasq": True,
    "hairpinMode": True,
    "ipam": HOST_LOCAL,
}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
FLANNEL = {
    "name": "cbr0",
    "cniVersion": "0.3.1",
    "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        PORTMAP,
    ],
}
NET_CONF = {
    "Network": "10.244.0.0/16",
    "EnableNFTables": False,
    "Backend": {"Type": "vxlan"},
}


def listed(*plugins: dict[str, Any]) -> dict[str, Any]:
    """A network list."""
    return {"cniVersion": "1.0.0", "name": "old", "plugins": list(plugins)}


def result(document: Any, *cluster: str) -> Translation:
    """What a file with that content becomes."""
    return translate(json.dumps(document).encode(), FILE, cluster=cluster)


def finding(document: Any, key: str, *cluster: str) -> Finding:
    """What becomes of one of its keys."""
    (found,) = [one for one in result(document, *cluster).findings if one.key == key]
    return found


def own(done: Translation) -> dict[str, Any]:
    """pycni's part of the list that is proposed."""
    assert done.network is not None, done.refused
    found: dict[str, Any] = done.network["plugins"][0]
    return found
