# SPDX-License-Identifier: Apache-2.0
"""Plugins that make pods' interfaces, by their `type`, and the rules for their keys.

Sources: simple-k8s-cni (README, cni/cni.go, helper/main_helper.go); minicni (pkg/args/args.go,
deployments/manifests/minicni.yaml); bash-cni (bash-cni, main.go) and its many copies, whose key is
`podcidr`; the READMEs of bridge, ptp, macvlan and ipvlan (containernetworking/plugins) and of
flannel's CNI plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from pycni.cluster import VXLAN_OVERHEAD
from pycni.cni.netconf import DNS_KEYS, MTU_MAX, MTU_MIN, DnsConf
from pycni.cni.protocol import IDENTIFIER
from pycni.lan.devices import DEVICES
from pycni.setup.conflist import CAPABILITIES, CNI_VERSION, CNI_VERSIONS, PLUGIN
from pycni.setup.translation import ipam, modes, subnets, values
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

ETHERNET_MTU = 1500
"""Bytes (IEEE 802.3)."""

NO_BRIDGE = "pods are on no bridge: programs at their own links forward"
BY_STORE = "nodes find each other through the `store` of the settings"
BY_RUNTIME = "the runtime writes it at each call"
NO_VLAN = "pods are in no VLAN; networks that must not meet are clusters of their own"

PLAIN_VXLAN = 'write "mode": "vxlan" in a copy of this file'


@dataclass(frozen=True)
class Plugin:
    """A plugin that is known."""

    rules: Rules
    absent: Mapping[str, Callable[[Key], Finding | None]] = field(default_factory=dict)
    """By key: what it means that the key is absent."""


def _name(key: Key) -> Iterator[Finding]:
    if not IDENTIFIER.fullmatch(values.text(key.value)):
        raise Unfit("must begin with a letter or digit, then letters, digits, '_', '.' and '-'")
    yield key.becomes(network={"name": key.value})


def _version(key: Key) -> Iterator[Finding]:
    values.text(key.value)
    note = f"runtimes take the newest that they know of {', '.join(CNI_VERSIONS)}"
    yield key.becomes(note, network={"cniVersion": CNI_VERSION})


def _disabled(name: str) -> Rules:
    def keep(key: Key) -> Iterator[Finding]:
        yield key.becomes(network={name: values.flag(key.value)})

    return {name.lower(): keep}


HEAD: Rules = {
    "cniversion": _version,
    "cniversions": needless("the list names those that pycni speaks"),
    "name": _name,
    **_disabled("disableGC"),
    **_disabled("disableCheck"),
}
"""Keys of a network list, or of a file with a single plugin."""


def _type(key: Key) -> Iterator[Finding]:
    yield key.becomes(network={"type": PLUGIN})


def _mtu(key: Key) -> Iterator[Finding]:
    """Bytes of a pod's packet. What fits an uplink of 1500 without outer header does not with it:
    that is pycni's to find. Smaller ones were chosen."""
    mtu = values.number(key.value, 0, MTU_MAX)
    if modes.on_lan(key.conf):
        yield _mtu_of_lan(key, mtu)
        return
    if mtu == 0 or mtu > ETHERNET_MTU - VXLAN_OVERHEAD[4]:
        yield key.needless(
            "pods get what the uplink leaves after the outer header; `mtu` of the settings is for "
            "paths that are narrower"
        )
        return
    yield key.becomes(network={"mtu": values.number(mtu, MTU_MIN, MTU_MAX)})


def _mtu_of_lan(key: Key, mtu: int) -> Finding:
    if mtu == 0:
        return key.needless("pods get that of the interface that they are on")
    return key.becomes(network={"mtu": values.number(mtu, MTU_MIN, MTU_MAX)})


def _ip_masq(key: Key) -> Iterator[Finding]:
    yield key.becomes(network={"ipMasq": values.flag(key.value)})


def _dns(key: Key) -> Iterator[Finding]:
    found = Conf.of(key.value, "")
    if strange := set(found.keys) - set(DNS_KEYS):
        raise Unfit(f"unknown key {min(strange)} in it; there are {', '.join(DNS_KEYS)}")
    dns = {name: one.value for name, one in found.keys.items()}
    try:
        DnsConf.model_validate(dns)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Unfit(f"{where} is wrong: {first['msg']}") from None
    yield key.becomes(network={"dns": dns})


