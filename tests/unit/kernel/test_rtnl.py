"""pycni/kernel/rtnl.py: which requests it packs and which it leaves to pyroute2, and its answers.

That they do in the kernel what pyroute2's do is tests/netns/test_rtnl_kernel.py's to show.
"""

import errno
import os
import socket
import struct
from typing import Any

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from pycni.kernel import netlink, rtnl
from pycni.kernel.netlink import HEADER, IFINFOMSG, messages
from pycni.kernel.rtnl import NO_IPV6_ADDRESS, Rtnl

KERNEL = (0, 0)
A_PROCESS = (4711, 0)
LINK = IFINFOMSG.pack(0, 0, 42, 0, 0) + netlink.text(netlink.IFLA_IFNAME, "pcn0")
QDISC = rtnl.TCMSG.pack(0, 42, 0, rtnl.TC_H_INGRESS, 0) + netlink.text(rtnl.TCA_KIND, "ingress")
NEW = 0x1 | 0x4 | 0x200 | 0x400
"""NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE: linux/netlink.h."""


def answer(kind, body, *, sequence=1):
    return HEADER.pack(HEADER.size + len(body), kind, 0, sequence, 0) + body


def error(number, *, sequence=1):
    return answer(netlink.NLMSG_ERROR, struct.pack("=i", -number) + bytes(16), sequence=sequence)


class Kernel:
    """In the place of a socket: remembers what is sent, answers what it was told to."""

    def __init__(self, *answers, sender=KERNEL, flags=0):
        self.sent = []
        self.closed = False
        self._answers: list[Any] = [(data, [], flags, sender) for data in answers]

    def send(self, data):
        self.sent.append(data)

    def recvmsg(self, _size):
        return self._answers.pop(0)

    def close(self):
        self.closed = True


class Slow:
    """In the place of an IPRoute: remembers what it is asked for."""

    def __init__(self):
        self.asked = []

    def __getattr__(self, name):
        return lambda *args, **named: self.asked.append((name, args, named)) or []


@pytest.fixture
def handed_on(monkeypatch):
    slow = Slow()
    monkeypatch.setattr(Rtnl, "_slow", lambda _: slow)
    return slow.asked


def sent(kernel):
    ((kind, _, body),) = messages(kernel.sent[0])
    flags = HEADER.unpack_from(kernel.sent[0])[2]
    return kind, flags, body


def test_a_link_is_asked_for_by_name_without_its_statistics():
    kernel = Kernel(answer(netlink.RTM_NEWLINK, LINK))

    (link,) = Rtnl(kernel).link("get", ifname="pcn0")

    kind, flags, body = sent(kernel)
    assert (kind, flags) == (netlink.RTM_GETLINK, 0x1)
    assert dict(netlink.attributes(body[16:])) == {3: b"pcn0\0", 29: b"\x08\0\0\0"}
    assert (link["index"], link["ifname"]) == (42, "pcn0")


def test_a_pair_is_one_request_with_one_queue_at_each_end():
    kernel = Kernel(error(0))
    peer = {"ifname": "eth0", "address": "02:00:00:00:00:02", "mtu": 1400, "net_ns_fd": 9}

    Rtnl(kernel).link(
        "add", ifname="pcn0", kind="veth", address="02:00:00:00:00:01", mtu=1500, peer=peer
    )

    kind, flags, body = sent(kernel)
    own = dict(netlink.attributes(body[16:]))
    info = dict(netlink.attributes(own[netlink.IFLA_LINKINFO]))
    ((_, end),) = netlink.attributes(info[2])
    other = dict(netlink.attributes(end[16:]))
    assert (kind, flags) == (netlink.RTM_NEWLINK, NEW)
    assert (own[3], own[1], own[4]) == (b"pcn0\0", b"\2\0\0\0\0\1", struct.pack("=I", 1500))
    assert info[1] == b"veth\0"
    assert (other[3], other[1], other[4]) == (b"eth0\0", b"\2\0\0\0\0\2", struct.pack("=I", 1400))
    assert other[28] == struct.pack("=I", 9)
    assert {own[31], own[32], other[31], other[32]} == {struct.pack("=I", 1)}


