# SPDX-License-Identifier: Apache-2.0
"""What crosses between the programs and Python, as bpf/lib/types.h has it.

Written by `python -m loader.abi`: do not edit. tests/unit/dataplane/test_abi.py compares.
"""

from enum import IntEnum, IntFlag

from pycni.dataplane.records import Layout

DROP_EVENT_VERSION = 1
EVENT_HEAD = 64


class EndpointFlag(IntFlag):
    MASQUERADE = 1
    SHAPED = 2
    FORWARDS = 4
    QUEUED = 8


class VtepFlag(IntFlag):
    DIRECT = 1
    ROUTED = 2
    IPIP = 4


class NexthopFlag(IntFlag):
    ON_LINK = 1
    DIRECT = 2
    UNRESOLVED = 4
    IPIP = 8


class ServiceFlag(IntFlag):
    LOCAL = 1


class BackendFlag(IntFlag):
    ALL = 1
    LOCAL = 2


class FlowFlag(IntFlag):
    REQUEST = 1
    ANSWERED = 2
    REQUEST_FIN = 4
    ANSWER_FIN = 8
    RESET = 16


class AttachPoint(IntEnum):
    FROM_CONTAINER = 0
    TO_CONTAINER = 1
    FROM_UNDERLAY = 2
    FROM_OVERLAY = 3
    TO_OVERLAY = 4
    ATTACH_POINTS = 5


class PacketPath(IntEnum):
    NONE = 0
    POD = 1
    HOST_END = 2
    NODE = 3
    DEVICE = 4
    STACK = 5
    QDISC = 6
    ANSWER = 7
    DIRECT = 8
    PATHS = 9


class DropReason(IntEnum):
    TRUNCATED = 2
    BAD_HEADER = 3
    UNKNOWN_L3 = 4
    MULTICAST = 5
    SPOOFED_MAC = 6
    SPOOFED_SOURCE = 7
    UNANSWERED_PROBE = 8
    UNKNOWN_DESTINATION = 9
    WRONG_ENDPOINT = 10
    WRONG_VNI = 11
    UNKNOWN_VTEP = 12
    SPOOFED_INNER = 13
    TOO_BIG = 14
    REWRITE_FAILED = 15
    MARTIAN = 16
    LINK_LOCAL = 17
    NEIGHBOUR_MESSAGE = 18
    HIDDEN_HEADER = 19
    FORGED_VXLAN = 20
    BAD_TUNNEL = 21
    NOT_VTEP = 22
    FORGED_ERROR = 23
    WRONG_NEIGHBOUR = 24
    FORGED_IPIP = 25
    CONGESTED = 26
    NO_ENDPOINT = 27
    NO_LOCAL_ENDPOINT = 28
    UNKNOWN_PORT = 29
    BACKEND_GONE = 30
    NO_FLOW = 31
    REASONS = 32


class EventKind(IntEnum):
    DROP = 1


ENDPOINT = Layout(
    "endpoint",
    "=I6sH",
    (
        ("ifindex", "int"),
        ("mac", "mac"),
        ("flags", EndpointFlag),
    ),
)

REMOTE_KEY = Layout(
    "remote_key",
    "=I16s",
    (
        ("prefixlen", "int"),
        ("addr", "address"),
    ),
)

REMOTE = Layout(
    "remote",
    "=16s",
    (("vtep", "address"),),
)

VTEP = Layout(
    "vtep",
    "=II",
    (
        ("node", "int"),
        ("flags", VtepFlag),
    ),
)

NODE = Layout(
    "node",
    "=16s",
    (("vtep", "address"),),
)

NEXTHOP = Layout(
    "nexthop",
    "=II6s6sHH",
    (
        ("ifindex", "int"),
        ("mtu", "int"),
        ("dst_mac", "mac"),
        ("src_mac", "mac"),
        ("flags", NexthopFlag),
        ("used", "int"),
    ),
)

PATH_MTU = Layout(
    "path_mtu",
    "=I",
    (("mtu", "int"),),
)

SELF = Layout(
    "self",
    "=16sQ",
    (
        ("vtep", "address"),
        ("fresh_until", "int"),
    ),
)

