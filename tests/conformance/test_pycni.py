# SPDX-License-Identifier: Apache-2.0
"""pycni against the conformance suite: every case must pass. `make conformance` prints them.

Also with its pods on the LAN, by the devices that the kernel has; tests/vm has the others.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pycni.kernel.rtnl import Rtnl
from pycni.lan.devices import DEVICES

HERE = Path(__file__).parent
HOST_LOCAL = Path("/usr/lib/cni/host-local")
UNSUPPORTED = "not supported"
TIMEOUT = 600

pytestmark = pytest.mark.root


def _subjects() -> list[str]:
    """Of pycni, those that this kernel has links for."""
    with Rtnl() as ipr:
        return ["pycni", *(f"pycni-{device}" for device in DEVICES if ipr.has_kind(device))]


@pytest.mark.parametrize("subject", _subjects())
def test_pycni_passes_every_case(subject: str, tmp_path: Path) -> None:
    if not HOST_LOCAL.exists():
        pytest.skip(f"missing: {HOST_LOCAL} (apt install containernetworking-plugins)")
    report = tmp_path / "report.json"

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "conformance",
            HERE / "subjects" / f"{subject}.toml",
            "--json",
            report,
        ],
        cwd=HERE.parent,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )

    assert report.exists(), done.stderr.decode()
    cases = json.loads(report.read_bytes())[subject]["cases"]
    failed = {
        one["case"]: f"{one['title']}: {one['reason']}"
        for one in cases
        if one["result"] == "fail" or UNSUPPORTED in one["reason"]
    }
    assert failed == {}
