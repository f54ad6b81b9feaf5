# SPDX-License-Identifier: Apache-2.0
"""A process that is stopped in the middle of its work keeps nobody waiting but its own pod."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, Pod
from pycni.names import AttachmentKey
from pycni.settings import load
from support.labs import made_pod
from support.plugin import execute
from support.snapshot import differences, take

TRY_AGAIN = 11
PROMPT = 5.0
"""Seconds; who waits for a lock waits for ten."""

HOLD = """
import sys, time
from pathlib import Path
from pycni.locks import attachment_lock, network_lock
with attachment_lock(Path(sys.argv[1]), sys.argv[2]), network_lock(Path(sys.argv[1]), shared=True):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def stopped(lab: Lab, spare: Pod) -> Iterator[None]:
    """A process stopped with all the locks that an ADD of the pod ever holds."""
    settings = load(lab.layout.node(spare.node).settings_path)
    key = AttachmentKey(lab.layout.name, spare.name, POD_IFNAME)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, settings.run_dir, key.digest], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    os.kill(process.pid, signal.SIGSTOP)
    yield
    process.kill()
    process.communicate()


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("alone", [False, True], ids=["by the agent", "without one"])
def test_others_are_attached_and_detached_at_once(lab: Lab, spare: Pod, alone: bool) -> None:
    node = lab.layout.node(spare.node)
    before = take(node)
    with made_pod(lab, node) as other:
        begin = time.monotonic()
        status = [execute(lab, other, verb, alone=alone).status for verb in ("ADD", "DEL", "DEL")]
        seconds = time.monotonic() - begin

    assert status == [0, 0, 0]
    assert seconds < PROMPT
    assert execute(lab, spare, "STATUS", alone=alone, cniVersion="1.1.0").status == 0
    assert differences(before, take(node)) == []


@pytest.mark.usefixtures("stopped")
def test_its_own_pod_is_told_to_try_again(lab: Lab, spare: Pod) -> None:
    refused = execute(lab, spare, "DEL")

    assert refused.document["code"] == TRY_AGAIN
    assert "locked by process" in refused.text
