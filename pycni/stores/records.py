# SPDX-License-Identifier: Apache-2.0
"""Node records as they stand in a store, where anybody may have written them: nothing is believed.

`read` checks one record by itself. `conflict` compares two. Which of two that conflict is set aside
is decided in roster.py. Pure; every kind of store uses the same rules.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TypeVar

from pycni.cluster import V4_MAPPED, Cluster, IPAddress, IPNetwork, is_routable, is_usable, overlap
from pycni.names import NODE_NAME_MAX, is_node_name
from pycni.stores.registry import DIRECT, IPIP, ROUTED, VXLAN, NodeRecord

NODE_ID_MAX = 2**32 - 1
"""`struct vtep` of bpf/lib/types.h has 32 bits for it."""

ADDRESSES_MAX = 64
"""A node's own addresses that its record can have."""
CIDRS_MAX = 2
"""Pod CIDRs of one node: one per family."""
EXTRA_MAX = 1024
"""Addresses that one node may publish. Each costs every node an entry in a map, and time to check.
A node has a few hundred pods."""
BLOCKS_MAX = 64
"""Blocks that one node may have besides its pod CIDRs: each costs every node an entry in a map."""
ACCEPTS_KNOWN = (DIRECT, ROUTED, IPIP)
"""What a node may take besides VXLAN. Words of later releases are ignored."""
ACCEPTS_MAX, WORD_MAX = 16, 32
"""Words in a record, and characters of each."""
IDENTITY_MAX = 128
"""Characters; machine_identity() makes 32."""
VALUE_MAX = 128 << 10
"""Bytes of a record as a store holds it: more than EXTRA_MAX addresses take."""

CUT_DIGITS = 8
SHOWN = 60
"""Characters of a strange value that a reason shows."""

T = TypeVar("T")
Key = int | IPAddress | IPNetwork
"""What only one node can have: an id, an address, a pod CIDR."""


@dataclass(frozen=True)
class Raw:
    """A record as a store holds it."""

    document: object
    """What `write` makes, if pycni wrote it; unknown fields are ignored."""
    order: int = 0
    """Of two records, the one with the lower number was there first."""

    @classmethod
    def too_large(cls, size: int, order: int = 0) -> Raw:
        """In the place of a record of more than VALUE_MAX bytes, which nobody decodes."""
        return cls(TooLarge(size), order)


@dataclass(frozen=True)
class TooLarge:
    """A record that was not decoded."""

    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a record says, field by field. Where a field is wrong, what can be used of it."""

    name: str
    order: int
    node_id: int | None
    vtep: IPAddress | None
    pod_cidrs: tuple[IPNetwork, ...]
    extra: tuple[IPNetwork, ...]
    addresses: tuple[IPAddress, ...]
    identity: str
    problem: str
    """Why the record is not valid; empty if it is, by itself."""
    blocks: tuple[IPNetwork, ...] = ()
    accepts: tuple[str, ...] = ()
    touches: tuple[IPNetwork, ...] = ()
    """Pod CIDRs that no other node can have, because an address of this one is in them."""

    @property
    def holds(self) -> tuple[Key, ...]:
        """What no other node can have."""
        single = (self.node_id, self.vtep, *(one.network_address for one in self.extra))
        return (*(one for one in single if one is not None), *self.networks)

    @property
    def keys(self) -> tuple[Key, ...]:
        """What it holds and touches; nothing if the record is not valid by itself."""
        return () if self.problem else (*self.holds, *self.touches)

    def has(self, key: Key) -> bool:
        """Whether it holds what is one of its keys: only networks are merely touched."""
        return not isinstance(key, IPv4Network | IPv6Network) or key in self.networks

    @property
    def networks(self) -> tuple[IPNetwork, ...]:
        """All networks of its pods."""
        return (*self.pod_cidrs, *self.blocks)

    @property
    def seniority(self) -> tuple[int, int, str]:
        """The lower one has the right to what two records claim: the one that was there first,
        then the one with the lower id. All nodes decide alike."""
        return self.order, self.node_id or 0, self.name

    @property
    def record(self) -> NodeRecord:
        """The record that a claim without a problem is."""
        assert self.node_id is not None
        assert self.vtep is not None
        return NodeRecord(
            self.name,
            self.node_id,
            self.vtep,
            self.pod_cidrs,
            self.extra,
            self.addresses,
            self.blocks,
            self.accepts,
        )


def write(record: NodeRecord, identity: str) -> dict[str, object]:
    """A record as a document of JSON types; the name is not in it. `identity` is the machine's."""
    document: dict[str, object] = {
        "node_id": record.node_id,
        "vtep": str(record.vtep),
        "pod_cidrs": [str(cidr) for cidr in record.pod_cidrs],
        "extra": [str(prefix) for prefix in record.extra],
        "identity": identity,
    }
    if record.addresses:
        document["addresses"] = [str(address) for address in record.addresses]
    if record.blocks:
        document["blocks"] = [str(block) for block in record.blocks]
    if record.accepts:
        document["accepts"] = [VXLAN, *record.accepts]
    return document


