# SPDX-License-Identifier: Apache-2.0
"""link_changes.py: what the kernel says of a pod's link, and the endpoint that follows."""

import errno
from dataclasses import replace
from ipaddress import ip_address

import pytest

from pycni.errors import DataplaneError
from pycni.kernel import links, netlink
from pycni.kernel.event_socket import Event
from pycni.kernel.links import IFINFOMSG, Link
from pycni.kernel.netlink import NetlinkError, number
from pycni.kernel.qdiscs import (
    RTM_DELQDISC,
    RTM_NEWQDISC,
    TC_H_INGRESS,
    TC_H_ROOT,
    TCA_KIND,
    TCMSG,
)
from pycni.names import AttachmentKey
from pycni.pods import link_changes
from pycni.pods.lease import Lease
from pycni.pods.link_changes import Change

HOST, PEER, NSID = 42, 2, 7
NEW_MAC = "02:00:00:00:00:42"
POD = Lease(
    key_digest=AttachmentKey("podnet", "c1", "eth0").digest,
    network="podnet",
    container_id="c1",
    ifname="eth0",
    mac="02:00:00:00:00:01",
    addresses=(ip_address("192.0.2.1"),),
    masquerade=True,
    host_ifname="pcn0",
    ifindex=HOST,
)
PLAIN = Link(HOST, qdisc="noqueue", peer_ifindex=PEER, peer_netnsid=NSID)


class Kernel:
    """In the place of an Rtnl: links by (index, number of their namespace), an ingress qdisc."""

    def __init__(self, host=PLAIN, peer=None, ingress=None, refused=0, taken=errno.EEXIST):
        self.links = {
            (HOST, None): host,
            (PEER, NSID): peer or Link(PEER, mac=POD.mac),
        }
        self.ingress, self.refused = ingress, refused
        self.taken = taken
        self.asked = 0

    def link_at(self, index, *, netnsid=None):
        found = self.links[index, netnsid]
        if isinstance(found, int) and found != errno.ENODEV:
            raise NetlinkError(found)
        return None if found == errno.ENODEV else found

    def ingress_qdisc(self, _index):
        self.asked += 1
        if self.refused:
            raise NetlinkError(self.refused)
        return self.ingress

    def generate_no_address(self, _index):
        pass

    def add_address(self, _index, _address):
        raise NetlinkError(self.taken)


@pytest.fixture
def opened(monkeypatch):
    links = []
    monkeypatch.setattr(
        link_changes, "_open_to_stack", lambda _, lease: links.append(lease.ifindex)
    )
    return links


def test_a_link_that_nobody_altered_is_as_its_lease_says(opened):
    assert link_changes.endpoint(Kernel(), POD) == POD.endpoint
    assert opened == []


@pytest.mark.parametrize(
    ("kernel", "now"),
    [
        (Kernel(peer=Link(PEER, mac=NEW_MAC)), {"mac": NEW_MAC}),
        (Kernel(host=PLAIN._replace(qdisc="tbf")), {"shaped": True}),
        (Kernel(ingress="ingress"), {"queued": True}),
        (Kernel(ingress="clsact"), {}),
        (Kernel(Link(HOST, qdisc="noqueue")), {}),
        (Kernel(peer=errno.ENODEV), {}),
        (Kernel(peer=errno.EINVAL), {}),
    ],
    ids=["MAC", "root", "ingress", "clsact", "no peer", "peer gone", "namespace gone"],
)
def test_the_endpoint_is_as_its_link_is_now(opened, kernel, now):
    assert link_changes.endpoint(kernel, POD) == replace(POD.endpoint, **now)
    assert opened == [HOST] * ("queued" in now)


def test_a_limit_of_our_own_stays_when_its_queue_is_not_there(opened):
    own = replace(POD, shaped=True)

    assert link_changes.endpoint(Kernel(), own).shaped
    assert opened == []


