# SPDX-License-Identifier: Apache-2.0
"""`net-conf.json`, the configuration of flannel's daemon: settings of pycni, no network list.

Sources: flannel, Documentation/configuration.md and Documentation/backends.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from pycni.cluster import VNI_MAX
from pycni.settings import MTU_MAX, PORT_MAX
from pycni.setup.translation import modes, values
from pycni.setup.translation.finding import (
    ALL,
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

NO_BOUNDS = "nodes get parts of all cluster_cidrs: write a smaller network in a copy of this file"
VXLAN = 'write "Type": "vxlan" in a copy of this file'
GOES_FIRST = "free once flannel's own device is gone"

NETWORK = {4: "network", 6: "ipv6network"}
LENGTH = {4: "subnetlen", 6: "ipv6subnetlen"}
SMALL = {4: 22, 6: 62}
"""By IP version: where networks with longer prefixes are divided into four parts by default; others
into parts of 24 or 64 bits, as in pycni."""


def is_net_conf(document: dict[str, object]) -> bool:
    """Whether a file is the daemon's, and no network list."""
    return "Network" in document or "Backend" in document or "IPv6Network" in document


def _network(family: int) -> Rule:
    def judge(key: Key) -> Iterator[Finding]:
        found = values.network(key.value)
        if found.version != family:
            raise Unfit(f"must be a network of IPv{family}")
        if not _has(key.conf, family):
            yield key.needless(f"EnableIPv{family} is not true")
            return
        settings: dict[str, object] = {"cluster_cidrs": [str(found)]}
        if found.prefixlen > SMALL[family] and key.conf.get(LENGTH[family]) is None:
            settings["node_prefix"] = {f"ipv{family}": found.prefixlen + 2}
        yield key.becomes(settings=settings)

    return judge


def _has(conf: Conf, family: int) -> bool:
    """Whether pods have addresses of an IP version: IPv6 if it is asked for."""
    said = conf.get(f"enableipv{family}")
    return said is True or (said is None and family == 4)


def _length(family: int) -> Rule:
    def judge(key: Key) -> Iterator[Finding]:
        length = values.number(key.value, 1, 32 if family == 4 else 128)
        yield key.becomes(settings={"node_prefix": {f"ipv{family}": length}})

    return judge


def _enabled(network: str) -> Rule:
    def judge(key: Key) -> Iterator[Finding]:
        if values.flag(key.value) and key.conf.get(network) is None:
            raise Unfit(f"{network} is missing: add it, or write false")
        yield key.needless("the networks in cluster_cidrs say it")

    return judge


def _backend(key: Key) -> Iterator[Finding]:
    inner = Conf.of(key.value, f"{key.path}.", outer=key.conf)
    if inner.get("type") is None:
        yield _without_type(f"{key.path}.Type")
    yield from walk(inner, BACKEND)


def _without_type(path: str) -> Finding:
    return modes.judge(Key(path), "udp", how=VXLAN, lead="not set, which means udp: ")


def _type(key: Key) -> Iterator[Finding]:
    name = values.text(key.value)
    if name.lower() == modes.VXLAN and key.conf.get("directrouting") is True:
        yield key.needless("DirectRouting beside it says more")
        return
    yield modes.judge(key, name, how=VXLAN)


def _direct(key: Key) -> Iterator[Finding]:
    if not values.flag(key.value):
        yield key.needless("all nodes are reached by VXLAN")
        return
    yield modes.judge(key, "direct-routing", how="write false in a copy of this file")


def _vni(key: Key) -> Iterator[Finding]:
    yield key.becomes(GOES_FIRST, settings={"vni": values.number(key.value, 1, VNI_MAX)})


def _port(key: Key) -> Iterator[Finding]:
    port = values.number(key.value, 0, PORT_MAX)
    yield key.becomes(GOES_FIRST, settings={"port": port}) if port else key.needless("0 is none")


def _mtu(key: Key) -> Iterator[Finding]:
    """Of the uplink, less what flannel takes itself; 0: the interface's."""
    if values.number(key.value, 0, MTU_MAX):
        raise Unfit(
            "it is the uplink's; `mtu` of pycni's settings is of pods' packets, 50 bytes less (70 "
            "on IPv6): remove the key, and write that if the uplink's own MTU is not true"
        )
    yield key.needless("pycni takes the uplink's")


def _policy(key: Key) -> Iterator[Finding]:
    if values.flag(key.value):
        raise Unfit("packets carry no group (VXLAN-GBP): remove the key")
    yield key.needless("packets carry no group")


BACKEND: Rules = {
    "type": _type,
    "vni": _vni,
    "port": _port,
    "mtu": _mtu,
    "directrouting": _direct,
    "gbp": _policy,
    "learning": needless("nothing is learned from packets: the store says where pods are"),
    "macprefix": needless("the overlay's device has no MAC that others need to know"),
}

RULES: Rules = {
    "network": _network(4),
    "ipv6network": _network(6),
    "subnetlen": _length(4),
    "ipv6subnetlen": _length(6),
    **dict.fromkeys(("subnetmin", "subnetmax", "ipv6subnetmin", "ipv6subnetmax"),
                    refused(NO_BOUNDS)),
    "enableipv4": _enabled("Network"),
    "enableipv6": _enabled("IPv6Network"),
    "enablenftables": needless("it is nftables"),
    "backend": _backend,
}  # fmt: skip


def judge(conf: Conf) -> Iterator[Finding]:
    """What becomes of each key."""
    if not any(_has(conf, family) and conf.get(key) for family, key in NETWORK.items()):
        yield ALL.refused('pods have no network: add "Network", such as "10.244.0.0/16"')
    if conf.get("backend") is None:
        yield _without_type("Backend")
    yield from walk(conf, RULES)
