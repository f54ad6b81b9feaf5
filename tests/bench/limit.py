# SPDX-License-Identifier: Apache-2.0
"""The least that a dataplane at tc on veth can do: programs that redirect, and nothing else.

No lookup, no check, no encapsulation: two pods that know each other's MAC. What this costs beside
node-to-node, or beside a veth pair, no program can save; what ours cost beside this, it might.
"""

from __future__ import annotations

import struct
from contextlib import ExitStack
from dataclasses import dataclass

from bench.wires import INSIDE, Place, add_veth, find, open_iproute, set_address, set_up
from loader.bpf import load_instructions
from pycni.lab.layout import NODE_UPLINK

REDIRECT, CHANGE_TYPE, REDIRECT_PEER = 23, 32, 155
"""Helpers, linux/bpf.h."""
INGRESS = 0xFFFFFFF2
NUD_PERMANENT = 0x80


@dataclass(frozen=True)
class Pod:
    """A pod's namespace and address; `outside` is the host end of its veth, in `node`."""

    place: Place
    node: str
    outside: str


def join_pods(one: Pod, two: Pod, undo: ExitStack) -> None:
    """Let two pods reach each other, on one node or on two that have uplinks."""
    for pod in (one, two):
        add_veth(pod.node, pod.outside, pod.place[0])
        set_address(*pod.place)
        with open_iproute(pod.node) as ipr:
            set_up(ipr, find(ipr, pod.outside))
    for pod, other in ((one, two), (two, one)):
        _know(pod, other)
        if one.node == two.node:
            there = _index(other.node, other.outside)
            _attach(pod.node, pod.outside, _deliver(there), undo)
        else:
            uplink = _index(pod.node, NODE_UPLINK)
            _attach(pod.node, pod.outside, _redirect(uplink, REDIRECT), undo)
            _attach(pod.node, NODE_UPLINK, _deliver(_index(pod.node, pod.outside)), undo)


def _know(pod: Pod, other: Pod) -> None:
    with open_iproute(other.place[0]) as ipr:
        (link,) = ipr.get_links(find(ipr, INSIDE))
    with open_iproute(pod.place[0]) as ipr:
        index = find(ipr, INSIDE)
        mac = str(link.get("address"))
        address = str(other.place[1].ip)
        ipr.neigh("add", dst=address, lladdr=mac, ifindex=index, state=NUD_PERMANENT)


def _index(netns: str, ifname: str) -> int:
    with open_iproute(netns) as ipr:
        return find(ipr, ifname)


def _attach(netns: str, ifname: str, code: bytes, undo: ExitStack) -> None:
    program = undo.enter_context(load_instructions("limit", code))
    with open_iproute(netns) as ipr:
        index = find(ipr, ifname)
        ipr.tc("add", "clsact", index)
        ipr.tc(
            "add-filter", "bpf", index, ":1", fd=program.fd, name="limit",
            parent=INGRESS, classid=1, direct_action=True,
        )  # fmt: skip


def _deliver(ifindex: int) -> bytes:
    """Into the pod behind a host end; what came for another's MAC is the pod's, too."""
    return _move(2, 0) + _call(CHANGE_TYPE) + _redirect(ifindex, REDIRECT_PEER)


def _redirect(ifindex: int, helper: int) -> bytes:
    return _move(1, ifindex) + _move(2, 0) + _call(helper) + _instruction(0x95, 0, 0)


def _move(register: int, value: int) -> bytes:
    return _instruction(0xB7, register, value)


def _call(helper: int) -> bytes:
    return _instruction(0x85, 0, helper)


def _instruction(code: int, register: int, value: int) -> bytes:
    """struct bpf_insn: move, call and exit need no more."""
    return struct.pack("=BBhi", code, register, 0, value)
