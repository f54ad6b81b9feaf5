# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.host_ports`: ADD and DEL of a pod with many host ports, and beside a full table.

Run as root in tests/. Prints medians; everything happens in namespaces that end with the run. With
`--connections`, the node tracks as many connections of others.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace

from bench import nodes
from bench.calls import PluginFailed, seconds
from bench.nodes import Contender
from pycni.kernel import nft
from pycni.kernel.namespaces import inside
from pycni.lab.topology import NETNS_DIR

CASES = ((0, "tcp"), (50, "udp"), (200, "udp"), (1000, "tcp"), (1000, "udp"))
"""Ports and protocol; first of all a pod without any."""
FIRST_PORT = 10000
PORTS_OF_A_SOCKET = 50000
TRACKED = """
table inet tracked { chain output { type filter hook output priority 0; ct state new accept; }; }
"""


def main() -> None:
    options = _options()
    if os.geteuid() != 0:
        sys.exit("the bench makes namespaces: run it as root")
    with nodes.made(dual=True, pods=1, crowd=0) as field:
        _inside(field.pycni, options.connections)
        try:
            for line in _lines(field.pycni, options.rounds):
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
        except PluginFailed as error:
            sys.exit(str(error))


def _lines(one: Contender, rounds: int) -> Iterator[str]:
    yield f"{'ports':>6} {'protocol':9} {'ADD ms':>9} {'DEL ms':>9}   (medians of {rounds})"
    for count, protocol in CASES:
        loaded = _with_ports(one, count, protocol)
        adds, deletes = [], []
        for number in range(rounds):
            container = f"{protocol}{count}-{number}"
            adds.append(1000 * seconds(one.node.netns, [loaded.add(0, container)]))
            deletes.append(1000 * seconds(one.node.netns, [loaded.delete(0, container)]))
        took = [statistics.median(each) for each in (adds, deletes)]
        yield f"{count:6} {protocol if count else '-':9} {took[0]:9.1f} {took[1]:9.1f}"


def _with_ports(one: Contender, count: int, protocol: str) -> Contender:
    mappings = [
        {"hostPort": FIRST_PORT + n, "containerPort": FIRST_PORT + n, "protocol": protocol}
        for n in range(count)
    ]
    return replace(one, conf=one.conf | {"runtimeConfig": {"portMappings": mappings}})


def _inside(one: Contender, connections: int) -> None:
    """Have the node track connections, from itself to itself."""

    def fill() -> None:
        nft.run(TRACKED, what="the bench")
        for start in range(0, connections, PORTS_OF_A_SOCKET):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.bind((f"127.0.1.{1 + start // PORTS_OF_A_SOCKET}", 0))
                for port in range(1, min(PORTS_OF_A_SOCKET, connections - start) + 1):
                    _send(sender, port)

    if connections:
        with (NETNS_DIR / one.node.netns).open() as netns:
            inside(netns.fileno(), fill)


def _send(sender: socket.socket, port: int) -> None:
    """An answer to an earlier datagram, "port unreachable", may stand before it."""
    for _ in range(3):
        try:
            sender.sendto(b"", ("127.0.0.1", port))
        except ConnectionRefusedError:
            continue
        return


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.host_ports", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--connections", type=int, default=0, help="of others, on the node")
    return parser.parse_args()


if __name__ == "__main__":
    main()
