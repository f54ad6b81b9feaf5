# SPDX-License-Identifier: Apache-2.0
"""What this kernel can do, which programs are attached where, and what pods' links are.

One JSON document.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from loader import attach, probe
from pycni.kernel.rtnl import Rtnl
from pycni.pods.lease import leases

with Rtnl() as ipr:
    links = ipr.links()
    hooks = {link.ifname: attach.attached(ipr, link.ifindex) for link in links}
    kinds = {link.ifindex: link.kind for link in links}
    pods = {lease.container_id: (lease.host_ifname, kinds[lease.ifindex]) for lease in leases(ipr)}
features = [asdict(one) for one in probe.probe()]
print(json.dumps({"features": features, "hooks": hooks, "pods": pods}))  # noqa: T201
