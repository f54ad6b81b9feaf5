"""CHECK's eyes: what of an attachment is no longer as ADD left it.

Every function returns a list of sentences, empty when all is well, and changes nothing. Runs in the
node's namespace; the pod's is a descriptor.
"""

from __future__ import annotations

from ipaddress import ip_interface

from loader import ENDPOINT_PROGRAMS, attach
from pycni.cni.result import Result
from pycni.kernel.links import Link
from pycni.kernel.namespaces import open_rtnl
from pycni.kernel.rtnl import Rtnl
from pycni.names import GATEWAY_MAC
from pycni.pods import source_rules
from pycni.pods.lease import Lease


def host_end(ipr: Rtnl, lease: Lease) -> list[str]:
    """Problems of the host end of the veth and of the programs on it."""
    link = ipr.link(lease.host_ifname)
    if link is None:
        return [f"the host end {lease.host_ifname} is gone"]
    problems = []
    if not link.is_up:
        problems.append(f"the host end {lease.host_ifname} is down")
    if link.mac != GATEWAY_MAC:
        problems.append(f"the host end {lease.host_ifname} has the MAC {link.mac}")
    attached = attach.attached(ipr, lease.ifindex)
    problems += [
        f"the program {program} is not attached to {lease.host_ifname}"
        for program in ENDPOINT_PROGRAMS
        if program not in attached
    ]
    return problems


def pod_end(netns_fd: int, ifname: str, *, lease: Lease, previous: Result) -> list[str]:
    """Problems of the interface in the pod: state, MAC, MTU, addresses and routes.

    MAC, MTU and routes are compared with `previous`, the chain's final result: a later plugin may
    have changed them, and multus takes the default route away on purpose.
    """
    with open_rtnl(netns_fd) as pod:
        link = pod.link(ifname)
        if link is None:
            return [f"the pod has no interface {ifname}"]
        return [
            *_link_problems(link, ifname, previous),
            *_address_problems(pod, link.ifindex, lease, previous),
            *_route_problems(pod, previous),
            *source_rules.problems(pod, link.ifindex, lease.ruled),
        ]


def _link_problems(link: Link, ifname: str, previous: Result) -> list[str]:
    problems = [] if link.is_up else [f"{ifname} is down in the pod"]
    for interface in previous.interfaces:
        if interface.name == ifname and interface.sandbox:
            if interface.mac and interface.mac.lower() != link.mac:
                problems.append(f"{ifname} has the MAC {link.mac}, expected {interface.mac}")
            if interface.mtu and interface.mtu != link.mtu:
                problems.append(f"{ifname} has the MTU {link.mtu}, expected {interface.mtu}")
    return problems


def _address_problems(pod: Rtnl, index: int, lease: Lease, previous: Result) -> list[str]:
    have = {address.ip for address in pod.addresses(index)}
    promised = {address.address.ip for address in previous.ips}
    return [
        *(f"{address} is missing in the pod" for address in lease.addresses if address not in have),
        *(
            f"{address} of this attachment is not in prevResult"
            for address in lease.addresses
            if address not in promised
        ),
    ]


def _route_problems(pod: Rtnl, previous: Result) -> list[str]:
    """Of all interfaces: other plugins of the chain may have made some, with routes by them."""
    have = {route.dst for route in pod.routes()}
    return [
        f"the route to {route.dst} is missing in the pod"
        for route in previous.routes
        if ip_interface(str(route.dst)).network not in have
    ]
