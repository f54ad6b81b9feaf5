"""ADD, DEL and CHECK of one attachment: the pod's link, its programs, its endpoint entries.

The same code runs in the agent and, with no agent, in the plugin's own process. Everything happens
in the node's network namespace; the pod's is a descriptor. State is the kernel's alone: the lease
is the host end of the veth (lease.py).
"""

from __future__ import annotations

import errno
from contextlib import ExitStack, suppress
from ipaddress import ip_interface, ip_network
from pathlib import Path

from pyroute2 import IPRoute

from loader import LoaderError, attach_endpoint
from pycni import inspection, ipam, locks, maps, podnet
from pycni.cluster import IPAddress
from pycni.cni import Request
from pycni.errors import (
    CheckMismatch,
    DataplaneError,
    DuplicateAttachment,
    NotAvailable,
    UnknownContainer,
)
from pycni.lease import AttachmentKey, Lease, find_lease, leases
from pycni.maps import GATEWAY_MAC, Endpoint, Table
from pycni.netconf import NetConf
from pycni.node import Node
from pycni.reconcile import apply, plan
from pycni.result import Address, Interface, Result, Route
from pycni.settings import Settings

Endpoints = Table[IPAddress, Endpoint]

EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


def add(request: Request, conf: NetConf, netns_fd: int, settings: Settings) -> Result:
    """Attach a pod: addresses, veth, programs, endpoint entries; returns the CNI result.

    Raises PycniError (with its CNI code) and leaves nothing behind then. A second ADD of a live
    attachment is refused before anything is touched.
    """
    node = Node.load(settings)
    key = AttachmentKey(conf.name, request.container_id, request.ifname)
    mtu = node.pod_mtu(conf.mtu)
    with (
        locks.attachment_lock(settings.run_dir, key.digest),
        IPRoute() as ipr,
        ExitStack() as undo,
    ):
        if find_lease(ipr, key) is not None:
            raise DuplicateAttachment(
                f"container {request.container_id} has {request.ifname} attached already",
                hint="run DEL first",
            )
        podnet.teardown(ipr, key)  # what a killed ADD left before it wrote the lease
        with (
            locks.network_lock(settings.run_dir),
            maps.open_endpoints(settings.pin_root) as endpoints,
        ):
            wanted = _choose(ipr, key, conf=conf, node=node, settings=settings)
            lease = podnet.setup(ipr, netns_fd, key=key, lease=wanted, mtu=mtu)
            undo.callback(podnet.teardown, ipr, key)
            _attach(settings.pin_root, ipr, lease)
            undo.callback(_remove_endpoints, settings, lease)
            _put_endpoints(endpoints, lease)
        gateways = podnet.configure(netns_fd, request.ifname, lease=lease, gateways=node.gateways)
        undo.pop_all()
    return _result(request, conf, lease=lease, gateways=gateways, node=node, mtu=mtu)


def delete(request: Request, conf: NetConf, settings: Settings) -> None:
    """Detach a pod; right with no agent, no namespace, no prevResult, and any number of times."""
    key = AttachmentKey(conf.name, request.container_id, request.ifname)
    with locks.attachment_lock(settings.run_dir, key.digest), IPRoute() as ipr:
        lease = find_lease(ipr, key)
        if lease is not None:
            _remove_endpoints(settings, lease)
        podnet.teardown(ipr, key)
        if lease is None:
            sweep(ipr, settings)


def check(request: Request, conf: NetConf, netns_fd: int, settings: Settings) -> None:
    """Raise CheckMismatch unless everything ADD made is as ADD made it.

    What later plugins of the chain changed is judged by `prevResult`, not by our own record.
    """
    Node.load(settings)
    key = AttachmentKey(conf.name, request.container_id, request.ifname)
    with IPRoute() as ipr, maps.open_endpoints(settings.pin_root) as endpoints:
        lease = find_lease(ipr, key)
        if lease is None:
            raise UnknownContainer(
                f"nothing is attached as {request.ifname} of container {request.container_id}"
            )
        problems = [
            *inspection.host_end(ipr, lease),
            *inspection.pod_end(
                netns_fd, request.ifname, lease=lease, previous=conf.previous_result()
            ),
            *(
                f"the endpoints map has {endpoints.get(address)} for {address}"
                for address in lease.addresses
                if endpoints.get(address) != _endpoint(lease)
            ),
        ]
    if problems:
        raise CheckMismatch(
            f"{request.ifname} of container {request.container_id} is not as ADD left it",
            details="; ".join(problems),
            hint="restart the pod",
        )