FRONTEND = Layout(
    "frontend",
    "=16s2sB1x",
    (
        ("addr", "address"),
        ("port", "port"),
        ("proto", "int"),
    ),
)

SERVICE = Layout(
    "service",
    "=IIIIIII",
    (
        ("id", "int"),
        ("all_base", "int"),
        ("all_count", "int"),
        ("local_base", "int"),
        ("local_count", "int"),
        ("affinity", "int"),
        ("flags", ServiceFlag),
    ),
)

SLOT = Layout(
    "slot",
    "=I",
    (("backend", "int"),),
)

BACKEND = Layout(
    "backend",
    "=16s2sHII",
    (
        ("addr", "address"),
        ("port", "port"),
        ("flags", BackendFlag),
        ("generation", "int"),
        ("service", "int"),
    ),
)

FLOW_KEY = Layout(
    "flow_key",
    "=16s16s2s2sB3x",
    (
        ("src", "address"),
        ("dst", "address"),
        ("sport", "port"),
        ("dport", "port"),
        ("proto", "int"),
    ),
)

FLOW = Layout(
    "flow",
    "=40sQIIH6x",
    (
        ("to", "struct flow_key"),
        ("expires", "int"),
        ("backend", "int"),
        ("generation", "int"),
        ("flags", FlowFlag),
    ),
)

AFFINITY_KEY = Layout(
    "affinity_key",
    "=I16s",
    (
        ("service", "int"),
        ("client", "address"),
    ),
)

AFFINITY = Layout(
    "affinity",
    "=QII",
    (
        ("expires", "int"),
        ("backend", "int"),
        ("generation", "int"),
    ),
)

SOCKET_KEY = Layout(
    "socket_key",
    "=Q16s2s6x",
    (
        ("cookie", "int"),
        ("addr", "address"),
        ("port", "port"),
    ),
)

SOCKET_PEER = Layout(
    "socket_peer",
    "=16s2s2xII",
    (
        ("addr", "address"),
        ("port", "port"),
        ("backend", "int"),
        ("generation", "int"),
    ),
)

DROP_COUNT = Layout(
    "drop_count",
    "=QQ",
    (
        ("packets", "int"),
        ("bytes", "int"),
    ),
)

PATH_COUNT = Layout(
    "path_count",
    "=QQ",
    (
        ("packets", "int"),
        ("bytes", "int"),
    ),
)

EVENT = Layout(
    "event",
    "=HHI",
    (
        ("kind", "int"),
        ("version", "int"),
        ("length", "int"),
    ),
)

DROP_EVENT = Layout(
    "drop_event",
    "=8sQIIBBH4x64s",
    (
        ("event", "struct event"),
        ("time_ns", "int"),
        ("ifindex", "int"),
        ("length", "int"),
        ("point", "int"),
        ("reason", "int"),
        ("head_length", "int"),
        ("head", "bytes"),
    ),
)

PREFIX = Layout(
    "prefix",
    "=16s16s",
    (
        ("addr", "address"),
        ("mask", "address"),
    ),
)

CONFIG = Layout(
    "config",
    "=IIIIII6s6s2sBBBBBB16s16s32s32s20s20s16sIIIIIQ",
    (
        ("vni", "int"),
        ("stack_ifindex", "int"),
        ("vxlan_ifindex", "int"),
        ("overlay_mtu", "int"),
        ("masquerade_mark", "int"),
        ("event_mask", "int"),
        ("gateway_mac", "mac"),
        ("overlay_mac", "mac"),
        ("vxlan_port", "port"),
        ("tunnel_key_local", "int"),
        ("own_encap", "int"),
        ("decap_l3", "int"),
        ("netkit", "int"),
        ("direct", "int"),
        ("routed", "int"),
        ("gateway4", "address"),
        ("gateway6", "address"),
        ("cluster4", "struct prefix"),
        ("cluster6", "struct prefix"),
        ("node_prefix4", "struct remote_key"),
        ("node_prefix6", "struct remote_key"),
        ("link_local", "bytes"),
        ("ipip", "int"),
        ("dead_end_mark", "int"),
        ("services", "int"),
        ("reject_mark", "int"),
        ("set_retval", "int"),
        ("netns", "int"),
    ),
)