def read(name: str, raw: Raw, cluster: Cluster) -> Claim:
    """What a stored record says, and the first thing that is wrong with it. Never raises."""
    check = _Check()
    document = raw.document
    if not is_node_name(name):
        check.fail("its name is not a DNS name in lower case")
    if isinstance(document, TooLarge):
        check.fail(f"it has {document.size} bytes, more than {VALUE_MAX}")
    if not isinstance(document, dict):
        check.fail("it is not a JSON object")
        document = {}
    node_id = check(_node_id, document.get("node_id"))
    vtep = check(_vtep, document.get("vtep"))
    if vtep is not None:
        check(_usable_vtep, vtep, cluster)
    cidrs = [
        check(_pod_cidr, text, cluster)
        for text in check.list("pod_cidrs", document, longest=CIDRS_MAX)
    ]
    further = [
        check(_pod_cidr, text, cluster)
        for text in check.list("blocks", document, longest=BLOCKS_MAX, absent=[])
    ]
    extra = [
        check(_extra, text, vtep)
        for text in check.list("extra", document, longest=EXTRA_MAX, absent=[])
    ]
    addresses = [
        check(_own_address, text, cluster)
        for text in check.list("addresses", document, longest=ADDRESSES_MAX, absent=[])
    ]
    accepts = [
        check(_word, text)
        for text in check.list("accepts", document, longest=ACCEPTS_MAX, absent=[])
    ]
    identity = check(_identity, document.get("identity")) or ""
    own_cidrs = _one_per_family(check, cluster, cidrs)
    published = tuple(dict.fromkeys(one for one in extra if one is not None))
    blocks = tuple(
        dict.fromkeys(one for one in further if one is not None and one not in own_cidrs)
    )
    return Claim(
        name=name,
        order=raw.order,
        node_id=node_id,
        vtep=vtep,
        pod_cidrs=own_cidrs,
        extra=published,
        # one object for one address: there are thousands
        addresses=tuple(vtep if one == vtep else one for one in addresses if one is not None),
        identity=identity,
        problem=check.problem,
        blocks=blocks,
        accepts=tuple(word for word in ACCEPTS_KNOWN if word in accepts),
        touches=tuple(
            one.supernet(new_prefix=cluster.node_prefix(one.version))
            for one in extra
            if one is not None and _overlapping(one, cluster.cidrs)
        ),
    )


def conflict(claim: Claim, other: Claim, *, but_vtep: bool = False) -> str:
    """What `claim` has that is the other's, as a reason to set it aside; empty if nothing is.
    With `but_vtep`, one VTEP is no conflict."""
    if claim.node_id == other.node_id:
        return f"its id {claim.node_id} is that of {other.name}"
    if claim.vtep == other.vtep and not but_vtep:
        return f"its VTEP {claim.vtep} is that of {other.name}"
    for one in other.extra:
        if claim.vtep == one.network_address:
            return f"its VTEP {claim.vtep} is an address that {other.name} published"
    for cidr in claim.networks:
        if theirs := _overlapping(cidr, other.networks):
            return f"its pod CIDR {cidr} overlaps {theirs} of {other.name}"
        if theirs := _overlapping(cidr, other.extra):
            return f"its pod CIDR {cidr} overlaps {theirs}, which {other.name} published"
    for one in claim.extra:
        if one.network_address == other.vtep:
            return f"the address {other.vtep} that it published is the VTEP of {other.name}"
        if theirs := _overlapping(one, (*other.extra, *other.networks)):
            return f"the address {one} that it published overlaps {theirs} of {other.name}"
    return ""


def printable(name: str) -> str:
    """A name that anybody may have chosen, in printable ASCII. One that is longer than a real name
    is cut, and ends with a hash of all, so that different names stay different."""
    text = name.encode("unicode_escape").decode("ascii")
    if len(text) <= NODE_NAME_MAX:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:CUT_DIGITS]
    return f"{text[:NODE_NAME_MAX]}...{digest}"


def named(names: Iterable[str], shown: str) -> str | None:
    """The one of `names` that is `shown`, or else that `printable` shows like this; or None."""
    known = list(names)
    if shown in known:
        return shown
    return next((name for name in known if printable(name) == shown), None)


