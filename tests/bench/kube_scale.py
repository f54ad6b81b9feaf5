# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.kube_scale`: what one agent costs in a cluster of thousands of nodes.

Run as root in tests/. One node is real, in a namespace that ends with the run. The others are
records, and something that answers probes. They join, all rests, they register again as in a
rolling upgrade, the real node is upgraded, and the store goes away and comes back. Printed for each
kind of store: the agent's memory and processor time, requests, bytes, writes, and events of what
all agents watch.
"""

from __future__ import annotations

import argparse
import compileall
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import loader
import pycni
from bench import kube_servers
from bench.answering import answering
from bench.counting import Counting
from bench.kube_node import HEAD, Moment, RealNode, Row
from bench.kube_servers import CLUSTER, VTEPS, Server
from support.labs import prepared_lab, within

SERVERS: dict[str, Callable[[str], AbstractContextManager[Server]]] = {
    "fake": kube_servers.fake,
    "real": kube_servers.real,
    "etcd": kube_servers.etcd,
    "sqlite": kube_servers.file,
}
NODE = "worker-1.example"
FIRST = 1
"""The number of the first of the others."""


def main() -> None:
    options = _options()
    if os.geteuid() != 0:
        sys.exit("the bench makes namespaces: run it as root")
    _compile()
    well = True
    for name in options.servers:
        print_line(HEAD)
        for row in _rows(name, SERVERS[name](NODE), options):
            print_line(row.line)
            well = well and row.is_well
    sys.exit(not well)


def print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _compile() -> None:
    """As pip does: what is compiled when it is imported takes more memory."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for package in (pycni, loader):
        for directory in package.__path__:
            compileall.compile_dir(directory, quiet=1)


def _rows(
    name: str, making: AbstractContextManager[Server], options: argparse.Namespace
) -> Iterator[Row]:
    others = range(FIRST, FIRST + options.nodes)
    with ExitStack() as stack:
        server = stack.enter_context(making)
        lab = stack.enter_context(prepared_lab(nodes=1))
        stack.enter_context(answering(lab.layout.underlay_netns, VTEPS, port=CLUSTER.port))
        layout = lab.layout.nodes[0]
        listener = within(layout.netns, lambda: socket.create_server(("127.0.0.1", 0)))
        counting = Counting(stack.enter_context(listener), server.where)
        node = RealNode(lab, server, counting, name)
        node.configure(server.url(counting.port), NODE)
        yield node.phase("setup", node.setup)
        yield node.phase("start", lambda: node.start(known=0))
        yield node.phase("join", lambda: _join(node, server, others))
        yield node.phase("settle", lambda: time.sleep(options.settle))
        yield from _rest(node, options)
        yield node.phase("again", lambda: server.register(others))
        node.stop()
        yield node.phase("setup", node.setup)
        yield node.phase("start", lambda: node.start(known=options.nodes))
        yield node.phase("settle", lambda: time.sleep(options.settle))
        yield node.phase("outage", lambda: _outage(counting, options.outage))
        yield node.phase("return", lambda: _return(node, counting))


def _join(node: RealNode, server: Server, others: range) -> None:
    server.register(others)
    node.wait_for_nodes(len(others))


def _rest(node: RealNode, options: argparse.Namespace) -> Iterator[Row]:
    """A row for each round, and one for all of them with the median of the processor."""
    begin, shares = node.moment(), []
    for _ in range(options.rounds):
        before = node.moment()
        row = node.phase("rest", lambda: time.sleep(options.seconds / options.rounds))
        shares.append(_share(before, node.moment()))
        yield row
    spread = f"{statistics.median(shares):.2f} % of a core ({min(shares):.2f} to {max(shares):.2f})"
    yield node.row("rest", begin, note=spread)


def _share(before: Moment, after: Moment) -> float:
    return 100 * (after.processor - before.processor) / (after.when - before.when)


def _outage(counting: Counting, seconds: float) -> None:
    counting.cut()
    time.sleep(seconds)


def _return(node: RealNode, counting: Counting) -> None:
    """Mended inside of this phase, so that no connection comes between two."""
    counting.mend()
    node.wait_for_store(counting)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.kube_scale", description=__doc__)
    parser.add_argument("--servers", nargs="+", choices=list(SERVERS), default=["fake", "real"])
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--settle", type=float, default=60.0, help="seconds after a change")
    parser.add_argument("--seconds", type=float, default=600.0, help="of rest")
    parser.add_argument("--rounds", type=int, default=5, help="of rest")
    parser.add_argument("--outage", type=float, default=60.0, help="seconds")
    return parser.parse_args()


if __name__ == "__main__":
    main()
