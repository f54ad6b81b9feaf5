# SPDX-License-Identifier: Apache-2.0
"""What the runtime asks for one pod: addresses, MAC, ranges, DNS.

A request may stand in several places. The first of these wins: `runtimeConfig` (capabilities),
`args.cni`, CNI_ARGS (CNI CONVENTIONS.md), annotations of the pod, which containerd and CRI-O pass
on as a capability. This module decides what was asked for, not whether the pod can have it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from typing import Any

from pycni.cluster import IPAddress
from pycni.cni.document import pick
from pycni.cni.netconf import NetConf
from pycni.cni.protocol import Request
from pycni.cni.result import Dns
from pycni.errors import InvalidConfig, InvalidParameter
from pycni.names import GATEWAY_MAC, OVERLAY_MAC

MAC = re.compile(r"[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}", re.ASCII)
GROUP_BIT = 0x01
"""Of the first byte (IEEE 802): a group's address, not that of one interface."""

POD_WORD = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}", re.ASCII)
"""At least what Kubernetes takes for a name or namespace (RFC 1123 subdomain)."""

ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
"""The capability with all annotations of the pod."""
IPS_ANNOTATION, MAC_ANNOTATION = "pycni/ips", "pycni/mac"
FIRST_IFNAME = "eth0"
"""In Kubernetes, the pod's interface in the cluster's network. Annotations count for it only: the
runtime passes the same ones to every network, and one address cannot be right for two."""

DNS_KEYS = ("servers", "searches", "options")


def addresses(request: Request, conf: NetConf) -> tuple[IPAddress, ...]:
    """The addresses that the pod shall have, without prefix lengths.

    Raises InvalidConfig, or InvalidParameter for CNI_ARGS.
    """
    for key, value in _sources(conf, "ips"):
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise _invalid(key, value, "a list of IP addresses")
        if value:
            return tuple(_address(one, key) for one in value)
    text = request.args.get("IP", "")
    if words := _words(text):
        try:
            return tuple(ip_interface(one).ip for one in words)
        except ValueError:
            raise InvalidParameter(
                "IP in CNI_ARGS is no IP address",
                details=f"found {text!r}",
                hint="write addresses, separated by commas: IP=10.244.1.5,fd00:10:244:1::5",
            ) from None
    annotated = _words(_annotation(request, conf, IPS_ANNOTATION))
    return tuple(_address(one, IPS_ANNOTATION) for one in annotated)


def mac(request: Request, conf: NetConf) -> str:
    """The MAC that the pod shall have; "" leaves the choice to pycni. Raises as `addresses`."""
    for key, value in _sources(conf, "mac"):
        if value != "":
            found = _mac(value)
            if not found:
                raise _invalid(key, value, "the unicast MAC address of one pod")
            return found
    text = request.args.get("MAC", "")
    found = _mac(text)
    if text and not found:
        raise InvalidParameter(
            "MAC in CNI_ARGS is not one interface's address",
            details=f"found {text!r}",
            hint="write a unicast address that no other pod has: MAC=02:00:00:00:00:05",
        )
    annotated = _annotation(request, conf, MAC_ANNOTATION)
    if found or not annotated:
        return found
    if found := _mac(annotated):
        return found
    raise _invalid(MAC_ANNOTATION, annotated, "the unicast MAC address of one pod")


def pod_name(request: Request) -> str:
    """The pod as "namespace/name", from CNI_ARGS; "" if Kubernetes did not set them both.

    Only for messages and tables. Source: the kubelet's runtimes, K8S_POD_NAMESPACE, K8S_POD_NAME.
    """
    words = [request.args.get(f"K8S_POD_{key}", "") for key in ("NAMESPACE", "NAME")]
    return "/".join(words) if all(map(POD_WORD.fullmatch, words)) else ""


def ranges(conf: NetConf) -> Any:
    """The capability `ipRanges` as decoded; None if it is absent."""
    return pick(conf.runtime_config, ("ipRanges",)).get("ipRanges")


def dns(conf: NetConf) -> Dns:
    """DNS for resolv.conf: the capability's, or else the configuration's. Raises InvalidConfig."""
    value = pick(conf.runtime_config, ("dns",)).get("dns")
    if value is None:
        return conf.dns_result()
    found = pick(value, DNS_KEYS) if isinstance(value, dict) else {"servers": value}
    for one in found.values():
        if not isinstance(one, list) or not all(isinstance(word, str) for word in one):
            raise _invalid("dns", value, "an object of lists")
    for server in found.get("servers", []):
        _address(server, "dns")
    asked = Dns(
        nameservers=tuple(found.get("servers", ())),
        search=tuple(found.get("searches", ())),
        options=tuple(found.get("options", ())),
    )
    return conf.dns_result() if asked == Dns() else asked


def _sources(conf: NetConf, key: str) -> Iterator[tuple[str, Any]]:
    """Places where `key` is, each with its value. Anybody may use `args`, so an `args` of another
    shape is ignored."""
    capability = pick(conf.runtime_config, (key,))
    if key in capability:
        yield f"runtimeConfig.{key}", capability[key]
    cni = pick(conf.args, ("cni",)).get("cni") if isinstance(conf.args, dict) else None
    if isinstance(cni, dict) and key in (found := pick(cni, (key,))):
        yield f"args.cni.{key}", found[key]


def _annotation(request: Request, conf: NetConf, name: str) -> str:
    """The pod's annotation of that name; "" if it has none, or this is not its first interface.

    Unlike other keys, names of annotations are case-sensitive.
    """
    if request.ifname != FIRST_IFNAME:
        return ""
    found = pick(conf.runtime_config, (ANNOTATIONS,)).get(ANNOTATIONS, {})
    value = found.get(name, "") if isinstance(found, dict) else found
    if not isinstance(value, str):
        raise _invalid(f"runtimeConfig.{ANNOTATIONS}", found, "an object of strings")
    return value


def _words(text: str) -> list[str]:
    """The words between commas."""
    return [one.strip() for one in text.split(",") if one.strip()]


def _address(text: str, key: str) -> IPAddress:
    try:
        return ip_interface(text).ip if "/" in text else ip_address(text)
    except ValueError:
        raise _invalid(key, text, "an IP address") from None


def _mac(value: Any) -> str:
    """A MAC in lower case with colons; "" for a value that cannot be a pod's MAC."""
    text = value.lower() if isinstance(value, str) else ""
    if not MAC.fullmatch(text):
        return ""
    text = text.replace("-", ":")
    taken = (GATEWAY_MAC, OVERLAY_MAC, "00:00:00:00:00:00")
    return "" if int(text[:2], 16) & GROUP_BIT or text in taken else text


def _invalid(key: str, found: Any, wanted: str) -> InvalidConfig:
    return InvalidConfig(
        f"{key} in the network configuration is wrong: it must be {wanted}",
        details=f"found {found!r}",
        hint="correct it where it was set: in the network list, by the runtime, or at the pod",
    )
