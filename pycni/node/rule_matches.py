# SPDX-License-Identifier: Apache-2.0
"""How much of a kind of packets a rule of nftables is about, as far as that can be told from its
text (libnftables-json(5)).

Judges interfaces, addresses, protocols, the port of VXLAN and states of connections. Of all else,
such as marks, limits and most that iptables adds, it says that it cannot tell. Pure, but for named
sets, which the caller looks into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from pycni.cluster import IPAddress, IPNetwork
from pycni.kernel import xt_matches
from pycni.kernel.nft_chains import Expression
from pycni.kernel.nft_elements import Answer
from pycni.node.overlay import DEVICE
from pycni.node.passing import NEW, Addresses, Packets

LookUp = Callable[[str, str | int], Answer]
"""What a named set has at an element (nft_elements.py)."""


class Part(IntEnum):
    """Which packets of a kind a rule is about."""

    NONE = 0
    SOME = 1
    """A few, whatever else is asked of them: those to some ports, of ICMP, of a small network."""
    UNKNOWN = 2
    """Perhaps a few, perhaps most or all."""
    ALL = 3


class Match(NamedTuple):
    """A verdict on one expression, or on a whole rule."""

    part: Part
    names: bool = False
    """Whether it says the name of what is pycni's: its device, pods' addresses, VXLAN's port."""


INTERFACES = {"iif": "iifs", "iifname": "iifs", "oif": "oifs", "oifname": "oifs"}
PROTOCOLS = frozenset(("tcp", "udp", "th", "icmp", "icmpv6", "sctp", "dccp", "udplite", "esp",
                       "ah", "comp", "igmp"))  # fmt: skip
UDP = ("udp", 17)
IP = {4: "ip", 6: "ip6"}
FAMILY_WORDS = {4: ("ipv4", "ip"), 6: ("ipv6", "ip6")}
SILENT = frozenset(("counter", "log", "mangle", "notrack", "secmark", "comment"))
"""Statements that neither choose packets nor end their way."""
OPPOSITE = {Part.ALL: Part.NONE, Part.NONE: Part.ALL}
COMMON = frozenset(("tcp", "udp", 6, 17))
"""Protocols that make most packets."""
FEW_STATUS = ("dnat", ["dnat"])
"""Of connections to published ports and the like, which firewalld accepts."""
FEW_PORTS = 1024
FEW_BITS = 6
"""Of a network's length: a 64th of all addresses. Private networks are less (RFC 1918, RFC 4193),
those that the IPv6 Internet uses are more."""


def of_rule(
    expressions: Iterable[Expression], packets: Packets, look_up: LookUp, *, lets: bool = False
) -> Match:
    """What a rule is about, all its conditions together. `lets`: it lets packets pass. Then what
    iptables says of states that it does not name is about connections that are known already."""
    part, names = Part.ALL, False
    for one in expressions:
        if "match" in one:
            match = of_match(one["match"], packets, look_up, lets=lets)
        elif "xt" in one:
            match = Match(_xt(one["xt"], packets, lets=lets))
        else:
            continue
        part, names = min(part, match.part), names or match.names
    return Match(part, names and part is not Part.NONE)


def of_match(
    match: dict[str, Any], packets: Packets, look_up: LookUp, *, lets: bool = False
) -> Match:
    """One condition: `left`, `op` and `right` of a statement "match". All but a few are all for a
    rule that stops them, and not known for one that `lets` them pass."""
    operator, left, right = match["op"], match["left"], match["right"]
    if operator not in ("==", "!=", "in"):
        return Match(Part.UNKNOWN)
    if not isinstance(left, dict) or _is_foreign(left, packets):
        return Match(Part.NONE if isinstance(left, dict) else Part.UNKNOWN)
    found = of_key(left, right, packets, look_up)
    if operator == "!=" and found == Match(Part.SOME) and not (lets or _is_of_protocol(left)):
        return Match(Part.ALL)
    if operator == "!=":
        return Match(OPPOSITE.get(found.part, Part.UNKNOWN))
    return found


