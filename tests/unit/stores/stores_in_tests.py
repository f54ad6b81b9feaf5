"""What the tests of the cluster stores share: a cluster, its nodes, a clock, watching."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import replace
from ipaddress import ip_address, ip_network

from pycni.cluster import Cluster
from pycni.stores import Event, NodeRecord, Store

CLUSTER = Cluster(
    cidrs=(ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56")),
    node_prefix4=24,
    node_prefix6=64,
    vni=7,
    port=4789,
)
TINY_CLUSTER = replace(CLUSTER, cidrs=(ip_network("10.244.0.0/23"),))
NODE_ONE, NODE_TWO, NODE_THREE = "node-one", "node-two", "node-three"
VTEP_ONE, VTEP_TWO, VTEP_THREE = map(ip_address, ("192.0.2.1", "192.0.2.2", "2001:db8::3"))
MACHINE_ONE, MACHINE_TWO = "machine-one", "machine-two"
NOW = 1_700_000_000.0
ELSEWHERE = ip_network("10.215.0.33/32")
IN_THE_NEXT_NODES = ip_network("10.244.1.7/32")


class Clock:
    """A clock that only moves when told to."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def register_one(store: Store) -> NodeRecord:
    return store.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE)


def register_two(store: Store) -> NodeRecord:
    return store.register(NODE_TWO, VTEP_TWO, identity=MACHINE_TWO)


def watch(store: Store) -> Generator[Event[NodeRecord], None, None]:
    """Yields events until the test ends the generator; gives up after 10 s."""
    stop = threading.Event()
    timer = threading.Timer(10, stop.set)
    timer.start()
    try:
        yield from store.watch(stop)
    finally:
        timer.cancel()