def sweep(ipr: IPRoute, settings: Settings) -> int:
    """Make the endpoints map agree with the leases; returns the number of entries changed.

    What a deleted namespace or a reboot took with its links goes; an entry that was lost comes
    back.
    """
    with (
        locks.network_lock(settings.run_dir),
        suppress(NotAvailable),
        maps.open_endpoints(settings.pin_root) as endpoints,
    ):
        have = dict(endpoints.items())
        want = {address: _endpoint(lease) for lease in leases(ipr) for address in lease.addresses}
        changes = plan(have, want, synced=True)
        apply(changes, endpoints)
        return len(changes.upserts) + len(changes.deletes)
    return 0


def _choose(
    ipr: IPRoute, key: AttachmentKey, *, conf: NetConf, node: Node, settings: Settings
) -> Lease:
    """A free address of each of the node's pod CIDRs, as a lease not yet taken."""
    used = {address for lease in leases(ipr) for address in lease.addresses}
    rotation = ipam.Rotation(settings.state_dir)
    addresses = []
    for cidr in node.pod_cidrs:
        address = ipam.pick(cidr, used, rotation.last(cidr))
        rotation.remember(cidr, address)
        addresses.append(address)
    return Lease(
        key_digest=key.digest,
        network=key.network,
        container_id=key.container_id,
        ifname=key.ifname,
        mac=key.mac,
        addresses=tuple(addresses),
        masquerade=conf.ip_masq,
    )


def _endpoint(lease: Lease) -> Endpoint:
    return Endpoint(lease.ifindex, lease.mac, lease.masquerade)


def _attach(root: Path, ipr: IPRoute, lease: Lease) -> None:
    try:
        attach_endpoint(root, ipr, lease.ifindex)
    except LoaderError as error:
        raise DataplaneError(
            f"cannot attach the programs to {lease.host_ifname}: {error.message}",
            details=error.details,
            hint=error.hint,
        ) from error
    except FileNotFoundError as error:
        raise DataplaneError(
            f"cannot attach the programs to {lease.host_ifname}: the pin {error.filename} is gone",
            hint="run: pycni setup",
        ) from error


def _put_endpoints(endpoints: Endpoints, lease: Lease) -> None:
    for address in lease.addresses:
        try:
            endpoints.put(address, _endpoint(lease))
        except OSError as error:
            if error.errno not in (errno.E2BIG, errno.ENOSPC):
                raise
            raise DataplaneError(
                "the endpoints map is full",
                details=f"adding {address}: {error.strerror}",
                hint="spread the pods over more nodes",
            ) from error


def _remove_endpoints(settings: Settings, lease: Lease) -> None:
    """Entries that lead to this lease's link; an address that moved on is left alone."""
    with (
        locks.network_lock(settings.run_dir),
        suppress(NotAvailable),
        maps.open_endpoints(settings.pin_root) as endpoints,
    ):
        for address in lease.addresses:
            entry = endpoints.get(address)
            if entry is not None and entry.ifindex == lease.ifindex:
                endpoints.remove(address)


def _result(
    request: Request,
    conf: NetConf,
    *,
    lease: Lease,
    gateways: tuple[IPAddress, ...],
    node: Node,
    mtu: int,
) -> Result:
    """`gateways` are those the pod has a default route by."""
    gateway = {address.version: address for address in node.gateways}
    return Result(
        interfaces=(
            Interface(lease.host_ifname, mac=GATEWAY_MAC, mtu=mtu),
            Interface(request.ifname, mac=lease.mac, mtu=mtu, sandbox=request.netns),
        ),
        ips=tuple(
            Address(
                ip_interface(f"{address}/{address.max_prefixlen}"),
                gateway=gateway[address.version],
                interface=1,
            )
            for address in lease.addresses
        ),
        routes=tuple(
            Route(ip_network(EVERYWHERE[address.version]), gateway=address) for address in gateways
        ),
        dns=conf.dns_result(),
    )