class _Check:
    """Runs checks that raise ValueError, and keeps the first reason."""

    def __init__(self) -> None:
        self.problem = ""

    def __call__(self, check: Callable[..., T], *values: object) -> T | None:
        try:
            return check(*values)
        except ValueError as error:
            self.fail(str(error))
            return None

    def list(
        self,
        field: str,
        document: Mapping[str, object],
        *,
        longest: int,
        absent: object = None,
    ) -> list[object]:
        """The values of a list; none of one that is too long, since to check them takes time."""
        values = document.get(field, absent)
        if isinstance(values, list):
            if len(values) <= longest:
                return values
            self.fail(f"its {field} has {len(values)} entries, more than {longest}")
            return []
        self.fail(f"its {field} is {_shown(values)}, not a list")
        return []

    def fail(self, reason: str) -> None:
        self.problem = self.problem or reason


def _node_id(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= NODE_ID_MAX:
        raise ValueError(f"its node_id is {_shown(value)}, not a number from 1 to {NODE_ID_MAX}")
    return value


def _identity(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"its identity is {_shown(value)}, not text")
    if len(value) > IDENTITY_MAX or not (value.isascii() and value.isprintable()):
        raise ValueError(f"its identity {_shown(value)} is none that pycni writes")
    return value


def _word(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(rf"[a-z0-9-]{{1,{WORD_MAX}}}", value):
        raise ValueError(f"it accepts {_shown(value)}, which is no word")
    return value


def _vtep(value: object) -> IPAddress:
    return _canonical("VTEP", value, ip_address)


def _usable_vtep(vtep: IPAddress, cluster: Cluster) -> None:
    _usable_address("VTEP", vtep, cluster)


def _usable_address(what: str, address: IPAddress, cluster: Cluster) -> None:
    if not is_routable(address):
        raise ValueError(
            f"its {what} {address} is not a unicast address that other nodes can reach"
        )
    for cidr in cluster.cidrs:
        if address in cidr:
            raise ValueError(f"its {what} {address} is in the cluster CIDR {cidr}")


def _own_address(value: object, cluster: Cluster) -> IPAddress:
    """Several nodes may have one address: who has it then, node/directory.py decides."""
    address = _canonical("address", value, ip_address)
    _usable_address("address", address, cluster)
    return address


def _pod_cidr(value: object, cluster: Cluster) -> IPNetwork:
    cidr = _canonical("pod CIDR", value, ip_network)
    if not any(cidr.network_address in whole for whole in cluster.cidrs):
        raise ValueError(f"its pod CIDR {cidr} is not in the cluster's CIDRs")
    length = cluster.node_prefix(cidr.version)
    if cidr.prefixlen != length:
        raise ValueError(f"its pod CIDR {cidr} is not a /{length}, as those of this cluster are")
    return cidr


def _extra(value: object, vtep: IPAddress | None) -> IPNetwork:
    prefix = _canonical("published address", value, ip_network)
    if prefix.prefixlen != prefix.max_prefixlen:
        raise ValueError(f"its published address {prefix} is a network, not one address")
    if not is_usable(prefix):
        raise ValueError(f"its published address {prefix} cannot be a pod's")
    if prefix.network_address == vtep:
        raise ValueError(f"its published address {prefix} is its VTEP")
    return prefix


def _canonical(what: str, value: object, parse: Callable[[str], T]) -> T:
    """An address or network in the one form that pycni writes, so that equal ones are equal."""
    if not isinstance(value, str):
        raise ValueError(f"its {what} is {_shown(value)}, not text")
    try:
        parsed = parse(value)
    except ValueError:
        raise ValueError(f"its {what} {_shown(value)} is not a valid one") from None
    if "%" in value:  # an IPv6 zone (RFC 4007), which means something on one machine only
        raise ValueError(f"its {what} {_shown(value)} has a zone")
    if value.startswith("::ffff:") and overlap(ip_network(value), V4_MAPPED):
        raise ValueError(f"its {what} {_shown(value)} is IPv4 written as IPv6 (v4-mapped)")
    if str(parsed) != value:
        raise ValueError(f"its {what} {_shown(value)} is not in the usual form, {parsed}")
    return parsed


def _one_per_family(
    check: _Check, cluster: Cluster, cidrs: Iterable[IPNetwork | None]
) -> tuple[IPNetwork, ...]:
    found: dict[int, IPNetwork] = {}
    for cidr in cidrs:
        if cidr is not None and found.setdefault(cidr.version, cidr) is not cidr:
            check.fail(f"it has more than one IPv{cidr.version} pod CIDR")
    for version in sorted(whole.version for whole in cluster.cidrs):
        if version not in found:
            check.fail(f"it has no IPv{version} pod CIDR")
    return tuple(found[version] for version in sorted(found))


def _overlapping(one: IPNetwork, others: Iterable[IPNetwork]) -> IPNetwork | None:
    """The first of `others` that overlaps."""
    return next((other for other in others if overlap(other, one)), None)


def _shown(value: object) -> str:
    """A value that anybody may have written, short and in printable ASCII."""
    if value is None:
        return "missing"
    if not isinstance(value, (str, int, float)):
        return "a list" if isinstance(value, list) else "an object"
    text = ascii(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
