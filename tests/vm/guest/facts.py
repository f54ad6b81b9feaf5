"""What this kernel can do, which programs are attached where, and what pods' links are.

One JSON document.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from pyroute2 import IPRoute

from loader import attach, probe
from pycni.pods.lease import leases

with IPRoute() as ipr:
    links = list(ipr.get_links())
    hooks = {link.get("ifname"): attach.attached(ipr, link["index"]) for link in links}
    kinds = {link["index"]: link.get(("linkinfo", "kind")) for link in links}
    pods = {lease.container_id: (lease.host_ifname, kinds[lease.ifindex]) for lease in leases(ipr)}
features = [asdict(one) for one in probe.probe()]
print(json.dumps({"features": features, "hooks": hooks, "pods": pods}))  # noqa: T201
