# SPDX-License-Identifier: Apache-2.0
"""What an ADD asks for, of a network whose pods are on the LAN; and what there is not."""

from __future__ import annotations

from dataclasses import dataclass

from pycni import locks
from pycni.attachments.on_lan import parts
from pycni.cluster import IPAddress
from pycni.cni import requests
from pycni.cni.call import Call
from pycni.cni.netconf import DHCP, NetConf
from pycni.cni.result import Dns
from pycni.errors import InvalidConfig
from pycni.ipam import ranges
from pycni.ipam.ranges import Range
from pycni.kernel.links import Link
from pycni.kernel.rtnl import Rtnl
from pycni.lan import devices, host_child, leases, parents
from pycni.lan.devices import Device
from pycni.names import AttachmentKey
from pycni.node.record import Node
from pycni.pods import host_ports, rate_limits
from pycni.pods.rate_limits import Limits


@dataclass(frozen=True)
class LanWanted:
    """The parts of a call that an ADD needs."""

    device: Device
    mode: str
    parent: Link
    mac: str
    """Of the pod's link; "": the parent's."""
    own_mac: str
    """One that no other pod of the LAN has: its link-local address is made of it."""
    mtu: int
    """Bytes of an IP packet."""
    ranges: tuple[Range, ...]
    """Of addresses that we give; none if another IPAM plugin gives them."""
    dns: Dns

    @classmethod
    def read(cls, call: Call, node: Node, ipr: Rtnl) -> LanWanted:
        """Raises InvalidConfig, InvalidParameter, NotAvailable."""
        conf = call.conf
        refuse_missing(conf)
        device = devices.choose(ipr, conf.device)
        mode = devices.mode_of(device, conf.mode)
        _refuse_dhcp(conf, device)
        parent = parents.find(ipr, conf.master or node.uplink)
        refuse_mixed(ipr, call, parent, device=device, mode=mode)
        return cls(
            device,
            mode,
            parent,
            _mac(call, device, node),
            own_mac(call.key, node.name),
            _mtu(conf, parent),
            () if conf.delegate else tuple(ranges_of(conf, node)),
            requests.dns(conf),
        )

    @property
    def has_neighbours(self) -> bool:
        """Whether pods ask the LAN's hosts by ARP and ND, and are asked."""
        return self.device.has_neighbours(self.mode)

    def range_of(self, address: IPAddress) -> Range | None:
        """The range in whose network an address is; the one that has it comes first."""
        around = [one for one in self.ranges if address in one.network]
        inside = (one for one in around if int(one.first) <= int(address) <= int(one.last))
        return next(inside, around[0] if around else None)


def refuse_mixed(ipr: Rtnl, call: Call, parent: Link, *, device: Device, mode: str) -> None:
    """Raise InvalidConfig if the parent has links of another kind or mode, or cannot have any; or
    if there are pods by its name on another.

    Other ADDs at work count, but not those that were killed.
    """
    run_dir = call.settings.run_dir
    _refuse_renamed(ipr, call, parent)
    for lease in leases.leases(run_dir):
        digest = lease.key.digest
        is_other = (lease.device, lease.mode) != (device.name, mode)
        if not is_other or lease.parent != parent.ifname or digest == call.key.digest:
            continue
        if leases.is_alive(ipr, lease) or locks.attachment_is_busy(run_dir, digest):
            raise InvalidConfig(
                f"{parent.ifname} has pods on {lease.device} in mode {lease.mode}, and can have "
                f"none on {device.name} in mode {mode} beside them",
                details=f"network {lease.network}, container {lease.container_id}",
                hint="give all networks on one `master` one `device` and `mode`",
            )
    device.refuse(parent, ipr.links(), mode)


