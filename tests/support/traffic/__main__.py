# SPDX-License-Identifier: Apache-2.0
"""What the program can do. PROTOCOL is tcp, udp or sctp.

serve PROTOCOL ADDRESS  PORT   print the port, then source and size of each request; answer it
                               with the address that the client is seen by
ask PROTOCOL ADDRESS PORT      print what a server says; null if nobody answers
keep ADDRESS PORT              UDP: for each line of stdin, ask once more from the same socket
hold ADDRESS PORT              keep a UDP port taken until killed
count PROTOCOL ADDRESS         print the port, then bytes and seconds of what one client sends
stream PROTOCOL ADDRESS PORT   send as fast as may be for --seconds
absorb ADDRESS                 print the port, then confirm what clients send by TCP until killed
pump ADDRESS PORT              for each line of stdin, send --size bytes to a server of `absorb` and
                               print the seconds; null if they take more than --within

reflect PORT ADDRESS ...       UDP: print the port, then send back what comes; at the next line of
                               stdin, print how much that was
watch ADDRESS,PORT ...         ask reflectors all the time; at the next line of stdin, print which
                               questions had no answer within --patience

datagrams ADDRESS PORT         send each line of stdin (hex) as a datagram
frames IFNAME                  send each line of stdin (hex) as an Ethernet frame
capture IFNAME                 at the next line of stdin, print the frames that came in, sorted

send ADDRESS PORT              read a plan, send it, print what was sent
receive ADDRESS IFNAME         print the port; at the next line of stdin, print what came
"""

from __future__ import annotations

import argparse
import json
import sys

from support.traffic import frames, plans, ports, streams, watch
from support.traffic.sockets import say


def main() -> None:
    """Do what the command line says."""
    options = _parser().parse_args()
    match options.verb:
        case "serve":
            ports.serve(options.protocol, options.address, options.port)
        case "ask":
            say(ports.ask(options.protocol, options.address, options.port, size=options.size))
        case "keep":
            ports.keep(options.address, options.port)
        case "hold":
            ports.hold(options.address, options.port)
        case "count":
            streams.count(options.protocol, options.address, after=options.after)
        case "stream":
            streams.stream(options.protocol, options.address, options.port, seconds=options.seconds)
        case "absorb":
            streams.absorb(options.address)
        case "pump":
            streams.pump(options.address, options.port, size=options.size, within=options.within)
        case "reflect":
            watch.reflect(options.port, options.addresses)
        case "watch":
            watch.watch(options.targets, patience=options.patience)
        case "datagrams":
            frames.send_datagrams(options.address, options.port)
        case "frames":
            frames.send(options.ifname)
        case "capture":
            frames.capture(options.ifname)
        case "send":
            sent = (plans.send(options.address, options.port, row) for row in json.load(sys.stdin))
            say(sorted(item for items in sent for item in items))
        case "receive":
            plans.receive(options.address, options.ifname)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    words = {
        "serve": ("protocol", "address", "port"),
        "ask": ("protocol", "address", "port"),
        "keep": ("address", "port"),
        "hold": ("address", "port"),
        "count": ("protocol", "address"),
        "stream": ("protocol", "address", "port"),
        "absorb": ("address",),
        "pump": ("address", "port"),
        "reflect": ("port",),
        "watch": (),
        "datagrams": ("address", "port"),
        "frames": ("ifname",),
        "capture": ("ifname",),
        "send": ("address", "port"),
        "receive": ("address", "ifname"),
    }
    found = {}
    for verb, names in words.items():
        found[verb] = verbs.add_parser(verb)
        for name in names:
            found[verb].add_argument(name, type=int if name == "port" else str)
    found["reflect"].add_argument("addresses", nargs="+")
    found["watch"].add_argument("targets", nargs="+")
    found["watch"].add_argument("--patience", type=float, default=watch.PATIENCE, help="seconds")
    found["ask"].add_argument("--size", type=int, default=8, help="bytes of a datagram")
    found["count"].add_argument("--after", type=float, default=0.0, help="seconds not counted")
    found["pump"].add_argument("--size", type=int, default=1 << 20)
    found["pump"].add_argument("--within", type=float, default=5.0)
    found["stream"].add_argument("--seconds", type=float, default=1.0)
    return parser


if __name__ == "__main__":
    main()