def test_a_netkit_pair_leaves_room_and_lets_nothing_out_of_the_pod_by_itself():
    kernel = Kernel(error(0))
    peer = {"ifname": "eth0", "address": "02:00:00:00:00:02", "mtu": 1400, "net_ns_fd": 9}

    Rtnl(kernel).link(
        "add", ifname="pcn0", kind="netkit", address="02:00:00:00:00:01", mtu=1500, headroom=70,
        peer=peer,
    )  # fmt: skip

    kind, flags, body = sent(kernel)
    own = dict(netlink.attributes(body[16:]))
    info = dict(netlink.attributes(own[netlink.IFLA_LINKINFO]))
    data = dict(netlink.attributes(info[2]))
    other = dict(netlink.attributes(data.pop(1)[16:]))
    assert (kind, flags) == (netlink.RTM_NEWLINK, NEW)
    assert (own[3], own[1], info[1]) == (b"pcn0\0", b"\2\0\0\0\0\1", b"netkit\0")
    assert (other[3], other[28]) == (b"eth0\0", struct.pack("=I", 9))
    passes, drops, layer_2 = (struct.pack("=I", value) for value in (0, 2, 0))
    assert data == {3: passes, 4: drops, 5: layer_2, 8: struct.pack("=H", 70)}


def test_a_filter_has_its_priority_and_protocol_in_one_word():
    kernel = Kernel(error(0))

    Rtnl(kernel).tc(
        "add-filter", "bpf", 42, handle=0x7079, parent=0xFFFFFFF2, prio=1, protocol=3, fd=5,
        direct_action=True, classid=1, name="pycni:from_container:x",
    )  # fmt: skip

    kind, flags, body = sent(kernel)
    assert (kind, flags) == (44, NEW)
    assert struct.unpack_from("=BxxxiIII", body) == (
        0, 42, 0x7079, 0xFFFFFFF2, 1 << 16 | socket.htons(3),
    )  # fmt: skip
    options = dict(netlink.attributes(dict(netlink.attributes(body[20:]))[2]))
    assert options == {
        3: b"\1\0\0\0",
        6: b"\5\0\0\0",
        7: b"pycni:from_container:x\0",
        8: b"\1\0\0\0",
    }


@pytest.mark.parametrize(
    ("method", "args", "named"),
    [
        ("link", ["get"], {"index": 1}),
        ("link", ["add"], {"ifname": "x", "kind": "dummy"}),
        ("link", ["add"], {"ifname": "x", "kind": "veth", "peer": "y"}),
        ("link", ["add"], {"ifname": "x", "kind": "netkit", "peer": "y"}),
        ("link", ["set"], {"index": 1, "mtu": 1400}),
        ("link", ["set"], {"index": 1, "IFLA_AF_SPEC": {"attrs": []}}),
        ("link", ["del"], {"ifname": "x"}),
        ("link_lookup", [], {"kind": "veth"}),
        ("addr", ["del"], {"index": 1, "address": "192.0.2.1", "prefixlen": 32}),
        ("addr", ["add"], {"index": 1, "address": "192.0.2.1", "prefixlen": 32, "label": "x"}),
        ("addr", ["add"], {"index": 1, "address": "192.0.2.1"}),
        ("route", ["del"], {"dst": "192.0.2.0/24", "oif": 1, "family": 2}),
        ("route", ["add"], {"dst": "192.0.2.0/24", "oif": 1, "family": 2, "table": 7}),
        ("route", ["add"], {"dst": "192.0.2.0/24", "oif": 1, "family": 2, "gateway": "192.0.2.1"}),
        (
            "route",
            ["add"],
            {"dst": "::/0", "oif": 1, "family": 10, "gateway": "192.0.2.1", "flags": ["onlink"]},
        ),
        ("tc", ["del", "clsact", 1], {}),
        ("tc", ["add", "tbf", 1], {"rate": 1000}),
        ("tc", ["replace-filter", "bpf", 1], {"fd": 5}),
        ("get_links", [], {}),
    ],
)
def test_what_is_not_packed_here_is_pyroute2s(handed_on, method, args, named):
    kernel = Kernel()

    getattr(Rtnl(kernel), method)(*args, **named)

    assert handed_on == [(method, tuple(args), named)]
    assert kernel.sent == []