def _refuse_renamed(ipr: Rtnl, call: Call, parent: Link) -> None:
    """Raise InvalidConfig if the parent has got the name of another one, which still has pods by
    it: the node has one link of its own for each name."""
    child = ipr.link(host_child.name_of(parent.ifname))
    if child is None or host_child.is_on(child, parent):
        return
    for lease in leases.leases(call.settings.run_dir):
        pod = leases.link_of(ipr, lease) if lease.parent == parent.ifname else None
        if pod is None or host_child.is_on(pod, parent):
            continue
        other = parents.carrying(ipr, lease.parent, pod)
        raise InvalidConfig(
            f"{parent.ifname} is another interface than the one of that name that has pods",
            details=f"they are on {other.ifname} now" if other else "that one is gone",
            hint="give the interfaces their names back, or restart those pods first with that "
            "name as `master`",
        )


def refuse_missing(conf: NetConf) -> None:
    """Raise InvalidConfig for what pods on the LAN cannot have: it would silently be missing."""
    missing = []
    if host_ports.parse(conf.runtime_config):
        missing.append("host ports (portMappings)")
    if rate_limits.parse(conf.runtime_config) != Limits():
        missing.append("rate limits (bandwidth)")
    if conf.ip_masq:
        missing.append("ipMasq")
    if missing:
        raise InvalidConfig(
            f"pods of a network with {conf.device} have no {', no '.join(missing)}",
            details="their packets pass none of the node's programs and tables",
            hint='take it from the pod; ipMasq is in the network list: "ipMasq": false',
        )


def refuse_offline(conf: NetConf, node: Node) -> None:
    """Raise InvalidConfig for what every ADD would refuse, as far as that is known without a kernel
    and an interface."""
    refuse_missing(conf)
    device = devices.DEVICES[conf.device]
    devices.mode_of(device, conf.mode)
    _refuse_dhcp(conf, device)
    if not conf.delegate:
        ranges_of(conf, node)
        list(ranges.excluded(conf))


def ranges_of(conf: NetConf, node: Node) -> list[Range]:
    """The ranges of the LAN. Raises InvalidConfig if there is none, or one of the overlay."""
    found = ranges.listed(conf)
    if not found:
        raise InvalidConfig(
            f"a network with {conf.device} needs `ipam.ranges`: which addresses of the LAN are for "
            "pods of this node",
            hint='write "ipam": {"ranges": [{"subnet": ..., "rangeStart": ..., "rangeEnd": ...}]}',
        )
    for one in found:
        for cidr in node.cluster_cidrs:
            if cidr.version == one.network.version and cidr.overlaps(one.network):
                raise InvalidConfig(
                    f"the range {one.network} is in {cidr}, the network of the pods that are not "
                    "on the LAN",
                    hint="correct `ranges`: they are addresses of the LAN",
                )
    size = conf.ipam.per_node
    if size is None or not node.pod_cidrs or requests.ranges(conf) is not None:
        return found
    return [parts.of_node(one, size, node) for one in found]


def _refuse_dhcp(conf: NetConf, device: Device) -> None:
    if conf.delegate == DHCP and not device.has_own_mac:
        raise InvalidConfig(
            f"pods of a network with {device.name} cannot ask by DHCP",
            details="all have one MAC, by which servers know a client and answer it",
            hint="take macvlan, or give them `ipam.ranges`",
        )


def own_mac(key: AttachmentKey, node: str) -> str:
    """The MAC of a pod, by its name and its node: nodes of one LAN may have pods of one name."""
    return AttachmentKey(key.network, f"{node}\0{key.container_id}", key.ifname).mac


def _mac(call: Call, device: Device, node: Node) -> str:
    asked = requests.mac(call.request, call.conf)
    if device.has_own_mac:
        return asked or own_mac(call.key, node.name)
    if asked:
        raise InvalidConfig(
            f"a pod of a network with {device.name} cannot have the MAC {asked}",
            details="all pods have the MAC of the interface that they are on",
            hint="do not ask for one, or take macvlan",
        )
    return ""


def _mtu(conf: NetConf, parent: Link) -> int:
    if conf.mtu is not None and conf.mtu > parent.mtu:
        raise InvalidConfig(
            f"pods cannot have an MTU of {conf.mtu}: {parent.ifname} has {parent.mtu}",
            hint="correct `mtu` in the network configuration, or leave it out",
        )
    return conf.mtu or parent.mtu
