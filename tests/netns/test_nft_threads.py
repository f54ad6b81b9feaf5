# SPDX-License-Identifier: Apache-2.0
"""Threads of one process that use nftables at once, as the agent's do when a pod with many ports is
deleted: libnftables must not be called by two of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network

from pycni.node import overlay
from pycni.pods import host_ports, port_table
from pycni.pods.port_table import Forward
from support import kernel
from support.labs import within

ROUNDS, THREADS = 6, 3
FORWARDS = [
    Forward("udp", None, port, ip_address(pod), port, "a pod")
    for port in range(20000, 20500)
    for pod in ("10.244.0.2", "fd00:10:244::2")
]


def test_all_read_what_there_is_and_what_one_deletes_is_deleted_once() -> None:
    rules = port_table.rules(0x4000, overlay=overlay.DEVICE, clusters=[ip_network("10.244.0.0/16")])
    with kernel.netns() as netns, ThreadPoolExecutor(THREADS) as pool:
        within(netns, lambda: port_table.setup(rules))
        for _ in range(ROUNDS):
            within(netns, lambda: port_table.change(create=FORWARDS))

            read = list(pool.map(lambda _: within(netns, port_table.read), range(THREADS)))
            closed = pool.map(
                lambda _: within(netns, lambda: host_ports.close_where(lambda _: True)),
                range(THREADS),
            )

            assert [set(one.forwards) for one in read] == [set(FORWARDS)] * THREADS
            # each version has a map, and who lists them may find that one was emptied meanwhile
            assert set(closed) <= {0, len(FORWARDS) // 2, len(FORWARDS)}
            assert within(netns, port_table.forwards) == ()