@pytest.mark.parametrize(
    ("method", "args", "named"),
    [
        ("link", ["get"], {"ifname": "x"}),
        ("link", ["set"], {"index": 1, "flags": 1, "change": 1, "IFLA_IFALIAS": "x"}),
        ("link", ["set"], {"index": 1, "IFLA_AF_SPEC": NO_IPV6_ADDRESS}),
        ("link", ["del"], {"index": 1}),
        ("addr", ["add"], {"index": 1, "address": "2001:db8::1", "prefixlen": 128, "flags": 2}),
        ("route", ["add"], {"dst": "0.0.0.0/0", "oif": 1, "family": 2}),
        ("tc", ["add", "clsact", 1], {}),
    ],
)
def test_a_refusal_is_pyroute2s_exception(handed_on, method, args, named):
    kernel = Kernel(error(errno.EPERM))

    with pytest.raises(NetlinkError) as caught:
        getattr(Rtnl(kernel), method)(*args, **named)

    assert caught.value.code == errno.EPERM
    assert handed_on == []


def test_a_link_that_is_missing_has_no_index():
    assert Rtnl(Kernel(error(errno.ENODEV))).link_lookup(ifname="pcn0") == []


def test_another_refusal_of_a_lookup_is_raised():
    with pytest.raises(NetlinkError):
        Rtnl(Kernel(error(errno.EPERM))).link_lookup(ifname="pcn0")


def test_answers_to_others_and_from_others_are_passed_over():
    late = error(errno.EEXIST, sequence=9)
    kernel = Kernel(late, late + error(0))
    stranger = Kernel(error(errno.EEXIST), sender=A_PROCESS)
    stranger._answers.append((error(0), [], 0, KERNEL))

    Rtnl(kernel).link("del", index=1)
    Rtnl(stranger).link("del", index=1)

    assert kernel._answers == stranger._answers == []


def test_each_request_has_a_number_of_its_own():
    kernel = Kernel(error(0), error(errno.EPERM, sequence=2))
    ipr = Rtnl(kernel)

    ipr.link("del", index=1)
    with pytest.raises(NetlinkError):
        ipr.link("del", index=1)

    assert [HEADER.unpack_from(data)[3] for data in kernel.sent] == [1, 2]


def test_an_answer_that_is_cut_is_an_error():
    kernel = Kernel(answer(netlink.RTM_NEWLINK, LINK), flags=socket.MSG_TRUNC)

    with pytest.raises(OSError, match="cut") as caught:
        Rtnl(kernel).link("get", ifname="pcn0")

    assert caught.value.errno == errno.EMSGSIZE


@pytest.mark.parametrize("netnsid", [None, 7])
def test_a_link_is_asked_for_by_index_here_or_elsewhere(netnsid):
    kernel = Kernel(answer(netlink.RTM_NEWLINK, LINK))

    link = Rtnl(kernel).find(42, netnsid=netnsid)

    kind, _, body = sent(kernel)
    asked = dict(netlink.attributes(body[IFINFOMSG.size :]))
    assert (kind, IFINFOMSG.unpack_from(body)[2]) == (netlink.RTM_GETLINK, 42)
    assert (rtnl.IFLA_TARGET_NETNSID in asked) == (netnsid is not None)
    assert link["ifname"] == "pcn0"


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([answer(rtnl.RTM_NEWQDISC, QDISC), error(0)], "ingress"),
        ([error(0)], None),
        ([error(errno.ENOENT)], None),
    ],
    ids=["one", "one that the kernel does not tell of", "none"],
)
def test_the_qdisc_at_the_ingress_is_told_by_its_kind(answers, kind):
    assert Rtnl(Kernel(*answers)).ingress_qdisc(42) == kind


def test_a_link_that_is_gone_has_no_qdisc_to_tell_of():
    with pytest.raises(NetlinkError):
        Rtnl(Kernel(error(errno.ENODEV))).ingress_qdisc(42)


def test_an_address_that_is_none_is_refused_before_anything_is_sent():
    kernel = Kernel()

    with pytest.raises(ValueError, match="nonsense"):
        Rtnl(kernel).addr("add", index=1, address="nonsense", prefixlen=32)

    assert kernel.sent == []


def test_the_socket_is_closed_at_the_end():
    kernel = Kernel()

    with Rtnl(kernel):
        pass

    assert kernel.closed


def test_no_descriptor_is_left_open_whichever_way_it_was_used():
    before = os.listdir("/proc/self/fd")

    with Rtnl() as ipr:
        (packed,) = ipr.link("get", ifname="lo")
        (handed,) = ipr.get_links(packed["index"])

    assert handed.get("ifname") == packed["ifname"] == "lo"
    assert os.listdir("/proc/self/fd") == before


def test_what_pyroute2_has_not_is_no_attribute():
    with pytest.raises(AttributeError):
        rtnl.Rtnl(Kernel())._nothing  # noqa: B018
