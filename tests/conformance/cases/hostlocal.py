# SPDX-License-Identifier: Apache-2.0
"""G7 to G9: host-local as the IPAM plugin, with pools of a few addresses."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

from conformance.bench import Bench, Network, Pod, bare
from conformance.call import Json, refused
from conformance.registry import case
from conformance.results import Skip
from conformance.runtime import Attachment
from conformance.sandbox import EVERYWHERE

EXHAUSTED = "no IP addresses available"
POOL = 3


def _pool(bench: Bench, network: Network, *ranges: tuple[int, int]) -> tuple[Json, Path]:
    """Configuration changes for a pool of each of the network's subnets, as far as there are
    ranges; and the lease directory."""
    bench.binary("host-local")
    data = bench.directory / "host-local"
    pieces, routes = [], []
    for subnet, (first, last) in zip(network.subnets, ranges, strict=False):
        hosts = ip_network(subnet)
        ends = {"rangeStart": str(hosts[first]), "rangeEnd": str(hosts[last])}
        pieces.append([{"subnet": subnet, **ends}])
        routes.append({"dst": EVERYWHERE[hosts.version]})
    ipam = {"type": "host-local", "dataDir": str(data), "ranges": pieces, "routes": routes}
    return {"ipam": ipam}, data / str(network.conf["name"])


def _attached(bench: Bench, conf: Json, network: Network) -> tuple[Pod, Attachment]:
    return bench.attached(network=network, conf=conf)


def _leases(directory: Path) -> set[str]:
    return {path.name for path in directory.glob("*[.:]*") if path.name[0] != "l"}


@case("G7", "an exhausted pool is said to be, and serves again after a DEL")
def exhausted(bench: Bench) -> None:
    network = bench.delegating()
    conf, directory = _pool(bench, network, (10, 10 + POOL - 1))
    taken = [_attached(bench, conf, network)[1] for _ in range(POOL)]
    pod = bench.pod()
    more: Any = bench.attachment(pod, network=network, conf=conf)
    with bench.unchanged(pod):
        refused(more.call("ADD"), mentions=[EXHAUSTED])
    assert len(_leases(directory)) == POOL, f"leased: {_leases(directory)}"

    taken[0].detach()

    more.attach()
    more.detach()


@case("G8", "when the second pool is exhausted, the first one's address is given back")
def second_exhausted(bench: Bench) -> None:
    both = [one for one in bench.world.networks.values() if one.delegates and len(one.subnets) > 1]
    if not both:
        raise Skip("no network of this subject delegates IPAM for two families")
    network = both[0]
    conf, directory = _pool(bench, network, (10, 12), (20, 20))
    _, first = _attached(bench, conf, network)
    assert first.result is not None
    leased = _leases(directory)
    assert leased == set(bare(first.result)), f"leased: {leased}, result {bare(first.result)}"

    refused(bench.attachment(bench.pod(), network=network, conf=conf).call("ADD"))

    assert _leases(directory) == leased, f"leased: {_leases(directory)}, not {leased}"
    first.detach()
    assert not _leases(directory), f"leased: {_leases(directory)}"


@case("G9", "an empty lease file, left by a kill, does not stop ADD")
def empty_lease(bench: Bench) -> None:
    network = bench.delegating()
    conf, directory = _pool(bench, network, (10, 12))
    hole = ip_network(network.subnets[0])[10]
    directory.mkdir(parents=True)
    (directory / str(hole)).touch()

    _, attachment = _attached(bench, conf, network)

    assert attachment.result is not None
    assert str(hole) not in bare(attachment.result)
    attachment.detach()