def _capabilities(key: Key) -> Iterator[Finding]:
    for name, one in Conf.of(key.value, f"{key.path}.").keys.items():
        known = {ours.lower() for ours in CAPABILITIES}
        if one.value is False or name in known:
            yield one.needless("the list asks for all that pycni has")
        else:
            yield one.refused(
                f"pycni has no such capability; it has {', '.join(CAPABILITIES)}: remove it"
            )


EVERYWHERE: Rules = {
    "type": _type,
    "mtu": _mtu,
    "ipmasq": _ip_masq,
    "dns": _dns,
    "capabilities": _capabilities,
    "runtimeconfig": needless(BY_RUNTIME),
    "prevresult": needless(BY_RUNTIME),
}


def _mode(key: Key) -> Iterator[Finding]:
    name = values.text(key.value)
    if network := modes.ON_LAN.get(name.lower()):
        yield key.becomes(network=network)
        return
    yield modes.judge(key, name, how=PLAIN_VXLAN)


def _no_mode(key: Key) -> Finding:
    """helper/main_helper.go: an empty mode is host-gw."""
    lead = "not set, which means host-gw: "
    return modes.judge(key, "host-gw", how=PLAIN_VXLAN, lead=lead)


def _no_subnet(key: Key) -> Finding | None:
    if key.conf.get("podcidr") is not None:
        return None
    return key.refused("it is missing: add it, the network of the pods, such as 10.244.0.0/16")


def _no_masquerade(key: Key) -> Finding:
    return key.becomes("not set: pods keep their addresses", network={"ipMasq": False})


PROTOTYPE = Plugin(
    {
        **EVERYWHERE,
        "mode": _mode,
        "subnet": subnets.prototype,
        "bridge": needless(NO_BRIDGE),
        "ipam": ipam.prototype,
    },
    {"mode": _no_mode, "subnet": _no_subnet},
)

TUTORIAL = Plugin(
    {
        **EVERYWHERE,
        "network": subnets.cluster,
        "subnet": subnets.node,
        "podcidr": subnets.node,
        "bridge": needless(NO_BRIDGE),
        "nodesubnets": needless(BY_STORE),
        "nodeaddresses": needless(BY_STORE),
    },
    {"subnet": _no_subnet},
)


def _vlan(key: Key) -> Iterator[Finding]:
    if values.number(key.value, 0, 4094):
        raise Unfit(NO_VLAN)
    yield key.needless("0 is no VLAN")


def _unless(why: str, otherwise: str) -> Rule:
    """The rule of a flag that pycni has no equal for where it is true."""

    def judge(key: Key) -> Iterator[Finding]:
        yield key.refused(why) if values.flag(key.value) else key.needless(otherwise)

    return judge


PTP_RULES: Rules = {
    **EVERYWHERE,
    "ipmasqbackend": needless("it is nftables"),
    "ipam": ipam.host_local,
}

BRIDGE_RULES: Rules = {
    **PTP_RULES,
    "bridge": needless(NO_BRIDGE),
    "isgateway": needless("the node is the pods' gateway always"),
    "isdefaultgateway": needless("the node is the pods' default gateway always"),
    "forceaddress": needless("the gateway's address is the node's own, and kept true"),
    "hairpinmode": needless(NO_BRIDGE),
    "promiscmode": needless(NO_BRIDGE),
    "vlan": _vlan,
    "vlantrunk": refused(NO_VLAN),
    "preservedefaultvlan": needless("pods are in no VLAN"),
    "macspoofchk": needless("a pod sends from its own MAC and addresses only, always"),
    "enabledad": needless("no other pod has the address: a lease is one pod's"),
    "disablecontainerinterface": _unless(
        "a pod's interface is up when ADD ends: remove the key", "a pod's interface is always up"
    ),
    "portisolation": _unless(
        "pods of one node reach each other, and nothing enforces a policy: remove the key if that "
        "may be",
        "pods reach each other",
    ),
}

PTP = Plugin(PTP_RULES, {"ipMasq": _no_masquerade})
BRIDGE = Plugin(BRIDGE_RULES, {"ipMasq": _no_masquerade})


