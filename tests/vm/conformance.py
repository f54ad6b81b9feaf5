# SPDX-License-Identifier: Apache-2.0
"""The step of the conformance suite for pods on the LAN by ipvlan. A machine that is emulated takes
long for it, so it runs only where it is asked for.

Raises like scenarios.py.
"""

from __future__ import annotations

import shlex

from vm.cluster import Cluster
from vm.payload import INSIDE, PYTHON

SECONDS = 7200.0
WITHOUT = {
    "G20[firewall]": "the guest has no iptables",
    "I1": "an emulated machine takes longer for 50 ADDs than one of them waits for the others",
}
SUBJECT = "conformance/subjects/pycni-ipvlan.toml"
PATIENCE = 8
"""How many times as long as on a machine of today's everything may take."""
LAST = " passed, 0 failed"
"""How the last line ends if all is well."""


def conformance(cluster: Cluster) -> str:
    """Every case; returns those that were left out, with why, and the last line."""
    guest = cluster.a.guest
    guest.check(["ln", "-sfn", f"{INSIDE}/plugins", "/usr/lib/cni"])
    left_out = [f"--without={case}={reason}" for case, reason in WITHOUT.items()]
    suite = shlex.join([str(PYTHON), "-m", "conformance", SUBJECT, *left_out])
    command = f"cd {INSIDE}/tests && exec {suite}"
    patience = {"CONFORMANCE_PATIENCE": str(PATIENCE)}
    done = guest.run(["sh", "-c", command], env=patience, timeout=SECONDS)
    lines = done.stdout.rstrip().splitlines()
    failed = [line for line in lines if line.startswith("fail")]
    without = [line for line in lines if line.startswith("skip")]
    assert done.status == 0, "\n".join([*failed, *lines[-3:], done.stderr[-2000:]])
    assert lines[-1].endswith(LAST), lines[-1]
    return "\n".join([*without, lines[-1]])