def of_key(left: dict[str, Any], right: object, packets: Packets, look_up: LookUp) -> Match:
    """Whether what `left` names in packets is `right`, or among it."""
    if _is_foreign(left, packets):
        return Match(Part.NONE)
    meta, payload = left.get("meta", {}), left.get("payload", {})
    key, protocol = meta.get("key", ""), payload.get("protocol", "")
    field = payload.get("field", "")
    if key in INTERFACES:
        return _interfaces(ifnames(left, packets), right, look_up)
    if key in ("nfproto", "protocol"):
        return Match(_among(FAMILY_WORDS[packets.version], right))
    if key == "l4proto" or (protocol, field) in (("ip", "protocol"), ("ip6", "nexthdr")):
        return Match(_among(UDP, right) if packets.port else _few_protocols(right))
    if protocol in IP.values() and field in ("saddr", "daddr"):
        own = packets.source if field == "saddr" else packets.destination
        return _addresses(own, right, packets.version, look_up)
    if protocol in PROTOCOLS:
        return _transport(protocol, field, right, packets, look_up)
    if left.get("ct", {}).get("key") == "state" and "dir" not in left["ct"]:
        return Match(_state(right, packets))
    if left.get("ct", {}).get("key") == "status" and right in FEW_STATUS:
        return Match(Part.SOME)
    return Match(Part.UNKNOWN)


def ifnames(left: dict[str, Any], packets: Packets) -> frozenset[str]:
    """Names of the interfaces that `left` asks for, if they are known."""
    key = left.get("meta", {}).get("key", "")
    return getattr(packets, INTERFACES[key]) if key in INTERFACES else frozenset()


def _is_of_protocol(left: dict[str, Any]) -> bool:
    """Whether only packets of one protocol have what `left` names."""
    return left.get("payload", {}).get("protocol") in PROTOCOLS


def _is_foreign(left: dict[str, Any], packets: Packets) -> bool:
    """Whether it asks for a header that none of the packets has: then no operator holds."""
    protocol = left.get("payload", {}).get("protocol", "")
    if protocol in IP.values():
        return bool(protocol != IP[packets.version])
    return bool(packets.port and protocol in PROTOCOLS - {"udp", "th"})


def _state(right: object, packets: Packets) -> Part:
    """VXLAN is what many exempt from tracking."""
    part = _among((packets.state,), right) if packets.state else Part.UNKNOWN
    is_exempt = packets.port and _among(("untracked",), right) is Part.ALL
    return Part.UNKNOWN if part is Part.NONE and is_exempt else part


def _few_protocols(right: object) -> Part:
    return Part.SOME if _among(COMMON, right) is Part.NONE else Part.UNKNOWN


def _xt(said: dict[str, Any] | None, packets: Packets, *, lets: bool) -> Part:
    """Of what iptables adds to nftables."""
    if said is None:
        return Part.UNKNOWN
    if said.get("type") == "target" or said.get("name") == "comment":
        return Part.ALL
    if "states" in said:
        part = _state(said["states"], packets)
        return part if said["all"] else min(part, Part.UNKNOWN)
    if said.get("name") in xt_matches.OF_STATES and packets.state == NEW and lets:
        return Part.NONE
    return Part.UNKNOWN


def _interfaces(ifnames: frozenset[str], right: object, look_up: LookUp) -> Match:
    if not ifnames:
        return Match(Part.UNKNOWN)
    values = list(_values(right))
    if any(not isinstance(one, str) for one in values):
        return Match(Part.UNKNOWN)

    answers = {one: [_is_named(one, value, look_up) for value in values] for one in ifnames}
    meant = {ifname for ifname, found in answers.items() if True in found}
    if any(None in found for ifname, found in answers.items() if ifname not in meant):
        return Match(Part.UNKNOWN, DEVICE in meant)
    part = Part.ALL if meant == ifnames else Part.UNKNOWN if meant else Part.NONE
    return Match(part, DEVICE in meant)


def _is_named(ifname: str, value: str, look_up: LookUp) -> bool | None:
    if value.startswith("@"):
        return _has(value[1:], ifname, look_up)
    return ifname.startswith(value[:-1]) if value.endswith("*") else ifname == value


def _has(name: str, element: str | int, look_up: LookUp) -> bool | None:
    """Whether a named set has an element; None: it cannot be told."""
    found = look_up(name, element)
    return None if found is None else bool(found)


