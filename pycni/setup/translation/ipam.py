# SPDX-License-Identifier: Apache-2.0
"""Keys of IPAM plugins: `host-local`, and the prototype's own.

Sources: the README of host-local (containernetworking/plugins, plugins/ipam/host-local); for the
prototype, simple-k8s-cni, cni/cni.go: IPAM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from pycni.cluster import IPNetwork
from pycni.setup.translation import modes, subnets, values
from pycni.setup.translation.finding import (
    Conf,
    Finding,
    Key,
    Rule,
    Rules,
    Unfit,
    needless,
    refused,
    walk,
)

OURS = ("", "host-local", "pycni")
"""Values of `ipam.type` whose addresses pycni gives itself."""

THIS_NODE = (
    "of this node alone, and in no other node's part: see that the store gives this node the part "
    "that has it"
)
THIS_NODES_LAN = (
    "of this node alone: give each other node a range of its own in its list, or share one range "
    "among all by ipam.perNode (docs/lan.md)"
)

Reader = Callable[[Any], IPNetwork]


def host_local(key: Key) -> Iterator[Finding]:
    """The object `ipam` beside a plugin that makes interfaces."""
    inner = Conf.of(key.value, f"{key.path}.", outer=key.conf)
    chosen = values.text(inner.get("type") or "")
    if chosen in OURS:
        yield from walk(inner, HOST_LOCAL)
        return
    yield Key(f"{key.path}.type", chosen).refused(
        f'it is no address pool that can be moved; pycni can call {chosen} itself: "ipam" in its '
        "list, with addresses in cluster_cidrs. Remove `ipam` here, and write it there by hand"
    )


def prototype(key: Key) -> Iterator[Finding]:
    """The object `ipam` of the prototype, which reads no `type`."""
    yield from walk(Conf.of(key.value, f"{key.path}.", outer=key.conf), PROTOTYPE)


def _ranges(key: Key) -> Iterator[Finding]:
    """host-local's sets of ranges: one address of each set."""
    seen: set[int] = set()
    for number, one in enumerate(values.items(key.value)):
        path = f"{key.path}[{number}]"
        pairs = [(path, one)]
        if isinstance(one, list):
            pairs = [(f"{path}[{place}]", inner) for place, inner in enumerate(one)]
        for where, each in pairs:
            yield from _range(Key(where, each, key.conf), seen)


def _range(key: Key, seen: set[int]) -> Iterator[Finding]:
    """One object of `ranges`; `seen`: IP versions of those before it."""
    try:
        inner = Conf.of(key.value, f"{key.path}.", outer=key.conf)
        version = values.network(inner.get("subnet")).version
        if version in seen:
            raise Unfit(
                f"a second range of IPv{version}: a node has one part of cluster_cidrs in each "
                'family. Put further ones into "ipam": {"ranges": [...]} of the list by hand'
            )
    except Unfit as error:
        yield key.refused(str(error))
        return
    seen.add(version)
    yield from walk(inner, RANGE)


def _start(key: Key, read: Reader) -> Iterator[Finding]:
    _end_of(key, _subnet(key.conf, read))
    yield _of_this_node(key, read)


def _end(key: Key, read: Reader) -> Iterator[Finding]:
    network = _subnet(key.conf, read)
    end = _end_of(key, network)
    try:
        start = values.address(key.conf.get("rangeStart") or key.value)
    except Unfit:
        start = end  # its own key says it
    if start in network and int(start) > int(end):
        raise Unfit(f"comes before rangeStart, which is {start}: swap the two")
    yield _of_this_node(key, read)


def _of_this_node(key: Key, read: Reader) -> Finding:
    note = THIS_NODES_LAN if modes.on_lan(key.conf.outer) else THIS_NODE
    return key.becomes(note, network=_as_range(key.conf, read))


def _end_of(key: Key, network: IPNetwork) -> Any:
    """The address that a key has. Raises Unfit if it is not in the network."""
    found = values.address(key.value)
    if found not in network:
        raise Unfit(f"is not in the subnet {network}: correct one of the two")
    return found


def _as_range(conf: Conf, read: Reader) -> dict[str, Any]:
    """The range as pycni's `ipam.ranges` has it."""
    ends = {name: str(values.address(one)) for name in ("rangeStart", "rangeEnd")
            if (one := conf.get(name)) is not None and _is_address(one)}  # fmt: skip
    return {"ipam": {"ranges": [{"subnet": str(_subnet(conf, read)), **ends}]}}


def _is_address(value: Any) -> bool:
    try:
        values.address(value)
    except Unfit:
        return False
    return True


def _subnet(conf: Conf, read: Reader) -> IPNetwork:
    """The network that a range is in: beside it, or for the prototype around it. Raises Unfit."""
    for one in (conf, conf.outer):
        if one is not None and (found := one.get("subnet")) is not None:
            try:
                return read(found)
            except Unfit:
                raise Unfit("the subnet that it is in is wrong: correct that first") from None
    raise Unfit("needs `subnet`, the network that it is in")


def _gateway(key: Key, read: Reader) -> Iterator[Finding]:
    given = values.address(key.value)
    network = _subnet(key.conf, read)
    if given not in network or int(given) != int(network.network_address) + 1:
        raise Unfit(f"pods' gateway is always the first address of {network}: remove the key")
    yield key.needless("pods' gateway is always the first address of the node's part")


def _routes(key: Key) -> Iterator[Finding]:
    for number, one in enumerate(values.items(key.value)):
        route = Key(f"{key.path}[{number}]", one)
        try:
            found = Conf.of(one, f"{route.path}.")
            network = values.network(found.get("dst"))
            if network.prefixlen or set(found.keys) - {"dst", "gw"}:
                raise Unfit(
                    "pods have a default route only, and the node sends on: give the node that "
                    "route, and remove it here"
                )
            yield route.needless("pods have a default route to the node's gateway anyway")
        except Unfit as error:
            yield route.refused(str(error))


def _within(key: Key) -> Iterator[Finding]:
    """The prototype's `ipam.subnet`: it goes on with the range that is in it."""
    network = subnets.whole(key.value)
    around = key.conf.outer and key.conf.outer.get("subnet")
    if around is None:
        raise Unfit("the plugin reads `subnet` beside ipam, not in it: move it there")
    if network != subnets.whole(around):
        raise Unfit(f"is not the `subnet` beside ipam, which is {around}: remove one of the two")
    yield key.needless("the `subnet` beside ipam says it")


def _ends(read: Reader) -> dict[str, Rule]:
    return {
        "rangestart": partial(_start, read=read),
        "rangeend": partial(_end, read=read),
        "gateway": partial(_gateway, read=read),
    }


RANGE: Rules = {"subnet": subnets.node, **_ends(values.network)}

HOST_LOCAL: Rules = {
    "type": needless("pycni gives the addresses itself, of the node's part of cluster_cidrs"),
    **RANGE,
    "ranges": _ranges,
    "routes": _routes,
    "resolvconf": refused('write what the file says as "dns" in the list, and remove the key'),
    "datadir": needless("a lease is kept on the pod's link"),
}

PROTOTYPE: Rules = {
    "type": needless("pycni gives the addresses itself"),
    "subnet": _within,
    **_ends(subnets.whole),
    "gateway": needless("it was not read; pods have the node's gateway, or on the LAN its router"),
    "addresses": refused("a pod asks for its address itself: annotation pycni/ips"),
    "routes": _routes,
}
