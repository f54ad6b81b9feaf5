# SPDX-License-Identifier: Apache-2.0
"""What a program did with a packet, as one value that tables write down and tests compare whole."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum

from scapy.layers.l2 import Ether
from scapy.packet import Packet

from bpf.world import STACK_IFINDEX, UPLINK_IFINDEX, VXLAN_IFINDEX

# include/uapi/linux/bpf.h
BPF_F_INGRESS = 1


class Action(IntEnum):
    """include/uapi/linux/pkt_cls.h"""

    UNSPEC = -1
    OK = 0
    SHOT = 2
    REDIRECT = 7


@dataclass(frozen=True)
class Redirect:
    """Arguments of a redirect helper."""

    helper: str  # "redirect", "redirect_peer" or "redirect_neigh"
    ifindex: int
    flags: int = 0
    neighbour: str = ""  # of redirect_neigh


@dataclass(frozen=True)
class Outcome:
    """Everything that is seen of a run.

    `tunnel` is the VTEP that the vxlan device is told to send to, `may_be_cut` that the outer
    packet may be fragmented; the rest of the key is the same for all packets of a node and checked
    where it is read.
    """

    action: Action
    packet: bytes
    redirect: Redirect | None = None
    tunnel: str | None = None
    may_be_cut: bool = False
    mark: int = 0
    drops: dict[str, int] = field(default_factory=dict)  # reason to packets
    path: str | None = None
    """The path that it is counted on, without PATH_; None: on none."""

    def __str__(self) -> str:
        rest = replace(self, packet=b"")
        return f"{rest!r}\n{Ether(self.packet).command()}\n{self.packet.hex(' ')}"


def dropped(reason: str, packet: Packet | bytes) -> Outcome:
    return Outcome(Action.SHOT, bytes(packet), drops={reason: 1})


def passed(packet: Packet | bytes, path: str | None, *, mark: int = 0) -> Outcome:
    return Outcome(Action.OK, bytes(packet), mark=mark, path=path)


def left_to_others(packet: Packet | bytes, path: str | None = None, *, mark: int = 0) -> Outcome:
    return Outcome(Action.UNSPEC, bytes(packet), mark=mark, path=path)


def into_pod(ifindex: int, packet: Packet | bytes) -> Outcome:
    there = Redirect("redirect_peer", ifindex)
    return Outcome(Action.REDIRECT, bytes(packet), there, path="POD")


def answered(ifindex: int, packet: Packet | bytes) -> Outcome:
    return replace(into_pod(ifindex, packet), path="ANSWER")


def out_of_veth(ifindex: int, packet: Packet | bytes) -> Outcome:
    there = Redirect("redirect", ifindex)
    return Outcome(Action.REDIRECT, bytes(packet), there, path="HOST_END")


def to_stack(packet: Packet | bytes, *, mark: int = 0) -> Outcome:
    there = Redirect("redirect", STACK_IFINDEX, BPF_F_INGRESS)
    return Outcome(Action.REDIRECT, bytes(packet), there, mark=mark, path="STACK")


def to_node(vtep: str, packet: Packet | bytes, *, may_be_cut: bool = False) -> Outcome:
    there = Redirect("redirect", VXLAN_IFINDEX)
    return Outcome(Action.REDIRECT, bytes(packet), there, vtep, may_be_cut, path="DEVICE")


def out_of_uplink(packet: Packet | bytes) -> Outcome:
    there = Redirect("redirect", UPLINK_IFINDEX)
    return Outcome(Action.REDIRECT, bytes(packet), there, path="NODE")


def directly(packet: Packet | bytes, ifindex: int = UPLINK_IFINDEX) -> Outcome:
    """To another node, without outer headers."""
    return Outcome(Action.REDIRECT, bytes(packet), Redirect("redirect", ifindex), path="DIRECT")


def to_neighbour(vtep: str, packet: Packet | bytes, ifindex: int = UPLINK_IFINDEX) -> Outcome:
    """The same; the kernel writes the MACs."""
    there = Redirect("redirect_neigh", ifindex, neighbour=vtep)
    return Outcome(Action.REDIRECT, bytes(packet), there, path="DIRECT")


def with_macs(packet: Packet, *, src: str, dst: str) -> Packet:
    """The same packet with another Ethernet header; checksums and lengths stay as they are."""
    return Ether(src=src, dst=dst, type=packet.type) / bytes(packet)[14:]
