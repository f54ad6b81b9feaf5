# SPDX-License-Identifier: Apache-2.0
"""Addresses, prefixes and `struct config` as the bytes of bpf/lib/types.h."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network

from bpf.world import (
    GATEWAY_MAC,
    IPV4,
    IPV6,
    LINK_LOCAL_SERVICE,
    MASQUERADE_MARK,
    OVERLAY_MAC,
    OVERLAY_MTU,
    STACK_IFINDEX,
    VNI,
    VXLAN_IFINDEX,
    VXLAN_PORT,
)
from loader import btf
from loader.objects import Objects
from loader.places import PROGRAMS

ON = struct.pack("=I", 1)
"""A switch of 4 bytes."""


def address(text: str) -> bytes:
    """union ip_addr"""
    parsed = ip_address(text)
    return bytes(10) + b"\xff\xff" + parsed.packed if parsed.version == 4 else parsed.packed


def prefix_length(text: str) -> int:
    """Counted from the top of the 128 bits."""
    network = ip_network(text)
    return network.prefixlen + 128 - network.max_prefixlen


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def prefix(text: str) -> bytes:
    """struct prefix"""
    mask = (1 << 128) - (1 << 128 - prefix_length(text))
    return address(str(ip_network(text).network_address)) + mask.to_bytes(16, "big")


def node_prefix(text: str) -> bytes:
    """Length and mask of a pod CIDR, as a struct remote_key."""
    return struct.pack("=I", prefix_length(text)) + prefix(text)[16:]


def config(objects: Objects, **changes: bytes) -> bytes:
    """struct config by member name, whatever its layout; `changes` are raw members."""
    members = {
        "vni": struct.pack("=I", VNI),
        "stack_ifindex": struct.pack("=I", STACK_IFINDEX),
        "vxlan_ifindex": struct.pack("=I", VXLAN_IFINDEX),
        "overlay_mtu": struct.pack("=I", OVERLAY_MTU),
        "masquerade_mark": struct.pack("=I", MASQUERADE_MARK),
        "event_mask": struct.pack("=I", 0),
        "vxlan_port": struct.pack("!H", VXLAN_PORT),
        "gateway_mac": mac(GATEWAY_MAC),
        "overlay_mac": mac(OVERLAY_MAC),
        "tunnel_key_local": b"\1",
        "own_encap": b"\0",
        "decap_l3": b"\1",
        "netkit": b"\0",
        "direct": b"\0",
        "ipip": bytes(4),
        "gateway4": address(IPV4.gateway),
        "gateway6": address(IPV6.gateway),
        "cluster4": prefix(IPV4.cluster),
        "cluster6": prefix(IPV6.cluster),
        "node_prefix4": node_prefix(IPV4.far_cidr),
        "node_prefix6": node_prefix(IPV6.far_cidr),
        "dead_end_mark": struct.pack("=I", 0),
        "services": bytes(4),
        "reject_mark": bytes(4),
        "link_local": address(LINK_LOCAL_SERVICE)[12:].ljust(16, b"\0"),
    } | changes
    some = objects.path(PROGRAMS[0])
    types = btf.of_object(some)
    number = types.find(btf.STRUCT, "config")
    raw = bytearray(types.size(number))
    for member, _ in types.members(number):
        if member.name in members:
            raw[member.offset : member.offset + member.size] = members.pop(member.name)
    assert not members, f"struct config has no {', '.join(members)}"
    return bytes(raw)
