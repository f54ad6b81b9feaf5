"""ADD, DEL and CHECK of one attachment: the pod's link, its programs, its addresses.

The same code runs in the agent and, with no agent, in the plugin's own process. Everything happens
in the node's network namespace; the pod's is a descriptor. State is the kernel's: the lease is the
host end of the link (lease.py), and the endpoints table says which link has an address. Another
process that stops or is killed keeps nobody waiting but those who work on its attachment.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from loader import LoaderError, attach_endpoint
from pycni import locks
from pycni.attachments import reservations, upkeep
from pycni.cni import requests
from pycni.cni.call import Call
from pycni.cni.netconf import DHCP
from pycni.cni.result import (
    Dns,
    Interface,
    Result,
    Route,
)
from pycni.dataplane import maps
from pycni.errors import (
    AddressUnavailable,
    CheckMismatch,
    DataplaneError,
    DuplicateAttachment,
    MissingPlugin,
    UnknownContainer,
)
from pycni.ipam import (
    assignment,
    choice,
    delegate,
    delegation_records,
    published,
)
from pycni.ipam.assignment import Assignment
from pycni.ipam.delegation_records import Delegation
from pycni.kernel.links import link_local
from pycni.kernel.rtnl import Rtnl
from pycni.names import GATEWAY_MAC, NETKIT, host_ifname
from pycni.node.record import Node
from pycni.pods import (
    endpoints,
    host_ports,
    inspection,
    link_changes,
    pod_link,
    rate_limits,
    source_rules,
)
from pycni.pods.host_ports import PortMapping
from pycni.pods.lease import Lease, find_lease
from pycni.pods.rate_limits import Limits
from pycni.settings import Settings


def add(call: Call) -> Result:
    """Attach a pod: addresses, link, programs, endpoint entries; returns the CNI result.

    Raises PycniError (with its CNI code) and leaves nothing behind then. A second ADD of a live
    attachment is refused before anything is touched, IPAM included.
    """
    node = Node.load(call.settings)
    wanted = _read(call, node)
    with (
        locks.attachment_lock(
            call.settings.run_dir, call.key.digest, timeout=call.patience()
        ) as lock,
        Rtnl() as ipr,
        ExitStack() as undo,
    ):
        remains = delegation_records.find(call.settings, call.key.digest)
        _refuse_second(call, ipr, remains)
        _clear_remains(call, ipr, remains, lock)
        by_link = wanted.lease.dhcp
        given = None
        if call.conf.delegate and not by_link:
            given = assignment.delegated(call, lock, undo)
        ifindex = pod_link.setup(
            ipr,
            call.netns_fd,
            key=call.key,
            mac=wanted.lease.mac,
            mtu=wanted.mtu,
            kind=wanted.kind,
        )
        undo.callback(pod_link.teardown, ipr, call.key.host_ifname)
        lease = replace(wanted.lease, host_ifname=call.key.host_ifname, ifindex=ifindex)
        rate_limits.setup(
            ipr,
            call.netns_fd,
            ifindex=ifindex,
            ifname=call.request.ifname,
            mtu=wanted.mtu,
            limits=wanted.limits,
        )
        if by_link:
            given = _ask_by_link(call, ipr, lease, wanted.kind, node=node, lock=lock, undo=undo)
        with (
            locks.network_lock(call.settings.run_dir, shared=True, timeout=call.patience()),
            maps.open_endpoints(call.settings.pin_root) as table,
        ):
            if not by_link:
                _attach(call, ipr, lease, kind=wanted.kind)
            lease = reservations.take(call, ipr, table, lease, node=node, given=given, undo=undo)
            pod_link.claim(ipr, lease)
        given = (given or assignment.own(lease.addresses, node)).with_gateways(node)
        routes = _configure(call, ipr, lease, given, undo)
        pod_link.wait_until_up(ipr, lease.host_ifname, timeout=call.patience())
        host_ports.setup(wanted.ports, lease.addresses, owner=call.request.container_id)
        undo.pop_all()
    return Result(
        interfaces=(
            Interface(lease.host_ifname, mac=GATEWAY_MAC, mtu=wanted.mtu),
            Interface(
                call.request.ifname, mac=lease.mac, mtu=wanted.mtu, sandbox=call.request.netns
            ),
        ),
        ips=tuple(replace(one, interface=1) for one in given.ips),
        routes=routes,
        dns=given.dns if wanted.dns == Dns() else wanted.dns,
    )


def delete(call: Call) -> None:
    """Detach a pod; right with no agent, no namespace, no prevResult, and any number of times.

    The IPAM plugin's DEL comes last, when no packet can have the address any more, unless it needs
    the link; what it reports is raised after everything of ours is gone.
    """
    with (
        locks.attachment_lock(
            call.settings.run_dir, call.key.digest, timeout=call.patience()
        ) as lock,
        Rtnl() as ipr,
    ):
        known = delegation_records.find(call.settings, call.key.digest)
        delegation_records.in_order(
            lambda: detach(ipr, call.settings, call.key.digest, netns_fd=call.netns_fd),
            lambda: _release_delegated(call, known, lock),
            plugin=call.conf.delegate if known is None else known.plugin,
        )


def detach(ipr: Rtnl, settings: Settings, digest: str, *, netns_fd: int = -1) -> None:
    """Remove the link, then what its addresses have; callers hold the attachment's lock.

    In the pod's namespace, if there is one, what does not go with the link.
    """
    lease = find_lease(ipr, digest) or upkeep.find_renamed(ipr, settings, digest)
    if lease is not None and lease.ruled and netns_fd >= 0:
        source_rules.teardown(netns_fd, lease.ruled)
    pod_link.teardown(ipr, host_ifname(digest) if lease is None else lease.host_ifname)
    if lease is None:
        upkeep.sweep(ipr, settings)
        return
    upkeep.release(ipr, settings, lease)


def check(call: Call) -> None:
    """Raise CheckMismatch unless everything ADD made is as ADD made it, IPAM plugin first.

    What later plugins of the chain changed is judged by `prevResult`, not by our own record; the
    endpoint follows it here, if there was no agent to see to that.
    """
    Node.load(call.settings)
    if call.conf.delegate:
        delegate.execute(
            "CHECK",
            call.conf.delegate,
            env=call.env,
            stdin=call.stdin,
            lock=None,
            timeout=call.left(),
        )
    request = call.request
    ports = host_ports.parse(call.conf.runtime_config)
    limits = rate_limits.parse(call.conf.runtime_config)
    with (
        locks.network_lock(call.settings.run_dir, shared=True, timeout=call.patience()),
        Rtnl() as ipr,
        maps.open_endpoints(call.settings.pin_root) as table,
    ):
        lease = find_lease(ipr, call.key.digest)
        if lease is None or not lease.addresses:
            raise UnknownContainer(
                f"nothing is attached as {request.ifname} of container {request.container_id}"
            )
        now = link_changes.endpoint(ipr, lease) or lease.endpoint
        endpoints.update(table, lease.entries, now, run_dir=call.settings.run_dir)
        problems = [
            *inspection.host_end(ipr, lease),
            *inspection.pod_end(
                call.netns_fd, request.ifname, lease=lease, previous=call.conf.previous_result()
            ),
            *(
                f"the endpoints map has {table.get(address)} for {address}"
                for address in lease.entries
                if table.get(address) != now
            ),
            *host_ports.problems(ports, lease.addresses),
            *rate_limits.problems(
                ipr, call.netns_fd, ifindex=lease.ifindex, ifname=request.ifname, limits=limits
            ),
        ]
    if problems:
        raise CheckMismatch(
            f"{request.ifname} of container {request.container_id} is not as ADD left it",
            details="; ".join(problems),
            hint="restart the pod",
        )


@dataclass(frozen=True)
class _Wanted:
    """What a call asks for, read and checked before anything is done."""

    lease: Lease
    """Without addresses and link."""
    kind: str
    """Of the link."""
    mtu: int
    ports: tuple[PortMapping, ...]
    limits: Limits
    dns: Dns


def _read(call: Call, node: Node) -> _Wanted:
    request, conf, key = call.request, call.conf, call.key
    if not conf.delegate:
        apart = choice.outside(choice.ranges(conf, node), node)
        published.refuse_others(apart, node=node, settings=call.settings)
    ports = host_ports.parse(conf.runtime_config)
    limits = rate_limits.parse(conf.runtime_config)
    lease = Lease(
        key_digest=key.digest,
        network=key.network,
        container_id=key.container_id,
        ifname=key.ifname,
        mac=requests.mac(request, conf) or key.mac,
        addresses=(),
        masquerade=conf.ip_masq,
        ports=bool(ports),
        shaped=limits.shaped,
        forwards=conf.forwards,
        dhcp=conf.delegate == DHCP,
    )
    kind = pod_link.choose_kind(conf.device)
    return _Wanted(lease, kind, node.pod_mtu(conf.mtu), ports, limits, requests.dns(conf))


def _refuse_second(call: Call, ipr: Rtnl, remains: Delegation | None) -> None:
    """Where an IPAM plugin may hold addresses, a link that was renamed is looked for, too."""
    present = find_lease(ipr, call.key.digest)
    if present is None and remains is not None:
        present = upkeep.find_renamed(ipr, call.settings, call.key.digest)
    if present is not None and present.addresses:
        raise DuplicateAttachment(
            f"container {call.request.container_id} has {call.request.ifname} attached already",
            hint="run DEL first",
        )


def _clear_remains(call: Call, ipr: Rtnl, remains: Delegation | None, lock: int) -> None:
    """What an ADD left that was killed before its lease had addresses, and that no DEL followed."""
    if pod_link.teardown(ipr, call.key.host_ifname):
        upkeep.sweep(ipr, call.settings)
    if remains is not None:
        delegation_records.release(
            call.settings, remains, env=call.env, lock=lock, timeout=call.left()
        )


def _ask_by_link(
    call: Call, ipr: Rtnl, lease: Lease, kind: str, *, node: Node, lock: int, undo: ExitStack
) -> Assignment:
    """By an IPAM plugin that talks over the link: that is up, and its programs let the talk pass.

    The lease is written, without addresses yet, so that an upgrade meanwhile finds the programs.
    """
    with (
        locks.network_lock(call.settings.run_dir, shared=True, timeout=call.patience()),
        maps.open_endpoints(call.settings.pin_root) as table,
    ):
        _attach(call, ipr, lease, kind=kind)
        client = link_local(lease.mac)
        if not reservations.reserve(call, ipr, table, client, lease=lease, node=node, undo=undo):
            raise AddressUnavailable(
                f"another pod of this node asks by DHCP with the MAC {lease.mac}",
                hint="give each pod a MAC of its own, or leave the choice to pycni",
            )
        pod_link.claim(ipr, lease)
    pod_link.raise_pod_end(call.netns_fd, call.request.ifname)
    pod_link.wait_until_up(ipr, lease.host_ifname, timeout=call.patience())
    return assignment.delegated(call, lock, undo)


def _configure(
    call: Call, ipr: Rtnl, lease: Lease, given: Assignment, undo: ExitStack
) -> tuple[Route, ...]:
    """The pod's end as `given`; returns the routes in effect. Rules are in the lease before."""

    def announce(rules: tuple[int, ...]) -> None:
        ruled = replace(lease, rules=rules)
        pod_link.claim(ipr, ruled)
        undo.callback(source_rules.teardown, call.netns_fd, ruled.ruled)

    return pod_link.configure(
        call.netns_fd,
        call.request.ifname,
        mac=lease.mac,
        addresses=[one.address for one in given.ips],
        routes=given.routes,
        announce=announce,
    )


def _release_delegated(call: Call, known: Delegation | None, lock: int) -> None:
    """The IPAM plugin's DEL, with what its ADD was given if there was one."""
    if known is not None:
        delegation_records.release(
            call.settings, known, env=call.env, lock=lock, timeout=call.left()
        )
    elif call.conf.delegate:
        with suppress(MissingPlugin):  # what it never gave it need not take back
            delegate.execute(
                "DEL",
                call.conf.delegate,
                env=call.env,
                stdin=call.stdin,
                lock=lock,
                timeout=call.left(),
            )
        delegation_records.forget(
            call.settings, call.key
        )  # of an ADD that was killed while it wrote


def _attach(call: Call, ipr: Rtnl, lease: Lease, *, kind: str) -> None:
    root, by_tcx = call.settings.pin_root, call.conf.tcx
    try:
        attach_endpoint(root, ipr, lease.ifindex, by_tcx=by_tcx, on_netkit=kind == NETKIT)
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
