# SPDX-License-Identifier: Apache-2.0
"""What an ADD asks for, read and checked before anything is done."""

from __future__ import annotations

from dataclasses import dataclass

from pycni.cni import requests
from pycni.cni.call import Call
from pycni.cni.netconf import DHCP
from pycni.cni.result import Dns
from pycni.ipam import published, ranges
from pycni.node.record import Node
from pycni.pods import host_ports, link_kinds, rate_limits
from pycni.pods.host_ports import PortMapping
from pycni.pods.lease import Lease
from pycni.pods.link_kinds import LinkKind
from pycni.pods.rate_limits import Limits


@dataclass(frozen=True)
class Wanted:
    """The parts of a call that an ADD needs."""

    lease: Lease
    """Without link and addresses."""
    kind: LinkKind
    mtu: int
    """Bytes of an IP packet."""
    ports: tuple[PortMapping, ...]
    limits: Limits
    dns: Dns

    @classmethod
    def read(cls, call: Call, node: Node) -> Wanted:
        """Raises InvalidConfig, InvalidParameter, StoreError."""
        request, conf, key = call.request, call.conf, call.key
        if not conf.delegate:
            foreign = ranges.outside(ranges.configured(conf, node), node)
            published.refuse_others(foreign, node=node, settings=call.settings)
        ports = host_ports.parse(conf.runtime_config)
        host_ports.refuse_overlay_port(ports, node.port)
        limits = rate_limits.parse(conf.runtime_config)
        mac = requests.mac(request, conf) or key.mac
        kind = link_kinds.choose(conf.device)
        lease = Lease(
            key_digest=key.digest,
            network=key.network,
            container_id=key.container_id,
            ifname=key.ifname,
            mac=mac,
            addresses=(),
            masquerade=conf.ip_masq,
            ports=bool(ports),
            shaped=limits.shaped,
            forwards=conf.forwards,
            dhcp=conf.delegate == DHCP,
            kind=kind.name,
        )
        return cls(lease, kind, node.pod_mtu(conf.mtu), ports, limits, requests.dns(conf))