def test_who_knows_of_the_queue_spares_the_question(opened):
    kernel = Kernel()

    assert link_changes.endpoint(kernel, POD, queued=True).queued
    assert (kernel.asked, opened) == (0, [HOST])


def test_a_link_that_is_gone_has_no_endpoint():
    assert link_changes.endpoint(Kernel(host=errno.ENODEV), POD) is None
    assert link_changes.endpoint(Kernel(refused=errno.ENODEV), POD) is None


@pytest.mark.parametrize(
    "kernel", [Kernel(host=errno.EPERM), Kernel(peer=errno.EPERM), Kernel(refused=errno.EPERM)]
)
def test_another_refusal_is_told(kernel):
    with pytest.raises(NetlinkError):
        link_changes.endpoint(kernel, POD)


def test_a_link_that_cannot_be_opened_is_not_left_to_the_queue(monkeypatch):
    def read_only(_name, _value):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(link_changes.sysctl, "write", read_only)

    with pytest.raises(DataplaneError, match="pcn0") as error:
        link_changes.endpoint(Kernel(ingress="ingress"), POD)

    assert "Read-only" in error.value.message
    assert "capability" in error.value.hint


def test_an_address_that_is_there_is_as_good(monkeypatch):
    monkeypatch.setattr(link_changes.sysctl, "write", lambda *_: None)
    assert link_changes.endpoint(Kernel(ingress="ingress"), POD).queued

    with pytest.raises(DataplaneError):
        link_changes.endpoint(Kernel(ingress="ingress", taken=errno.EPERM), POD)


def message(kind, body):
    return netlink.message(kind, 0, 0, body)


def qdisc(kind, parent, name):
    return message(kind, TCMSG.pack(0, HOST, 0, parent, 0) + netlink.text(TCA_KIND, name))


def link(kind, *attributes):
    return message(kind, IFINFOMSG.pack(0, 1, PEER, 0, 0) + b"".join(attributes))


MAC = netlink.attribute(links.IFLA_ADDRESS, bytes.fromhex(NEW_MAC.replace(":", "")))
BESIDE = number(links.IFLA_LINK, HOST)
TO_HOST = BESIDE + number(links.IFLA_LINK_NETNSID, 0)
TO_NONE = number(links.IFLA_LINK, 0)


@pytest.mark.parametrize(
    ("data", "elsewhere", "expected"),
    [
        (link(links.RTM_NEWLINK, MAC, TO_HOST), True, [Change(HOST, mac=NEW_MAC)]),
        (link(links.RTM_NEWLINK, MAC, TO_HOST), False, []),
        (link(links.RTM_NEWLINK, MAC), True, []),
        (link(links.RTM_NEWLINK, MAC, BESIDE), True, []),
        (link(links.RTM_NEWLINK, MAC, TO_NONE), True, []),
        (link(links.RTM_DELLINK, MAC, TO_HOST), True, []),
        (qdisc(RTM_NEWQDISC, TC_H_INGRESS, "ingress"), False, [Change(HOST, queued=True)]),
        (qdisc(RTM_NEWQDISC, TC_H_INGRESS, "clsact"), False, []),
        (qdisc(RTM_DELQDISC, TC_H_INGRESS, "ingress"), False, [Change(HOST, queued=False)]),
        (qdisc(RTM_NEWQDISC, TC_H_ROOT, "tbf"), False, [Change(HOST)]),
        (qdisc(RTM_NEWQDISC, TC_H_INGRESS, "ingress"), True, []),
    ],
    ids=["MAC", "a link of the node", "no veth", "both ends in the pod", "a veth alone",
         "a link that goes", "ingress", "clsact", "ingress that goes", "root", "a queue in a pod"],
)  # fmt: skip
def test_what_the_kernel_says_is_a_change_of_a_host_end(data, elsewhere, expected):
    assert list(link_changes.changes([Event(data, elsewhere)])) == expected
