# SPDX-License-Identifier: Apache-2.0
"""Thousands of other nodes that answer probes, in the namespace behind a lab's uplinks.

To the kernel there, all their addresses are its own, so it answers what is sent to them. What comes
through the overlay, one thread answers: it turns an inner echo request around.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from ipaddress import IPv4Network

from pycni.lab import processes
from support.labs import within

IP_PKTINFO = 8
"""linux/in.h."""
PKTINFO = struct.Struct("=i4s4s")
"""struct in_pktinfo of ip(7): interface, our address, and the one in the packet's head."""
VXLAN, ETHERNET, IPV4 = 8, 14, 20
"""Bytes of heads without options."""
ICMP, ECHO_REQUEST, ECHO_REPLY = 1, 8, 0


@contextmanager
def answering(netns: str, vteps: IPv4Network, *, port: int) -> Iterator[None]:
    """Until the end of the `with`, whatever of the kind is sent to `vteps` is answered."""
    for command in (
        ("ip", "route", "add", "local", str(vteps), "dev", "lo"),
        ("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0"),
    ):
        done = processes.run(netns, command)
        assert done.returncode == 0, done.stderr.decode()
    with closing(within(netns, lambda: _open(port))) as overlay:
        thread = threading.Thread(target=_answer, args=(overlay,), daemon=True)
        thread.start()
        yield
        overlay.shutdown(socket.SHUT_RD)
        thread.join()


def _open(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    made.bind(("", port))
    return made


def _answer(overlay: socket.socket) -> None:
    while True:
        try:
            data, extra, _, sender = overlay.recvmsg(1 << 16, 256)
        except OSError:
            return
        if not data:
            return
        reply = turned(data)
        if reply:
            asked = PKTINFO.unpack(extra[0][2])[2]
            control = [(socket.IPPROTO_IP, IP_PKTINFO, PKTINFO.pack(0, asked, bytes(4)))]
            overlay.sendmsg([reply], control, 0, sender)


def turned(packet: bytes) -> bytes:
    """The answer to a VXLAN packet with an ICMP echo request in it; empty for another packet."""
    mac, ip, icmp = VXLAN, VXLAN + ETHERNET, VXLAN + ETHERNET + IPV4
    if packet[ip + 9 : ip + 10] + packet[icmp : icmp + 1] != bytes([ICMP, ECHO_REQUEST]):
        return b""
    checksum = struct.unpack_from("!H", packet, icmp + 2)[0] + (ECHO_REQUEST << 8)
    return b"".join(
        (
            packet[:mac],
            packet[mac + 6 : mac + 12] + packet[mac : mac + 6] + packet[mac + 12 : ip],
            packet[ip : ip + 12] + packet[ip + 16 : ip + 20] + packet[ip + 12 : ip + 16],
            struct.pack("!BBH", ECHO_REPLY, 0, (checksum & 0xFFFF) + (checksum >> 16)),
            packet[icmp + 4 :],
        )
    )
