# SPDX-License-Identifier: Apache-2.0
"""ADD: attach a pod.

Read `add` from top to bottom: it is the order in which an attachment comes into being. The same
code runs in the agent and, without an agent, in the plugin's own process. It runs in the node's
network namespace and reaches the pod's through a descriptor. A process that stops or is killed in
the middle makes only those wait who work on the same attachment.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from pycni.attachments import addresses, delete, lookup, ports, reclaim
from pycni.attachments.attaching import Attaching, attaching
from pycni.cni.call import Call
from pycni.cni.result import Dns, Interface, Result, Route
from pycni.errors import AddressUnavailable, DuplicateAttachment
from pycni.ipam import delegation, delegation_records, ipam_result
from pycni.ipam.delegation_records import Delegation
from pycni.ipam.ipam_result import IpamResult
from pycni.kernel.links import link_local
from pycni.pods import host_end, pod_end, rate_limits, source_rules
from pycni.pods.lease import find_lease
from pycni.pods.link_kinds import NewLink


def add(call: Call) -> Result:
    """Attach a pod: addresses, link, programs, endpoint entries; returns the CNI result.

    Raises PycniError (with its CNI code); then nothing is left behind. A second ADD of a live
    attachment is refused before anything is touched, IPAM included.
    """
    with attaching(call) as one:
        _start_clean(one)
        given = _ask_before_link(one)
        link = _make_link(one)
        if one.lease.dhcp:
            given = _ask_over_link(one)
        with one.writing() as table:
            if not one.lease.dhcp:
                _attach_programs(one)
            addresses.take(one, table, given)
            host_end.claim(one.ipr, one.lease)
        given = (given or ipam_result.own(one.lease.addresses, one.node)).with_gateways(one.node)
        routes = _configure_pod(one, given)
        _wait_until_heard(one, given)
        ports.open_for(one)
        return _result(one, link, given=given, routes=routes)


def _start_clean(one: Attaching) -> None:
    """Refuse a second ADD, and remove what an ADD left that was killed and that no DEL followed."""
    record = delegation_records.find(one.settings, one.call.key.digest)
    _refuse_second(one, record)
    if ifindex := host_end.teardown(one.ipr, one.call.key.host_ifname):
        reclaim.release_link(one.ipr, one.settings, ifindex)
    if record is not None:
        delegation.release(
            one.settings, record, env=one.call.env, lock=one.lock, timeout=one.call.left()
        )


def _refuse_second(one: Attaching, record: Delegation | None) -> None:
    """A lease without addresses is no attachment: its ADD was killed. If an IPAM plugin may hold
    addresses, a link that somebody renamed is found, too."""
    digest = one.call.key.digest
    present = find_lease(one.ipr, digest)
    if present is None and record is not None:
        present = lookup.find_renamed(one.ipr, one.settings, digest)
    if present is not None and present.addresses:
        request = one.call.request
        raise DuplicateAttachment(
            f"container {request.container_id} has {request.ifname} attached already",
            hint="run DEL first",
        )


def _ask_before_link(one: Attaching) -> IpamResult | None:
    """Addresses from another IPAM plugin; None if they come from our pools, or over the link."""
    if not one.call.conf.delegate or one.lease.dhcp:
        return None
    return delegation.add(one.call, one.lock, one.undo)


def _make_link(one: Attaching) -> NewLink:
    """The link, down, deaf to neighbours, with its rate limits."""
    wanted, call = one.wanted, one.call
    new = NewLink(call.key, mac=wanted.lease.mac, mtu=wanted.mtu, netns_fd=call.netns_fd)
    ifindex = wanted.kind.create(one.ipr, new)
    one.undo.callback(host_end.teardown, one.ipr, call.key.host_ifname)
    one.lease = replace(one.lease, host_ifname=call.key.host_ifname, ifindex=ifindex)
    before = pod_end.close(call.netns_fd, call.request.ifname)
    one.undo.callback(pod_end.reopen, call.netns_fd, before)
    rate_limits.setup(
        one.ipr,
        call.netns_fd,
        ifindex=ifindex,
        ifname=call.request.ifname,
        mtu=wanted.mtu,
        limits=wanted.limits,
    )
    return new


def _attach_programs(one: Attaching) -> None:
    root, by_tcx = one.settings.pin_root, one.call.conf.tcx
    one.wanted.kind.attach(root, one.ipr, one.lease, by_tcx=by_tcx)


def _ask_over_link(one: Attaching) -> IpamResult:
    """Addresses from an IPAM plugin that talks over the link, which must be up for it.

    The lease is written before, still without addresses, so that an upgrade in the meantime finds
    the link and its programs.
    """
    with one.writing() as table:
        _attach_programs(one)
        if not addresses.reserve(one, table, link_local(one.lease.mac)):
            raise AddressUnavailable(
                f"another pod of this node asks by DHCP with the MAC {one.lease.mac}",
                hint="give each pod a MAC of its own, or leave the choice to pycni",
            )
        host_end.claim(one.ipr, one.lease)
    pod_end.bring_up(one.call.netns_fd, one.call.request.ifname)
    host_end.wait_until_up(one.ipr, one.lease.host_ifname, timeout=one.call.patience())
    return delegation.add(one.call, one.lock, one.undo)


def _configure_pod(one: Attaching, given: IpamResult) -> tuple[Route, ...]:
    """Addresses and routes in the pod; returns the routes in effect.

    The lease tells of source rules before there are any, so that a DEL finds them.
    """
    netns_fd = one.call.netns_fd

    def announce(versions: tuple[int, ...]) -> None:
        one.lease = replace(one.lease, rules=versions)
        host_end.claim(one.ipr, one.lease)
        one.undo.callback(source_rules.teardown, netns_fd, one.lease.ruled)

    return pod_end.configure(
        netns_fd,
        one.call.request.ifname,
        mac=one.lease.mac,
        addresses=[address.address for address in given.ips],
        routes=given.routes,
        announce=announce,
    )


def _wait_until_heard(one: Attaching, given: IpamResult) -> None:
    """Until packets reach the pod: its link is up, and it takes what is sent to its addresses."""
    call = one.call
    host_end.wait_until_up(one.ipr, one.lease.host_ifname, timeout=call.patience())
    pod_end.wait_until_heard(
        call.netns_fd,
        call.request.ifname,
        addresses=[ip.address.ip for ip in given.ips if ip.address.version == 6],
        timeout=call.patience(),
    )


def _result(
    one: Attaching, link: NewLink, *, given: IpamResult, routes: tuple[Route, ...]
) -> Result:
    request, wanted = one.call.request, one.wanted
    node_ends = wanted.kind.interfaces(link)
    pod = Interface(request.ifname, mac=link.mac, mtu=link.mtu, sandbox=request.netns)
    return Result(
        interfaces=(*node_ends, pod),
        ips=tuple(replace(address, interface=len(node_ends)) for address in given.ips),
        routes=routes,
        dns=given.dns if wanted.dns == Dns() else wanted.dns,
        take_back=partial(delete.take_back, one.call, one.lease.ifindex),
    )
