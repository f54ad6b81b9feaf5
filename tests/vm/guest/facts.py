"""What this kernel can do, and which programs are attached where; one JSON document."""

from __future__ import annotations

import json
from dataclasses import asdict

from pyroute2 import IPRoute

from loader import attach, probe

with IPRoute() as ipr:
    hooks = {link.get("ifname"): attach.attached(ipr, link["index"]) for link in ipr.get_links()}
print(json.dumps({"features": [asdict(one) for one in probe.probe()], "hooks": hooks}))  # noqa: T201