def _addresses(own: Addresses | None, right: object, version: int, look_up: LookUp) -> Match:
    if own is None:
        return Match(Part.UNKNOWN)
    ranges: list[tuple[int, int]] = []
    for value in _values(right):
        if isinstance(value, str) and value.startswith("@"):
            return _in_set(own, value[1:], look_up)
        found = _range(value)
        if found is None:
            return Match(Part.UNKNOWN)
        ranges.append(found)
    nets = [_ends(one) for one in own.networks]
    if own.outside:
        largest = 2 ** (32 if version == 4 else 128) - 1
        if any(first == 0 and last == largest for first, last in ranges):
            return Match(Part.ALL)
        is_apart = all(any(_covers(net, one) for net in nets) for one in ranges)
        few = sum(last - first + 1 for first, last in ranges) <= (largest + 1) >> FEW_BITS
        return Match(Part.NONE if is_apart else Part.SOME if few else Part.UNKNOWN)
    if all(any(_covers(one, net) for one in ranges) for net in nets):
        return Match(Part.ALL, names=True)
    is_met = any(first <= net[1] and net[0] <= last for first, last in ranges for net in nets)
    return Match(Part.SOME, names=True) if is_met else Match(Part.NONE)


def _in_set(own: Addresses, name: str, look_up: LookUp) -> Match:
    """By the first and the last address of each network."""
    if own.outside:
        return Match(Part.UNKNOWN)
    ends = [str(one[at]) for one in own.networks for at in ((1, -2) if one.num_addresses > 2
            else (0,))]  # fmt: skip
    found = [_has(name, end, look_up) for end in ends]
    if None in found:
        return Match(Part.UNKNOWN)
    if all(found):
        return Match(Part.ALL, names=True)
    return Match(Part.SOME, names=True) if any(found) else Match(Part.NONE)


def _transport(
    protocol: str, field: str, right: object, packets: Packets, look_up: LookUp
) -> Match:
    if not packets.port:
        is_few = protocol not in COMMON | {"th"} or (
            field in ("sport", "dport") and _ports(right) <= FEW_PORTS
        )
        return Match(Part.SOME if is_few else Part.UNKNOWN)
    if field != "dport":
        return Match(Part.UNKNOWN)
    for value in _values(right):
        if isinstance(value, dict) and "range" in value:
            first, last = value["range"]
            is_meant = isinstance(first, int) and first <= packets.port <= last
        elif isinstance(value, str) and value.startswith("@"):
            found = _has(value[1:], packets.port, look_up)
            if found is None:
                return Match(Part.UNKNOWN)
            is_meant = found
        else:
            is_meant = value == packets.port
        if is_meant:
            return Match(Part.ALL, names=True)
    return Match(Part.NONE)


def _ports(right: object) -> int:
    """How many ports an expression has, as far as it tells."""
    ranges = (one["range"] for one in _values(right) if isinstance(one, dict) and "range" in one)
    return sum(last - first for first, last in ranges if isinstance(first, int))


def _among(words: Iterable[object], right: object) -> Part:
    values = list(_values(right))
    if any(isinstance(one, dict) or str(one).startswith("@") for one in values):
        return Part.UNKNOWN
    return Part.ALL if any(word in values for word in words) else Part.NONE


def _values(right: object) -> Iterator[Any]:
    """All that an expression may be: members of a set, flags of a list, one value. An element with
    a comment or a timeout is an object."""
    members = right.get("set") if isinstance(right, dict) else right
    if isinstance(members, str) or not isinstance(members, list):
        members = [right if members is None else members]
    for one in members:
        yield one["elem"]["val"] if isinstance(one, dict) and "elem" in one else one


def _range(value: object) -> tuple[int, int] | None:
    try:
        if isinstance(value, dict) and "prefix" in value:
            prefix = value["prefix"]
            return _ends(ip_network((prefix["addr"], prefix["len"]), strict=False))
        if isinstance(value, dict) and "range" in value:
            first, last = map(ip_address, value["range"])
            return int(first), int(last)
        return (int(_address(value)),) * 2
    except (ValueError, TypeError, KeyError):
        return None


def _address(value: object) -> IPAddress:
    if not isinstance(value, str):
        raise TypeError(value)
    return ip_address(value)


def _ends(network: IPNetwork) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)


def _covers(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[0] and other[1] <= one[1]
