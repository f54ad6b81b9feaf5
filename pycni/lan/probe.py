# SPDX-License-Identifier: Apache-2.0
"""Asking the LAN whether a host has an address, before a pod gets it; telling it, when one has.

A shortened form of what hosts do themselves (RFC 5227, RFC 4862): three questions within an
eighth of a second, and as long again to answer, where the RFCs take seconds: a pod waits, and hosts
of one LAN answer within milliseconds. Runs in the network namespace of the interface.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Collection
from contextlib import ExitStack
from select import select

from pycni.cluster import IPAddress
from pycni.errors import PycniError
from pycni.kernel import namespaces
from pycni.kernel.event_filter import ALL, INSTRUCTION, JUMP_IF_EQUAL, LOAD_8, RETURN
from pycni.kernel.neighbour_frames import (
    ETH_P_ARP,
    ETH_P_IPV6,
    ICMPV6,
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    pack_announcement,
    pack_probe,
    read_claim,
)
from pycni.kernel.netlink_socket import attach_filter

PROBES, PAUSE, PATIENCE = 3, 0.06, 0.13
"""How many questions, seconds between two of them, and after the last one."""
ADD_MEMBERSHIP, ALL_GROUPS = 1, 2
"""packet(7): PACKET_ADD_MEMBERSHIP, PACKET_MR_ALLMULTI."""
MEMBERSHIP = struct.Struct("=iHH8x")
"""struct packet_mreq: index, type, length of the address."""
NEIGHBOURS_ONLY = b"".join(
    INSTRUCTION.pack(*step)
    for step in (
        (LOAD_8, 0, 0, 14 + 6),  # what follows the IPv6 header
        (JUMP_IF_EQUAL, 0, 4, ICMPV6),
        (LOAD_8, 0, 0, 14 + 40),  # the type of message
        (JUMP_IF_EQUAL, 1, 0, NEIGHBOUR_SOLICITATION),
        (JUMP_IF_EQUAL, 0, 1, NEIGHBOUR_ADVERTISEMENT),
        (RETURN, 0, 0, ALL),
        (RETURN, 0, 0, 0),
    )
)
"""A filter of frames: no other IPv6 packet of a busy interface takes room before an answer."""

FRAME = 2048
"""Bytes that are read of one: more than any that counts."""
SOL_PACKET = 263
"""linux/socket.h."""
PROTOCOLS = {4: ETH_P_ARP, 6: ETH_P_IPV6}


def owners(ifname: str, mac: str, addresses: Collection[IPAddress]) -> dict[IPAddress, str]:
    """Who has which of the addresses, by MAC, as far as hosts on the network of the interface
    answer; takes a quarter of a second. `mac` is the interface's own.

    Two that ask for one address at once both hear that the other has it. Raises PycniError if
    nothing can be sent or heard.
    """
    found: dict[IPAddress, str] = {}
    with ExitStack() as open_sockets:
        sockets = {
            version: open_sockets.enter_context(_hearing(ifname, version))
            for version in sorted({address.version for address in addresses})
        }
        for turn in range(PROBES):
            for address in addresses:
                _send(sockets[address.version], pack_probe(address, mac), ifname)
            wait = PAUSE if turn < PROBES - 1 else PATIENCE
            try:
                found |= _listen(list(sockets.values()), mac, addresses, wait)
            except OSError as error:
                raise _unasked(ifname, error) from error
    return found


def announce(netns_fd: int, ifname: str, mac: str, addresses: Collection[IPAddress]) -> None:
    """Tell the network of a pod's interface that it has the addresses, so that nobody sends to who
    had them before. Nobody need hear it: errors are left out."""

    def tell() -> None:
        for address in addresses:
            with _open(ifname, 0) as speaker:
                speaker.send(pack_announcement(address, mac))

    try:
        namespaces.inside(netns_fd, tell)
    except (OSError, PycniError):
        return


def _listen(
    sockets: list[socket.socket], mac: str, addresses: Collection[IPAddress], seconds: float
) -> dict[IPAddress, str]:
    found = {}
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        for ready in select(sockets, [], [], left)[0]:
            claim = read_claim(ready.recv(FRAME))
            if claim is not None and claim[0] in addresses and claim[1] != mac:
                found[claim[0]] = claim[1]
    return found


def _hearing(ifname: str, version: int) -> socket.socket:
    """A socket that hears what hosts say about addresses of an IP version, to any group."""
    try:
        made = _open(ifname, PROTOCOLS[version])
        if version == 6:
            attach_filter(made, NEIGHBOURS_ONLY)
        groups = MEMBERSHIP.pack(socket.if_nametoindex(ifname), ALL_GROUPS, 0)
        made.setsockopt(SOL_PACKET, ADD_MEMBERSHIP, groups)
        return made
    except OSError as error:
        raise PycniError(
            f"the LAN cannot be asked by {ifname} whether an address is free: {error.strerror}",
            hint="the agent needs CAP_NET_RAW, and AF_PACKET in RestrictAddressFamilies=",
        ) from error


def _open(ifname: str, protocol: int) -> socket.socket:
    """A packet socket of an interface. It hears nothing of another before it is bound."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        made.bind((ifname, protocol))
    except OSError:
        made.close()
        raise
    return made


def _send(speaker: socket.socket, frame: bytes, ifname: str) -> None:
    try:
        speaker.send(frame)
    except OSError as error:
        if error.errno == errno.ENOBUFS:  # its queue is full: there are more questions
            return
        raise _unasked(ifname, error) from error


def _unasked(ifname: str, error: OSError) -> PycniError:
    return PycniError(
        f"the LAN cannot be asked by {ifname} whether an address is free: {error.strerror}",
        hint=f"look at the interface: ip -s link show {ifname}",
    )
