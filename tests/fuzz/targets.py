# SPDX-License-Identifier: Apache-2.0
"""What coverage-guided fuzzing calls: bytes in, an exception for whatever must not happen.

Nothing here needs atheris: test_corpus.py runs the same on the inputs that were found.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_network

from pycni.cluster import Cluster, IPNetwork
from pycni.cni import requests
from pycni.cni.netconf import NetConf, parse_netconf
from pycni.cni.protocol import Request
from pycni.errors import PycniError, StoreError
from pycni.pods import host_ports, rate_limits
from pycni.stores import Put, Rejected, Removed
from pycni.stores.etcd.keys import decode
from pycni.stores.kube import objects, own
from pycni.stores.kube.body import Lines
from pycni.stores.kube.events import Events
from pycni.stores.records import Raw, printable, read, write
from pycni.stores.roster import Roster

CLUSTER = Cluster(
    cidrs=(ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56")),
    node_prefix4=24,
    node_prefix6=64,
    vni=7,
    port=4789,
)
REASON_MAX = 1000
"""Characters of a reason; two names of 253 and two addresses fit."""


def store(data: bytes) -> None:
    """Lines `NAME JSON`, as a writer of the store may put them one after the other; without JSON,
    the record is removed. The roster must be what a fresh one is, and keep its promises."""
    roster = Roster(CLUSTER)
    records: dict[str, Raw] = {}
    followed: dict[str, object] = {}
    for order, line in enumerate(data.decode(errors="surrogateescape").split("\n"), 1):
        name, _, text = line.partition(" ")
        raw = Raw(decode(text), records[name].order if name in records else order) if text else None
        for event in roster.change({name: raw}):
            match event:
                case Put(node, value):
                    followed[node] = value
                case Removed(node) | Rejected(node, _):
                    followed.pop(node, None)
        records |= {name: raw} if raw else {}
        if raw is None:
            records.pop(name, None)
    fresh = Roster(CLUSTER, records)
    assert (roster.nodes, roster.rejected) == (fresh.nodes, fresh.rejected)
    assert followed == roster.nodes
    assert set(roster.nodes) | set(roster.rejected) == set(records)
    _check_nodes(roster)
    for name, reason in roster.rejected.items():
        for shown in (printable(name), reason):
            assert shown.isascii()
            assert not shown or shown.isprintable()
            assert len(shown) < REASON_MAX


def _check_nodes(roster: Roster) -> None:
    """No two have the same, and each is what it says."""
    prefixes = []
    for name, node in roster.nodes.items():
        assert read(name, Raw(write(node, "")), CLUSTER).problem == ""
        assert all(_is_in_cluster(cidr) for cidr in node.pod_cidrs)
        assert not any(node.vtep in cidr for cidr in CLUSTER.cidrs)
        own = [ip_network(node.vtep), *node.extra]
        prefixes += [(name, one) for one in (*own, *node.pod_cidrs)]
    assert len({node.node_id for node in roster.nodes.values()}) == len(roster.nodes)
    for number, (name, one) in enumerate(prefixes):
        for other_name, other in prefixes[:number]:
            same_family = one.version == other.version
            assert name == other_name or not same_family or not one.overlaps(other)


def _is_in_cluster(cidr: IPNetwork) -> bool:
    return any(cidr.network_address in whole and cidr.broadcast_address in whole
               for whole in CLUSTER.cidrs)  # fmt: skip


def stdin(data: bytes) -> None:
    """A network configuration as a runtime may write it. Whatever it is, only our own errors."""
    for lenient in (False, True):
        with suppress(PycniError):
            _read_all(parse_netconf(data, lenient=lenient))


def _read_all(conf: NetConf) -> None:
    request = Request("ADD", "c0ffee", "/run/netns/a", "eth0")
    questions: tuple[Callable[[], object], ...] = (
        conf.previous_result,
        conf.valid_attachments,
        lambda: requests.addresses(request, conf),
        lambda: requests.mac(request, conf),
        lambda: requests.ranges(conf),
        lambda: requests.dns(conf),
        lambda: rate_limits.parse(conf.runtime_config),
        lambda: host_ports.parse(conf.runtime_config),
    )
    for question in questions:
        with suppress(PycniError):
            question()


def kube(data: bytes) -> None:
    """Lines of a watch of the Kubernetes API. Whatever they are: a batch, or a StoreError."""
    with suppress(StoreError):
        events = Events(_LinesOf(data), objects.raw, "the server")
        roster = Roster(CLUSTER)
        while not (events.ended or events.expired):
            roster.change(events.batch())
        _check_nodes(roster)
    document = objects.decode(data)
    if document is not None:
        objects.read_parameters(document)
        objects.owner_uid(document)
        own.read_note(document, 0.0)


class _LinesOf(Lines):
    """The lines of some bytes."""

    def __init__(self, data: bytes) -> None:
        self._left = [line for line in data.split(b"\n") if line]

    def next(self) -> bytes:
        return self._left.pop(0) if self._left else b""

    def soon(self, seconds: float) -> bool:
        return bool(self._left) and seconds > 0


TARGETS: dict[str, Callable[[bytes], None]] = {"store": store, "stdin": stdin, "kube": kube}
