"""What IPAM gives an attachment: addresses, routes, DNS; by our own, or by another plugin.

Another plugin's is taken as it is: its prefix lengths, gateways and routes are the pod's. Whatever
the gateway, the node's programs answer for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_interface, ip_network

from pycni.cluster import IPAddress
from pycni.cni.call import Call
from pycni.cni.result import Address, Dns, Route
from pycni.errors import (
    DelegateError,
    InvalidConfig,
    InvalidParameter,
    PycniError,
)
from pycni.ipam import delegate, delegation_records
from pycni.ipam.delegation_records import Delegation
from pycni.node import overlay
from pycni.node.record import Node

EVERYWHERE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}

NO_DNS = Dns()

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assignment:
    """As IPAM put it; `ips` have no interface yet."""

    ips: tuple[Address, ...]
    routes: tuple[Route, ...] = ()
    dns: Dns = NO_DNS

    def with_gateways(self, node: Node) -> Assignment:
        """Routes that can be set: each with a gateway, and for an IP version that has addresses but
        no route at all, the default route."""
        versions = dict.fromkeys(one.address.version for one in self.ips)
        routed = {one.dst.version for one in self.routes}
        missing = tuple(Route(EVERYWHERE[one]) for one in versions if one not in routed)
        return replace(
            self,
            routes=tuple(
                one if one.gateway else replace(one, gateway=self._gateway(one.dst.version, node))
                for one in (*self.routes, *missing)
            ),
        )

    def _gateway(self, version: int, node: Node) -> IPAddress:
        """The first that IPAM names, else the node's, else one that nobody has."""
        named = (one.gateway for one in self.ips if one.gateway is not None)
        for gateway in (*named, *node.gateways):
            if gateway.version == version:
                return gateway
        return ip_interface(overlay.NEXT_HOPS[version]).ip


def own(addresses: Iterable[IPAddress], node: Node) -> Assignment:
    """By our own IPAM: host addresses, with the node's gateway."""
    gateways = {gateway.version: gateway for gateway in node.gateways}
    return Assignment(
        tuple(
            Address(
                ip_interface(f"{address}/{address.max_prefixlen}"),
                gateway=gateways.get(address.version),
            )
            for address in addresses
        )
    )


def delegated(call: Call, lock: int, undo: ExitStack) -> Assignment:
    """By the plugin that the configuration names, whose DEL goes onto `undo`. Raises PycniError.

    Callers have made sure that the attachment is none yet: the DEL would free its addresses.
    """
    delegation = Delegation(call.key, call.conf.delegate, call.env, call.stdin)
    delegation_records.record(call.settings, delegation)  # before anything can be lost with us
    try:
        given = delegate.add(
            delegation.plugin,
            call.conf.cni_version,
            env=call.env,
            stdin=call.stdin,
            lock=lock,
            timeout=call.left(),
        )
    except (DelegateError, InvalidConfig, InvalidParameter):  # it gave nothing, or was not run
        delegation_records.forget(call.settings, call.key)
        raise
    except BaseException:
        _take_back(call, delegation, lock)
        raise
    undo.callback(_take_back, call, delegation, lock)
    return Assignment(given.ips, given.routes, given.dns)


def _take_back(call: Call, delegation: Delegation, lock: int) -> None:
    """The plugin's DEL; if it fails the record stays, for the runtime's DEL or the agent."""
    try:
        delegation_records.release(call.settings, delegation, env=call.env, lock=lock)
    except PycniError as error:
        log.warning("plugin=%s container=%s not released error=%s",
                    delegation.plugin, delegation.key.container_id, error)  # fmt: skip
