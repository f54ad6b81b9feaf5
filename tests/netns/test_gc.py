# SPDX-License-Identifier: Apache-2.0
"""GC while somebody else is at work on what it must remove."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from netns.test_host_ends import both_ways, kept
from pycni import locks
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, Pod
from pycni.names import AttachmentKey
from pycni.settings import load
from support.plugin import execute, network
from support.snapshot import differences, take

BUSY = 2.0
"""Seconds."""


@contextmanager
def at_work(lab: Lab, pod: Pod, *, seconds: float) -> Iterator[None]:
    """Somebody has the lock of the pod's attachment, for that long or until the block is left."""
    run_dir = load(lab.layout.node(pod.node).settings_path).run_dir
    key = AttachmentKey(network(lab)["name"], pod.name, POD_IFNAME)
    begun, enough = threading.Event(), threading.Event()

    def work() -> None:
        with locks.attachment_lock(run_dir, key.digest):
            begun.set()
            enough.wait(seconds)

    worker = threading.Thread(target=work)
    worker.start()
    assert begun.wait(5)
    try:
        yield
    finally:
        enough.set()
        worker.join()


@both_ways
def test_it_waits_for_them(lab: Lab, spare: Pod, alone: bool) -> None:
    node = lab.layout.node(spare.node)
    before = take(node)
    assert execute(lab, spare, "ADD").status == 0

    with at_work(lab, spare, seconds=BUSY):
        collected = execute(lab, spare, "GC", alone=alone, **kept(*lab.layout.pods))

    assert collected.status == 0, collected.text
    assert differences(before, take(node)) == []


@both_ways
def test_it_says_what_it_could_not_remove_and_the_next_one_does(
    lab: Lab, spare: Pod, alone: bool
) -> None:
    node = lab.layout.node(spare.node)
    before = take(node)
    assert execute(lab, spare, "ADD").status == 0

    with at_work(lab, spare, seconds=60):
        collected = execute(lab, spare, "GC", alone=alone, **kept(*lab.layout.pods))
    again = execute(lab, spare, "GC", alone=alone, **kept(*lab.layout.pods))

    assert collected.status == 1, collected.text
    assert "another process is at work on it" in collected.text
    assert again.status == 0, again.text
    assert differences(before, take(node)) == []