def _lan_type(key: Key) -> Iterator[Finding]:
    yield key.becomes(network={"type": PLUGIN, **modes.ON_LAN[key.value]})


def _master(key: Key) -> Iterator[Finding]:
    yield key.becomes(network={"master": values.text(key.value)})


def _lan_mode(key: Key) -> Iterator[Finding]:
    known = DEVICES[str(key.conf.get("type"))].modes
    mode = values.text(key.value).lower()
    if mode and mode not in known:
        raise Unfit(f"there is {', '.join(known)}, and no other mode")
    yield key.becomes(network={"mode": mode or known[0]})


def _lan_mtu(key: Key) -> Iterator[Finding]:
    yield _mtu_of_lan(key, values.number(key.value, 0, MTU_MAX))


def _lan_ipam(key: Key) -> Iterator[Finding]:
    """pycni calls other IPAM plugins itself."""
    inner = Conf.of(key.value, f"{key.path}.", outer=key.conf)
    chosen = values.text(inner.get("type") or "")
    if not chosen:
        raise Unfit("pods need addresses: name a plugin as its `type`")
    yield key.becomes(f"pycni calls {chosen} as before", network={"ipam": key.value})


def _no_ipam(key: Key) -> Finding:
    return key.refused("it is missing: pods need addresses, such as those of host-local")


def _hidden_by_daemon(key: Key) -> Iterator[Finding]:
    """That the bridge does not hide pods leaves open whether flannel's daemon does (--ip-masq)."""
    if values.flag(key.value):
        yield key.becomes(network={"ipMasq": True})
        return
    yield key.needless(
        "flannel's daemon hides pods behind the node if it has --ip-masq, and so does pycni: if it "
        'has not, write "ipMasq": false in the new list'
    )


def _delegate(key: Key) -> Iterator[Finding]:
    """What flannel's CNI plugin passes to another: bridge, if it says nothing else."""
    inner = Conf.of(key.value, f"{key.path}.", outer=key.conf)
    chosen = values.text(inner.get("type") or "bridge")
    if chosen != "bridge":
        how = 'write "type": "bridge" in a copy of this file'
        yield modes.judge(Key(f"{key.path}.type", chosen), chosen, how=how)
        return
    yield from walk(inner, {**BRIDGE_RULES, "ipmasq": _hidden_by_daemon})


def _flannel(key: Key) -> Iterator[Finding]:
    yield key.becomes(
        "the pods' network is in net-conf.json: translate that, too", network={"type": PLUGIN}
    )


FLANNEL = Plugin(
    {
        **EVERYWHERE,
        "type": _flannel,
        "ipmasq": _hidden_by_daemon,
        "delegate": _delegate,
        "ipam": ipam.host_local,
        "subnetfile": needless("the agent has the node's part of the network from the store"),
        "datadir": needless("a lease is kept on the pod's link"),
    }
)

LAN = Plugin(
    {
        **EVERYWHERE,
        "type": _lan_type,
        "master": _master,
        "mode": _lan_mode,
        "mtu": _lan_mtu,
        "ipam": _lan_ipam,
        "linkincontainer": _unless(
            "a pod's link is on an interface of the node: remove the key", "it is on the node's"
        ),
        "bcqueuelen": needless("the kernel chooses the length of its queue of broadcasts"),
    },
    {"ipam": _no_ipam},
)

PLUGINS = {
    "testcni": PROTOTYPE,
    "minicni": TUTORIAL,
    "bash-cni": TUTORIAL,
    "bridge": BRIDGE,
    "ptp": PTP,
    "flannel": FLANNEL,
    "macvlan": LAN,
    "ipvlan": LAN,
}


def judge(conf: Conf, *, head: bool) -> Iterator[Finding]:
    """What becomes of the keys of a list's first plugin, whose `type` is in PLUGINS. `head`: the
    file is this plugin alone, so that it has the keys of a list, too."""
    plugin = PLUGINS[str(conf.get("type"))]
    for name, meaning in plugin.absent.items():
        if conf.get(name) is None and (finding := meaning(Key(conf.path + name, None, conf))):
            yield finding
    yield from walk(conf, {**HEAD, **plugin.rules} if head else plugin.rules)
