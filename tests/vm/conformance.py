# SPDX-License-Identifier: Apache-2.0
"""The step of the conformance suite for pods on the LAN by ipvlan. A machine that is emulated takes
long for it, so it runs only where it is asked for.

Raises like scenarios.py.
"""

from __future__ import annotations

import shlex

from vm.cluster import Cluster
from vm.payload import INSIDE, PYTHON
from vm.qemu import Guest, Running

SECONDS = 7200.0
WITHOUT = {
    "G20[firewall]": "the guest has no iptables",
    "I1": "an emulated machine takes longer for 50 ADDs than one of them waits for the others",
}
SUBJECT = "conformance/subjects/pycni-ipvlan.toml"
SHARES = ("A*,B*,C*,D*,E*,F*", "G*,I*,P*")
"""Of the cases, for each of the two machines: about the same time."""
PATIENCE = 8
"""How many times as long as on a machine of today's everything may take."""


def conformance(cluster: Cluster) -> str:
    """Every case, half of them on each machine; returns those that were left out, with why, and the
    last lines."""
    running = [_start(node.guest, share) for node, share in zip(cluster.nodes, SHARES, strict=True)]
    told = []
    wrong = []
    for done in [one.wait() for one in running]:
        lines = done.stdout.rstrip().splitlines()
        told += [line for line in lines if line.startswith("skip")] + lines[-1:]
        if done.status != 0:
            failed = [line for line in lines if line.startswith("fail")]
            wrong += [*failed, *lines[-3:], done.stderr[-2000:]]
    assert not wrong, "\n".join(wrong)
    return "\n".join(told)


def _start(guest: Guest, share: str) -> Running:
    guest.check(["ln", "-sfn", f"{INSIDE}/plugins", "/usr/lib/cni"])
    left_out = [f"--without={case}={reason}" for case, reason in WITHOUT.items()]
    suite = shlex.join([str(PYTHON), "-m", "conformance", SUBJECT, "--only", share, *left_out])
    patience = {"CONFORMANCE_PATIENCE": str(PATIENCE)}
    command = f"cd {INSIDE}/tests && exec {suite}"
    return guest.start(["sh", "-c", command], env=patience, timeout=SECONDS)
